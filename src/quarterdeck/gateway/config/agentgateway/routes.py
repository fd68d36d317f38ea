"""Routes, matches and backends of a file as the snapshot has them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from quarterdeck.cel.errors import EvalError
from quarterdeck.cel.regex import compile_match
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.merge import merged
from quarterdeck.snapshot.policies import Policies
from quarterdeck.snapshot.virtual import VirtualServer

from ..document import Path_
from . import checks, now
from .attachments import Attachments, Place
from .context import Context
from .policies import BackendPolicies, RoutePolicies, TargetPolicies
from .rules import policies
from .servers import Servers, address
from .shared import BackendTls, NamedText, RequestMirror, RouteMatch
from .virtual import NAMESPACE, virtual_server


@dataclass(slots=True)
class Routes:
    """Translates the routes of one file."""

    context: Context
    servers: Servers
    attachments: Attachments
    backends: dict[str, now.NamedBackend]
    backend_paths: dict[str, Path_]
    max_body: int | None = None
    """``maxBufferSize`` of the file."""
    names: set[str] = field(default_factory=set[str])
    virtual: dict[str, VirtualServer] = field(default_factory=dict[str, VirtualServer])
    """Virtual servers by name."""

    def route(self, path: Path_, model: now.Route, place: Place, order: int, *, group: Path_ | None = None) -> r.Route:
        """``place`` is the listener's; ``group``: where the MCP backend is written, if not below ``backends``."""
        name = self._name(f"{model.namespace or 'default'}/{model.name or f'route{order}'}", place)
        place = replace(place, route=name, rule=model.rule_name or "")
        self._told(path, f"{name}/{model.rule_name}" if model.rule_name else name, len(model.backends))
        checks.hosts(self.context, (*path, "hostnames"), model.hostnames)
        inline = policies(self.context, (*path, "policies"), model.policies, f"route/{name}")
        above = merged(self.attachments.outer("listener", place), self.attachments.outer("route", place))
        if self.max_body is not None:
            above = merged(Policies(max_body=self.max_body), above)
        rules = merged(above, inline)
        tls = model.policies.backend_tls if model.policies is not None else None
        backends = tuple(
            self._backend(
                (*path, "backends", index), one, replace(place, backend=f"{name}/backend{index}"), rules, tls, group
            )
            for index, one in enumerate(model.backends)
        )
        if backends and not any(one.weight for one in backends):
            self.context.warn((*path, "backends"), "none has a weight above 0: every request is answered with 500")
        if not backends and rules.direct_response is None and rules.redirect is None:
            self.context.error(path, "has no backends, and neither directResponse nor requestRedirect")
        return r.Route(
            name=name,
            rule=model.rule_name or "",
            hostnames=tuple(model.hostnames),
            matches=tuple(self._match((*path, "matches", index), one) for index, one in enumerate(model.matches)),
            policies=rules,
            backends=backends,
            mirrors=self._mirrors(path, model.policies),
            order=order,
        )

    def _told(self, path: Path_, label: str, backends: int) -> None:
        """What errors will call this route and its backends."""
        places = self.context.places
        places[f"route {label}"] = places[f"route/{label}"] = path
        for index in range(backends):
            places[f"route {label} backend {index}"] = (*path, "backends", index)

    def _name(self, name: str, place: Place) -> str:
        """Names are unique: sessions are bound to them."""
        wanted, number = name, 1
        while wanted in self.names:
            wanted = f"{name}@{place.keys['listener'].replace('/', '.')}" + (f".{number}" if number > 1 else "")
            number += 1
        self.names.add(wanted)
        return wanted

    # -- matches
    def _match(self, path: Path_, model: RouteMatch) -> r.Match:
        given = {"exact": model.path.exact, "pathPrefix": model.path.path_prefix, "regex": model.path.regex}
        kind = self.context.one_of((*path, "path"), dict(given))
        value = given.get(kind) or ""
        if kind == "regex":
            self._regex((*path, "path", "regex"), value)
        elif kind and not value.startswith("/"):
            self.context.error((*path, "path", kind), f"{value!r} must begin with /")
        if model.method is not None:
            checks.method(self.context, (*path, "method"), model.method)
        return r.Match(
            r.PathMatch({"exact": "exact", "regex": "regex"}.get(kind, "prefix"), value),  # type: ignore[arg-type]
            tuple(self._text((*path, "headers", index), one, lower=True) for index, one in enumerate(model.headers)),
            tuple(self._text((*path, "query", index), one, lower=False) for index, one in enumerate(model.query)),
            (model.method or "").upper(),
        )

    def _text(self, path: Path_, model: NamedText, *, lower: bool) -> r.TextMatch:
        kind = self.context.one_of((*path, "value"), {"exact": model.value.exact, "regex": model.value.regex})
        value = (model.value.regex if kind == "regex" else model.value.exact) or ""
        if kind == "regex":
            self._regex((*path, "value", "regex"), value)
        return r.TextMatch(model.name.lower() if lower else model.name, value, kind == "regex")

    def _regex(self, path: Path_, pattern: str) -> None:
        try:
            compile_match(pattern)
        except EvalError as error:
            self.context.error(path, str(error))

    # -- backends
    def _backend(
        self,
        path: Path_,
        model: now.RouteBackend,
        place: Place,
        rules: Policies,
        tls: BackendTls | None,
        group: Path_ | None,
    ) -> r.RouteBackend:
        kind = self.context.one_of(path, {"host": model.host, "mcp": model.mcp, "backend": model.backend})
        if model.weight < 0:
            self.context.error((*path, "weight"), "must not be negative")
        own, where = model.policies, (*path, "policies")
        host, mcp = model.host, model.mcp
        if kind == "backend" and model.backend is not None:
            named = self.backends.get(model.backend)
            if named is None:
                known = ", ".join(sorted(self.backends)) or "none"
                self.context.error((*path, "backend"), f"no backend of that name; backends of this file: {known}")
                return r.RouteBackend(model.weight, error="no such backend")
            place = replace(place, backend=named.name)
            path = self.backend_paths[model.backend]
            rules = merged(rules, self._policies((*path, "policies"), named.policies, f"backend/{named.name}"))
            tls = _tls(named.policies) or tls
            host, mcp = named.host, named.mcp
            kind = self.context.one_of(path, {"host": host, "mcp": mcp})
        rules = merged(rules, self.attachments.outer("backend", place))
        rules = merged(rules, self._policies(where, own, f"backend/{place.backend}"))
        tls = _tls(own) or tls
        if kind == "mcp" and mcp is not None:
            servers = self._group(group or (*path, "mcp"), mcp, place, rules, tls)
            return r.RouteBackend(model.weight, mcp=servers, policies=rules)
        http = self._http((*path, "host"), place.backend, host or "", tls) if kind == "host" else None
        return r.RouteBackend(model.weight, http=http, policies=rules, error="" if http is not None else "unusable")

    def _policies(self, path: Path_, model: BackendPolicies | TargetPolicies | None, where: str) -> Policies:
        return Policies() if model is None else policies(self.context, path, model, where)

    def _http(self, path: Path_, name: str, text: str, tls: BackendTls | None) -> r.HttpBackend | None:
        at = address(self.context, path, text, tls=tls is not None)
        if at is None:
            return None
        if at.path not in ("", "/"):
            self.context.error(path, "a host has no path; use urlRewrite")
        secure = None
        if tls is not None or at.tls:
            secure = r.Tls() if tls is None else _backend_tls(self.context, path, tls)
        default = 443 if secure is not None else 80
        shown = f"[{at.host}]" if ":" in at.host else at.host
        host = shown if at.port == default else f"{shown}:{at.port}"
        return r.HttpBackend(name, (r.Endpoint(at.host, at.port),), secure, host)

    def _group(
        self, path: Path_, model: now.McpBackend, place: Place, rules: Policies, tls: BackendTls | None
    ) -> r.McpBackend:
        targets: list[r.McpTarget] = []
        if not model.targets:
            self.context.error((*path, "targets"), "is empty")
        for index, target in enumerate(model.targets):
            here = (*path, "targets", index)
            if any(known.name == target.name for known in targets):
                self.context.error((*here, "name"), f"{target.name!r} is the name of another target, too")
            if not target.name or any(c in "/+" or c.isspace() or not c.isprintable() for c in target.name):
                self.context.error((*here, "name"), f"{target.name!r} must be a name without /, + and spaces")
            elif "_" in target.name and len(model.targets) > 1:
                self.context.warn(
                    (*here, "name"), "the _ in it is told from the one before a tool's name by its length"
                )
            spot = replace(place, target=target.name)
            own = self._policies((*here, "policies"), target.policies, f"target/{target.name}")
            if target.stdio is not None and target.policies is not None:
                self.context.error((*here, "policies"), "a stdio target has none")
            inner = merged(merged(rules, self.attachments.outer("target", spot)), own)
            server = self.servers.add(here, target, _tls(target.policies) or tls, inner.backend_timeout)
            targets.append(r.McpTarget(target.name, server, inner))
        prefix, fail_open = model.prefix_mode or "conditional", model.failure_mode == "failOpen"
        made = ""
        if model.virtual is not None:
            name = place.backend.replace("/", ".")
            self.virtual[name] = virtual_server(
                self.context, (*path, "virtual"), model.virtual, name, targets, prefix, fail_open
            )
            made = f"{NAMESPACE}/{name}"
        stateful = model.stateful_mode == "stateful"
        return r.McpBackend(place.backend, tuple(targets), prefix, stateful, fail_open, made)

    def _mirrors(self, path: Path_, model: RoutePolicies | None) -> tuple[r.Mirror, ...]:
        mirror: RequestMirror | None = model.request_mirror if model is not None else None
        if mirror is None:
            return ()
        here = (*path, "policies", "requestMirror", "backend")
        kind = self.context.one_of(here, {"host": mirror.backend.host, "backend": mirror.backend.backend})
        host, tls = mirror.backend.host, None
        if kind == "backend":
            named = self.backends.get(mirror.backend.backend or "")
            host = named.host if named is not None else None
            tls = _tls(named.policies) if named is not None else None
            if host is None:
                self.context.error((*here, "backend"), "no backend of that name with a host")
                return ()
        if not 0 <= mirror.percentage <= 100:
            self.context.error((*path, "policies", "requestMirror", "percentage"), "must be between 0 and 100")
        target = self._http((*here, kind), "mirror", host or "", tls) if kind else None
        return (r.Mirror(target, mirror.percentage),) if target is not None else ()


def _tls(model: BackendPolicies | TargetPolicies | None) -> BackendTls | None:
    return model.backend_tls if model is not None else None


def _backend_tls(context: Context, path: Path_, model: BackendTls) -> r.Tls:
    if (model.cert is None) != (model.key is None):
        context.error(path, "backendTLS: give both cert and key, or neither")
    return r.Tls(model.insecure, model.root or "", model.hostname or "", model.cert or "", model.key or "")
