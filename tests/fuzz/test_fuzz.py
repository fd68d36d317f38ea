"""Every target for two seconds with coverage-guided inputs: no crash, no hang, no memory without end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
try:
    import atheris  # noqa: F401
except ImportError:
    pytest.skip("atheris has no wheel for this Python or machine", allow_module_level=True)


@pytest.mark.timeout(300)
def test_all_targets_survive_a_moment(tmp_path: Path) -> None:
    fuzz("all", tmp_path, 1, 4 * len(TARGETS))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_survives_longer(target: str, tmp_path: Path) -> None:
    fuzz(target, tmp_path, 120, 120)


def fuzz(target: str, folder: Path, each: int, seconds: int) -> None:
    flags = [f"-max_total_time={each}", "-rss_limit_mb=800", "-timeout=10", "-max_len=4096"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, *flags, f"-artifact_prefix={folder}/"],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds + 60,
    )  # fmt: skip
    assert done.returncode == 0, f"{target}: {done.stderr[-3000:]}"
