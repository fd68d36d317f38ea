"""Which policies are attached to what: Gateways, listeners, routes, rules, backends, targets, Services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.errors import ConfigError
from quarterdeck.kube.resource import Object
from quarterdeck.resources.gateway_api import GROUP
from quarterdeck.resources.kgateway import AGENTGATEWAY, KGATEWAY, SEED_GROUP
from quarterdeck.resources.kgateway.agentgateway_backend import AgentgatewayBackendSpec
from quarterdeck.resources.kgateway.agentgateway_policy import AgentgatewayPolicySpec, BackendPolicies
from quarterdeck.resources.kgateway.backend import BackendSpec
from quarterdeck.resources.kgateway.common import TargetRef, TargetSelector
from quarterdeck.resources.kgateway.traffic_policy import TrafficPolicySpec

from .credentials import Credentials, reference_of
from .rules import NONE, Rules, backend_rules, policy_rules, traffic_rules
from .status import Name, ParentStatus, Problem, Verdict, accepted, refused
from .world import GatewayWorld, by_age, key_of

__all__ = ["NONE", "Index", "Rules"]

Point = tuple[str, str, str, str]
"""kind, namespace, name, section (empty: the whole)"""
_GROUPS = {
    "Gateway": {GROUP},
    "HTTPRoute": {GROUP},
    "GRPCRoute": {GROUP},
    "Backend": {KGATEWAY, SEED_GROUP, AGENTGATEWAY, ""},
    "AgentgatewayBackend": {AGENTGATEWAY, KGATEWAY},
    "Service": {"", "core"},
    "MCPServer": {"kagent.dev", ""},
    "RemoteMCPServer": {"kagent.dev", ""},
    "VirtualServer": {"quarterdeck.dev", ""},
}
_MOST = 16
"""Entries of a policy's status, as Gateway API limits them."""


@dataclass(slots=True)
class _Policy:
    kind: str
    obj: Object
    spec: TrafficPolicySpec | AgentgatewayPolicySpec | None
    refs: list[tuple[Object, Point | Problem]] = field(default_factory=list[tuple[Object, "Point | Problem"]])
    wrong: str = ""
    """Why the spec cannot be read."""


