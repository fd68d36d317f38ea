"""``/a2a/{namespace}/{agent}[/…]``: A2A of both versions passed to the agent; who may call whom is decided here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from quarterdeck.a2atypes import cards, errors
from quarterdeck.errors import Denied, NotFound, QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import protocol
from quarterdeck.snapshot import Agent, Endpoint
from quarterdeck.wire.client import Origin
from quarterdeck.wire.http import Exchange, Header
from quarterdeck.wire.text import of_header

from ..acting import Acting
from ..activity import Epoch
from ..call import Call
from ..mcp.approvals import Approvals
from ..observe import Observer
from ..pending import Pending
from ..policy.authorizer import Decision, Request
from ..policy.principal import ANONYMOUS, ANYBODY, LOCAL_USER, Principal
from ..policy.services import Services
from ..split import Destination, Splitter
from ..table import Table
from ..upstream import Relay, Upstreams
from . import byo, forwarded
from .answers import JSON, answer, operation
from .cards import CARD_PATHS, rewrite
from .conversation import Reading, conversations
from .deciding import Said, record, said
from .loops import Loops
from .signing import KEYS, CardSigner
from .translated import Up, Versions, down, wants

_TIMEOUT = 600.0  # seconds an agent may stay silent
_CARD_LIMIT = 1024 * 1024
_PASSED = (
    b"accept", b"content-type", b"a2a-version", b"a2a-extensions", b"x-a2a-extensions", b"last-event-id",
    b"x-quarterdeck-forward-authorization",
)  # fmt: skip
_PASSED_BACK = frozenset(
    {b"content-type", b"cache-control", b"etag", b"content-length", b"a2a-version", b"a2a-extensions"}
    | {b"www-authenticate"}
)


_EXTENDED = frozenset({"GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"})
Sign = Callable[[dict[str, Any], str, str, Callable[[dict[str, Any]], None]], None]


class A2aEndpoint:
    """Serves calls to agents."""

    def __init__(self, upstreams: Upstreams, observer: Observer, services: Services) -> None:
        self._upstreams = upstreams
        self._observer = observer
        self._services = services
        self._pool = upstreams.pool()
        self._turn = count()
        self.approvals: Approvals | None = None
        """Of the MCP endpoint: who is asked about approvals, and how agents are told for whom they act."""
        self.signer = CardSigner("")
        self._pending = Pending(upstreams, observer, _answer)
        self._loops = Loops()
        self._versions = Versions(self._pool)

    def handle(self, exchange: Exchange, table: Table, principal: Principal) -> None:
        raw = exchange.target.decode("latin-1")
        if raw.partition("?")[0] == f"/{KEYS}":
            self._pending.start(self._answer_keys(exchange))
            return
        label = "/".join(raw.partition("?")[0].split("/", 4)[2:4])  # "", a2a, namespace, agent, rest
        base = f"/a2a/{label}"
        self.serve(exchange, table, principal, label, raw.removeprefix(base) or "/", base)

    def serve(self, exchange: Exchange, table: Table, principal: Principal, label: str, target: str, base: str) -> None:
        """Serve a request for the agent ``label`` (``namespace/name``); ``target`` is the agent's own path and query.

        ``base`` is the path under which clients find the agent here: its card names it.
        """
        call = Call(exchange, "a2a", "")
        call.principal = principal
        self._observer.begin(call)
        agent = table.agents.get(label)
        call.method = operation(call, target.partition("?")[0])
        if agent is None:
            answer(call, 404, f"agent {label} is not served by this gateway")
            self._observer.finish(call, "error", 404, label)
            return
        call.server = label
        decision = call.decision = table.authorizer.decide(
            Request(principal, ("Agent", agent.namespace, agent.name), call.method)
        )
        if not decision.allow:
            answer(call, 403, decision.reason, protocol.DENIED)
            self._observer.finish(call, "denied", 403, decision.reason)
            return
        if not self._loops.enter(call):
            text = f"agents ask each other in a circle: {label} is asked again and again within one trace"
            answer(call, 508, text, protocol.DENIED)
            self._observer.finish(call, "denied", 508, text)
            return
        if agent.byo and not (exchange.method == "GET" and target.partition("?")[0] in CARD_PATHS):
            self._pending.start(self._enter(call, agent, target, base, table.splitters.get(label)), call)
            return
        word = said(exchange.body) if exchange.method == "POST" else None
        if word is None:
            self._forward(call, agent, target, base, table.splitters.get(label))
            return
        splitter = table.splitters.get(label)
        self._pending.start(self._decide(call, word, lambda: self._forward(call, agent, target, base, splitter)), call)

    async def _enter(self, call: Call, agent: Agent, target: str, base: str, splitter: Splitter | None) -> None:
        """Open the conversation with a BYO agent for the verified user, then go on."""
        approvals, operation = self.approvals, ""
        try:
            word = said(call.exchange.body)
            if word is not None:
                await record(approvals.ask if approvals is not None else None, call.principal, call.server, word)
            ask, acting = (approvals.ask, approvals.acting) if approvals is not None else (None, None)
            lines = await byo.enter(ask, call, call.server, target, acting)
            if agent.endpoints and wants(call, target) and await self._versions.of(agent.endpoints[0]) == "0.3":
                operation = down(call)
        except QuarterdeckError as error:
            self._not_entered(call, error)
            return
        if not call.exchange.disconnected:
            self._forward(call, agent, target, base, splitter, lines, operation)

    def _not_entered(self, call: Call, error: QuarterdeckError) -> None:
        """Refused, not there, malformed, or the control plane did not say."""
        code, status, outcome = protocol.UPSTREAM_FAILED, 503, "error"
        if isinstance(error, Denied):
            code, status, outcome = protocol.DENIED, 403, "denied"
            call.decision = Decision("deny", "byo/conversation", str(error))
        elif isinstance(error, NotFound):
            code, status = errors.statuses(errors.TaskNotFound(str(error)))[:2]
        elif isinstance(error, errors.A2AError):
            code, status = errors.statuses(error)[:2]
        answer(call, status, str(error), code)
        self._observer.finish(call, outcome, status, str(error))

    async def _answer_keys(self, exchange: Exchange) -> None:
        """The JWK Set of signed cards: public, so nobody is asked who they are beyond what the listener wants."""
        keys = await self.signer.keys()
        if keys is None:
            exchange.respond(404, b'{"error":{"message":"cards are not signed here"}}', [JSON])
        else:
            exchange.respond(200, keys, [JSON, (b"cache-control", b"public, max-age=300")])

    def _sign(self, card: dict[str, Any], agent: str, url: str, done: Callable[[dict[str, Any]], None]) -> None:
        """Call ``done`` with the card as it is to be served: at once when that is known."""
        known = self.signer.known(card)
        if known is not None:
            done(known)
            return

        async def ask() -> None:
            done(await self.signer.signed(card, agent, url.partition("/a2a/")[0]))

        self._pending.start(ask())

    async def _decide(self, call: Call, word: Said, go_on: Callable[[], None]) -> None:
        """Have what a user says of a tool call count before the agent hears of it."""
        try:
            await record(self.approvals.ask if self.approvals is not None else None, call.principal, call.server, word)
        except QuarterdeckError as error:
            denied = isinstance(error, Denied)
            call.decision = Decision("deny", "approval/conversation", str(error))
            answer(call, 403 if denied else 503, str(error), protocol.DENIED if denied else protocol.UPSTREAM_FAILED)
            self._observer.finish(call, "denied", 403 if denied else 503, str(error))
            return
        if not call.exchange.disconnected:
            go_on()

    def _forward(
        self,
        call: Call,
        agent: Agent,
        target: str,
        base: str,
        splitter: Splitter | None,
        lines: bytes | None = None,
        operation: str = "",
    ) -> None:
        """``lines``: header lines that say for whom the agent acts, where that is known already; ``operation``: the
        request has been translated for an agent of A2A 0.3."""
        track: Track | None = None
        endpoint: Endpoint | None = None
        endpoints = agent.endpoints
        if splitter is not None and call.exchange.method == "POST":
            track = Track(splitter, call, target)
            endpoint, endpoints = track.destination.endpoint(), track.destination.backend.endpoints
        elif endpoints:
            endpoint = endpoints[next(self._turn) % len(endpoints)]
        if endpoint is None:
            message = f"agent {call.server} has no ready endpoint; see: kubectl describe agent {agent.name}"
            message += f" -n {agent.namespace}"
            answer(call, 503, message, protocol.UPSTREAM_FAILED)
            self._observer.finish(call, "error", 503, message)
            return
        target = target if target.startswith("/") else "/" + target
        card = call.exchange.method == "GET" and target.partition("?")[0] in CARD_PATHS
        url = self._services.base_url(call.exchange, call.headers) + base if card else ""
        relay = (TranslatingRelay if operation else A2aRelay)(self._upstreams, call, self._observer, url, track)
        relay.operation, relay.translates = operation, agent.byo
        relay.sign = self._sign
        relay.others = [(other, target) for other in endpoints if other != endpoint]
        origin = (endpoint.host, endpoint.port, False)
        if lines is None:
            acting = self.approvals.acting if self.approvals is not None else None
            told = b"" if card or acting is None else acting.line(call, call.server)
            lines = _user(call, acting) + told
        if agent.forward:
            lines += forwarded.lines(agent.forward, call.headers)
        relay.acting = lines
        if call.method in _EXTENDED:  # its addresses are the gateway's, too, and its own are nobody's business
            found = self._services.base_url(call.exchange, call.headers) + base
            relay.acting += b"x-quarterdeck-base: %b\r\n" % found.encode("latin-1", "replace")
        self._upstreams.send(self._pool, origin, relay, _request(call, target, endpoint, relay.acting))


def _answer(call: Call, status: int, message: str) -> None:
    answer(call, status, message, protocol.DENIED if status == 403 else protocol.UPSTREAM_FAILED)


def _request(call: Call, target: str, endpoint: Endpoint, acting: bytes) -> bytes:
    """``acting``: header lines that tell the agent for whom it acts."""
    exchange = call.exchange
    parts = [f"{exchange.method} {target} HTTP/1.1\r\nhost: {endpoint.host}:{endpoint.port}\r\n".encode("latin-1")]
    for name in _PASSED:
        value = call.headers.get(name)
        if value is not None:
            parts.append(b"%b: %b\r\n" % (name, value))
    parts.append(acting)
    parts.append(b"traceparent: %b\r\nx-quarterdeck-principal: " % call.traceparent)
    parts.append(b"%b\r\ncontent-length: %d\r\n\r\n" % (call.principal.id.encode(), len(exchange.body)))
    parts.append(exchange.body)
    return b"".join(parts)


def _user(call: Call, acting: Acting | None) -> bytes:
    """Header line with the user whose conversations these are; what a caller claims is taken from nobody.

    A person is who the token says. An agent acts for the user whom the gateway told it of, and shows so by the token
    it was given with the message (:mod:`..acting`); of itself it can only say by which of that user's names. Without
    such a token it is itself. Without a credential at this machine, or with the one of it, it is the one user there is:
    the agent's default; without one from elsewhere, it is nobody in particular.
    """
    principal = call.principal
    if principal.agent:
        name = (principal.on_behalf_of or _shown(call, acting)).encode()
    elif principal is ANYBODY:
        name = ANYBODY.id.encode()
    elif principal.anonymous or principal is LOCAL_USER:
        name = b""
    else:
        name = (principal.username or principal.id).encode()
    return b"x-user-id: %b\r\n" % name if name and b"\r" not in name and b"\n" not in name else b""


def _shown(call: Call, acting: Acting | None) -> str:
    """For whom an agent provably acts; empty for the one user there is."""
    told = acting.of(call.principal, call.headers) if acting is not None else None
    if told is None:
        return call.principal.id
    if told.user in (ANONYMOUS.id, LOCAL_USER.id):
        return ""
    claimed = of_header(call.headers.get(b"x-user-id", b""))
    return claimed if claimed in told.names else told.user


class Track:
    """The track of an agent that a call goes to, and what the answer says about it."""

    __slots__ = ("_given", "_splitter", "destination", "epoch", "reading")

    def __init__(self, splitter: Splitter, call: Call, target: str) -> None:
        self._splitter = splitter
        self._given = conversations(call.exchange.body, target)
        claims = {"sub": call.principal.id, **call.principal.claims}
        self.destination: Destination = splitter.choose(call.headers, claims, self._given)
        for name in self._given:
            splitter.began(name, self.destination)
        namespace, _, agent = splitter.route.partition("/")
        self.epoch: Epoch | None = None
        if self.destination.backend.epoch:
            self.epoch = ("Agent", namespace, agent, self.destination.backend.epoch)
        self.reading = Reading()

    def over(self, observer: Observer, status: int) -> None:
        """The call has ended with that HTTP status."""
        for name in self.reading.ids:
            if name not in self._given:
                self._splitter.began(name, self.destination)
        if self.epoch is not None:
            observer.ledger.count(self.epoch, status >= 500 or self.reading.failed)


class A2aRelay(Relay):
    """Streams an agent's answer; a card (``card_url`` set) is taken whole and rewritten."""

    __slots__ = (
        "_card",
        "_card_url",
        "_observer",
        "_status",
        "_track",
        "acting",
        "call",
        "operation",
        "others",
        "sign",
        "translates",
    )

    def __init__(
        self, upstreams: Upstreams, call: Call, observer: Observer, card_url: str, track: Track | None = None
    ) -> None:
        super().__init__(upstreams, call.exchange, _TIMEOUT)
        self._track = track
        self.call = call
        self._observer = observer
        self._card_url = card_url
        self._card = b""
        self._status = 0
        self.acting = b""
        self.operation = ""
        self.translates = False
        self.sign: Sign = lambda card, agent, url, done: done(card)
        self.others: list[tuple[Endpoint, str]] = []
        """Endpoints not tried yet, with the target of the request: a Pod may be gone before we are told."""

    @property
    def agent(self) -> str:
        return self.call.principal.agent

    def elsewhere(self) -> tuple[Origin, bytes] | None:
        if not self.others:
            return None
        endpoint, target = self.others.pop()
        return (endpoint.host, endpoint.port, False), _request(self.call, target, endpoint, self.acting)

    @property
    def target(self) -> tuple[str, str]:
        return "a2a", self.call.server

    def on_head(self, status: int, headers: list[Header]) -> None:
        self.heard = True
        self._status = status
        if self._card_url and status == 200:
            return
        self._card_url = ""
        kept = [header for header in headers if header[0] in _PASSED_BACK]
        if (b"content-type", b"text/event-stream") in [(k, v.partition(b";")[0]) for k, v in kept]:
            kept.append((b"x-accel-buffering", b"no"))
        self.exchange.start(status, kept)
        self.stream_to_client()

    def on_body(self, data: bytes) -> None:
        if self.finished:
            return
        self.heard = True
        if self._track is not None:
            self._track.reading.feed(data)
        if not self._card_url:
            self.exchange.write(data)
            return
        self._card += data
        if len(self._card) > _CARD_LIMIT:
            self.give_up(UpstreamError(f"its card is larger than {_CARD_LIMIT} bytes"))

    def complete(self) -> None:
        if self._card_url:
            try:
                url = self._card_url.rstrip("/")
                bearer = not self.call.principal.anonymous
                card = rewrite(self._card, url, bearer=bearer, translated=self.translates)
            except (*MALFORMED, AttributeError, KeyError, TypeError) as error:
                self.failed(UpstreamError(f"its card cannot be read: {error}"))
                return
            self.sign(card, self.call.server, url, self._serve_card)
            return
        self.exchange.finish()
        self._recorded()

    def _serve_card(self, card: dict[str, Any]) -> None:
        body = cards.encoded(card)
        tag = cards.etag(body)
        headers = [JSON, (b"cache-control", b"private, max-age=60"), (b"etag", tag.encode())]
        if cards.matches(self.call.headers.get(b"if-none-match", b"").decode("latin-1"), tag):
            self.exchange.respond(304, b"", headers[1:])
        else:
            self.exchange.respond(200, body, headers)
        self._recorded()

    def _recorded(self) -> None:
        if self._track is not None:
            self._track.over(self._observer, self._status)
        self._observer.finish(self.call, "ok" if self._status < 400 else "error", self._status)

    def failed(self, error: UpstreamError | TimedOut) -> None:
        status = 504 if isinstance(error, TimedOut) else 502
        message = f"agent {self.call.server} failed: {error}"
        if self._track is not None:
            self._track.over(self._observer, status)
        if self.exchange.started:
            self.exchange.abort()
        else:
            answer(self.call, status, message, protocol.UPSTREAM_FAILED)
        self._observer.finish(self.call, "error", status, message)

    def cancelled(self) -> None:
        if self._track is not None and self._track.reading.failed:
            self._track.over(self._observer, self._status)  # a client may leave as soon as it has read the failure
        self._observer.finish(self.call, "error", 499, "the client closed the connection")


class TranslatingRelay(A2aRelay):
    """Passes the answer of an agent of A2A 0.3 on as one of 1.0."""

    __slots__ = ("_up",)

    def on_head(self, status: int, headers: list[Header]) -> None:
        kinds = [value.partition(b";")[0].strip() for name, value in headers if name == b"content-type"]
        stream = kinds == [b"text/event-stream"]
        self._up = Up(self.operation, stream=stream, raw_id=self.call.raw_id or b"null")
        changed = (b"content-length",) if stream else (b"content-length", b"content-type")
        kept = [header for header in headers if header[0] not in changed]
        super().on_head(status, kept if stream else [*kept, JSON])

    def on_body(self, data: bytes) -> None:
        if self.finished:
            return
        try:
            translated = self._up.feed(data)
        except QuarterdeckError as error:
            self.give_up(UpstreamError(str(error)))
            return
        if translated:
            super().on_body(translated)
        self.heard = True

    def complete(self) -> None:
        rest = self._up.end()
        if rest and self._track is not None:
            self._track.reading.feed(rest)
        if rest:
            self.exchange.write(rest)
        super().complete()
