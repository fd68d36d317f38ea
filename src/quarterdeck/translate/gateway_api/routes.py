"""HTTPRoutes: their parents, their rules, and what is said of them (httproute_types.go)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from quarterdeck.errors import ConfigError
from quarterdeck.kube.resource import Object
from quarterdeck.resources.gateway_api import GROUP
from quarterdeck.resources.gateway_api.references import ParentRef
from quarterdeck.resources.gateway_api.route import GrpcRouteSpec, HttpBackendRef, HttpRouteSpec, HttpRule
from quarterdeck.resources.gateway_api.route import Match as WantedMatch
from quarterdeck.snapshot.merge import merged
from quarterdeck.snapshot.policies import Policies
from quarterdeck.snapshot.routing import Match, McpBackend, PathMatch, Route, RouteBackend, TextMatch
from quarterdeck.snapshot.virtual import KIND as VIRTUAL

from . import filters
from .attach_policies import Index
from .attachment import Attached, attach
from .backends import Backends
from .listeners import ListenerState
from .rules import Rules
from .status import ParentStatus, Problem, accepted, refused, resolved
from .world import GatewayWorld, key_of

_PATHS = {"Exact": "exact", "PathPrefix": "prefix", "RegularExpression": "regex"}
_RULES = 1000
"""Rules that fit between two routes' places in the order; the schema allows 16 with 64 matches each."""


@dataclass(slots=True)
class Rule:
    """One rule, before the listeners and policies it is served under are known."""

    name: str
    section: str
    matches: tuple[Match, ...]
    filtered: filters.Filtered
    backends: list[tuple[RouteBackend, Rules]]
    governed: bool
    """Whether it leads to MCP servers or agents."""


@dataclass(slots=True)
class Compiled:
    """An HTTPRoute with its rules."""

    obj: Object
    spec: HttpRouteSpec
    place: int
    rules: list[Rule] = field(default_factory=list[Rule])
    unsupported: list[Problem] = field(default_factory=list[Problem])
    unresolved: list[Problem] = field(default_factory=list[Problem])


@dataclass(slots=True)
class Parent:
    """A Gateway of ours."""

    obj: Object
    listeners: Sequence[ListenerState]
    routes: dict[str, list[Route]] = field(default_factory=dict[str, list[Route]])
    """By listener."""
    attached: dict[str, set[tuple[str, str]]] = field(default_factory=dict[str, set[tuple[str, str]]])
    """Namespace and name of the routes, by listener."""
    used: set[str] = field(default_factory=set[str])
    """``kind/namespace/name`` of the MCP servers that the routes lead to."""


