"""`python -m tests.fuzz TARGET [FOLDER] [libFuzzer flags]`: fuzz one target, with coverage (atheris)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

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

    followed = [f"quarterdeck.{package}" for package in ALWAYS + FOLLOWED.get(sys.argv[1], ())]
    with atheris.instrument_imports(include=followed):
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
