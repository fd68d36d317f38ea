"""`python -m tests.fuzz TARGET [FOLDER] [libFuzzer flags]`: fuzz one target or `all` of them (atheris)."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

ALWAYS = ("wire", "mcptypes")
FOLLOWED: dict[str, tuple[str, ...]] = {
    "configuration": ("gateway.config", "snapshot"),
    "openapi_document": ("gateway.mcp.openapi",),
    "credential": ("gateway.policy",),
    "card": ("gateway.a2a.cards", "a2atypes"),
    "path": ("gateway.http.paths",),
    "handle": ("gateway.mcp.ids", "gateway.mcp.session"),
    "metadata": ("gateway.policy.wellknown", "gateway.policy.jwks"),
    "upstream_answer": ("gateway.mcp.relay", "gateway.upstream"),
    "virtual_tool": ("gateway.mcp.virtual", "gateway.mcp.naming", "snapshot.virtual"),
    "server_says": ("gateway.mcp.naming", "gateway.mcp.merge", "gateway.mcp.muxrelay"),
    "sign_in_form": ("gateway.oauth",),
    "expression": ("cel",),
    "snapshot": ("snapshot",),
}
"""What of the code a target's coverage is taken of: taking it of everything costs seconds at the start."""


def main() -> None:
    import atheris

    chosen = sys.argv[1]
    packages = ALWAYS + FOLLOWED.get(chosen, ())
    if chosen == "all":
        packages = tuple(dict.fromkeys((*ALWAYS, *(package for more in FOLLOWED.values() for package in more))))
    with atheris.instrument_imports(include=[f"quarterdeck.{package}" for package in packages]):
        from tests.fuzz.targets import TARGETS
    names = TARGETS if chosen == "all" else (chosen,)
    failed = [name for name in names if not _survives(TARGETS[name], sys.argv[2:])]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _survives(target: Any, flags: list[str]) -> bool:
    """In a process of its own, which finds all that is followed imported: that is what takes longest."""
    run, seeds = target
    with tempfile.TemporaryDirectory(prefix="qd-fuzz-") as folder:
        for number, seed in enumerate(seeds):
            Path(folder, f"seed-{number}").write_bytes(seed)
        child = os.fork()
        if child == 0:
            _fuzz(run, [folder, *flags])
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _fuzz(run: Any, flags: list[str]) -> NoReturn:
    import atheris

    atheris.Setup([sys.argv[0], *flags], run)
    atheris.Fuzz()
    raise AssertionError("libFuzzer ends the process")


if __name__ == "__main__":
    main()
