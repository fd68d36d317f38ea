"""The tour that docs/operate.md points at."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .plane import available

COMMANDS, WHY = available()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(COMMANDS is None, reason=f"kube-apiserver: {WHY}")
def test_the_tour_ends_as_stated() -> None:
    done = subprocess.run([Path(__file__).with_name("tour.sh")], capture_output=True, text=True, timeout=580)
    if done.returncode == 3:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0 and done.stdout.endswith("All as stated.\n"), done.stdout[-3000:] + done.stderr[-2000:]
