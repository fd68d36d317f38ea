"""A2A over JSON-RPC: from a request's body to a :class:`~.core.Call`, and back."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from quarterdeck.a2atypes import Json, errors, legacy, operations
from quarterdeck.errors import QuarterdeckError
from quarterdeck.malformed import loads

from .core import Call, Caller, Core


def parse(
    body: bytes, version: str, caller: Caller, extensions: tuple[str, ...], after: int | None = None, base: str = ""
) -> tuple[Any, Call]:
    """The request's id and what it asks for. ``version`` is the header's value. Raises an A2AError."""
    document = _document(body)
    version = operations.version(version)
    operation = operations.jsonrpc(document["method"], version)
    params = document.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise errors.InvalidParams("params: must be an object")
    if version == "0.3":
        params = legacy.request_in(operation, params)
    return document.get("id"), Call(operation, params, caller, version, extensions, after, base)


def request_id(body: bytes) -> Any:
    """The id of a request that could not be accepted, or None."""
    try:
        ident = loads(body).get("id")
    except (ValueError, AttributeError, RecursionError):
        return None
    return ident if isinstance(ident, str | int | float) else None


async def answer(core: Core, ident: Any, call: Call) -> bytes:
    """Raises QuarterdeckError."""
    return _result(ident, call, await core.unary(call))


async def events(core: Core, ident: Any, call: Call) -> AsyncGenerator[tuple[int, bytes]]:
    """The stream's events with their numbers. Raises QuarterdeckError before the first one."""
    stream = await core.stream(call)

    async def encoded() -> AsyncGenerator[tuple[int, bytes]]:
        try:
            async for number, event in stream:
                yield number, _result(ident, call, event)
        except QuarterdeckError as error:
            yield 0, failure(ident, error)
        finally:
            await stream.aclose()

    return encoded()


def failure(ident: Any, error: QuarterdeckError) -> bytes:
    return _encoded(errors.jsonrpc_error(ident, error))


def _result(ident: Any, call: Call, value: Any) -> bytes:
    if call.version == "0.3":
        value = legacy.result_out(call.operation, value)
    elif call.operation == operations.PUSH_DELETE:
        value = None
    return _encoded({"jsonrpc": "2.0", "id": ident, "result": value})


def _document(body: bytes) -> Json:
    try:
        document = loads(body)
    except (ValueError, RecursionError) as error:
        raise errors.ParseError(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict) or document.get("jsonrpc") != "2.0":
        raise errors.InvalidRequest('the body must be one JSON-RPC 2.0 request: {"jsonrpc": "2.0", "method": …}')
    if not isinstance(document.get("method"), str):
        raise errors.InvalidRequest("method: must be a string")
    if not isinstance(document.get("id"), str | int | float | None) or isinstance(document.get("id"), bool):
        raise errors.InvalidRequest("id: must be a string, a number or null")
    return document


def _encoded(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
