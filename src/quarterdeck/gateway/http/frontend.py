"""From a request on one of the snapshot's ports to its backend: listener, route, rules, backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from quarterdeck.wire.http import Exchange, Header

from ..a2a.endpoint import A2aEndpoint
from ..call import Call
from ..llm.endpoint import LlmEndpoint
from ..mcp.call import McpCall
from ..mcp.endpoint import McpEndpoint
from ..oauth import SIGN_IN_PAGES
from ..observe import Observer
from ..policy.authorizer import Decision
from ..policy.refusal import Refusal
from ..way import Routed, Way
from .call import HttpCall
from .endpoint import HttpEndpoint
from .headers import Edit, host_of
from .listeners import HttpListener, Port
from .matching import Found
from .paths import BadPath, Path
from .paths import parse as parse_path
from .route import Destination, HttpRoute, RouteChain

if TYPE_CHECKING:
    from ..oauth.pages import Pages
    from ..table import Table

Later = Coroutine[Any, Any, None] | None
_NO_ROUTE = "no route of this listener takes the request; check host name, path, method and headers"


class Frontend:
    """The handler of all ports of a snapshot. One per process; what it serves comes with each request."""

    def __init__(
        self, observer: Observer, http: HttpEndpoint, mcp: McpEndpoint, llm: LlmEndpoint, a2a: A2aEndpoint
    ) -> None:
        self._observer = observer
        self._http = http
        self._mcp = mcp
        self._llm = llm
        self._a2a = a2a
        self.pages: Pages | None = None
        """What browsers see of sign-ins at servers."""

    def handle(self, exchange: Exchange, port: Port, table: Table) -> Later:
        """Serve one request by ``port``, as it is in the snapshot of ``table``."""
        if self._observer.audit.blocked:
            self._observer.unavailable(exchange)
            return None
        head = exchange.head
        if head is not None:
            way: Way | None = head.memo
            if way is not None and way.table is table and self._holds(way, port, exchange):
                return self._follow(exchange, way)
            headers = dict(exchange.context)
        else:
            headers = dict(exchange.headers)
        exchange.context = headers
        problem, host, path = _read(exchange, headers)
        call = HttpCall(exchange, host, path, port.scheme)
        if problem:
            return self._refuse(call, Refusal(400, problem, outcome="error"))
        listener = port.listener(host)
        if listener is None:
            return self._refuse(
                call, Refusal(404, f"no listener serves host {host or 'without a name'}", outcome="error")
            )
        exchange.route = listener.ref
        if self.pages is not None and exchange.raw_path.startswith(SIGN_IN_PAGES):
            return self.pages.handle(exchange)
        if port.secure and not listener.shook_hands(exchange):
            exchange.keep_alive = False
            return self._refuse(
                call, Refusal(421, "the connection was made for another host name; make a new one", outcome="error")
            )
        if listener.chain is None:
            return self._find(call, listener, table)
        return self._admit(call, listener.chain, lambda: self._find(call, listener, table))

    # -- ways known
    def _holds(self, way: Way, port: Port, exchange: Exchange) -> bool:
        revocations, routed = way.table.authorizer.revocations, way.routed
        if routed is None or (revocations is not None and revocations.active) or not way.holds():
            return False
        return not port.secure or routed.listener.shook_hands(exchange)

    def _follow(self, exchange: Exchange, way: Way) -> Later:
        """Serve a request that others with the same head went before."""
        routed = way.routed
        assert routed is not None
        destination = routed.destination
        exchange.route = destination.route.ref
        exchange.target = routed.target
        call = McpCall(exchange, way.group, way.principal)
        call.way = way
        if len(exchange.body) > destination.policies.max_body:
            return self._stop(call, destination, _too_large(destination))
        refusal = destination.chain.admit_known(call, routed.known)
        if refusal is not None:
            return self._stop(call, destination, refusal)
        return self._mcp.serve(call)

    def _stop(self, call: McpCall, destination: Destination, refusal: Refusal) -> None:
        call.server, call.method = destination.name, call.exchange.method
        self._refuse(call, refusal)

    def _remember(self, call: HttpCall, listener: HttpListener, destination: Destination, table: Table) -> None:
        """Let others with the same head go the way of this request, where nothing else decides it."""
        exchange, group, policies = call.exchange, destination.group, destination.route.route.policies
        head = exchange.head
        if head is None or group is None or listener.chain is not None:
            return
        if not (destination.route.sole and listener.table.by_head):
            return
        own_answer = policies.redirect is not None or policies.direct_response is not None
        if own_answer or destination.response_headers is not None or not head.target.startswith(b"/"):
            return
        if group.sse and b"/sse" in head.target:  # the messages of an older client's stream, which is asked for them
            return
        known = destination.chain.known(call)
        if known is not None:
            way = head.memo = Way(table, group, call.principal, known.holds)
            way.routed = Routed(listener, destination, known, exchange.target)

    # -- steps
    def _find(self, call: HttpCall, listener: HttpListener, table: Table) -> Later:
        exchange = call.exchange
        if call.path.text.startswith("/.well-known/") or call.path.text.endswith("/client-registration"):
            answer = self._well_known(call, listener)
            if answer is not None:
                return answer()
        found = listener.table.find(call.host, call.path, exchange, call.headers)
        if found is None:
            return self._refuse(call, Refusal(404, _NO_ROUTE, outcome="error"))
        route = found.route
        exchange.route = route.ref
        destination = route.choose(call.headers) if route.destinations else None
        if destination is None:
            if route.response_headers is not None:
                exchange.edit_head(_answers(route.response_headers))
            return self._admit(call, route.chain, lambda: self._alone(call, found))
        call.kind = destination.kind
        call.server = destination.name
        if len(exchange.body) > destination.policies.max_body:
            return self._refuse(call, _too_large(destination))
        return self._admit(
            call, destination.chain, lambda: self._serve(call, listener, destination, found.prefix, table)
        )

    def _admit(self, call: HttpCall, chain: RouteChain, go_on: Callable[[], Later]) -> Later:
        if chain.edits_response:
            call.exchange.edit_head(lambda status, headers: chain.incoming(call, status, headers))
        refusal = chain.admit(call)
        if refusal is None:
            return go_on()
        if isinstance(refusal, Refusal):
            return self._refuse(call, refusal)
        return self._wait(call, refusal, go_on)

    async def _wait(
        self, call: HttpCall, pending: Coroutine[Any, Any, Refusal | None], go_on: Callable[[], Later]
    ) -> None:
        try:
            refusal = await pending
        except asyncio.CancelledError:
            self._observer.finish(call, "error", 499, "the client closed the connection")
            raise
        if refusal is not None:
            self._refuse(call, refusal)
            return
        rest = go_on()
        if rest is not None:
            await rest

    def _alone(self, call: HttpCall, found: Found[HttpRoute]) -> Later:
        """A route without backends, or none of them with a weight."""
        if not self._http.answer(call, found.route, found.prefix):
            text = f"route {found.route.label} has no backend with a weight above 0"
            return self._refuse(call, Refusal(500, text, outcome="error"))
        return None

    def _serve(
        self, call: HttpCall, listener: HttpListener, destination: Destination, prefix: int, table: Table
    ) -> Later:
        exchange = call.exchange
        if destination.error:
            return self._refuse(call, Refusal(500, destination.error, outcome="error"))
        if self._http.answer(call, destination.route, prefix):
            return None
        if destination.response_headers is not None:
            exchange.edit_head(_answers(destination.response_headers))
        if destination.http is not None:
            self._http.forward(call, destination, destination.http, prefix)
        elif destination.group is not None:
            self._remember(call, listener, destination, table)
            return self._mcp.handle(exchange, destination.group, call.principal)
        elif destination.agent:
            rest = call.path.after(prefix) or b"/"
            target = _target(rest, call.path).decode("latin-1")
            self._a2a.serve(exchange, table, call.principal, destination.agent, target, call.path.text[:prefix])
        else:
            rest = call.path.after(prefix)
            exchange.target = b"/llm/%b%b" % (destination.model.encode(), _target(rest, call.path))
            self._llm.handle(exchange, table, call.principal)
        return None

    def _well_known(self, call: HttpCall, listener: HttpListener) -> Callable[[], Later] | None:
        """Metadata of authorization, which lies beside the resource and not below it (RFC 9728 §3)."""
        from ..policy.wellknown import parse as parse_well_known

        parsed = parse_well_known(call.path.text)
        if parsed is None:
            return None
        kind, resource = parsed
        path = Path(resource.encode(), resource)
        found = listener.table.find(call.host, path, call.exchange, call.headers)
        if found is None:
            return None
        route = found.route
        destination = route.choose(call.headers) if route.destinations else None
        chain = destination.chain if destination is not None else route.chain
        well_known = chain.well_known
        if well_known is None:
            return None
        call.exchange.route = route.ref

        def answer() -> Later:
            given = well_known(call, kind, resource)
            if isinstance(given, Refusal):
                return self._refuse(call, given)
            return self._wait(call, given, lambda: None)

        return answer

    def _refuse(self, call: Call, refusal: Refusal) -> None:
        if refusal.rule and call.decision is None:
            call.decision = Decision("deny" if refusal.outcome == "denied" else "allow", refusal.rule, refusal.message)
        self._http.refuse(call, refusal)


def _too_large(destination: Destination) -> Refusal:
    return Refusal(413, f"request body is larger than {destination.policies.max_body} bytes", outcome="error")


def _answers(edit: Edit) -> Callable[[int, list[Header]], list[Header]]:
    return lambda _, headers: edit(headers)


def _target(rest: bytes, path: Path) -> bytes:
    return b"%b?%b" % (rest, path.query) if path.query else rest


_NOWHERE = Path(b"/", "/")


def _read(exchange: Exchange, headers: dict[bytes, bytes]) -> tuple[str, str, Path]:
    """What is wrong with the request (empty: nothing), the host and the path it names."""
    if len(headers) != len(exchange.headers) and sum(name == b"host" for name, _ in exchange.headers) > 1:
        return "header host may be sent once only", "", _NOWHERE
    target = exchange.target
    if not target.startswith(b"/"):
        if target == b"*" or exchange.method == "CONNECT":
            return f"{exchange.method} is not served here", "", _NOWHERE
        try:
            parts = urlsplit(target.decode("latin-1"))
        except ValueError:
            return "the request target is no URL", "", _NOWHERE
        if parts.scheme.lower() not in ("http", "https") or not parts.netloc:
            return "the request target is no URL", "", _NOWHERE
        headers[b"host"] = parts.netloc.encode("latin-1")  # RFC 9112 §3.2.2: it wins over the header
        target = (parts.path or "/").encode("latin-1") + (f"?{parts.query}" if parts.query else "").encode("latin-1")
    given = headers.get(b"host")
    host = host_of(given) if given else ""
    if host is None or (given is None and not exchange.old):
        return "the request names no host that could be one", "", _NOWHERE
    try:
        path = parse_path(target)
    except BadPath as error:
        return str(error), host, _NOWHERE
    exchange.target = path.target  # rules read the form that is matched
    return "", host, path
