"""Whether scripts of skills can be confined here (``node/sandbox/script.py``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import quarterdeck

PROGRAM = Path(quarterdeck.__file__).parent / "node" / "sandbox" / "script.py"
"""Runs one script; see there."""
_SECONDS = 60


def unusable() -> str:
    """Why not; empty when they can. Found by trying: containers of one Pod are confined alike."""
    if not sys.platform.startswith("linux"):
        return f"scripts are confined by Linux only, this is {sys.platform}"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(PROGRAM), "--probe"], capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"trying it out took longer than {_SECONDS} s"
    said = done.stdout.decode("utf-8", "replace").strip()
    return "" if done.returncode == 0 else said or f"the probe ended with code {done.returncode}"
