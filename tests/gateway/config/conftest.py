"""Configuration text to snapshots, in folders of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.config.standalone import FileOptions, Loaded, load
from quarterdeck.snapshot import Snapshot
from quarterdeck.snapshot.policies import Policies
from quarterdeck.snapshot.routing import Route


class Reader:
    """Reads texts with ``folder`` as the working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def load(
        self,
        text: str,
        compat: Literal["", "oct", "now"] = "now",
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Loaded:
        return load(FileOptions(inline=dedent(text), compat=compat, **options), environment or {}, self.folder)

    def snapshot(self, text: str, compat: Literal["", "oct", "now"] = "now", **options: Any) -> Snapshot:
        return self.load(text, compat, **options).snapshot

    def errors(self, text: str, compat: Literal["", "oct", "now"] = "now", **options: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load(text, compat, **options)
        return str(caught.value)

    def route(self, body: str, compat: Literal["", "oct", "now"] = "now", **options: Any) -> Route:
        """The one route whose fields are ``body``."""
        return self.snapshot(in_a_route(body), compat, **options).listeners[0].routes[0]

    def policies(self, body: str, compat: Literal["", "oct", "now"] = "now", **options: Any) -> Policies:
        """What the policies ``body`` of a route come to."""
        indented = "\n".join(f"  {line}" for line in dedent(body).strip().splitlines())
        return self.route(f"policies:\n{indented}\nbackends: [{{host: 'b:80'}}]", compat, **options).policies

    def refusal(self, body: str, compat: Literal["", "oct", "now"] = "now") -> str:
        """The errors for the policies ``body`` of a route."""
        indented = "\n".join(f"  {line}" for line in dedent(body).strip().splitlines())
        return self.errors(in_a_route(f"policies:\n{indented}\nbackends: [{{host: 'b:80'}}]"), compat)


def in_a_route(body: str) -> str:
    lines = dedent(body).strip().splitlines()
    return "binds:\n- port: 3000\n  listeners:\n  - routes:\n    - " + "\n      ".join(lines) + "\n"


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)
