"""Answers that the gateway gives itself, each with its record."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcptypes import jsonrpc, lists, modern, protocol
from quarterdeck.wire import sse
from quarterdeck.wire.http import Exchange, Header

from ..call import Outcome
from ..observe import Observer
from ..policy.authorizer import Decision
from ..policy.refusal import Refusal
from .call import McpCall, Problem
from .client import RpcError
from .groups import Member
from .naming import label_of
from .relay import answer_error

JSON: Header = (b"content-type", b"application/json")
EVENTS: list[Header] = [
    (b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]  # fmt: skip
TOOLS_CHANGED = "notifications/tools/list_changed"
KEEP_ALIVE = 15.0
"""Seconds between comments on a stream that is silent: intermediaries cut silent ones."""
GONE = "the client closed the connection"
OWN_RULE = Decision("allow", "gateway/multiplex")
_TOLD = frozenset({"DELETE", protocol.CANCELLED, protocol.INITIALIZED, "notifications/progress"})
_ITEM = {"tools": protocol.TOOLS_CALL, "prompts": protocol.PROMPTS_GET}


class Answers:
    """Answers and records calls."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def result(self, call: McpCall, result: Any, headers: tuple[Header, ...] = (), outcome: Outcome = "ok") -> None:
        """A JSON-RPC result, on the stream when one has begun."""
        self.message(call, 200, jsonrpc.result_response(call.raw_id, result), headers)
        self.finish(call, outcome, 200)

    def message(self, call: McpCall, status: int, body: bytes, headers: tuple[Header, ...] = ()) -> None:
        """The last message to the client; nothing when it has gone."""
        exchange = call.exchange
        if exchange.disconnected:
            return
        if exchange.started:
            exchange.write(event(body))
            exchange.finish()
        else:
            exchange.respond(status, body, [JSON, *headers])

    def accepted(self, call: McpCall, status: int = 202) -> None:
        """For what has no answer."""
        call.exchange.respond(status)
        # of what a client only tells us, the name is its own text: it must not become a metric label
        call.method = call.method if call.method in _TOLD else "other"
        self.finish(call, "ok", status)

    def invalid(self, call: McpCall, problem: Problem) -> None:
        """Refuse a request that cannot be served as it is."""
        if problem.headers:
            call.exchange.respond(problem.status, b"", list(problem.headers))
        else:
            answer_error(call, problem.code, problem.text, status=problem.status, data=problem.data)
        self.observer.finish(call, "error", problem.status, problem.text)

    def error(self, call: McpCall, code: int, text: str, data: object = None) -> None:
        """A JSON-RPC error; of 2026-07-28 some have an HTTP status, too."""
        if code == protocol.INTERNAL_ERROR:
            call.health = "failed"
        status = modern.status_of(code) if call.modern else 200
        self.message(call, status, jsonrpc.error_response(call.raw_id, code, text, data))
        self.finish(call, "error", status, text)

    def refused(self, call: McpCall, decision: Decision) -> None:
        """The authorizer said no. A JSON-RPC answer to a request is HTTP 200; what has no answer gets 403."""
        approval = decision.verdict == "approval"
        code = protocol.APPROVAL_REQUIRED if approval else protocol.DENIED
        data = {"reason": "approval_required" if approval else "denied", "rule": decision.rule}
        status = 200 if call.raw_id else 403
        answer_error(call, code, decision.reason, status=status, data=data)
        self.observer.finish(call, "denied", status, decision.reason)

    def stopped(self, call: McpCall, refusal: Refusal) -> None:
        """A rule of the target has an answer of its own."""
        headers, body = refusal.content()
        call.exchange.respond(refusal.status, body, headers)
        call.decision = Decision("deny", refusal.rule, refusal.message)
        self.observer.finish(call, refusal.outcome, refusal.status, refusal.message)

    def unknown(self, call: McpCall, exposed: str, detail: str = "") -> None:
        """No server has it, or none that the caller may know of. ``detail``: why, for the record only."""
        kind = {protocol.TOOLS_CALL: "tool", protocol.PROMPTS_GET: "prompt"}.get(call.method, "resource")
        call.tool = exposed[:128]
        message = f"Unknown {kind}: {exposed}"
        data = {"uri": exposed} if kind == "resource" else None  # SEP-2164
        if call.modern:
            self.message(call, 400, jsonrpc.error_response(call.raw_id, protocol.INVALID_PARAMS, message, data))
        else:
            answer_error(call, protocol.INVALID_PARAMS, message, data=data)
        self.observer.finish(call, "denied", 200, detail or message)

    def failed(self, call: McpCall, error: UpstreamError | TimedOut) -> None:
        """The server did not answer, or answered with an error of its own."""
        if isinstance(error, RpcError):
            self.error(call, error.code, str(error), error.data)
            return
        late = isinstance(error, TimedOut)
        code, status = (protocol.TIMED_OUT, 504) if late else (protocol.UPSTREAM_FAILED, 502)
        text = f"MCP server {call.server} failed: {error}; {call.route.remedy}"
        self.message(call, 200 if call.raw_id else status, jsonrpc.error_response(call.raw_id or b"null", code, text))
        self.finish(call, "error", status, text)

    def gone(self, call: McpCall) -> None:
        self.finish(call, "error", 499, GONE)

    def finish(self, call: McpCall, outcome: Outcome, status: int, detail: str = "") -> None:
        if call.decision is None:
            call.decision = OWN_RULE
        self.observer.finish(call, outcome, status, detail)


def event(body: bytes) -> bytes:
    return sse.encode(body, event=b"message")


def sight(call: McpCall, member: Member, key: str) -> Callable[[Any], bool]:
    """Whether the caller may see an item of a member's list. It raises msgspec.DecodeError for what is no object."""
    tools = key == "tools"
    bounds = member.limits.bounds if tools and member.limits is not None else None
    pins = member.route.pins if tools else None
    owns = call.group.owns if member.contested and key in _ITEM else None
    filtered = filters(call, member)
    method = _ITEM.get(key, protocol.RESOURCES_READ)
    # without rules that look at the request, what is granted is all there is to ask
    granted = member.route.lane(call.principal).shows if tools and member.chain is None else None

    def shown(item: Any) -> bool:
        if bounds is not None:
            bounds.learn(item)
        if pins is not None and not pins.shows(item):
            return False
        if owns is not None and not owns(member, lists.name_of(item)):
            return False
        if not filtered:
            return True
        name = lists.name_of(item) if tools else label_of(key, item)
        return granted(name) if granted is not None else call.shows(member, method, name)

    return shown


def filters(call: McpCall, member: Member) -> bool:
    """Whether lists of the member have to be looked through for the caller."""
    return member.chain is not None or member.route.pins is not None or member.route.lane(call.principal).filters


def departure(exchange: Exchange) -> asyncio.Future[None]:
    """Done when the client has gone."""
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def leave() -> None:
        if not gone.done():
            gone.set_result(None)

    exchange.on_disconnect(leave)
    return gone


async def first(work: Coroutine[Any, Any, Any], gone: asyncio.Future[None]) -> Any:
    """The result of ``work``; None when the client left first."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def soon(queue: asyncio.Queue[bytes]) -> bytes:
    """The next message, or nothing when it is time for a sign of life."""
    try:
        async with asyncio.timeout(KEEP_ALIVE):
            return await queue.get()
    except TimeoutError:
        return b""
