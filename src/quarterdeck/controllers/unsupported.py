"""Fields that the schemas accept, for kagent's files, and nothing acts on yet: named in a condition, not refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from quarterdeck.kube.resource import Object


def _given(value: Any) -> bool:
    return value not in (None, False, "", [], {})


@dataclass(frozen=True, slots=True)
class Field:
    """A path below ``spec`` (``[]`` for the items of a list) and what happens instead."""

    path: str
    note: str
    asks: Callable[[Any], bool] = _given
    """Whether a value asks for anything: a default does not."""


TABLE: dict[str, tuple[Field, ...]] = {
    "Agent": (
        Field("sandbox", "the only code agents run are scripts of skills, which have no network whatever it says"),
        Field("declarative.executeCodeBlocks", "deprecated and ignored"),
        Field("declarative.shareTools", "there are no share links yet"),
    ),
    "ModelConfig": (),
    "RemoteMCPServer": (
        Field("sseReadTimeout", "timeout is used"),
        Field("terminateOnClose", "the session is ended", lambda value: value is False),
    ),
    "MCPServer": (Field("httpTransport.tls", "the gateway speaks plain HTTP to the server's Pod"),),
}
"""By kind. What is neither here nor acted on fails tests/controllers/test_unsupported.py."""


def unsupported(kind: str, spec: Object) -> str:
    """``path: what happens instead`` of every field that is set without effect; empty when there is none."""
    found = [f for f in TABLE.get(kind, ()) if any(f.asks(value) for value in _values(spec, f.path.split(".")))]
    return "; ".join(f"{field.path}: {field.note}" for field in found)


def _values(value: Any, path: list[str]) -> Iterator[Any]:
    if not path:
        yield value
        return
    name, many = path[0].removesuffix("[]"), path[0].endswith("[]")
    inner = value.get(name) if isinstance(value, dict) else None
    if many:
        for item in inner if isinstance(inner, list) else ():
            yield from _values(item, path[1:])
    elif inner is not None:
        yield from _values(inner, path[1:])
