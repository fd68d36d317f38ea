"""A checkout, or an environment, below a folder that each Pod has of its own: it must be found there all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quarterdeck
from quarterdeck.node.sandbox import landlock
from quarterdeck.node.sandbox.isolation import Sandbox, rewrite

RUN = """
import asyncio, json, os, sys
from pathlib import Path
from quarterdeck.node.process import launch, wait
from quarterdeck.node.sandbox.isolation import Mount, Request, Sandbox

level, folder, code, volumes, options = sys.argv[1], Path(sys.argv[2]), sys.argv[3], *map(json.loads, sys.argv[4:])
sandbox = Sandbox.best() if level == "bwrap" else Sandbox("landlock", None, network=False)
mounts = [Mount(str(folder / name), target) for name, target in volumes.items()]
for path in (folder / name for name in ("home", "tmp", *volumes)):
    path.mkdir()
    os.chown(path, options.get("machine_uid") or os.getuid(), -1)
request = Request([sys.executable, "-c", code], {"PATH": "/usr/bin:/bin"}, "/", folder / "home", folder / "tmp", "pod",
                  mounts=mounts, **options)
with open(os.devnull, "rb") as null, open(folder / "out", "wb") as out:
    started = launch(null.fileno(), out.fileno(), out.fileno())
started.release(sandbox.instructions(request))
sys.exit(asyncio.run(wait(started.process)).code)
"""
INSIDE = """
import os, quarterdeck, sys
def seen(work):
    try: return work()
    except OSError as error: return error.strerror
print([sys.prefix, seen(lambda: sorted(os.listdir("/tmp"))), seen(lambda: os.mkdir(os.environ["TMPDIR"] + "/made"))])
"""


@pytest.fixture(scope="module")
def environment() -> Iterator[Path]:
    """A virtual environment below /tmp with our code, beside something that is nobody's business."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="qd-checkout-") as folder:
        path = Path(folder, "main", ".venv")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(path)], check=True)
        places = [str(Path(quarterdeck.__file__).parents[1]), sysconfig.get_path("purelib")]
        (site,) = path.glob("lib/python*/site-packages")
        (site / "ours.pth").write_text("\n".join(places))
        Path(folder, "secret").write_text("top")
        Path(folder).chmod(0o755)
        yield path


@pytest.fixture(params=["bwrap", "landlock"])
def level(request: pytest.FixtureRequest) -> str:
    if request.param == "bwrap" and Sandbox.best().level != "bwrap":
        pytest.skip("no bubblewrap that works here")
    if not landlock.abi():
        pytest.skip("no Landlock")
    return request.param


def inside(environment: Path, level: str, folder: Path, volumes: dict[str, str], **options: Any) -> list[Any]:
    """What a container sees whose node runs from ``environment``; ``volumes``: name → mount point."""
    argv = [environment / "bin" / "python", "-c", RUN, level, folder, INSIDE, json.dumps(volumes), json.dumps(options)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + (folder / "out").read_text()
    return eval((folder / "out").read_text())


OWN_UID = [{}, {"machine_uid": 1_200_000_123, "connect": [1]}] if os.getuid() == 0 else [{}]


@pytest.mark.parametrize("options", OWN_UID, ids=["", "own-uid"][: len(OWN_UID)])
@pytest.mark.parametrize("volumes", [{}, {"cache": "/tmp"}, {"cache": "/tmp/cache"}], ids=["tmp", "volume", "below"])
@pytest.mark.parametrize("read_only", [False, True], ids=["", "read-only"])
def test_an_environment_below_tmp_is_found_and_nothing_else_of_it(
    environment: Path, level: str, tmp_path: Path, volumes: dict[str, str], options: dict[str, Any], read_only: bool
) -> None:
    if level == "landlock" and options and not Sandbox("landlock", None, network=False).gives_uids(tmp_path):
        pytest.skip("where no namespaces are, the container's uid walks there itself, and cannot")
    prefix, listed, made = inside(environment, level, tmp_path, volumes, read_only=read_only, **options)
    assert prefix == str(environment)
    if level == "bwrap":
        ours = (
            environment,
            Path(quarterdeck.__file__).resolve(),
            Path("/tmp/cache"),
        )  # this checkout may be there, too
        below = {path.parts[2] for path in ours if path.parts[1] == "tmp"}
        assert set(listed) == (below if "/tmp/cache" in volumes.values() else below - {"cache"})
        assert (made is None) is (not read_only or "/tmp" in volumes.values())
    else:
        assert listed == ([] if "/tmp" in volumes.values() else "Permission denied")


def test_paths_of_our_own_are_not_taken_for_those_of_a_volume() -> None:
    moves = {"/tmp": "/data/v1", "/tmp/co/.venv": "/tmp/co/.venv", "/cfg": "/tmp/pods/cfg"}
    assert rewrite("/tmp/co/.venv/bin/python", moves) == "/tmp/co/.venv/bin/python"
    assert rewrite("--to=/tmp/x:/tmp/co/.venvs", moves) == "--to=/data/v1/x:/data/v1/co/.venvs"
    assert rewrite("/cfg/a", moves) == "/tmp/pods/cfg/a", "what was put in is not looked at again"
