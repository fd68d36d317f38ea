"""``/config_dump``: what is served, in agentgateway's shape, and whole in our own below ``quarterdeck``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quarterdeck.snapshot import Child, McpServer, Snapshot, redacted
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Policies

if TYPE_CHECKING:
    from .files import FileSource

Json = dict[str, Any]


def config_dump(snapshot: Snapshot, files: FileSource | None, problems: Mapping[str, str]) -> Json:
    """Without secrets. ``files``: where it comes from; ``problems``: listeners that are not served, with the reason."""
    own: Json = {"snapshot": redacted(snapshot)}
    if files is not None:
        own["source"] = source(files)
    if problems:
        own["problems"] = dict(problems)
    return {
        "binds": _binds(snapshot),
        "backends": _backends(snapshot),
        "policies": [],
        "workloads": [],
        "services": [],
        "quarterdeck": own,
    }


def source(files: FileSource) -> Json:
    """The file that is served, since when, and why a newer one is not."""
    loaded = files.loaded
    shown: Json = {"state": "rejected" if files.error else "serving", "rejected": files.rejected}
    if loaded is not None:
        shown |= {"name": loaded.name, "format": loaded.title, "since": files.since, "warnings": list(loaded.warnings)}
    if files.error:
        shown["error"] = files.error.splitlines()
    return shown


def _binds(snapshot: Snapshot) -> list[Json]:
    binds: dict[tuple[str, int], Json] = {}
    for listener in snapshot.listeners:
        gateway = listener.gateway or snapshot.gateway
        key = f"bind/{listener.port}" if snapshot.gateway.startswith("file/") else f"{listener.port}/{gateway}"
        bind = binds.setdefault(
            (listener.address, listener.port),
            {"key": key, "address": f"{listener.address or '0.0.0.0'}:{listener.port}", "listeners": {}},  # noqa: S104 - shown
        )
        shown = _listener(listener, gateway)
        bind["listeners"][shown["key"]] = shown
    return list(binds.values())


def _listener(listener: r.Listener, gateway: str) -> Json:
    name = listener.name.rpartition("/")[2]
    routes: Json = {}
    for route in listener.routes:
        rules = sum(1 for known in routes.values() if known["routeName"] == route.name)
        shown = _route(route, f"{route.name}.{rules}.0.{name}")
        routes[shown["key"]] = shown
    shown = {
        "key": f"{gateway}.{name}",
        "name": name,
        "gatewayName": gateway,
        "hostname": listener.hostname,
        "protocol": listener.protocol,
        "routes": routes,
        "tcpRoutes": {},
    }
    return shown | _policies(listener.policies)


def _route(route: r.Route, key: str) -> Json:
    shown: Json = {"key": key, "routeName": route.name}
    if route.rule:
        shown["ruleName"] = route.rule
    if route.hostnames:
        shown["hostnames"] = list(route.hostnames)
    shown["matches"] = [_match(match) for match in route.matches]
    shown["backends"] = [
        {"weight": backend.weight, "backend": _name(backend, route, index)}
        for index, backend in enumerate(route.backends)
    ]
    return shown | _policies(route.policies)


def _match(match: r.Match) -> Json:
    kind = {"prefix": "pathPrefix", "exact": "exact", "regex": "regex"}[match.path.kind]
    shown: Json = {"path": {kind: match.path.value}}
    for name, texts in (("headers", match.headers), ("query", match.query)):
        if texts:
            shown[name] = [{"name": one.name, "value": {"regex" if one.regex else "exact": one.value}} for one in texts]
    if match.method:
        shown["method"] = match.method
    return shown


def _policies(policies: Policies) -> Json:
    shown = redacted(policies)
    return {"inlinePolicies": shown} if shown else {}


def _name(backend: r.RouteBackend, route: r.Route, index: int) -> str:
    if backend.http is not None:
        return backend.http.name
    if backend.mcp is not None:
        return backend.mcp.name
    return backend.agent or backend.model or f"{route.name}/backend{index}"


def _backends(snapshot: Snapshot) -> list[Json]:
    servers = {f"{server.kind}/{server.namespace}/{server.name}": server for server in snapshot.mcp}
    children = {child.server: child for child in snapshot.children}
    found: dict[str, Json] = {}
    hosts: dict[str, Json] = {}
    for listener in snapshot.listeners:
        for route in listener.routes:
            for index, backend in enumerate(route.backends):
                name = _name(backend, route, index)
                if backend.mcp is not None:
                    targets = [_target(name, one, servers, children, hosts) for one in backend.mcp.targets]
                    found[name] = {
                        "mcp": {"name": name, "target": {"targets": targets, "stateful": backend.mcp.stateful}}
                    }
                elif backend.http is not None:
                    found[name] = {"host": {"name": name, "target": _addresses(backend.http.addresses)}}
                elif backend.error:
                    found[name] = {"invalid": {"name": name, "reason": backend.error}}
                else:
                    kind = "agent" if backend.agent else "model"
                    found[name] = {kind: {"name": name}}
    return [*found.values(), *hosts.values()]


def _target(
    group: str, target: r.McpTarget, servers: Mapping[str, McpServer], children: Mapping[str, Child], hosts: Json
) -> Json:
    server, child = servers.get(target.server), children.get(target.server)
    if child is not None:
        shown = redacted(child)
        stdio = {"cmd": child.command, "args": shown.get("args", []), "env": dict(shown.get("env", []))}
        return {"name": target.name, "stdio": stdio}
    if server is None:
        return {"name": target.name}
    name = f"{group}/{target.name}"
    hosts[name] = {"host": {"name": name, "target": _addresses(server.endpoints)}}
    kind = "openapi" if server.openapi is not None else "sse" if server.protocol == "SSE" else "mcp"
    auth = {"auth": "oauth"} if server.sign_in is not None else {}
    return {"name": target.name, kind: {"backend": {"backend": name}, "path": redacted(server.path)}, **auth}


def _addresses(addresses: tuple[Any, ...]) -> str:
    return ",".join(f"{one.host}:{one.port}" if one.port else one.host for one in addresses)
