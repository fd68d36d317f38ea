"""A2A 1.0 for BYO agents that speak 0.3: JSON-RPC requests translated on their way down, answers on their way up.

Which version an agent speaks says its card, which is asked for once in a while.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import msgspec

from quarterdeck.a2atypes import CARD_PATHS, errors, modern, operations
from quarterdeck.errors import QuarterdeckError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.snapshot import Endpoint
from quarterdeck.wire.client import Pool
from quarterdeck.wire.sse import SseParser

from ..call import Call

_KEPT = 60.0
_ENDPOINTS = 1024
_LARGEST = 16 * 1024 * 1024
_CARD = 1024 * 1024


class Versions:
    """What the agent at an endpoint speaks, as its card said within the last minute."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._known: dict[Endpoint, tuple[float, str]] = {}

    async def of(self, endpoint: Endpoint) -> str:
        """ "1.0" or "0.3"; who has no card that can be read is taken at its caller's word."""
        kept = self._known.get(endpoint)
        if kept is not None and self._clock() - kept[0] < _KEPT:
            return kept[1]
        found = await self._asked(endpoint)
        if len(self._known) >= _ENDPOINTS:
            self._known.clear()
        if found:
            self._known[endpoint] = (self._clock(), found)
        return found or "1.0"

    async def _asked(self, endpoint: Endpoint) -> str:
        origin = (endpoint.host, endpoint.port, False)
        for path in sorted(CARD_PATHS):
            try:
                answer = await self._pool.request("GET", origin, path, timeout=10.0)
                content = await answer.read()
                if answer.status == 200 and len(content) <= _CARD:
                    return modern.speaks(msgspec.json.decode(content, type=dict[str, Any]))
            except (QuarterdeckError, TimeoutError, OSError, *MALFORMED):
                continue
        return ""


def wants(call: Call, target: str) -> bool:
    """Whether a request is one of 1.0 over JSON-RPC."""
    version = call.headers.get(b"a2a-version", b"")
    return call.exchange.method == "POST" and version.startswith(b"1.") and target.partition("?")[0] in ("", "/")


def down(call: Call) -> str:
    """Translate the request's body; its operation. Raises A2AError for what 0.3 does not have or is malformed."""
    try:
        document = msgspec.json.decode(call.exchange.body, type=dict[str, Any])
        operation = operations.jsonrpc(str(document.get("method")), "1.0")
        method = modern.METHODS.get(operation)
        if method is None:
            raise errors.UnsupportedOperation(f"{operation}: this agent speaks A2A 0.3, which has nothing like it")
        document["method"] = method
        document["params"] = modern.request_out(operation, document.get("params") or {})
    except (KeyError, TypeError, AttributeError, *MALFORMED) as error:
        raise errors.InvalidParams(f"the request cannot be translated for an agent of A2A 0.3: {error}") from error
    call.exchange.body = msgspec.json.encode(document)
    return operation


class Up:
    """Translates an answer as it comes. Raises UpstreamError for an event beyond all bounds."""

    def __init__(self, operation: str, *, stream: bool, raw_id: bytes = b"null") -> None:
        """``raw_id``: the request's id, as JSON."""
        self._operation = operation
        self._raw_id = raw_id
        self._parser = SseParser(_LARGEST) if stream else None
        self._whole = bytearray()

    @property
    def whole(self) -> bool:
        """Whether it can be translated at its end only."""
        return self._parser is None

    def feed(self, data: bytes) -> bytes:
        """What can be passed on now."""
        if self._parser is None:
            self._whole += data
            if len(self._whole) > _LARGEST:
                raise errors.InvalidAgentResponse(f"the answer is larger than {_LARGEST} bytes")
            return b""
        events = self._parser.feed(data)
        return b"".join(b"data: %b\n\n" % self._translated(event.data) for event in events if event.data)

    def end(self) -> bytes:
        """The rest, when the answer is over."""
        return self._translated(bytes(self._whole)) if self._parser is None and self._whole else b""

    def _translated(self, content: bytes | str) -> bytes:
        try:
            document = msgspec.json.decode(content, type=dict[str, Any])
            if isinstance(document.get("result"), dict):
                document["result"] = modern.result_in(self._operation, document["result"])
        except (KeyError, TypeError, AttributeError, *MALFORMED):
            said = "the agent's answer is not one of A2A 0.3"
            return jsonrpc.error_response(self._raw_id, protocol.UPSTREAM_FAILED, said)
        return msgspec.json.encode(document)
