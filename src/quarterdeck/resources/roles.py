"""ClusterRoles for people: who may look at, change or hand out the platform's objects in a namespace.

Each role is complete in itself (bind it in a namespace with a RoleBinding) and is aggregated into Kubernetes' own
``view``, ``edit`` and ``admin``, so that who administers a namespace administers its agents without another binding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .crd import GATEWAY_KINDS, KINDS

VIEW, EDIT, ADMIN = "quarterdeck-view", "quarterdeck-edit", "quarterdeck-admin"
_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_RBAC = "rbac.authorization.k8s.io"
_AGGREGATE = f"{_RBAC}/aggregate-to-"
_OURS = "quarterdeck.dev"
_TOLD = frozenset({"approvals", "runs"})
"""Kinds that mirror what the control plane decided: nobody writes them."""
_GOVERNING = frozenset({"approvalpolicies"})
"""Kinds that hold others to something: not written by those who are held to it."""
_GATEWAY_API = "gateway.networking.k8s.io"
_ROUTING = ("gateways", "grpcroutes", "httproutes")
"""Kinds of Gateway API within a namespace; with ``referencegrants``, which have no status."""
_KEPT = ("auditcheckpoints", "revocations", "status", "toolpins")
"""What the management API keeps and asks the API server about; no kinds."""


def cluster_roles(labels: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The three ClusterRoles as manifests; ``labels`` (a chart's own) are added to each.

    Status is read only: conditions are the controllers' word. Nothing here reads Secrets or Pods.
    """
    return [
        _role(VIEW, "view", labels, _read()),
        _role(EDIT, "edit", labels, _read() + _write()),
        _role(ADMIN, "admin", labels, _read() + _write() + _govern()),
    ]


def _role(name: str, aggregate: str, labels: Mapping[str, str] | None, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {**(labels or {}), f"{_AGGREGATE}{aggregate}": "true"}},
        "rules": rules,
    }


def _read() -> list[dict[str, Any]]:
    rules = [
        _rule(group, [path for plural, scale in kinds for path in _paths(plural, scale)], _READ)
        for group, kinds in _groups().items()
    ]
    routing = [path for plural in _ROUTING for path in _paths(plural, scale=False)]
    return [*rules, _rule(_GATEWAY_API, [*routing, "referencegrants"], _READ), _rule(_OURS, _KEPT, ("get", "list"))]


def _write() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = []
    for group, kinds in _groups().items():
        if written := [plural for plural, _ in kinds if plural not in _TOLD | _GOVERNING]:
            rules.append(_rule(group, written, _WRITE))
        if scaled := [f"{plural}/scale" for plural, scale in kinds if scale]:
            rules.append(_rule(group, scaled, ("patch", "update")))
    runs = _rule(_OURS, ("runs",), ("create", "update"))  # start, answer, cancel, retry, fork
    return [*rules, _rule(_GATEWAY_API, [*_ROUTING, "referencegrants"], _WRITE), runs]


def _govern() -> list[dict[str, Any]]:
    return [
        _rule(_OURS, sorted(_GOVERNING), _WRITE),
        _rule(_OURS, ("approvals",), ("approve",)),
        _rule(_OURS, ("revocations",), ("create", "delete")),
        _rule(_OURS, ("toolpins",), ("update",)),
        _rule(_OURS, ("usertokens",), ("list", "delete")),
        _rule(_OURS, ("memories",), ("get", "list", "delete")),
        _rule(_RBAC, ("rolebindings", "roles"), _READ + _WRITE),
    ]


def _groups() -> dict[str, list[tuple[str, bool]]]:
    """Plurals by API group, and whether the kind has a scale subresource."""
    groups: dict[str, list[tuple[str, bool]]] = {}
    for kind in (*KINDS, *GATEWAY_KINDS):
        groups.setdefault(kind.group, []).append((kind.plural, kind.scale))
    return groups


def _paths(plural: str, scale: bool) -> list[str]:
    return [plural, f"{plural}/status", *([f"{plural}/scale"] if scale else ())]


def _rule(group: str, resources: Sequence[str], verbs: Sequence[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
