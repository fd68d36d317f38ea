"""From a request to its endpoint: browser checks, authentication, then the path decides."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from quarterdeck.wire.http import Exchange

from .a2a.endpoint import A2aEndpoint
from .call import Call
from .hooks import PREFIX as HOOKS
from .hooks import Hooks
from .llm.endpoint import LlmEndpoint
from .mcp.asleep import LIST_HOLD, needed
from .mcp.call import McpCall
from .mcp.endpoint import McpEndpoint
from .oauth import SIGN_IN_PAGES
from .observe import Observer
from .policy.authentication import Unauthenticated, is_loopback
from .policy.authorizer import Decision, Request
from .policy.principal import Principal
from .revocations import Revocations
from .table import Table
from .wake import RETRY_AFTER, Sleeper, Waker
from .way import Way

if TYPE_CHECKING:
    from .oauth.pages import Pages

LOCAL = "local"
WORKLOADS = "workloads"

_ONCE = (b"authorization", b"host", b"origin", b"sec-fetch-site")
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


HOLD = 2.0
"""Seconds a call waits for a known server or agent that has no ready endpoint."""


def _unready(table: Table, path: bytes) -> bool:
    """Whether the path names a server or agent that we know and that has no endpoint at the moment."""
    route = table.mcp.get(path)
    if route is not None:
        return not route.server.endpoints
    if not path.startswith(b"/a2a/"):
        return False
    agent = table.agents.get("/".join(path.decode("latin-1").split("/", 4)[2:4]))
    if agent is None or agent.endpoints:
        return False
    return agent.split is None or not any(backend.endpoints for backend in agent.split.backends)


def _sleeper(table: Table, path: bytes) -> Sleeper | None:
    """The server or agent the path names, when the control plane may be asked to start it."""
    route = table.mcp.get(path)
    if route is not None:
        return route.target if route.server.wake else None
    agent = table.agents.get("/".join(path.decode("latin-1").split("/", 4)[2:4]))
    return ("Agent", agent.namespace, agent.name) if agent is not None and agent.wake else None


class Router:
    """The handler of both listeners. :attr:`table` is replaced when a new snapshot is accepted."""

    def __init__(
        self,
        table: Table,
        observer: Observer,
        mcp: McpEndpoint,
        llm: LlmEndpoint,
        a2a: A2aEndpoint,
        waker: Waker | None = None,
    ) -> None:
        self.table = table
        self._waker = waker
        self.revocations: Revocations | None = None
        self.pages: Pages | None = None
        """What browsers see of sign-ins at servers."""
        self.hooks: Hooks | None = None
        self._observer = observer
        self._mcp = mcp
        self._llm = llm
        self._a2a = a2a

    def handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        if self._observer.audit.blocked:
            self._observer.unavailable(exchange)
            return None
        table = self.table
        head = exchange.head
        if head is not None:
            way: Way | None = head.memo
            if way is not None and way.table is table and self._holds(way, exchange):
                call = McpCall(exchange, way.group, way.principal)
                call.way = way
                return self._mcp.serve(call)
        path = exchange.raw_path
        if self.pages is not None and path.startswith(SIGN_IN_PAGES):
            return self.pages.handle(exchange)
        if self.hooks is not None and path.startswith(HOOKS) and exchange.listener == LOCAL:
            return self.hooks.handle(exchange, table.hooks)
        principal = self._admit(exchange, table, path)
        if principal is None:
            return None
        if _unready(table, path):
            return self._hold(exchange, path, principal)
        if table.asleep and path.startswith(b"/mcp") and exchange.method == "POST":
            group = table.groups["mcp"] if path == b"/mcp" else table.virtual.get(path)
            sleepers, listing = needed(group, exchange.body, principal) if group is not None else ([], False)
            if sleepers:
                return self._hold_aggregated(exchange, path, sleepers, listing, principal)
        return self._dispatch(exchange, table, path, principal)

    def _holds(self, way: Way, exchange: Exchange) -> bool:
        """Whether a request with a known head comes from the same caller; one without a token is known by address."""
        if self.revocations is not None and self.revocations.active:
            return False
        return way.holds() and (not way.principal.anonymous or exchange.peer is None or is_loopback(exchange.peer[0]))

    async def _hold_aggregated(
        self, exchange: Exchange, path: bytes, sleepers: list[Sleeper], listing: bool, principal: Principal
    ) -> None:
        """Wake those of several servers that a request needs; one that does not start is told as any that is down."""
        if self._waker is not None:
            most = LIST_HOLD if listing else inf
            await asyncio.gather(*(self._waker.ready(sleeper, most) for sleeper in sleepers))
        rest = self._dispatch(exchange, self.table, path, principal)
        if rest is not None:
            await rest

    async def _hold(self, exchange: Exchange, path: bytes, principal: Principal) -> None:
        """Wait a moment for an endpoint: what the API calls Ready reaches us a little later than its other watchers.

        What is scaled to zero is woken first, by callers who may use it.
        """
        sleeper = _sleeper(self.table, path)
        if sleeper is not None and self._waker is not None:
            if self.table.authorizer.decide(Request(principal, sleeper, "initialize")).allow:
                problem = await self._waker.ready(sleeper)
                if problem:
                    after = (b"retry-after", b"%d" % RETRY_AFTER)
                    self._refuse(exchange, 503, f"{problem}; try again", principal, after)
                    return
            rest = self._dispatch(exchange, self.table, path, principal)
            if rest is not None:
                await rest
            return
        for _ in range(int(HOLD / 0.1)):
            await asyncio.sleep(0.1)
            if exchange.disconnected:
                return
            if not _unready(self.table, path):
                break
        rest = self._dispatch(exchange, self.table, path, principal)
        if rest is not None:
            await rest

    def _dispatch(
        self, exchange: Exchange, table: Table, path: bytes, principal: Principal
    ) -> Coroutine[Any, Any, None] | None:
        route = table.mcp.get(path)
        if route is not None:
            head = exchange.head
            if head is not None and route.server.endpoints:
                holds = table.authenticator.holding(exchange.context.get(b"authorization"))
                head.memo = Way(table, route.group, principal, holds)
            return self._mcp.handle(exchange, route.group, principal)
        if path == b"/mcp":
            return self._mcp.handle(exchange, table.groups["mcp"], principal)
        if path.startswith((b"/llm/", b"/v1/")):
            self._llm.handle(exchange, table, principal)
        elif path.startswith(b"/a2a/"):
            self._a2a.handle(exchange, table, principal)
        elif path in table.virtual:
            group = table.virtual[path]
            exchange.route = group.ref
            return self._mcp.handle(exchange, group, principal)
        else:
            self._refuse(exchange, 404, f"{exchange.path} is not served here; see /mcp, /llm and /a2a", principal)
        return None

    def _admit(self, exchange: Exchange, table: Table, path: bytes) -> Principal | None:
        """The caller, or None after a refusal was answered."""
        headers = exchange.context = exchange.context or dict(exchange.headers)
        host = headers.get(b"host", b"")
        origin = headers.get(b"origin")
        if len(headers) != len(exchange.headers):
            names = [name for name, _ in exchange.headers]
            twice = next((name for name in _ONCE if names.count(name) > 1), None)
            if twice is not None:
                self._refuse(exchange, 400, f"header {twice.decode()} may be sent once only")
                return None
        site = headers.get(b"sec-fetch-site")
        if origin is None and site is not None and site not in (b"same-origin", b"none"):
            self._refuse(exchange, 403, "requests from pages of other sites are not allowed")
            return None
        if origin is not None and not _allowed_origin(origin, host):
            self._refuse(exchange, 403, "requests from this web origin are not allowed")
            return None
        try:
            principal = table.authenticator.authenticate(
                headers.get(b"authorization"), local=exchange.listener == LOCAL, peer=exchange.peer
            )
        except Unauthenticated as error:
            self._challenge(exchange, error)
            return None
        if principal.anonymous and _host_name(host) not in _LOOPBACK_NAMES:
            # a page whose name was re-bound to 127.0.0.1 would otherwise act as the person at this machine
            text = "without a token this gateway answers to localhost and 127.0.0.1 only"
            self._refuse(exchange, 403, text, principal)
            return None
        revoked = self.revocations
        if revoked is not None and revoked.active and (denial := revoked.refusal(principal, headers)) is not None:
            self._refuse(exchange, 403, denial.reason, principal, decision=denial)
            return None
        return principal

    def _challenge(self, exchange: Exchange, error: Unauthenticated) -> None:
        text = str(error).replace('"', "'")
        value = 'Bearer realm="quarterdeck"'
        if error.error:
            value += f', error="{error.error}", error_description="{text}"'
        self._refuse(exchange, 401, str(error), None, (b"www-authenticate", value.encode("ascii", "replace")))

    def _refuse(
        self,
        exchange: Exchange,
        status: int,
        message: str,
        principal: Principal | None = None,
        *headers: tuple[bytes, bytes],
        decision: Decision | None = None,
    ) -> None:
        """Answer and record a request that reached no endpoint."""
        path = exchange.raw_path
        kind = "a2a" if path.startswith(b"/a2a/") else "mcp" if path.startswith(b"/mcp") else "llm"
        call = Call(exchange, kind, "")  # the path is the caller's text: not fit for a metric label
        if principal is not None:
            call.principal = principal
        call.decision = decision
        self._observer.begin(call)
        self._observer.finish(call, "error" if status in (404, 503) else "denied", status, message[:500])
        body = msgspec.json.encode({"error": {"message": message, "code": status}})
        exchange.respond(status, body, [(b"content-type", b"application/json"), *headers])


@lru_cache(maxsize=32)
def _host_name(host: bytes) -> str:
    try:
        return urlsplit(f"//{host.decode('latin-1')}").hostname or ""
    except ValueError:
        return ""


def _allowed_origin(origin: bytes, host: bytes) -> bool:
    """Pages of this machine, or of the very host the request was sent to (RFC 6454)."""
    try:
        parts = urlsplit(origin.decode("latin-1"))
    except ValueError:
        return False
    return parts.hostname in _LOOPBACK_NAMES or (bool(parts.netloc) and parts.netloc.encode("latin-1") == host)
