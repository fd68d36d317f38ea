"""Sending to upstreams: pools by TLS settings, in-flight bookkeeping, deadlines, and the base of all relays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.wire.addresses import plain, refused
from quarterdeck.wire.client import ClientConnection, Origin, Pool
from quarterdeck.wire.http import Exchange, Header
from quarterdeck.wire.tls import client_context

from .policy.authorizer import Decision
from .policy.principal import Principal

if TYPE_CHECKING:
    from .oauth.sign_ins import SignIns

_TICK = 0.25  # seconds between looks for calls past their deadline; a timer per call costs 2 µs


class Relay:
    """Carries one upstream response to one client. Subclasses say what happens to head, body and end.

    ``timeout`` is how long the upstream may stay silent, in seconds; 0 means for ever.
    """

    __slots__ = (
        "attempt", "connection", "deadline", "exchange", "finished", "heard", "held", "timeout", "until", "upstreams",
    )  # fmt: skip

    def __init__(self, upstreams: Upstreams, exchange: Exchange, timeout: float) -> None:
        self.upstreams = upstreams
        self.exchange = exchange
        self.timeout = timeout
        self.deadline = monotonic() + timeout if timeout else 0.0
        self.heard = False
        """Whether bytes came since that was looked at last: then the silence starts anew."""
        self.until = 0.0
        """When all of it must be over (monotonic); 0: never."""
        self.connection: ClientConnection | None = None
        self.finished = False
        self.held = 0
        """Bytes of the answer that count among what is kept of all until it is complete."""
        self.attempt = 0
        """Counts what a subclass sends in place of a request before: what comes of that one is no longer wanted."""

    # -- what subclasses implement
    @property
    def agent(self) -> str:
        """The agent that called, as ``namespace/name``; empty for people."""
        raise NotImplementedError

    @property
    def principal(self) -> Principal:
        """Who called."""
        call = getattr(self, "call", None)
        return call.principal if call is not None else _NOBODY

    @property
    def target(self) -> tuple[str, str]:
        """Protocol and backend of the call; empty for the gateway's own requests."""
        return "", ""

    def on_head(self, status: int, headers: list[Header]) -> None:
        raise NotImplementedError

    def on_body(self, data: bytes) -> None:
        raise NotImplementedError

    def complete(self) -> None:
        """The response has ended well."""
        raise NotImplementedError

    def failed(self, error: UpstreamError | TimedOut) -> None:
        """No (complete) response will come."""
        raise NotImplementedError

    def cancelled(self) -> None:
        """The client went away."""

    def elsewhere(self) -> tuple[Origin, bytes] | None:
        """Another address, and the request for it, when nobody answered at the one before: nothing was sent there."""
        return None

    # -- called by the wire and by Upstreams
    def on_end(self) -> None:
        if not self.finished:
            self._over()
            self.complete()

    def on_error(self, error: UpstreamError) -> None:
        if not self.finished:
            self._over()
            self.failed(error)

    def extend(self, now: float) -> None:
        """Bytes came: the silence starts anew."""
        self.heard = False
        if self.timeout:
            self.deadline = now + self.timeout
            if 0.0 < self.until < self.deadline:
                self.deadline = self.until

    def end_by(self, until: float) -> None:
        """Give up at that time, however busy the upstream is."""
        self.until = until
        self.deadline = min(self.deadline, until) if self.deadline else until

    def hold(self, size: int) -> None:
        """So much of the answer is kept until it is complete. It counts together with what others keep: whoever goes
        beyond that is given up."""
        upstreams = self.upstreams
        upstreams.collected += size - self.held
        self.held = size
        if upstreams.collected > upstreams.most_collected:
            self.crowded_out()
            self.give_up(UpstreamError("answered with more than there is room for beside the answers of others"))

    def crowded_out(self) -> None:
        """There is no room for the answer: that is no fault of who gives it."""

    def stream_to_client(self) -> None:
        """From now on the upstream is held back while the client reads slower than it sends."""
        connection = self.connection
        if connection is not None:
            self.exchange.flow = connection
            if not self.exchange.writable:
                connection.pause()

    def give_up(self, error: UpstreamError | TimedOut) -> None:
        """Stop listening to the upstream and report ``error``."""
        if not self.finished:
            self._over()
            if self.connection is not None:
                self.connection.abort()
            self.failed(error)

    def abandon(self) -> None:
        """Stop listening to the upstream without an answer: another relay will give it."""
        self._over()
        if self.connection is not None:
            self.connection.abort()

    def client_gone(self) -> None:
        if not self.finished:
            self._over()
            if self.connection is not None:
                self.connection.abort()
            self.cancelled()

    def expire(self) -> None:
        if 0.0 < self.until <= monotonic():
            self.give_up(TimedOut("did not finish in the time that its rules allow"))
        elif not self.exchange.writable:
            self.heard = True  # it is the client that is slow
        else:
            self.give_up(TimedOut(f"gave no sign of life for {self.timeout:g} s"))

    def _over(self) -> None:
        self.finished = True
        self.exchange.flow = None
        self.upstreams.in_flight.discard(self)
        if self.held:
            self.upstreams.collected -= self.held
            self.held = 0


