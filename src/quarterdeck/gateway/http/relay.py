"""A plain HTTP service's answer on its way to the client: streamed, and where rules say so tried again before."""

from __future__ import annotations

import asyncio
from time import monotonic

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.telemetry.metrics import Counter
from quarterdeck.wire.client import Origin
from quarterdeck.wire.http import Header

from ..observe import Observer
from ..policy.refusal import Refusal
from ..upstream import Relay, Upstreams
from .call import HttpCall
from .headers import to_client
from .request import HttpRequest
from .retry import SAFE, wait
from .route import Destination, HttpTarget
from .tunnel import join

_SILENCE = 3600.0  # seconds a backend may say nothing at all where no rule says less
_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
_BUFFER = 4 * 1024 * 1024  # bytes of a response that a rule wants to see whole


class HttpRelay(Relay):
    """One request, all its attempts, and the one answer."""

    __slots__ = (
        "_body", "_buffered", "_destination", "_end", "_headers", "_last", "_observer", "_others", "_request",
        "_retries", "_size", "_status", "_target", "_timer", "call",
    )  # fmt: skip

    def __init__(
        self,
        upstreams: Upstreams,
        call: HttpCall,
        observer: Observer,
        destination: Destination,
        target: HttpTarget,
        request: HttpRequest,
        retries: Counter,
    ) -> None:
        super().__init__(upstreams, call.exchange, _SILENCE)
        self.call = call
        self._observer = observer
        self._destination = destination
        self._target = target
        self._request = request
        self._retries = retries
        self._others = list(target.addresses)
        """Addresses where this attempt has not been tried."""
        self._last: Origin | None = None
        self._status = 0
        self._headers: list[Header] = []
        self._buffered = destination.chain.buffers_response
        self._body: list[bytes] = []
        self._size = 0
        timeout = destination.policies.timeout
        self._end = monotonic() + timeout if timeout else 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def agent(self) -> str:
        return self.call.principal.agent

    @property
    def target(self) -> tuple[str, str]:
        return "http", self.call.server

    # -- sending
    def send(self, origin: Origin) -> None:
        """Begin an attempt at that address."""
        self._others = [other for other in self._target.addresses if other != origin]
        self._last = origin
        self.connection = None
        self.heard = True
        self._arm()
        self.upstreams.send(self._target.pool, origin, self, self._bytes(origin), upgrade=self._request.upgrade)

    def _bytes(self, origin: Origin) -> bytes:
        return self._request.encode(self._target, origin)

    def elsewhere(self) -> tuple[Origin, bytes] | None:
        if not self._others:
            return None
        origin = self._last = self._others.pop(0)
        return origin, self._bytes(origin)

    # -- time
    def _arm(self) -> None:
        """A timer of this attempt's own where a rule bounds its time; the sweep is too coarse for those."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        policies = self._destination.policies
        bounds = [self._end] if self._end else []
        each = [policies.backend_timeout, policies.retry.per_try_timeout if policies.retry is not None else 0.0]
        bounds += [monotonic() + seconds for seconds in each if seconds]
        if bounds:
            left = max(0.0, min(bounds) - monotonic())
            self._timer = asyncio.get_running_loop().call_later(left, self._too_late)

    def _too_late(self) -> None:
        self._timer = None
        if self.finished:
            return
        policies = self._destination.policies
        if self._end and monotonic() >= self._end:
            self.give_up(TimedOut(f"did not finish within {policies.timeout:g} s"))
        elif not self._again():
            self.give_up(TimedOut("did not answer an attempt in the time that its rules allow"))

    def _over(self) -> None:
        super()._over()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- again
    def _again(self) -> bool:
        """Whether another attempt is on its way: rules, method and budget must allow it."""
        retry = self._destination.policies.retry
        if retry is None or self.exchange.started or self.attempt >= retry.attempts:
            return False
        connection = self.connection
        if connection is not None and self.exchange.method not in SAFE:
            return False  # what was not sent may be repeated whatever its method is
        budget, rules = self._destination.budget, self._destination.retries
        if budget is None or rules is None or not rules.allow(self.exchange) or not budget.take():
            return False
        if connection is not None:
            connection.abort()
            self.connection = None
        self.attempt += 1
        self._retries.value += 1
        if self._timer is not None:
            self._timer.cancel()
        pause = wait(retry.backoff, self.attempt)
        if self._end:
            pause = min(pause, max(0.0, self._end - monotonic()))
        self._timer = asyncio.get_running_loop().call_later(pause, self._resend)
        return True

    def _resend(self) -> None:
        self._timer = None
        if self.finished:
            return
        if self._end and monotonic() >= self._end:
            self.give_up(TimedOut(f"did not finish within {self._destination.policies.timeout:g} s"))
            return
        origin = self._target.address()
        if origin is not None:
            self.send(origin)

    def on_error(self, error: UpstreamError) -> None:
        if self.finished:
            return
        stale = getattr(error, "retryable", False) and self.exchange.method in SAFE and not self.exchange.started
        if stale and self._last is not None:
            # a kept connection that closed as we wrote (RFC 9112 §9.3.1): the pool has no other by now or says so again
            self.send(self._last)
            return
        if not self._again():
            super().on_error(error)

    # -- the answer
    def on_head(self, status: int, headers: list[Header]) -> None:
        self.heard = True
        rules = self._destination.retries
        if rules is not None and rules.want(self.exchange, status, headers) and self._again():
            return
        self._status = status
        self._headers = to_client(headers)
        limit = self._destination.policies.max_response
        if limit and any(k == b"content-length" and int(v) > limit for k, v in headers if v.isdigit()):
            self.give_up(UpstreamError(f"wants to answer with more than {limit} bytes"))
            return
        if self._buffered:
            return
        self.exchange.start(status, self._headers)
        self.stream_to_client()

    def on_body(self, data: bytes) -> None:
        if self.finished:
            return
        self.heard = True
        self._size += len(data)
        limit = self._destination.policies.max_response or (_BUFFER if self._buffered else 0)
        if limit and self._size > limit:
            self.give_up(UpstreamError(f"answered with more than {limit} bytes"))
        elif self._buffered:
            self._body.append(data)
        else:
            self.exchange.write(data)

    def complete(self) -> None:
        if self._buffered:
            headers = [header for header in self._headers if header[0] != b"content-length"]
            body = self._destination.chain.response_body(self.call, self._status, headers, b"".join(self._body))
            self.exchange.respond(self._status, body, headers)
        else:
            self.exchange.finish()
        self._observer.finish(self.call, "ok" if self._status < 500 else "error", self._status)

    def failed(self, error: UpstreamError | TimedOut) -> None:
        status = 504 if isinstance(error, TimedOut) else 502
        message = f"backend {self.call.server} failed: {error}"
        if self.exchange.started:
            self.exchange.abort()
        else:
            headers, body = Refusal(status, message).content()
            self.exchange.respond(status, body, headers)
        self._observer.finish(self.call, "error", status, message)

    def cancelled(self) -> None:
        self._observer.finish(self.call, "error", 499, "the client closed the connection")

    # -- WebSocket
    def on_upgrade(self, headers: list[Header], rest: bytes) -> None:
        """The backend goes on with another protocol (101); ``rest`` came after its head."""
        backend = self.connection
        if self.finished or backend is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.timeout = self.deadline = 0.0
        self._status = 101
        self._observer.finish(self.call, "ok", 101)
        if not self._observer.audit.flush():  # the switch does not wait with other answers: its record goes first here
            self._over()
            backend.abort()
            self.exchange.abort()
            return
        client, install, early = self.exchange.hijack()
        lines = [b"%b: %b\r\n" % header for header in to_client(headers)]
        client.write(b"".join([_SWITCHING, *lines, b"\r\n", rest]))
        ends = join(client, backend.transport, self._ended)
        install(ends[0])
        backend.switch(ends[1])
        backend.transport.write(early)

    def _ended(self) -> None:
        if not self.finished:
            self._over()
