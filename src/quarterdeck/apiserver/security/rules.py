"""RBAC rule matching and coverage (rbac.authorization.k8s.io/v1 PolicyRule): pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.kube.resource import Object

from .identity import Attributes, quoted


@dataclass(frozen=True, slots=True)
class Rule:
    """One PolicyRule."""

    verbs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    @classmethod
    def read(cls, rule: Mapping[str, Any]) -> Rule:
        return cls(
            tuple(rule.get("verbs") or ()),
            tuple(rule.get("apiGroups") or ()),
            tuple(rule.get("resources") or ()),
            tuple(rule.get("resourceNames") or ()),
            tuple(rule.get("nonResourceURLs") or ()),
        )

    def to_object(self) -> Object:
        fields = (
            ("verbs", self.verbs), ("apiGroups", self.groups), ("resources", self.resources),
            ("resourceNames", self.names), ("nonResourceURLs", self.urls),
        )  # fmt: skip
        return {key: list(value) for key, value in fields if value}

    def allows(self, request: Attributes) -> bool:
        """Whether this rule alone allows ``request``."""
        if not _has(self.verbs, request.verb):
            return False
        if not request.resource:
            return any(_url_covers(u, request.path) for u in self.urls)
        return (
            _has(self.groups, request.group)
            and _resource_matches(self.resources, request.combined, request.subresource)
            and (not self.names or request.name in self.names)
        )

    def __str__(self) -> str:
        """As kube-apiserver prints a rule in its escalation message."""
        parts = [
            f"{label}:[{', '.join(quoted(v) for v in values)}]"
            for label, values in (
                ("APIGroups", self.groups), ("Resources", self.resources), ("ResourceNames", self.names),
                ("NonResourceURLs", self.urls), ("Verbs", self.verbs),
            )
            if values
        ]  # fmt: skip
        return "{" + ", ".join(parts) + "}"


def read_rules(role: Object) -> tuple[Rule, ...]:
    return tuple(Rule.read(r) for r in role.get("rules") or ())


def effective_rules(
    role: Object, cluster_roles: Iterable[Object], seen: frozenset[str] = frozenset()
) -> tuple[Rule, ...]:
    """The rules of a ClusterRole; with an aggregationRule the union of the ClusterRoles it selects, through any depth.

    ``seen`` are the names on the way here: a circle of aggregations ends there.
    """
    aggregation = role.get("aggregationRule")
    if not aggregation:
        return read_rules(role)
    selectors = aggregation.get("clusterRoleSelectors") or ()
    roles = sorted(cluster_roles, key=lambda o: o["metadata"]["name"])
    seen = seen | {role["metadata"]["name"]}
    rules: dict[Rule, None] = {}
    for other in roles:
        labels = other["metadata"].get("labels") or {}
        if other["metadata"]["name"] not in seen and any(selects(s, labels) for s in selectors):
            rules.update(dict.fromkeys(effective_rules(other, roles, seen)))
    return tuple(rules)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """metav1.LabelSelector against labels; an empty selector selects everything."""
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression_holds(e, labels) for e in selector.get("matchExpressions") or ())


def _expression_holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or ()
    if operator == "In":
        return labels.get(key) in values and key in labels
    if operator == "NotIn":
        return key not in labels or labels[key] not in values
    if operator == "Exists":
        return key in labels
    return operator == "DoesNotExist" and key not in labels


def uncovered(owned: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """The parts of ``wanted`` that no rule of ``owned`` grants, each with one verb, group, resource and name."""
    missing: dict[Rule, None] = {}
    for rule in wanted:
        for part in _break_down(rule):
            if not any(_covers(o, part) for o in owned):
                missing[part] = None
    return list(missing)


def compact(rules: Iterable[Rule]) -> list[Rule]:
    """Join rules that differ only in their verbs."""
    joined: dict[Rule, list[str]] = {}
    for rule in rules:
        verbs = joined.setdefault(replace(rule, verbs=()), [])
        verbs.extend(v for v in rule.verbs if v not in verbs)
    return [replace(rule, verbs=tuple(verbs)) for rule, verbs in joined.items()]


def _break_down(rule: Rule) -> Iterable[Rule]:
    for verb in rule.verbs:
        for group in rule.groups:
            for resource in rule.resources:
                if not rule.names:
                    yield Rule((verb,), (group,), (resource,))
                for name in rule.names:
                    yield Rule((verb,), (group,), (resource,), (name,))
        for url in rule.urls:
            yield Rule((verb,), urls=(url,))


def _covers(owner: Rule, part: Rule) -> bool:
    if not _has(owner.verbs, part.verbs[0]):
        return False
    if part.urls:
        return any(_url_covers(u, part.urls[0]) for u in owner.urls)
    _, _, subresource = part.resources[0].partition("/")
    return (
        _has(owner.groups, part.groups[0])
        and _resource_matches(owner.resources, part.resources[0], subresource)
        and (not owner.names or (bool(part.names) and part.names[0] in owner.names))
    )


def _has(allowed: Sequence[str], value: str) -> bool:
    return "*" in allowed or value in allowed


def _resource_matches(allowed: Sequence[str], combined: str, subresource: str) -> bool:
    return "*" in allowed or combined in allowed or (bool(subresource) and f"*/{subresource}" in allowed)


def _url_covers(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))
