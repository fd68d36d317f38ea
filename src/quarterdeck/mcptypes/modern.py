"""What a server of 2026-07-28 owes its HTTP clients: envelope, removed methods, mirrored arguments, statuses.

Specification: modelcontextprotocol.io 2026-07-28, basic (``_meta``), transports (HTTP headers), SEP-2243, SEP-2575.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from . import protocol
from .headers import decode_value, encode_value
from .jsonrpc import Message

REMOVED = frozenset(
    {protocol.INITIALIZE, protocol.PING, protocol.SET_LEVEL, "resources/subscribe", "resources/unsubscribe"}
)
"""Requests of the legacy era that have no meaning any more."""

_STATUS = {
    protocol.PARSE_ERROR: 400,
    protocol.INVALID_REQUEST: 400,
    protocol.INVALID_PARAMS: 400,
    protocol.HEADER_MISMATCH: 400,
    protocol.MISSING_CAPABILITY: 400,
    protocol.UNSUPPORTED_VERSION: 400,
    protocol.METHOD_NOT_FOUND: 404,
}
_DEPTH = 32
_SCALARS = ("string", "integer", "boolean")

Path = tuple[str, ...]


def status_of(code: int) -> int:
    """HTTP status of an answer with this JSON-RPC error code."""
    return _STATUS.get(code, 200)


class Envelope(msgspec.Struct, gc=False):
    """The ``_meta`` that every request carries. Optional fields that are absent have their default."""

    version: str = msgspec.field(name=protocol.META_VERSION)
    capabilities: dict[str, Any] = msgspec.field(name=protocol.META_CLIENT_CAPABILITIES)
    client: dict[str, Any] = msgspec.field(name=protocol.META_CLIENT_INFO, default_factory=dict[str, Any])
    log_level: str = msgspec.field(name=protocol.META_LOG_LEVEL, default="")


class _Params(msgspec.Struct, gc=False):
    meta: Envelope = msgspec.field(name="_meta")


_params = msgspec.json.Decoder(_Params)


def envelope(message: Message) -> Envelope:
    """Raises msgspec.ValidationError, naming the field, when the request is no modern one."""
    if not isinstance(message.params, msgspec.Raw):
        raise msgspec.ValidationError("Object missing required field `_meta` - at `$.params`")
    return _params.decode(message.params).meta


# -- x-mcp-header: arguments that travel as headers too


def mirrored(schema: object) -> dict[Path, str] | None:
    """Argument path → header suffix (lower case) of a tool's input schema; None when its annotations break the rules.

    Only strings, integers and booleans, only along a chain of ``properties``, each header once.
    """
    found: dict[Path, str] = {}
    if not _collect(schema, (), found) or len(set(found.values())) != len(found):
        return None
    return found


def _collect(schema: object, path: Path, found: dict[Path, str]) -> bool:
    if not isinstance(schema, dict) or len(path) > _DEPTH:
        return True
    node = cast(dict[str, Any], schema)
    header = node.get("x-mcp-header")
    if header is not None:
        token = isinstance(header, str) and header.isascii() and header.replace("-", "").replace("_", "").isalnum()
        if not path or not token or node.get("type") not in _SCALARS:
            return False
        found[path] = cast(str, header).lower()
    properties = node.get("properties")
    if isinstance(properties, dict):
        return all(_collect(child, (*path, name), found) for name, child in cast(dict[str, Any], properties).items())
    return True


def param_headers(mapping: Mapping[Path, str], arguments: object) -> list[tuple[bytes, bytes]]:
    """The ``Mcp-Param-*`` headers of a call; values that are absent or null have none."""
    headers: list[tuple[bytes, bytes]] = []
    for path, suffix in mapping.items():
        text = _text(_at(arguments, path))
        if text is not None:
            headers.append((protocol.H_PARAM_PREFIX + suffix.encode(), encode_value(text)))
    return headers


def param_problem(mapping: Mapping[Path, str], arguments: object, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Why the headers of a request do not say what its arguments say; empty when they do."""
    given: dict[bytes, bytes] = {}
    for name, value in headers:
        if name.startswith(protocol.H_PARAM_PREFIX):
            if name in given:
                return f"header {name.decode('latin-1')} was sent twice"
            given[name] = value
    for path, suffix in mapping.items():
        name = protocol.H_PARAM_PREFIX + suffix.encode()
        wanted, value = _text(_at(arguments, path)), given.get(name)
        label = f"header Mcp-Param-{suffix}"
        if value is None:
            if wanted is not None:
                return f"{label} is missing; it mirrors argument {'.'.join(path)}"
        elif decode_value(value) is None:
            return f"{label} is not a valid value"
        elif wanted is None or decode_value(value) != wanted:
            return f"{label} does not match argument {'.'.join(path)}"
    return ""


def _at(arguments: object, path: Path) -> object:
    node = arguments
    for name in path:
        if not isinstance(node, dict):
            return None
        node = cast(dict[str, object], node).get(name)
    return node


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int)) else None
