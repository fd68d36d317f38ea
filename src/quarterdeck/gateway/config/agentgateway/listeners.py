"""Listeners of a file: ``binds``, ``gateways`` with the routes that name them, and the simple ``mcp``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.merge import merged

from ..document import Path_
from . import checks, now
from .attachments import Attachments, Place
from .context import Context
from .policies import GatewayPolicies
from .routes import Routes
from .rules import policies
from .shared import PathMatch, RouteMatch

ANY = "0.0.0.0"  # noqa: S104 - as agentgateway does; routes without authentication answer loopback only
MCP_PORT = 3000
MCP_MATCHES = (RouteMatch(path=PathMatch(exact="/mcp")), RouteMatch(path=PathMatch(exact="/sse")))


@dataclass(slots=True)
class _Open:
    """A listener that routes may still be added to."""

    path: Path_
    place: Place
    listener: r.Listener
    routes: list[r.Route] = field(default_factory=list[r.Route])


@dataclass(slots=True)
class Listeners:
    """Translates everything of one file that listens."""

    context: Context
    routes: Routes
    attachments: Attachments
    found: list[_Open] = field(default_factory=list[_Open])

    def binds(self, models: list[now.Bind], gateway_names: dict[Path_, str]) -> None:
        """``gateway_names``: what listeners of October 2025 call their gateway."""
        for index, bind in enumerate(models):
            for number, model in enumerate(bind.listeners):
                path: Path_ = ("binds", index, "listeners", number)
                gateways = (f"bind/{bind.port}", gateway_names.get(path, "default"))
                name = model.name or f"listener{number}"
                place = Place(gateways, name, bind.port)
                opened = self._open(path, place, model.hostname, model.protocol, model.tls, (model.policies,))
                if model.routes is None and model.tcp_routes is None:
                    self.context.error(path, "has no routes")
                for order, route in enumerate(model.routes or []):
                    opened.routes.append(self.routes.route((*path, "routes", order), route, place, order))

    def gateways(self, root: now.Root) -> None:
        """``gateways`` and the routes that name them."""
        for name, gateway in root.gateways.items():
            path: Path_ = ("gateways", name)
            place = Place((name, "default"), "default", gateway.port)
            if not gateway.listeners:
                self._open(path, place, None, gateway.protocol, gateway.tls, (gateway,))
            for number, model in enumerate(gateway.listeners):
                here = (*path, "listeners", number)
                spot = replace(place, listener=model.name or f"listener{number}")
                protocol, tls = model.protocol or gateway.protocol, model.tls or gateway.tls
                self._open(here, spot, model.hostname, protocol, tls, (gateway, model))
        for order, route in enumerate(root.routes):
            path = ("routes", order)
            for opened in self._named((*path, "gateways"), path, route.gateways):
                opened.routes.append(self.routes.route(path, route, opened.place, order))

    def mcp(self, model: now.Mcp, listening: bool) -> None:
        """The simple ``mcp``: one virtual server at ``/mcp`` and ``/sse``."""
        path: Path_ = ("mcp",)
        if model.gateways is not None or (model.port is None and listening):
            opened = self._named((*path, "gateways"), path, model.gateways)
        else:
            port = MCP_PORT if model.port is None else model.port
            opened = [self._open(path, Place(("mcp", "default"), "default", port), None, "HTTP", None, ())]
        backend = now.McpBackend(
            targets=model.targets,
            stateful_mode=model.stateful_mode,
            prefix_mode=model.prefix_mode,
            failure_mode=model.failure_mode,
            virtual=model.virtual,
        )
        route = now.Route(
            name="mcp", matches=MCP_MATCHES, policies=model.policies, backends=[now.RouteBackend(mcp=backend)]
        )
        for one in opened:
            one.routes.append(self.routes.route(path, route, one.place, len(one.routes), group=path))

    def finish(self) -> tuple[r.Listener, ...]:
        """All listeners with their routes."""
        seen: dict[tuple[int, str], Path_] = {}
        names: set[str] = set()
        for opened in self.found:
            listener = opened.listener
            key = (listener.port, listener.hostname)
            if listener.port and key in seen:
                what = f"port {listener.port}" + (f" and host name {listener.hostname}" if listener.hostname else "")
                self.context.error(opened.path, f"another listener has {what}, too")
            if listener.name in names:
                self.context.error(opened.path, f"another listener is called {listener.name}, too")
            seen[key] = opened.path
            names.add(listener.name)
        return tuple(msgspec.structs.replace(one.listener, routes=tuple(one.routes)) for one in self.found)

    # -- one listener
    def _open(
        self,
        path: Path_,
        place: Place,
        hostname: str | None,
        protocol: str | None,
        tls: now.ServerTls | None,
        inline: tuple[GatewayPolicies | None, ...],
    ) -> _Open:
        secure = self._protocol(path, protocol, tls)
        name = place.keys["listener"]
        if not 0 <= place.port < 65536:
            self.context.error((*path, "port"), f"{place.port} is no port")
        self.context.places[f"listener {name}"] = self.context.places[f"listener/{name}"] = path
        rules = self.attachments.outer("listener", place, early=True)
        for model in inline:
            # `open` belongs to routes: a listener without rules has no chain of its own
            own = policies(replace(self.context, open=False), (*path, *self._inline(path)), model, f"listener/{name}")
            rules = merged(rules, own)
        certificates = (r.Certificate(tls.cert, tls.key),) if tls is not None and secure == "HTTPS" else ()
        client_ca = (tls.root or "") if tls is not None else ""
        host = "" if hostname in (None, "*") else hostname or ""
        if host:
            checks.host(self.context, (*path, "hostname"), host)
        listener = r.Listener(
            name=name,
            port=place.port,
            address=ANY,
            protocol=secure,
            hostname=host,
            certificates=certificates,
            client_ca=client_ca,
            policies=rules,
        )
        opened = _Open(path, place, listener)
        self.found.append(opened)
        return opened

    def _inline(self, path: Path_) -> Path_:
        return ("policies",) if path[0] == "binds" else ()

    def _protocol(self, path: Path_, protocol: str | None, tls: now.ServerTls | None) -> Literal["HTTP", "HTTPS"]:
        chosen = protocol or ("HTTPS" if tls is not None else "HTTP")
        if chosen not in ("HTTP", "HTTPS"):
            self.context.error((*path, "protocol"), f"{chosen} is not served; use HTTP or HTTPS")
            return "HTTP"
        if chosen == "HTTPS" and tls is None:
            self.context.error(path, "HTTPS needs tls with cert and key")
        if chosen == "HTTP" and tls is not None:
            self.context.error((*path, "tls"), "HTTP has no tls; write protocol: HTTPS")
        if tls is not None:
            self._versions((*path, "tls"), tls)
        return "HTTPS" if chosen == "HTTPS" else "HTTP"

    def _versions(self, path: Path_, tls: now.ServerTls) -> None:
        if tls.min_tls_version == "TLS_V1_3":
            self.context.error((*path, "minTLSVersion"), "TLS 1.2 cannot be switched off; use TLS_V1_2")
        if tls.max_tls_version not in (None, "TLS_V1_3"):
            self.context.error((*path, "maxTLSVersion"), "TLS 1.3 cannot be switched off; remove it")

    def _named(self, path: Path_, owner: Path_, names: str | list[str] | None) -> list[_Open]:
        """Listeners by ``gateway`` or ``gateway/listener``."""
        wanted = [names] if isinstance(names, str) else names or ["default"]
        result: list[_Open] = []
        for name in wanted:
            gateway, slash, listener = name.partition("/")
            fitting = [
                one
                for one in self.found
                if one.path[0] == "gateways" and one.place.gateways[0] == gateway
                and (not slash or one.place.listener == listener)
            ]  # fmt: skip
            if not fitting:
                known = sorted({one.place.gateways[0] for one in self.found if one.path[0] == "gateways"})
                there = f"; there are {', '.join(known)}" if known else "; this file has no gateways"
                missing = "names no gateway, and none is called default" if names is None else f"no gateway {name!r}"
                self.context.error(owner if names is None else path, missing + there)
            result.extend(one for one in fitting if one not in result)
        return result