class Index:
    """The rules of each attachment point, and what is said of each policy."""

    def __init__(self, world: GatewayWorld) -> None:
        self._world = world
        self.credentials = Credentials(
            world,
            lambda namespace, ref: world.may_refer(
                (AGENTGATEWAY, "AgentgatewayPolicy", namespace), reference_of(ref, namespace)
            ),
        )
        self._objects = self._known()
        self._points: dict[Point, list[_Policy]] = {}
        self._rules: dict[Point, Rules] = {}
        self._policies: dict[tuple[str, str, str], _Policy] = {}
        for policy in self._read():
            self._policies[policy.kind, *key_of(policy.obj)] = policy
            for _, point in policy.refs:
                if not isinstance(point, Problem):
                    self._points.setdefault(point, []).append(policy)

    def of(self, kind: str, namespace: str, name: str, *sections: str, only_section: bool = False) -> Rules:
        """What is attached to the object, and below that to any of its ``sections``."""
        found = NONE if only_section else self._at((kind, namespace, name, ""))
        for section in dict.fromkeys(sections):
            if section:
                found = found.within(self._at((kind, namespace, name, section)))
        return found

    def extension(self, group: str, kind: str, namespace: str, name: str) -> Rules | Problem:
        """Of a policy that a route's ExtensionRef filter names."""
        if (group, kind) not in ((KGATEWAY, "TrafficPolicy"), (AGENTGATEWAY, "AgentgatewayPolicy")):
            return Problem("InvalidKind", f"filter {group}/{kind} {name} is not served")
        policy = self._policies.get((kind, namespace, name))
        if policy is None:
            return Problem("BackendNotFound", f"filter {kind} {namespace}/{name} not found")
        return self._rules_of(policy, ("HTTPRoute", namespace, "", ""))

    def own(self, policies: BackendPolicies | None, namespace: str, where: str) -> Rules:
        """Of what a backend says itself."""
        return NONE if policies is None else backend_rules(policies, namespace, where, self.credentials)

    def statuses(self) -> dict[Name, list[ParentStatus]]:
        found: dict[Name, list[ParentStatus]] = {}
        for (kind, namespace, name), policy in self._policies.items():
            entries = [ParentStatus(ref, self._verdicts(policy, point)) for ref, point in policy.refs[:_MOST]]
            if policy.wrong:
                wrong = refused("Accepted", Problem("Invalid", policy.wrong))
                entries = [ParentStatus({"group": GROUP, "kind": "Gateway", "name": "unknown"}, [wrong])]
            found[kind, namespace, name] = entries
        return found

    def _verdicts(self, policy: _Policy, point: Point | Problem) -> list[Verdict]:
        if isinstance(point, Problem):
            return [refused("Accepted", point), refused("Attached", Problem("Pending", "Not attached"))]
        rules = self._rules_of(policy, point)
        if rules.problems:
            text = f"the target answers 500 until this is corrected: {'; '.join(rules.problems)}"
            return [refused("Accepted", Problem("Invalid", text)), Verdict("Attached", "True", "Attached", "")]
        notes = f"Policy accepted, but: {'; '.join(rules.notes)}" if rules.notes else "Policy accepted"
        return [accepted(notes), Verdict("Attached", "True", "Attached", "Attached to the target")]

    def _at(self, point: Point) -> Rules:
        if point not in self._rules:
            found = NONE
            for policy in reversed(self._points.get(point, ())):  # the oldest wins, so it is the innermost
                found = found.within(self._rules_of(policy, point))
            self._rules[point] = found
        return self._rules[point]

    def _rules_of(self, policy: _Policy, point: Point) -> Rules:
        namespace, name = key_of(policy.obj)
        where = f"{policy.kind}/{namespace}/{name}"
        if policy.spec is None:
            return Rules(problems=(f"{where}: {policy.wrong}",))
        mcp = self._speaks_mcp(point)
        if isinstance(policy.spec, TrafficPolicySpec):
            return traffic_rules(policy.spec, where, mcp=mcp)
        return policy_rules(policy.spec, namespace, where, self.credentials, mcp=mcp)

    def _speaks_mcp(self, point: Point) -> bool:
        kind, namespace, name, _ = point
        if kind in ("MCPServer", "RemoteMCPServer", "VirtualServer"):
            return True
        obj = self._objects.get((kind, namespace, name))
        if obj is None or kind not in ("Backend", "AgentgatewayBackend"):
            return False
        try:
            model = BackendSpec if kind == "Backend" else AgentgatewayBackendSpec
            return self._world.spec(model, obj).mcp is not None
        except ConfigError:
            return False

    def _known(self) -> dict[tuple[str, str, str], Object]:
        world = self._world
        kinds: tuple[tuple[str, Any], ...] = (
            ("Gateway", world.gateways),
            ("HTTPRoute", world.http_routes),
            ("GRPCRoute", world.grpc_routes),
            ("Backend", world.backends),
            ("AgentgatewayBackend", world.agentgateway_backends),
            ("Service", world.services),
        )
        found = {(kind, *key_of(obj)): obj for kind, objects in kinds for obj in objects}
        for key in world.servers:
            kind, namespace, name = key.split("/", 2)
            found[kind, namespace, name] = {"metadata": {"namespace": namespace, "name": name}}
        for key in world.virtual:
            namespace, _, name = key.partition("/")
            found["VirtualServer", namespace, name] = {"metadata": {"namespace": namespace, "name": name}}
        return found

    def _read(self) -> list[_Policy]:
        found: list[_Policy] = []
        kinds: tuple[tuple[str, Any, Any], ...] = (
            ("TrafficPolicy", TrafficPolicySpec, self._world.traffic_policies),
            ("AgentgatewayPolicy", AgentgatewayPolicySpec, self._world.agentgateway_policies),
        )
        for kind, model, objects in kinds:
            for obj in by_age(objects):
                try:
                    policy = _Policy(kind, obj, self._world.spec(model, obj))
                except ConfigError as error:
                    policy = _Policy(kind, obj, None, wrong=str(error))
                policy.refs = self._refs(policy)
                found.append(policy)
        return found

    def _refs(self, policy: _Policy) -> list[tuple[Object, Point | Problem]]:
        """The targets; of a policy that cannot be read, those that its text names, so that they are refused."""
        namespace = policy.obj["metadata"]["namespace"]
        raw: Object = policy.obj.get("spec") or {}
        if policy.spec is None:
            listed: list[Any] = raw.get("targetRefs") or []
            refs = [TargetRef.model_construct(**_named(each)) for each in listed if isinstance(each, dict)]
            selectors: list[TargetSelector] = []
        else:
            refs, selectors = list(policy.spec.target_refs or ()), list(policy.spec.target_selectors or ())
        found = [(_shown(ref, namespace), self._point(ref, namespace)) for ref in refs]
        for selector in selectors:
            found += [
                (_shown(ref, namespace), self._point(ref, namespace)) for ref in self._chosen(selector, namespace)
            ]
        return found

    def _chosen(self, selector: TargetSelector, namespace: str) -> list[TargetRef]:
        wanted = selector.match_labels.items()
        return [
            TargetRef(
                group=selector.group, kind=selector.kind, name=name, section_name=selector.section_name, port=None
            )
            for (kind, home, name), obj in sorted(self._objects.items())
            if (kind, home) == (selector.kind, namespace) and wanted <= (obj["metadata"].get("labels") or {}).items()
        ]

    def _point(self, ref: TargetRef, namespace: str) -> Point | Problem:
        what = f"{ref.kind} {namespace}/{ref.name}"
        if ref.group not in _GROUPS.get(ref.kind, ()):
            return Problem("Invalid", f"targetRefs: {ref.group or 'core'}/{ref.kind} is no kind policies attach to")
        obj = self._objects.get((ref.kind, namespace, ref.name))
        if obj is None:
            return Problem("TargetNotFound", f"{what} not found")
        section = ref.section_name or (str(ref.port) if ref.port else "")
        known = _sections(ref.kind, obj)
        if section and known is not None and section not in known:
            return Problem("TargetNotFound", f"{what} has no part {section}; it has {', '.join(known) or 'none'}")
        return (ref.kind, namespace, ref.name, section)


