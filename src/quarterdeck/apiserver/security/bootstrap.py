"""The RBAC policy every server starts with, as data; and how it is reconciled with what is stored.

Names and contents follow Kubernetes' default roles, for the kinds this server serves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.kube.resource import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, Object, Resource
from quarterdeck.resources.roles import cluster_roles

from .identity import AUTHENTICATED, MASTERS, UNAUTHENTICATED, service_account_name
from .rules import Rule, effective_rules, read_rules, uncovered

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
_API = "rbac.authorization.k8s.io/v1"

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_ALL = (*_READ, *_WRITE)
_APPS = (
    "controllerrevisions", "deployments", "deployments/rollback", "deployments/scale", "replicasets",
    "replicasets/scale",
)  # fmt: skip
_APPS_STATUS = ("deployments/status", "replicasets/status")
_CORE = ("configmaps", "endpoints", "persistentvolumeclaims", "pods", "serviceaccounts", "services")
_CORE_READ = (
    "persistentvolumeclaims/status", "services/status", "events", "limitranges", "namespaces", "namespaces/status",
    "pods/log", "pods/status", "resourcequotas", "resourcequotas/status",
)  # fmt: skip
_GATEWAY_GROUPS = ("gateway.networking.k8s.io", "gateway.kgateway.dev", "agentgateway.dev",
                   "inference.networking.k8s.io", "inference.networking.x-k8s.io")  # fmt: skip
_REVIEWS = ("selfsubjectaccessreviews", "selfsubjectrulesreviews")
_DISCOVERY = ("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz",
              "/version", "/version/")  # fmt: skip
_INFO = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_OIDC = ("/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks",
         "/openid/v1/jwks/")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ControllerPolicy:
    """Least privilege of one of our own identities: becomes a ClusterRole ``name`` and its binding.

    The subject is a ServiceAccount, or without one the user ``name``.
    """

    name: str
    rules: tuple[Rule, ...]
    namespace: str = ""
    service_account: str = ""

    @property
    def user(self) -> str:
        return service_account_name(self.namespace, self.service_account) if self.service_account else self.name

    @property
    def subject(self) -> Object:
        if self.service_account:
            return {"kind": "ServiceAccount", "name": self.service_account, "namespace": self.namespace}
        return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": self.name}


def bootstrap_policy(controllers: Sequence[ControllerPolicy] = ()) -> list[tuple[Resource, Object]]:
    """ClusterRoles and ClusterRoleBindings that must exist, roles first."""
    objects = [(CLUSTER_ROLE, role) for role in _roles()]
    objects += [(CLUSTER_ROLE, _role(c.name, *c.rules)) for c in controllers]
    objects += [(CLUSTER_ROLE_BINDING, binding) for binding in _bindings()]
    for c in controllers:
        objects.append((CLUSTER_ROLE_BINDING, _binding(c.name, c.name, c.subject)))
    return objects


def reconciled(desired: Object, stored: Object | None) -> Object | None:
    """What to write so that ``stored`` has at least what ``desired`` says; None when nothing is to be done.

    As upstream: missing rules and subjects are added, what a user added stays, and an object whose autoupdate
    annotation is "false" is left alone.
    """
    if stored is None:
        return copy.deepcopy(desired)
    if (stored["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    result = copy.deepcopy(stored)
    for key in ("labels", "annotations"):
        result["metadata"][key] = {**(desired["metadata"].get(key) or {}), **(stored["metadata"].get(key) or {})}
    if "aggregationRule" in desired:
        result.setdefault("aggregationRule", desired["aggregationRule"])
    elif "roleRef" in desired:
        have = [_subject_key(s) for s in stored.get("subjects") or ()]
        new = [s for s in desired["subjects"] if _subject_key(s) not in have]
        result["subjects"] = [*(stored.get("subjects") or ()), *new]
    else:
        missing = [r for r in read_rules(desired) if uncovered(read_rules(stored), [r])]
        result["rules"] = [*(stored.get("rules") or ()), *(r.to_object() for r in missing)]
    if result.get("rules") is None:
        result["rules"] = stored.get("rules")
    return result if _content(result) != _content(stored) else None


def aggregated_updates(cluster_roles: Iterable[Object]) -> list[Object]:
    """ClusterRoles whose stored ``rules`` differ from what their aggregationRule yields, with the right rules."""
    roles = list(cluster_roles)
    updates: list[Object] = []
    for role in roles:
        if not role.get("aggregationRule"):
            continue
        rules = effective_rules(role, roles)
        if rules != read_rules(role):
            updates.append({**role, "rules": [r.to_object() for r in rules]})
    return updates


def _content(obj: Object) -> tuple[Any, ...]:
    meta = obj["metadata"]
    return (meta.get("labels") or {}, meta.get("annotations") or {}, obj.get("rules") or [], obj.get("subjects") or [],
            obj.get("aggregationRule"))  # fmt: skip


def _subject_key(subject: Object) -> tuple[str, str, str]:
    return subject.get("kind", ""), subject.get("namespace", ""), subject.get("name", "")


def _rule(verbs: Sequence[str], group: str | Sequence[str], resources: Sequence[str]) -> Rule:
    groups = (group,) if isinstance(group, str) else tuple(group)
    return Rule(tuple(verbs), groups, tuple(resources))


def _meta(name: str, labels: dict[str, str]) -> Object:
    return {"name": name, "labels": {**_LABELS, **labels}, "annotations": {AUTOUPDATE: "true"}}


def _role(name: str, *rules: Rule, labels: dict[str, str] | None = None) -> Object:
    return {
        "apiVersion": _API,
        "kind": "ClusterRole",
        "metadata": _meta(name, labels or {}),
        "rules": [r.to_object() for r in rules],
    }


def _aggregate(name: str, *sources: str, labels: dict[str, str] | None = None) -> Object:
    role = _role(name, labels=labels)
    selectors = [{"matchLabels": {f"{_AGGREGATE}{s}": "true"}} for s in sources]
    return {**role, "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": []}


def _binding(name: str, role: str, *subjects: Object) -> Object:
    return {
        "apiVersion": _API,
        "kind": "ClusterRoleBinding",
        "metadata": _meta(name, {}),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": list(subjects),
    }


def _group(name: str) -> Object:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}


def _roles() -> list[Object]:
    return [
        _role("cluster-admin", Rule(("*",), ("*",), ("*",)), Rule(("*",), urls=("*",))),
        _role("system:discovery", Rule(("get",), urls=_DISCOVERY)),
        _role("system:public-info-viewer", Rule(("get",), urls=_INFO)),
        _role("system:service-account-issuer-discovery", Rule(("get",), urls=_OIDC)),
        _role("system:monitoring", Rule(("get",), urls=("/healthz", "/livez", "/metrics", "/readyz"))),
        _role(
            "system:basic-user",
            _rule(("create",), "authorization.k8s.io", _REVIEWS),
            _rule(("create",), "authentication.k8s.io", ("selfsubjectreviews",)),
        ),
        _role(
            "system:auth-delegator",
            _rule(("create",), "authentication.k8s.io", ("tokenreviews",)),
            _rule(("create",), "authorization.k8s.io", ("subjectaccessreviews",)),
        ),
        _role("system:kubelet-api-admin", _rule(("*",), "", tuple(f"nodes/{s}" for s in ("log", "metrics", "proxy")))),
        _aggregate("admin", "admin"),
        _aggregate("edit", "edit", labels={f"{_AGGREGATE}admin": "true"}),
        _aggregate("view", "view", labels={f"{_AGGREGATE}edit": "true"}),
        *_aggregated(),
    ]  # fmt: skip


def _aggregated() -> list[Object]:
    view, edit = {f"{_AGGREGATE}view": "true"}, {f"{_AGGREGATE}edit": "true"}
    admin = {f"{_AGGREGATE}admin": "true"}
    hpa, jobs = ("horizontalpodautoscalers",), ("cronjobs", "jobs")
    net, leases = ("ingresses", "networkpolicies"), ("leases",)
    secret_like = ("pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy")
    return [
        _role(
            "system:aggregate-to-view",
            _rule(_READ, "", (*_CORE, *_CORE_READ)),
            _rule(_READ, "discovery.k8s.io", ("endpointslices",)),
            _rule(_READ, "events.k8s.io", ("events",)),
            _rule(_READ, "apps", (*_APPS, *_APPS_STATUS)),
            _rule(_READ, "autoscaling", (*hpa, "horizontalpodautoscalers/status")),
            _rule(_READ, "batch", (*jobs, "cronjobs/status", "jobs/status")),
            _rule(_READ, "policy", ("poddisruptionbudgets", "poddisruptionbudgets/status")),
            _rule(_READ, "networking.k8s.io", (*net, "ingresses/status")),
            _rule(_READ, "metrics.k8s.io", ("pods",)),
            labels=view,
        ),
        _role(
            "system:aggregate-to-edit",
            _rule(_READ, "", secret_like),
            _rule(("impersonate",), "", ("serviceaccounts",)),
            _rule(_WRITE, "", (*_CORE, "events", "secrets", "services/proxy", "pods/proxy")),
            _rule(("create",), "", ("pods/attach", "pods/exec", "pods/portforward", "pods/eviction",
                                    "serviceaccounts/token")),
            _rule(_WRITE, "apps", _APPS),
            _rule(_WRITE, "autoscaling", hpa),
            _rule(_WRITE, "batch", jobs),
            _rule(_WRITE, "policy", ("poddisruptionbudgets",)),
            _rule(_WRITE, "networking.k8s.io", net),
            _rule(_ALL, "coordination.k8s.io", leases),
            labels=edit,
        ),
        _role(
            "system:aggregate-to-admin",
            _rule(("create",), "authorization.k8s.io", ("localsubjectaccessreviews",)),
            _rule(_ALL, "rbac.authorization.k8s.io", ("rolebindings", "roles")),
            labels=admin,
        ),
        _role("quarterdeck:gateway-view", _rule(_READ, _GATEWAY_GROUPS, ("*",)), labels=view),
        _role("quarterdeck:gateway-edit", _rule(_WRITE, _GATEWAY_GROUPS, ("*",)), labels=edit),
        *(
            _role(role["metadata"]["name"], *read_rules(role), labels=role["metadata"]["labels"])
            for role in cluster_roles()
        ),
    ]  # fmt: skip


def _bindings() -> list[Object]:
    everyone = (_group(AUTHENTICATED), _group(UNAUTHENTICATED))
    return [
        _binding("cluster-admin", "cluster-admin", _group(MASTERS)),
        _binding("system:discovery", "system:discovery", _group(AUTHENTICATED)),
        _binding("system:basic-user", "system:basic-user", _group(AUTHENTICATED)),
        _binding("system:public-info-viewer", "system:public-info-viewer", *everyone),
        _binding("system:monitoring", "system:monitoring", _group("system:monitoring")),
        _binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            *everyone,  # public keys: who verifies our tokens (gateways, peers) has no account here
        ),
    ]
