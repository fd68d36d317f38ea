"""Answers of MCP servers on their way to the client: JSON whole (and bounded), SSE as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED, mended
from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.wire import sse
from quarterdeck.wire.http import Exchange, Header

from ..call import Call, Outcome
from ..limits.retry import Attempts
from ..observe import Observer
from ..upstream import Relay, Upstreams

if TYPE_CHECKING:
    from .call import McpCall

RESPONSE_LIMIT = 16 * 1024 * 1024
"""Bytes of one JSON answer or one server-sent event."""

_DIGITS = 8
"""Digits of a length that may be within :data:`RESPONSE_LIMIT`."""
_SMALL = 64 * 1024
"""Bytes of an answer that do not count among what is held of all."""

Transform = Callable[[bytes], bytes]
"""Rewrites one JSON-RPC message. Raises msgspec.DecodeError when it is not JSON."""

_JSON = b"application/json"
_ANOTHERS = "answered a request that it was not sent"
"""Clients hand answers on by their ids: one to a request of another server's would be taken for that server's."""
_SSE = b"text/event-stream"
_LARGE = frozenset({b"authorization", b"cookie", protocol.H_SESSION})
_NONE: dict[bytes, bytes] = {}
_NO_LIST: Any = ()
_MODES = {_JSON: _JSON, _SSE: _SSE}
_CONTENT_JSON: Header = (b"content-type", _JSON)
_JSON_HEADERS: tuple[Header, ...] = (_CONTENT_JSON,)
_SSE_HEADERS: list[Header] = [
    (b"content-type", _SSE),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def answer_error(call: Call, code: int, message: str, *, status: int = 200, data: object = None) -> None:
    """Answer the client with a JSON-RPC error, or with the bare status when it did not ask (a notification)."""
    body = jsonrpc.error_response(call.raw_id or b"null", code, message, data)
    call.exchange.respond(status if call.raw_id or status != 200 else 400, body, _JSON_HEADERS)


class McpRelay(Relay):
    """One request's answer."""

    __slots__ = (
        "_chunks", "_mode", "_observer", "_outcome", "_parser", "_resumable", "_size", "_status", "attempts",
        "call", "most", "seal", "session_header", "transform",
    )  # fmt: skip

    def __init__(
        self,
        upstreams: Upstreams,
        exchange: Exchange,
        call: McpCall,
        observer: Observer,
        *,
        timeout: float,
        transform: Transform | None = None,
        seal: Callable[[bytes], bytes] | None = None,
    ) -> None:
        super().__init__(upstreams, exchange, timeout)
        self.call = call
        self.transform = transform
        self.seal = seal
        self.session_header: Header | None = None
        self.most = 0
        """Bytes of the whole answer that are let through; 0: of a stream any number."""
        self.attempts: Attempts | None = None
        """Further ones, where the call may be made again; another relay answers it then."""
        self._observer = observer
        self._status = 0
        self._mode = b""
        self._chunks: list[bytes] = []
        self._size = 0
        self._parser: sse.SseParser | None = None
        self._outcome: Outcome | None = None
        self._resumable = False

    @property
    def agent(self) -> str:
        return self.call.principal.agent

    @property
    def target(self) -> tuple[str, str]:
        return self.call.kind, self.call.server

    def on_head(self, status: int, headers: list[Header]) -> None:
        self.heard = True
        self._status = status
        content, huge = b"", False
        for name, value in headers:
            if name == b"content-type":
                content = value
            elif name == b"content-length" and len(value) > _DIGITS:
                huge = True
            elif name == protocol.H_SESSION and self.seal is not None:
                self.session_header = (protocol.H_SESSION, self.seal(value))
        mode = _MODES.get(content) or content.partition(b";")[0].strip().lower()
        self._mode = mode
        if status in (401, 403) and self.call.raw_id:
            text = f"refused the gateway's credentials (HTTP {status}); check its headers and secrets"
            self.give_up(UpstreamError(text))
        elif huge and mode != _SSE:  # nothing of it is read: other calls would wait for that
            self.give_up(UpstreamError(f"answered with more than {RESPONSE_LIMIT} bytes"))
        elif mode == _SSE and status == 200:
            self._parser = sse.SseParser(RESPONSE_LIMIT)
            if self.call.method == "GET":
                self._settle()
            self.exchange.start(200, [*_SSE_HEADERS, self.session_header] if self.session_header else _SSE_HEADERS)
            self.stream_to_client()

    def _settle(self) -> None:
        """A stream may stay open for ever: what led here is let go."""
        call, exchange = self.call, self.exchange
        exchange.admission = call.session = None
        self._chunks = exchange.headers = _NO_LIST
        kept = {k: v for k, v in call.headers.items() if k not in _LARGE} if self._observer.tells else _NONE
        call.headers = exchange.context = kept
        if not kept:
            call.traceparent = b""

    def on_body(self, data: bytes) -> None:
        if self.finished:
            return
        self.heard = True
        self._size += len(data)
        limit = self.most if self._parser is not None else min(self.most or RESPONSE_LIMIT, RESPONSE_LIMIT)
        if 0 < limit < self._size:
            self.give_up(UpstreamError(f"answered with more than {limit} bytes"))
        elif self._parser is not None:
            self._stream(self._parser, data)
        else:
            self._chunks.append(data)
        if self._size > _SMALL and not self.finished:
            self.hold(self._size if self._parser is None else self._parser.waiting)

    def crowded_out(self) -> None:
        self.call.health = "unknown"

    def complete(self) -> None:
        if self._parser is not None:
            self._end_stream()
            return
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        call = self.call
        status = self._status
        if not call.raw_id:  # a notification or a DELETE: 202, 204, 405 … as it is
            self._pass(status, body if self._mode == _JSON else b"")
            self._observer_finish("ok" if status < 400 else "error", status)
            return
        probe = jsonrpc.probe(body) if self._mode == _JSON else None
        if probe is None and self._mode == _JSON and (whole := mended(body)) is not body:
            body = whole
            probe = jsonrpc.probe(body)
        if probe is None or (probe.error is None and probe.result is None):
            what = self._mode.decode("latin-1") or "no content type"
            self.failed(UpstreamError(f"sent something that is no MCP answer (HTTP {status}, {what})"))
            return
        if not jsonrpc.answers(probe, call.raw_id):
            self.failed(UpstreamError(_ANOTHERS))
            return
        if status >= 500:
            call.health = "failed"
            if self.attempts is not None and self.attempts.again(status, None):
                return
        if self.transform is not None:
            try:
                body = self.transform(body)
            except MALFORMED as error:
                self.failed(UpstreamError(f"sent a malformed answer: {error}"))
                return
        self._pass(status, body)
        outcome = self._outcome_of(probe)
        self._observer_finish(outcome, status, probe.error.message if probe.error is not None else "")

    def failed(self, error: UpstreamError | TimedOut) -> None:
        call = self.call
        if 400 <= self._status < 500:
            call.health = "unknown"  # the server is there: it refuses us, or does not know the session
            if self._status == 404 and call.session is not None and not self.exchange.started:
                text = f"MCP server {call.server} does not know the session any more; initialize again"
                answer_error(call, protocol.INVALID_REQUEST, text, status=404)  # nothing was executed
                self._observer_finish("error", 404, text)
                return
        if self.attempts is not None and self.attempts.again(self._status, error):
            return
        code, status = (protocol.TIMED_OUT, 504) if isinstance(error, TimedOut) else (protocol.UPSTREAM_FAILED, 502)
        message = f"MCP server {call.server} {_predicate(error)}; {call.route.remedy}"
        exchange = self.exchange
        if not exchange.started:
            answer_error(call, code, message, status=200 if call.raw_id else status)
        elif self._outcome is None and call.raw_id:
            exchange.write(sse.encode(jsonrpc.error_response(call.raw_id, code, message), event=b"message"))
            exchange.finish()
        else:
            exchange.abort()
        self._observer_finish("error", status, message)

    def cancelled(self) -> None:
        if self._outcome is not None:  # SDK clients close the stream once they have their answer
            self._observer_finish(self._outcome, 200)
        else:
            self._observer_finish("error", 499, "the client closed the connection")

    def _stream(self, parser: sse.SseParser, data: bytes) -> None:
        try:
            events = parser.feed(data)
        except UpstreamError as error:
            self.give_up(error)
            return
        rewrites = self.rewrites
        for event in events:
            probe = jsonrpc.probe(event.data) if event.data else None
            if probe is None and event.data and (whole := mended(event.data)) is not event.data:
                event = sse.Event(sse.with_data(event, whole), whole, event.event, event.id)
                probe = jsonrpc.probe(whole)
            answer = probe is not None and not probe.method and (probe.result is not None or probe.error is not None)
            if answer and probe is not None:
                if self.call.raw_id and not jsonrpc.answers(probe, self.call.raw_id):
                    self.give_up(UpstreamError(_ANOTHERS))
                    return
                self._outcome = self._outcome_of(probe)
            elif event.id:
                self._resumable = True  # 2025-11-25 (SEP-1699): the client may poll with Last-Event-ID
            try:
                own = self.rewritten(event, answer=answer) if rewrites else b""
            except MALFORMED as error:
                self._outcome = None
                self.give_up(UpstreamError(f"sent a malformed answer: {error}"))
                return
            except UpstreamError as error:
                self._outcome = None
                self.give_up(error)
                return
            if self._outcome is not None:  # the record goes before the answer; how the stream ends changes nothing
                self._observer_finish(self._outcome, 200)
            if own:
                self.exchange.write(own)
        if not rewrites:
            self.exchange.write(data)

    @property
    def rewrites(self) -> bool:
        """Whether events change on their way."""
        return self.transform is not None

    def rewritten(self, event: sse.Event, *, answer: bool) -> bytes:
        """An event's bytes for the client. Raises MALFORMED, UpstreamError."""
        if answer and self.transform is not None:
            return sse.with_data(event, self.transform(event.data))
        return event.raw

    def _end_stream(self) -> None:
        if self._outcome is None and self.call.raw_id and not self._resumable:
            self.failed(UpstreamError("ended its stream before it answered"))
            return
        self.exchange.finish()
        self._observer_finish(self._outcome or "ok", 200)

    def _outcome_of(self, probe: jsonrpc.ResponseProbe) -> Outcome:
        if probe.error is not None:
            if probe.error.code == protocol.INTERNAL_ERROR:
                self.call.health = "failed"
            return "error"
        return "tool_error" if probe.result is not None and probe.result.is_error else "ok"

    def _pass(self, status: int, body: bytes) -> None:
        headers: tuple[Header, ...] = _JSON_HEADERS if body else ()
        self.exchange.respond(status, body, headers if self.session_header is None else [*headers, self.session_header])

    def _observer_finish(self, outcome: Outcome, status: int, detail: str = "") -> None:
        if self.call.method:
            self._observer.finish(self.call, outcome, status, detail)


class GreetingRelay(McpRelay):
    """The answer to ``initialize``. A refusal may mean that the server speaks 2026-07-28 only: ``newer`` finds out."""

    __slots__ = ("newer",)

    newer: Callable[[Callable[[], None]], None] | None

    def complete(self) -> None:
        newer = self.newer
        if newer is None or self._parser is not None or not self._refused():
            super().complete()
        else:
            self.newer = None
            newer(super().complete)

    def _refused(self) -> bool:
        if 400 <= self._status < 500:
            return True
        probe = jsonrpc.probe(b"".join(self._chunks)) if self._mode == _JSON else None
        return probe is not None and probe.error is not None


def _predicate(error: UpstreamError | TimedOut) -> str:
    """The error as a sentence after the server's name."""
    text = str(error)
    return text if text.startswith(("gave", "sent", "ended", "answered", "refused")) else f"failed: {text}"