def _named(ref: dict[str, Any]) -> dict[str, Any]:
    return {
        "group": str(ref.get("group") or ""),
        "kind": str(ref.get("kind") or ""),
        "name": str(ref.get("name") or ""),
        "section_name": ref.get("sectionName"),
        "port": ref.get("port"),
    }


def _shown(ref: TargetRef, namespace: str) -> Object:
    """The target as an ancestorRef."""
    shown: Object = {"group": ref.group, "kind": ref.kind, "namespace": namespace, "name": ref.name}
    return shown | ({"sectionName": ref.section_name} if ref.section_name else {})


_SECTIONS: dict[str, Callable[[Object], list[Any]]] = {
    "Gateway": lambda spec: spec.get("listeners") or [],
    "HTTPRoute": lambda spec: spec.get("rules") or [],
    "Backend": lambda spec: (spec.get("mcp") or {}).get("targets") or [],
    "AgentgatewayBackend": lambda spec: (spec.get("mcp") or {}).get("targets") or [],
}


def _sections(kind: str, obj: Object) -> list[str] | None:
    """Names of the object's parts; None when anything may be one."""
    if kind == "Service":
        ports = (obj.get("spec") or {}).get("ports") or []
        return [text for p in ports for text in (str(p.get("name") or ""), str(p.get("port"))) if text]
    if kind not in _SECTIONS:
        return None
    parts = _SECTIONS[kind](obj.get("spec") or {})
    names = [str(part.get("name") or "") for part in parts]
    ports = [str(part["port"]) for part in parts if "port" in part]
    return [name for name in (*names, *ports) if name]
