"""The stage of MCP calls at which limits are kept: after a call was allowed, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quarterdeck.mcptypes import protocol
from quarterdeck.wire.http import Header

from ..observe import Observer
from ..policy.authorizer import Decision
from .server import Stop, limited, unavailable
from .service import Limits

if TYPE_CHECKING:
    from ..mcp.call import McpCall

_JSON: Header = (b"content-type", b"application/json")


class ToolLimits:
    """``keep(call)`` is the stage; it answers the calls that go no further."""

    def __init__(self, limits: Limits, observer: Observer) -> None:
        self.fill = limits.fill
        self._observer = observer

    def keep(self, call: McpCall) -> bool:
        if call.method != protocol.TOOLS_CALL:
            return True
        stop = call.member.limits.admit(call)
        if stop is None:
            return True
        self._answer(call, stop)
        return False

    def _answer(self, call: McpCall, stop: Stop) -> None:
        retry: Header = (b"retry-after", b"%d" % (stop.retry_after or 0))
        headers = [_JSON, retry] if stop.retry_after else [_JSON]
        if not call.raw_id:
            call.exchange.respond(503 if stop.unavailable else 429, b"", headers)
        elif stop.unavailable:
            body = unavailable(call.raw_id, stop, call.server, call.tool, modern=call.modern)
            call.exchange.respond(200, body, headers)
        else:
            call.exchange.respond(200, limited(call.raw_id, stop), headers)
        call.decision = Decision("deny", stop.rule, stop.text)
        if stop.unavailable:
            self._observer.finish(call, "error", 503, stop.text)
        else:
            self._observer.finish(call, "denied", 429, stop.text)
