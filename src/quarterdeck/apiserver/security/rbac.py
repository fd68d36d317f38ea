"""RBAC: who holds which rules where, and whether they allow a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.kube.resource import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, Object

from .identity import MASTERS, NODE_PREFIX, NODES, Attributes, Decision, ObjectReader, User, service_account_name
from .node_authorizer import NodeAuthorizer
from .rules import Rule, effective_rules, read_rules


@dataclass(frozen=True, slots=True)
class Grant:
    """What one binding gives: rules in ``namespace`` ("" = everywhere), or ``error`` when its role is missing."""

    namespace: str
    rules: tuple[Rule, ...]
    error: str = ""
    by: str = ""


@dataclass(slots=True)
class _Index:
    version: int = -1
    users: dict[str, list[Grant]] = field(default_factory=dict[str, list[Grant]])
    groups: dict[str, list[Grant]] = field(default_factory=dict[str, list[Grant]])


class Authorizer:
    """Decides requests: ``system:masters`` may all, nodes by :class:`NodeAuthorizer`, everyone by RBAC; default deny.

    ``version`` returns a number that changes whenever a Role, ClusterRole or binding changed; the compiled index is
    kept while it stands still.
    """

    def __init__(self, reader: ObjectReader, version: Callable[[], int]) -> None:
        self._reader = reader
        self._version = version
        self._index = _Index()
        self._nodes = NodeAuthorizer(reader)

    def authorize(
        self,
        user: User,
        verb: str,
        group: str = "",
        resource: str = "",
        subresource: str = "",
        namespace: str | None = None,
        name: str | None = None,
        path: str = "",
    ) -> Decision:
        """Whether ``user`` may do this. Give ``path`` for non-resource requests, ``resource`` for the others."""
        return self.decide(Attributes(user, verb, group, resource, subresource, namespace or "", name or "", path))

    def decide(self, request: Attributes) -> Decision:
        user = request.user
        if MASTERS in user.groups:
            return Decision(True)
        reason = ""
        if NODES in user.groups and user.name.startswith(NODE_PREFIX):
            node = self._nodes.decide(request)
            if node.allowed:
                return node
            reason = node.reason
        errors: list[str] = []
        for grant in self._grants(user, request.namespace if request.resource else ""):
            if grant.error:
                errors.append(grant.error)
            elif any(rule.allows(request) for rule in grant.rules):
                return Decision(True, f"RBAC: allowed by {grant.by}")
        if errors:
            reason = "RBAC: " + (errors[0] if len(errors) == 1 else f"[{', '.join(dict.fromkeys(errors))}]")
        return Decision(False, reason)

    def rules_for(self, user: User, namespace: str = "") -> list[Rule]:
        """Every rule ``user`` holds in ``namespace`` (cluster-wide ones included)."""
        rules: dict[Rule, None] = {}
        if MASTERS in user.groups:
            rules[Rule(("*",), ("*",), ("*",))] = None
            rules[Rule(("*",), urls=("*",))] = None
        for grant in self._grants(user, namespace):
            rules.update(dict.fromkeys(grant.rules))
        return list(rules)

    def role_rules(self, reference: dict[str, Any], namespace: str) -> tuple[Rule, ...] | None:
        """The rules a roleRef points at; None when the role does not exist."""
        if reference.get("kind") == "Role":
            role = self._reader.get(ROLE, namespace, reference.get("name", ""))
            return read_rules(role) if role is not None else None
        role = self._reader.get(CLUSTER_ROLE, None, reference.get("name", ""))
        return effective_rules(role, self._reader.list(CLUSTER_ROLE)) if role is not None else None

    def _grants(self, user: User, namespace: str) -> Iterator[Grant]:
        index = self._current()
        for grant in index.users.get(user.name, ()):
            if not grant.namespace or grant.namespace == namespace:
                yield grant
        for group in user.groups:
            for grant in index.groups.get(group, ()):
                if not grant.namespace or grant.namespace == namespace:
                    yield grant

    def _current(self) -> _Index:
        version = self._version()
        if self._index.version != version:
            self._index = self._compile(version)
        return self._index

    def _compile(self, version: int) -> _Index:
        cluster_roles = self._reader.list(CLUSTER_ROLE)
        cluster = {r["metadata"]["name"]: effective_rules(r, cluster_roles) for r in cluster_roles}
        roles = {(r["metadata"]["namespace"], r["metadata"]["name"]): read_rules(r) for r in self._reader.list(ROLE)}
        index = _Index(version)
        for binding in self._reader.list(CLUSTER_ROLE_BINDING):
            _add(index, binding, "", cluster.get(_role_name(binding)))
        for binding in self._reader.list(ROLE_BINDING):
            namespace = binding["metadata"]["namespace"]
            name = _role_name(binding)
            own = binding.get("roleRef", {}).get("kind") == "Role"
            _add(index, binding, namespace, roles.get((namespace, name)) if own else cluster.get(name))
        return index


def _role_name(binding: Object) -> str:
    return str((binding.get("roleRef") or {}).get("name", ""))


def _add(index: _Index, binding: Object, namespace: str, rules: tuple[Rule, ...] | None) -> None:
    role = binding.get("roleRef") or {}
    kind = str(role.get("kind", "ClusterRole"))
    where = f"{namespace}/{binding['metadata']['name']}" if namespace else binding["metadata"]["name"]
    by = f'{"RoleBinding" if namespace else "ClusterRoleBinding"} "{where}" of {kind} "{role.get("name", "")}"'
    error = ""
    if rules is None:
        error = f'{kind.lower()}.rbac.authorization.k8s.io "{role.get("name", "")}" not found'
    grant = Grant(namespace, rules or (), error, by)
    for subject in binding.get("subjects") or ():
        name = str(subject.get("name", ""))
        match subject.get("kind"):
            case "User":
                index.users.setdefault(name, []).append(grant)
            case "Group":
                index.groups.setdefault(name, []).append(grant)
            case "ServiceAccount":
                account = service_account_name(str(subject.get("namespace") or namespace), name)
                index.users.setdefault(account, []).append(grant)
            case _:
                pass  # validation refuses other kinds