class Open(Protocol):
    """Something of a caller's that stays open: a call in flight, a stream, a held call.

    ``target`` is protocol and backend, as :attr:`Relay.target`.
    """

    @property
    def principal(self) -> Principal: ...
    @property
    def target(self) -> tuple[str, str]: ...
    def give_up(self, error: UpstreamError) -> None: ...


Picks = Callable[[Open], Decision | None]
"""Why something open must end; None when it may go on."""

_NOBODY = Principal("")


class Upstreams:
    """All connections of the gateway to what is behind it."""

    def __init__(self) -> None:
        self.in_flight: set[Relay] = set()
        self.held: set[Open] = set()
        """What else stays open: streams that the gateway serves itself, calls held for an answer."""
        self.collected = 0
        """Bytes of large answers that are held until they are complete."""
        self.most_collected = 256 * 1024 * 1024
        """Where that ends: who brings more is given up."""
        self.own: set[tuple[str, int]] = set()
        """Addresses this gateway listens at: a call to one would come back as somebody at this machine."""
        self.closed: frozenset[str] = frozenset()
        """Addresses of workloads that no name but their Service's may lead to (``Snapshot.closed``)."""
        self.sign_ins: SignIns | None = None
        """Users' sign-ins at servers that want them; None where there can be none."""
        self._pools: WeakValueDictionary[tuple[bool, str, str, str, str, bool, float], Pool] = WeakValueDictionary()
        """By TLS settings; what no snapshot uses any more goes."""
        self._connecting: set[asyncio.Task[None]] = set()
        self._tick: asyncio.TimerHandle | None = None

    def pool(
        self,
        *,
        insecure: bool = False,
        ca_pem: str = "",
        authority: str = "",
        certificate: str = "",
        key: str = "",
        system: bool = False,
        connect_timeout: float = 0.0,
        where: str = "",
    ) -> Pool:
        """The pool for these TLS settings; ``certificate`` and ``key`` are our own, with ``system`` the system's
        authorities count beside ``ca_pem``; ``connect_timeout`` in seconds, 0: as usual. Raises ConfigError for bad
        PEM."""
        settings = (insecure, ca_pem, authority, certificate, key, system, connect_timeout)
        pool = self._pools.get(settings)
        if pool is None:
            context = client_context(
                insecure=insecure, ca_pem=ca_pem, certificate=certificate, key=key, system=system, where=where
            )
            name = authority.rpartition(":")[0] if authority.rpartition(":")[2].isdigit() else authority
            pool = self._pools[settings] = Pool(
                tls=context, server_hostname=name or None, refuse=self.refuse, connect_timeout=connect_timeout or 5.0
            )
        return pool

    def refuse(self, host: str, address: str, port: int) -> str:
        """Where no resource may lead the gateway, whatever name its URL has."""
        ip = plain(address)
        if (str(ip), port) in self.own or (ip.is_loopback and ("0.0.0.0", port) in self.own):  # noqa: S104 - compared
            return "is this gateway itself: name the server, model or agent behind it instead"
        return refused(host, address, self.closed.__contains__)

    def send(self, pool: Pool, origin: Origin, relay: Relay, data: bytes, *, upgrade: bool = False) -> None:
        """Send a request; the relay's methods are called as the answer comes (``upgrade``: it is ``Switching``)."""
        self.in_flight.add(relay)
        if self._tick is None:
            self._tick = asyncio.get_running_loop().call_later(_TICK, self._sweep)
        relay.exchange.on_disconnect(relay.client_gone)
        connection = pool.idle(origin)
        if connection is not None:
            relay.connection = connection
            connection.send(relay, data, head_only=relay.exchange.method == "HEAD", upgrade=upgrade)
        else:
            task = asyncio.get_running_loop().create_task(self._connect(pool, origin, relay, data, upgrade))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, pool: Pool, origin: Origin, relay: Relay, data: bytes, upgrade: bool) -> None:
        attempt = relay.attempt
        while True:
            try:
                connection = await pool.connect(origin)
            except UpstreamError as error:
                if relay.attempt != attempt:
                    return
                other = None if relay.finished else relay.elsewhere()
                if other is None:
                    relay.on_error(error)
                    return
                origin, data = other
            else:
                break
        if relay.finished or relay.attempt != attempt:  # not wanted any more: the next call can have the connection
            pool.release(connection)
            return
        relay.connection = connection
        connection.send(relay, data, head_only=relay.exchange.method == "HEAD", upgrade=upgrade)

    def _sweep(self) -> None:
        now = monotonic()
        for relay in list(self.in_flight):
            if relay.heard:
                relay.extend(now)
            if 0.0 < relay.deadline < now:
                relay.expire()
        self._tick = asyncio.get_running_loop().call_later(_TICK, self._sweep) if self.in_flight else None

    def cancel(self, which: Callable[[Relay], bool]) -> None:
        """End the calls in flight that ``which`` picks, with an error to their clients."""
        for relay in list(self.in_flight):
            if which(relay):
                relay.give_up(UpstreamError("the gateway ended the call"))

    def end(self, picks: Picks) -> None:
        """End what is open and picked; the records of ended calls carry the decision's rule."""
        for opened in (*self.in_flight, *self.held):
            decision = picks(opened)
            if decision is not None:
                call = getattr(opened, "call", None)
                if call is not None:
                    call.decision = decision
                opened.give_up(UpstreamError(decision.reason))

    def close(self) -> None:
        for pool in list(self._pools.values()):
            pool.close()