class Routes:
    """Compiles routes and attaches them to the listeners of ``parents``."""

    def __init__(
        self, world: GatewayWorld, index: Index, backends: Backends, parents: dict[tuple[str, str], Parent]
    ) -> None:
        self._world = world
        self._index = index
        self._backends = backends
        self._parents = parents

    def http(self, obj: Object, place: int) -> list[ParentStatus]:
        """Attach an HTTPRoute; ``place`` among all by age. An empty list: none of its parents is ours."""
        namespace = key_of(obj)[0]
        try:
            spec = self._world.spec(HttpRouteSpec, obj)
        except ConfigError as error:
            return self._unreadable(obj, error)
        meant = self._meant(spec.parent_refs, namespace)
        if not meant:
            return []
        route = self._compiled(obj, spec, place)
        found: list[ParentStatus] = []
        for raw, ref, parent in meant:
            home = key_of(parent.obj)[0]
            answer = attach("HTTPRoute", namespace, spec.hostnames or (), ref, home, parent.listeners, self._world)
            if isinstance(answer, Problem):
                verdicts = [refused("Accepted", answer)]
            elif route.unsupported:
                verdicts = [refused("Accepted", route.unsupported[0])]
            else:
                verdicts = [accepted("Route is accepted")]
                self._serve(route, parent, answer)
            found.append(ParentStatus(raw, [*verdicts, resolved(route.unresolved)]))
        return found

    def grpc(self, obj: Object) -> list[ParentStatus]:
        """What is said of a GRPCRoute: that no listener of ours takes it."""
        namespace = key_of(obj)[0]
        try:
            spec = self._world.spec(GrpcRouteSpec, obj)
        except ConfigError as error:
            return self._unreadable(obj, error)
        problem = Problem("UnsupportedProtocol", "gRPC is not served; HTTPRoutes are")
        verdicts = [refused("Accepted", problem), resolved([])]
        return [ParentStatus(raw, verdicts) for raw, _, _ in self._meant(spec.parent_refs, namespace)]

    def _unreadable(self, obj: Object, error: ConfigError) -> list[ParentStatus]:
        """What was taken by an API server and cannot be read by us."""
        raw: Object = obj.get("spec") or {}
        refs = [ParentRef.model_construct(**_reference(each)) for each in raw.get("parentRefs") or ()]
        verdicts = [refused("Accepted", Problem("UnsupportedValue", str(error)))]
        return [ParentStatus(each, verdicts) for each, _, _ in self._meant(refs, key_of(obj)[0])]

    def _meant(self, refs: Sequence[ParentRef] | None, namespace: str) -> list[tuple[Object, ParentRef, Parent]]:
        """The parentRefs that lead to Gateways of ours, as written and typed."""
        found: list[tuple[Object, ParentRef, Parent]] = []
        for ref in refs or ():
            parent = self._parents.get((ref.namespace or namespace, ref.name))
            if parent is not None and (ref.group, ref.kind) == (GROUP, "Gateway"):
                found.append((_written(ref), ref, parent))
        return found

    # -- rules

    def _compiled(self, obj: Object, spec: HttpRouteSpec, place: int) -> Compiled:
        route = Compiled(obj, spec, place)
        for number, rule in enumerate(spec.rules):
            route.rules.append(self._rule(route, number, rule))
        return route

    def _rule(self, route: Compiled, number: int, rule: HttpRule) -> Rule:
        namespace = key_of(route.obj)[0]
        filtered = filters.of_rule(rule, namespace, self._backends, self._index)
        backends = [self._backend(each, namespace, route, filtered) for each in rule.backend_refs or ()]
        route.unsupported += filtered.unsupported
        route.unresolved += filtered.unresolved
        matches: list[Match] = []
        for each in rule.matches:
            answer = _match(each)
            if isinstance(answer, Problem):
                route.unsupported.append(answer)
            else:
                matches.append(answer)
        governed = any(backend.mcp is not None or backend.agent for backend, _ in backends)
        return Rule(str(number), rule.name or "", tuple(matches), filtered, backends, governed)

    def _backend(
        self, ref: HttpBackendRef, namespace: str, route: Compiled, filtered: filters.Filtered
    ) -> tuple[RouteBackend, Rules]:
        own = filters.of_backend(ref.filters, filtered)
        found = self._backends.of(ref, namespace)
        rules = Rules(own).within(found.rules)
        if found.problem is not None:
            route.unresolved.append(_as_reference(found.problem))
            return RouteBackend(ref.weight, error=found.problem.message), Rules()
        return RouteBackend(ref.weight, http=found.http, mcp=found.mcp), rules

    # -- what is served

    def _serve(self, route: Compiled, parent: Parent, places: Sequence[Attached]) -> None:
        for place in places:
            attached = parent.attached.setdefault(place.listener.spec.name, set())
            if key_of(route.obj) in attached:
                continue  # named by two parentRefs
            attached.add(key_of(route.obj))
            if place.listener.port == 0:
                continue
            listed = parent.routes.setdefault(place.listener.spec.name, [])
            listed += [self._route(route, rule, parent, place, number) for number, rule in enumerate(route.rules)]

    def _route(self, route: Compiled, rule: Rule, parent: Parent, place: Attached, number: int) -> Route:
        namespace, name = key_of(route.obj)
        home, gateway = key_of(parent.obj)
        above = self._index.of("Gateway", home, gateway, place.listener.spec.name, str(place.listener.spec.port))
        rules = above.within(self._index.of("HTTPRoute", namespace, name, rule.section)).within(rule.filtered.rules)
        served = Route(
            f"{namespace}/{name}",
            rule.section or rule.name,
            hostnames=place.hostnames,
            matches=rule.matches,
            order=route.place * _RULES + number,
        )
        if rules.problems or rule.filtered.broken:
            reason = "; ".join(rules.problems) or "a filter cannot be resolved"
            return msgspec.structs.replace(served, backends=(RouteBackend(error=reason),))
        policies = merged(rules.policies, rule.filtered.policies)
        policies = self._opened(policies, parent, governed=rule.governed)
        backends = tuple(
            msgspec.structs.replace(
                backend,
                policies=self._opened(merged(policies, own.policies), parent, governed=backend.mcp is not None),
            )
            for backend, own in rule.backends
        )
        for backend in backends:
            parent.used |= _servers(backend.mcp)
        return msgspec.structs.replace(
            served, policies=policies, backends=backends, mirrors=tuple(rule.filtered.mirrors)
        )

    def _opened(self, policies: Policies, parent: Parent, *, governed: bool) -> Policies:
        opened = self._world.open(parent.obj, governed=governed)
        return policies if policies.open == opened else msgspec.structs.replace(policies, open=opened)


def _servers(backend: McpBackend | None) -> set[str]:
    """All that are needed; of a virtual one itself, and those behind it."""
    if backend is None:
        return set()
    virtual = {f"{VIRTUAL}/{backend.virtual}"} if backend.virtual else set[str]()
    return {target.server for target in backend.targets} | virtual


def _match(wanted: WantedMatch) -> Match | Problem:
    kind = _PATHS.get(wanted.path.type)
    texts = [*(wanted.headers or ()), *(wanted.query_params or ())]
    if kind is None or any(each.type not in ("Exact", "RegularExpression") for each in texts):
        return Problem("UnsupportedValue", "a match of this type is not served")
    headers: dict[str, TextMatch] = {}
    for each in wanted.headers or ():  # of several with one name the first counts
        name = each.name.lower()
        headers.setdefault(name, TextMatch(name, each.value, each.type == "RegularExpression"))
    query: dict[str, TextMatch] = {}
    for each in wanted.query_params or ():
        query.setdefault(each.name, TextMatch(each.name, each.value, each.type == "RegularExpression"))
    path = PathMatch("exact" if kind == "exact" else "prefix" if kind == "prefix" else "regex", wanted.path.value)
    return Match(path, tuple(headers.values()), tuple(query.values()), wanted.method or "")


def _as_reference(problem: Problem) -> Problem:
    """ResolvedRefs knows fewer reasons than a Backend's own condition."""
    known = ("InvalidKind", "BackendNotFound", "RefNotPermitted", "UnsupportedProtocol", "UnsupportedValue")
    return problem if problem.reason in known else Problem("BackendNotFound", problem.message)


def _written(ref: ParentRef) -> Object:
    """The reference as an entry of ``parents`` repeats it."""
    return ref.model_dump(by_alias=True, exclude_none=True)


def _reference(raw: Object) -> Object:
    return {
        "group": raw.get("group", GROUP),
        "kind": raw.get("kind", "Gateway"),
        "namespace": raw.get("namespace"),
        "name": raw.get("name", ""),
        "section_name": raw.get("sectionName"),
        "port": raw.get("port"),
    }
