"""A2A over HTTP+JSON: from method, path, query and body to a :class:`~.core.Call`, and back."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from quarterdeck.a2atypes import Json, errors, legacy_proto, operations
from quarterdeck.errors import QuarterdeckError
from quarterdeck.malformed import loads

from .core import Call, Caller, Core

_NUMBERS = ("historyLength", "pageSize")
_BOOLEANS = ("includeArtifacts",)
_WITH_BODY = frozenset({operations.SEND, operations.STREAM, operations.PUSH_CREATE})
_VERSION = "a2a-version"


def parse(
    method: str,
    path: str,
    query: Sequence[tuple[str, str]],
    body: bytes,
    version: str,
    caller: Caller,
    extensions: tuple[str, ...],
    after: int | None = None,
    base: str = "",
) -> Call:
    """What a request asks for. The version is the header's, else the query parameter's. Raises an A2AError."""
    asked = {k.lower(): v for k, v in query if k.lower() == _VERSION}
    version = operations.version(version or asked.get(_VERSION, ""))
    found = operations.match(method, path, version)
    params: Json = {}
    if body and found.operation in _WITH_BODY:
        params = _object(body)
    elif not body and found.operation in _WITH_BODY:
        raise errors.InvalidParams("body: is missing; it must be a JSON object")
    elif method in ("GET", "DELETE"):
        params = {k: _typed(k, v) for k, v in query if k.lower() != _VERSION}
    params |= found.params
    if version == "0.3":
        params = legacy_proto.request_in(found.operation, params) | {
            k: v for k, v in found.params.items() if k in ("id", "taskId") and found.operation not in _WITH_BODY
        }
    return Call(found.operation, params, caller, version, extensions, after, base)


async def answer(core: Core, call: Call) -> bytes:
    """Raises QuarterdeckError."""
    return _encoded(_out(call, await core.unary(call)))


async def events(core: Core, call: Call) -> AsyncGenerator[tuple[int, bytes]]:
    """The stream's events with their numbers. Raises QuarterdeckError before the first one."""
    stream = await core.stream(call)

    async def encoded() -> AsyncGenerator[tuple[int, bytes]]:
        try:
            async for number, event in stream:
                yield number, _encoded(_out(call, event))
        except QuarterdeckError as error:
            yield 0, _encoded(errors.http_error(error)[1])
        finally:
            await stream.aclose()

    return encoded()


def failure(error: QuarterdeckError) -> tuple[int, bytes]:
    status, body = errors.http_error(error)
    return status, _encoded(body)


def _out(call: Call, value: Any) -> Any:
    return legacy_proto.result_out(call.operation, value) if call.version == "0.3" else value


def _object(body: bytes) -> Json:
    try:
        document = loads(body)
    except (ValueError, RecursionError) as error:
        raise errors.ParseError(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise errors.InvalidRequest("the body must be a JSON object")
    return document


def _typed(name: str, value: str) -> Any:
    """A query parameter as the type its member has; what does not fit is left for the core to name."""
    if name in _NUMBERS:
        try:
            return int(value)
        except ValueError:
            return value
    if name in _BOOLEANS:
        return {"true": True, "false": False}.get(value.lower(), value)
    return value


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
