"""From a request to its server: both protocol eras, passed through under policy.

A request to one server goes through :attr:`McpEndpoint.stages` in order; a stage that has answered returns False. Where
several servers are behind one path, :mod:`.multiplex` finds out which one is meant and then takes the same stages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import lists, protocol
from quarterdeck.wire.client import Origin
from quarterdeck.wire.http import Exchange

from ..limits.stage import ToolLimits
from ..observe import Observer
from ..policy.authorizer import Decision
from ..policy.principal import Principal
from ..policy.refusal import Refusal
from ..upstream import Upstreams
from . import naming
from .answers import Answers, filters, sight
from .approvals import Approvals
from .call import McpCall, Problem, Transform, read
from .eras import Eras
from .groups import McpGroup
from .heads import request_bytes
from .multiplex import Multiplexer
from .older import OlderServers
from .oldest import OldestClients
from .peers import Peers
from .permits import Permits
from .pinned import Pinned
from .relay import GreetingRelay, McpRelay, answer_error
from .session import Session, SessionSealer
from .shared import Conversations
from .stateless import StatelessMultiplexer
from .subscriptions import subscribed


class McpEndpoint:
    """Serves MCP groups: one server, or many behind one endpoint."""

    def __init__(self, upstreams: Upstreams, observer: Observer, sealer: SessionSealer, limits: ToolLimits) -> None:
        self._upstreams = upstreams
        self._observer = observer
        self._sealer = sealer
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._eras = Eras()
        self._answers = Answers(observer)
        self.peers = Peers(sealer, self._answers)
        self.peers.handle = self.handle
        shared = Conversations()
        self._oldest = OldestClients(upstreams, sealer, self.peers, self._answers, self.handle)
        self._older = OlderServers(upstreams, observer, sealer, self.peers, shared)
        self._stateless = StatelessMultiplexer(upstreams, self._answers, self._eras, shared, sealer, self.run)
        self._multiplexer = Multiplexer(upstreams, observer, sealer, self._eras, self.peers, self.run)
        pinned = Pinned(self._answers, self._after_pins)
        self.approvals = Approvals(self._answers, sealer, self._after_approvals)
        self.permits = Permits(self._answers, sealer, self.approvals, self._after_approvals)
        self.stages: tuple[Callable[[McpCall], bool], ...] = (
            self._authorize, pinned.keep, limits.keep, self.permits.keep, self.approvals.keep, self._same_era,
            self._locate, self._forward,
        )  # fmt: skip
        self._unpinned = self.stages[2:]
        self._approved = self.stages[5:]

    def handle(self, exchange: Exchange, group: McpGroup, principal: Principal) -> Coroutine[Any, Any, None] | None:
        """Answer one request of any method; a coroutine when something must be awaited."""
        if not group.limited:
            self._limits.fill(group)
        if group.sse and b"/sse" in exchange.target and self._oldest.takes(exchange):
            return self._oldest.serve(exchange, group, principal)
        return self.serve(McpCall(exchange, group, principal))

    def serve(self, call: McpCall) -> Coroutine[Any, Any, None] | None:
        """Answer a call of which only the caller and the group are known yet."""
        group = call.group
        if group.doors and call.principal.agent:
            call.act_for(self.approvals.acting.of(call.principal, call.headers))
        self._observer.begin(call)
        problem = read(call)
        if problem is not None:
            self._answers.invalid(call, problem)
            return None
        if group.single is not None and self._passes(call):
            return self.run(call)
        if call.done:
            return None
        return self._stateless.handle(call) if call.modern else self._multiplexer.handle(call)

    def run(self, call: McpCall) -> Coroutine[Any, Any, None] | None:
        """Take a call whose server is known through the stages."""
        for stage in self.stages:
            if not stage(call):
                return call.later
        return None

    def _after_pins(self, call: McpCall) -> Coroutine[Any, Any, None] | None:
        """Go on with a call that waited for its server's tools to be looked at."""
        for stage in self._unpinned:
            if not stage(call):
                return call.later
        return None

    def _after_approvals(self, call: McpCall) -> Coroutine[Any, Any, None] | None:
        """Go on with a call that the control plane was asked about."""
        for stage in self._approved:
            if not stage(call):
                return call.later
        return None

    # -- stages
    def _passes(self, call: McpCall) -> bool:
        """Whether a call to a group of one server may go there as it is; opens the client's session."""
        if call.modern:
            return True
        if not call.group.stateful:
            return False
        token = call.headers.get(protocol.H_SESSION)
        if token is None or call.method == protocol.INITIALIZE:
            return call.route.plain and not self._eras.newer(call.route)
        way, sealer = call.way, self._sealer
        if way is not None and way.session is not None and way.opened == sealer.generation:
            session = way.session
        else:
            session = sealer.open(token, call.group.binding(call.principal))
            if way is not None:
                way.session, way.opened = session, sealer.generation
        call.session = session
        if session is None:
            self._answers.invalid(call, Problem("unknown session; initialize again", status=404))
            return False
        return not session.owner

    def _authorize(self, call: McpCall) -> bool:
        name = call.tool or call.own
        method = call.asked_as or call.method
        decision = call.judge(call.member, method, name, call.exposed)
        if method == protocol.LISTEN and decision.verdict != "deny":
            decision = self._subscribes(call, decision)
        call.decision = decision
        chain = call.member.chain
        if call.approved is not None and decision.verdict != "deny":  # another attempt
            call.decision = call.approved
            return True
        if decision.verdict == "deny" or (decision.verdict == "approval" and call.method != protocol.TOOLS_CALL):
            granted = chain is not None and call.lane.decide(call.method, call.tool).verdict != "deny"
            if (
                granted and name and decision.verdict == "deny"
            ):  # rules of a route: what they deny does not exist for the caller
                self._answers.unknown(call, call.exposed or name)
            else:
                self._answers.refused(call, decision)
            return False
        refusal = chain.step_up(call, name, call.exposed or name) if chain is not None and call.tool else None
        if refusal is not None:
            self._answers.stopped(call, refusal)
        return refusal is None

    def _subscribes(self, call: McpCall, decision: Decision) -> Decision:
        """Who may listen hears of no resource that they may not subscribe to."""
        try:
            uris = subscribed(call)
        except MALFORMED:
            uris = []  # the server refuses it
        judged = (call.judge(call.member, naming.SUBSCRIBE, uri, uri) for uri in uris)
        return next((one for one in judged if one.verdict == "deny"), decision)

    def _same_era(self, call: McpCall) -> bool:
        """Hand over what is said in an era that the server does not speak, or may not."""
        if not call.modern or not call.route.reachable:
            return True
        if not call.route.plain:
            call.later = self._older.handle(call)
            return False
        if self._eras.modern(call.route):
            return True
        call.later = self._across_eras(call)
        return False

    async def _across_eras(self, call: McpCall) -> None:
        try:
            modern = await self._eras.speaks_modern(call.route, call.lane, call.added(call.member))
        except (UpstreamError, TimedOut) as error:
            code, status = (protocol.TIMED_OUT, 504) if isinstance(error, TimedOut) else (protocol.UPSTREAM_FAILED, 502)
            message = f"MCP server {call.server} failed: {error}; {call.route.remedy}"
            answer_error(call, code, message, status=200 if call.raw_id else status)
            self._observer.finish(call, "error", status, message)
            return
        if not modern:
            await self._older.handle(call)
            return
        rest = self._go_on(call)
        if rest is not None:
            await rest

    def _locate(self, call: McpCall) -> bool:
        """Find the upstream's address, and that of its session."""
        session = call.session
        if call.client is not None and session is None:
            call.later = self._multiplexer.connect(call, self._go_on)
            return False
        if session is not None:
            call.origin = call.route.origin(session.host, session.port)
            if call.origin is None and call.route.server.endpoints and call.client is None:
                text = f"MCP server {call.server} no longer runs where this session lives; initialize again"
                self._answers.invalid(call, Problem(text, status=404))
                return False
        if call.origin is None:
            call.origin = call.route.origin()
        if call.origin is None:
            message = f"MCP server {call.server} has no ready endpoint; {call.route.remedy}"
            answer_error(call, protocol.UPSTREAM_FAILED, message, status=200 if call.raw_id else 503)
            self._observer.finish(call, "error", 503, message)
            return False
        return True

    def _go_on(self, call: McpCall) -> Coroutine[Any, Any, None] | None:
        """Send a call that was allowed: the server's era, or its session, is known now."""
        call.later = None
        if self._locate(call):
            self._forward(call)
        return call.later

    def _forward(self, call: McpCall) -> bool:
        chain = call.member.chain
        if chain is not None:
            ready = chain.prepare(call)
            if isinstance(ready, Refusal):
                self._answers.stopped(call, ready)
                return False
            if ready is not None:
                call.later = self._prepared(call, ready)
                return False
        self._transmit(call)
        return True

    async def _prepared(self, call: McpCall, ready: Coroutine[Any, Any, Refusal | None]) -> None:
        """A token for the server has to be got first."""
        refusal = await ready
        if refusal is not None:
            self._answers.stopped(call, refusal)
        else:
            self._transmit(call)

    def _transmit(self, call: McpCall) -> None:
        origin = call.origin
        assert origin is not None
        relay = self._relay(call, origin)
        bounds = call.member.limits.bounds
        if bounds is not None:
            bounds.apply(relay, call, self._again, self._answers.gone)
        self._upstreams.send(call.route.pool, origin, relay, request_bytes(call, origin))

    def _again(self, call: McpCall) -> None:
        """Another attempt: where the session lives, else at the next address; who was revoked meanwhile makes none."""
        if not self._authorize(call):
            return
        if call.session is None:
            call.origin = None
        rest = self._go_on(call)
        if rest is not None:
            task = asyncio.get_running_loop().create_task(rest)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # -- inside
    def _relay(self, call: McpCall, origin: Origin) -> McpRelay:
        if call.client is not None:
            return self._multiplexer.relay(call, self._go_on)
        kind = GreetingRelay if call.method == protocol.INITIALIZE and not call.modern else McpRelay
        relay = kind(
            self._upstreams,
            call.exchange,
            call,
            self._observer,
            timeout=0.0 if call.method in ("GET", "subscriptions/listen") else call.route.server.timeout,
            transform=call.transform if call.tool else call.transform or self._filter(call),
        )
        if isinstance(relay, GreetingRelay):
            relay.seal = self._sealing(call, origin)
            relay.newer = lambda otherwise: self._multiplexer.newer(call, otherwise)
        return relay

    def _sealing(self, call: McpCall, origin: Origin) -> Callable[[bytes], bytes]:
        def seal(upstream: bytes) -> bytes:
            session = Session(upstream.decode("latin-1"), origin[0], origin[1])
            return self._sealer.seal(session, call.group.binding(call.principal), call.group.lot)

        return seal

    def _filter(self, call: McpCall) -> Transform | None:
        """Lists show what the caller may use."""
        key = lists.LIST_KEYS.get(call.method)
        if key is None or not filters(call, call.member):
            return None
        member = call.member

        def transform(body: bytes) -> bytes:
            return lists.filter_message(body, key, sight(call, member, key), private=call.modern)

        return transform
