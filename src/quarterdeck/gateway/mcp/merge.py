"""What several servers say, as one answer. Pure functions; reference: agentgateway_and_peers.md §2.3."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

from msgspec import Raw

from quarterdeck import __version__
from quarterdeck.mcptypes import LEGACY_VERSIONS, MODERN_VERSIONS, protocol

from .conversation import Greeting
from .naming import label_of

PAGE = 1_000
UNAVAILABLE = "quarterdeck.dev/unavailable"
INFO = {"name": "quarterdeck", "title": "Quarterdeck gateway", "version": __version__}
PREAMBLE = "This server is a gateway to several MCP servers; names of tools begin with their server's name."
_ASSUMED = {"tools": {}, "prompts": {}, "resources": {}}
"""Capabilities where no server could be asked yet."""
_ORDER = ("2024-11-05", *LEGACY_VERSIONS)


class Part(NamedTuple):
    """What one member said to a request that went to several: items of a list, a greeting, or why there is nothing."""

    name: str
    label: str
    items: Sequence[Raw] = ()
    greeting: Greeting | None = None
    error: str = ""


def version(requested: str, greetings: Iterable[Greeting]) -> str:
    """The lowest revision that all speak, the client included."""
    wanted = requested if requested in _ORDER else _ORDER[-1]
    spoken = [wanted, *(g.protocol_version for g in greetings if g.protocol_version in _ORDER)]
    return min(spoken, key=_ORDER.index)


def capabilities(greetings: Sequence[Greeting]) -> dict[str, Any]:
    """The union of what the servers can do."""
    if not greetings:
        return dict(_ASSUMED)
    merged: dict[str, Any] = {}
    for greeting in greetings:
        _merge(merged, greeting.capabilities)
    return merged


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        mine = into.get(key)
        if isinstance(mine, dict) and isinstance(value, dict):
            _merge(cast(dict[str, Any], mine), cast(dict[str, Any], value))
        elif isinstance(value, dict):
            copy: dict[str, Any] = {}
            _merge(copy, cast(dict[str, Any], value))
            into[key] = copy
        elif not mine:
            into[key] = value


def instructions(parts: Iterable[Part]) -> str:
    """A preamble, then what each server says under its name."""
    said = [f"[{p.name}]\n{p.greeting.instructions}" for p in parts if p.greeting and p.greeting.instructions]
    return "\n\n".join([PREAMBLE, *said])


def initialized(requested: str, parts: Sequence[Part], *, alone: bool) -> dict[str, Any]:
    """Result of ``initialize``. ``alone``: one server whose names pass as they are speaks for itself."""
    greetings = [part.greeting for part in parts if part.greeting is not None]
    result: dict[str, Any] = {
        "protocolVersion": version(requested, greetings),
        "capabilities": capabilities(greetings),
        "serverInfo": INFO,
    }
    return result | _says(parts, greetings, alone=alone)


def discovered(parts: Sequence[Part], *, alone: bool) -> dict[str, Any]:
    """Result of ``server/discover``."""
    greetings = [part.greeting for part in parts if part.greeting is not None]
    says = _says(parts, greetings, alone=alone)
    info = says.pop("serverInfo", INFO)
    meta = {protocol.META_SERVER_INFO: info, **says.pop("_meta", {})}
    return {
        "resultType": "complete",
        "supportedVersions": list(MODERN_VERSIONS),
        "capabilities": capabilities(greetings),
        **says,
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": meta,
    }


def _says(parts: Sequence[Part], greetings: Sequence[Greeting], *, alone: bool) -> dict[str, Any]:
    if alone and greetings:
        said: dict[str, Any] = {"serverInfo": greetings[0].server_info or INFO}
        return said | ({"instructions": greetings[0].instructions} if greetings[0].instructions else {})
    return {"instructions": instructions(parts), **_unavailable(parts)}


def listing(key: str, parts: Sequence[Part], start: int) -> dict[str, Any]:
    """One page of a list over all members, in their order, from item ``start`` on; who is missing is in ``_meta``."""
    items = [item for part in parts for item in part.items]
    result: dict[str, Any] = {key: items[start : start + PAGE]}
    if start + PAGE < len(items):
        result["nextCursor"] = urlsafe_b64encode(b"%d" % (start + PAGE)).decode()
    return result | _unavailable(parts)


def _unavailable(parts: Sequence[Part]) -> dict[str, Any]:
    dead = [{"server": part.label, "error": part.error} for part in parts if part.error]
    return {"_meta": {UNAVAILABLE: dead}} if dead else {}


def without_duplicates(key: str, parts: Sequence[Part]) -> list[Part]:
    """Names without prefixes: what two servers have under one name is nobody's, as calls could not tell them apart."""
    counts = Counter(label_of(key, item) for part in parts for item in part.items)
    return [part._replace(items=[item for item in part.items if counts[label_of(key, item)] == 1]) for part in parts]


def position(cursor: str) -> int | None:
    """The place that a cursor of :func:`listing` stands for; None when it is not one of ours."""
    if not cursor:
        return 0
    try:
        found = int(urlsafe_b64decode(cursor))
    except ValueError:
        return None
    return found if found >= 0 else None


def failure(parts: Sequence[Part], *, fail_open: bool) -> str:
    """Why a request to several members fails as a whole; empty when it does not."""
    dead = [part for part in parts if part.error]
    if not dead or (fail_open and len(dead) < len(parts)):
        return ""
    return "; ".join(f"MCP server {part.label} {part.error}" for part in dead)
