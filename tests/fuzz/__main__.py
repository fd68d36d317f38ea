"""`python -m tests.fuzz TARGET [FOLDER] [libFuzzer flags]`: fuzz one target, with coverage (atheris)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

INSTRUMENTED = [f"quarterdeck.{package}" for package in ("wire", "mcptypes", "cel", "gateway", "snapshot")]


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    target: Any
    target, seeds = TARGETS[sys.argv[1]]
    with tempfile.TemporaryDirectory(prefix="qd-fuzz-") as folder:
        for number, seed in enumerate(seeds):
            Path(folder, f"seed-{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], folder, *sys.argv[2:]], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
