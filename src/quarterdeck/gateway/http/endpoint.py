"""Requests for plain HTTP services, and the answers that a route gives by itself."""

from __future__ import annotations

from quarterdeck.telemetry import names
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.http import Header

from ..call import Call
from ..observe import Observer
from ..policy.refusal import Refusal
from ..policy.services import Services
from ..upstream import Upstreams
from .call import HttpCall, RouteRef
from .filters import location
from .mirror import Mirrors
from .relay import HttpRelay
from .request import HttpRequest
from .route import Destination, HttpRoute, HttpTarget

_TEXT: Header = (b"content-type", b"text/plain; charset=utf-8")


class HttpEndpoint:
    """Serves what is no MCP server, agent or model."""

    def __init__(self, upstreams: Upstreams, observer: Observer, registry: Registry, services: Services) -> None:
        self._upstreams = upstreams
        self._services = services
        self._observer = observer
        self._mirrors = Mirrors()
        self._retries = registry.counter(
            names.HTTP_RETRIES, "Requests sent once more.", ("gateway", "listener", "route", "route_rule")
        )
        registry.gauge(
            names.MIRRORS_DROPPED,
            "Copies of requests that were not sent or not answered.",
            lambda: [({}, float(self._mirrors.dropped))],
            kind="counter",
        )

    def answer(self, call: HttpCall, route: HttpRoute, prefix: int) -> bool:
        """Whether the route answers by itself: a redirect or a configured response. It is sent then."""
        policies = route.route.policies
        if policies.redirect is not None:
            scheme, host = self._services.forwarded(call.exchange, call.headers)
            name = host[: -len(port) - 1] if (port := host.rpartition(":")[2]).isdigit() else host
            to = location(policies.redirect, call.path, prefix, scheme=scheme, host=name, port=route.ref.port)
            status, headers, body = policies.redirect.status, [(b"location", to)], b""
        elif policies.direct_response is not None:
            status, headers, body = policies.direct_response.status, [_TEXT], policies.direct_response.body.encode()
        else:
            return False
        self._observer.begin(call)
        call.exchange.respond(status, body, headers)
        self._observer.finish(call, "ok" if status < 500 else "error", status)
        return True

    def forward(self, call: HttpCall, destination: Destination, target: HttpTarget, prefix: int) -> None:
        """Send the request on, and copies of it to the route's mirrors."""
        origin = target.address()
        if origin is None:
            self.refuse(call, Refusal(503, f"backend {target.name} has no ready endpoint", outcome="error"))
            return
        self._observer.begin(call)
        request = HttpRequest(call, destination, prefix, self._services.forwarded(call.exchange, call.headers))
        for mirrored in destination.route.mirrors:
            if mirrored.due():
                self._mirrors.send(call.method, request, mirrored.target)
        if destination.budget is not None:
            destination.budget.request()
        ref: RouteRef = destination.route.ref
        retries = self._retries.labels(ref.gateway, ref.listener, ref.route, ref.rule)
        relay = HttpRelay(self._upstreams, call, self._observer, destination, target, request, retries)
        relay.send(origin)

    def refuse(self, call: Call, refusal: Refusal) -> None:
        """Answer instead of a backend, and record it."""
        self._observer.begin(call)
        headers, body = refusal.content()
        if call.exchange.method == "HEAD":  # there are clients that decode by the type of what is not there
            headers = [header for header in headers if header[0] != b"content-type"]
        call.exchange.respond(refusal.status, body, headers)
        self._observer.finish(call, refusal.outcome, refusal.status, refusal.message[:500])
