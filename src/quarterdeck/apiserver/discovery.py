"""Discovery: /api, /apis, the resource lists of each group version, and the aggregated form (v2)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cmp_to_key

from quarterdeck.apiserver.kinds import Kind
from quarterdeck.kube.resource import Object


@dataclass(frozen=True, slots=True)
class Virtual:
    """A resource that is answered but not stored: reviews, metrics."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: tuple[str, ...] = ("create",)


REVIEWS: tuple[Virtual, ...] = (
    Virtual("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", False),
    Virtual("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", False),
    Virtual("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", True),
    Virtual("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False),
    Virtual("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", False),
    Virtual("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False),
)
METRICS: tuple[Virtual, ...] = (
    Virtual("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", False, ("get", "list")),
    Virtual("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", True, ("get", "list")),
)
VIRTUAL = REVIEWS + METRICS

# (plural, subresource) → (group, version, kind, verbs) where it is not the parent's own kind with get/patch/update.
_SUBRESOURCES: dict[tuple[str, str], tuple[str, str, str, tuple[str, ...]]] = {
    ("pods", "log"): ("", "v1", "Pod", ("get",)),
    ("pods", "exec"): ("", "v1", "PodExecOptions", ("create", "get")),
    ("pods", "attach"): ("", "v1", "PodAttachOptions", ("create", "get")),
    ("pods", "portforward"): ("", "v1", "PodPortForwardOptions", ("create", "get")),
    ("pods", "binding"): ("", "v1", "Binding", ("create",)),
    ("pods", "eviction"): ("policy", "v1", "Eviction", ("create",)),
    ("namespaces", "finalize"): ("", "v1", "Namespace", ("update",)),
    ("serviceaccounts", "token"): ("authentication.k8s.io", "v1", "TokenRequest", ("create",)),
}
_CHANGE = ("get", "patch", "update")
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")
_GROUP_ORDER = (
    "", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling", "batch",
    "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "apiextensions.k8s.io", "coordination.k8s.io",
    "discovery.k8s.io",
)  # fmt: skip


def version_order(one: str, other: str) -> int:
    """Kubernetes' version priority: GA before beta before alpha, newest first."""

    def rank(version: str) -> tuple[int, int, int, str]:
        found = _VERSION.fullmatch(version)
        if found is None:
            return (3, 0, 0, version)
        stage = {None: 0, "beta": 1, "alpha": 2}[found[2]]
        return (stage, -int(found[1]), -int(found[3] or 0), "")

    return (rank(one) > rank(other)) - (rank(one) < rank(other))


def group_versions(kinds: Iterable[Kind]) -> dict[str, list[str]]:
    """Served versions by group, in the order of preference."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for kind in kinds:
        found[kind.resource.group].add(kind.resource.version)
    for virtual in VIRTUAL:
        found[virtual.group].add(virtual.version)

    def order(group: str) -> tuple[int, str]:
        return (_GROUP_ORDER.index(group) if group in _GROUP_ORDER else len(_GROUP_ORDER), group)

    return {g: sorted(found[g], key=cmp_to_key(version_order)) for g in sorted(found, key=order)}


def _group(group: str, versions: list[str]) -> Object:
    shown = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
    return {"name": group, "versions": shown, "preferredVersion": shown[0]}


def api_versions(address: str) -> Object:
    """``GET /api``."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def api_groups(kinds: Iterable[Kind]) -> Object:
    """``GET /apis``."""
    groups = [_group(g, versions) for g, versions in group_versions(kinds).items() if g]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(kinds: Iterable[Kind], group: str) -> Object | None:
    """``GET /apis/{group}``; None when it is not served."""
    versions = group_versions(kinds).get(group)
    return None if versions is None else {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)}


def _subresource(kind: Kind, name: str) -> tuple[str, str, str, tuple[str, ...]]:
    resource = kind.resource
    if name == "scale":
        return "autoscaling", "v1", "Scale", _CHANGE
    return _SUBRESOURCES.get((resource.plural, name), (resource.group, resource.version, resource.kind, _CHANGE))


def resource_list(kinds: Iterable[Kind], group: str, version: str) -> Object | None:
    """``GET /apis/{group}/{version}`` (and ``/api/v1``); None when it is not served."""
    resources: list[Object] = []
    for kind in sorted(_of(kinds, group, version), key=lambda k: k.resource.plural):
        resource = kind.resource
        shown: Object = {
            "name": resource.plural, "singularName": kind.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": list(kind.verbs),
        }  # fmt: skip
        if kind.short_names:
            shown["shortNames"] = list(kind.short_names)
        if kind.categories:
            shown["categories"] = list(kind.categories)
        resources.append(shown)
        for name in sorted(kind.subresources):
            of_group, of_version, of_kind, verbs = _subresource(kind, name)
            child: Object = {
                "name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced,
                "kind": of_kind, "verbs": list(verbs),
            }  # fmt: skip
            if (of_group, of_version) != (group, version):
                child["group"], child["version"] = of_group, of_version
            resources.append(child)
    for virtual in VIRTUAL:
        if (virtual.group, virtual.version) == (group, version):
            resources.append(
                {
                    "name": virtual.plural, "singularName": virtual.kind.lower(), "namespaced": virtual.namespaced,
                    "kind": virtual.kind, "verbs": list(virtual.verbs),
                }
            )  # fmt: skip
    if not resources:
        return None
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _of(kinds: Iterable[Kind], group: str, version: str) -> list[Kind]:
    return [k for k in kinds if (k.resource.group, k.resource.version) == (group, version)]


def aggregated(kinds: Iterable[Kind], *, legacy: bool) -> Object:
    """``GET /api`` (``legacy``) or ``/apis`` as apidiscovery.k8s.io/v2 APIGroupDiscoveryList."""
    every = tuple(kinds)
    items: list[Object] = []
    for group, versions in group_versions(every).items():
        if legacy == bool(group):
            continue
        shown = [
            {"version": v, "resources": _aggregated_resources(every, group, v), "freshness": "Current"}
            for v in versions
        ]
        metadata: Object = {"creationTimestamp": None}
        if group:
            metadata["name"] = group
        items.append({"metadata": metadata, "versions": shown})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated_resources(kinds: Iterable[Kind], group: str, version: str) -> list[Object]:
    resources: list[Object] = []
    for kind in sorted(_of(kinds, group, version), key=lambda k: k.resource.plural):
        resource = kind.resource
        shown: Object = {
            "resource": resource.plural,
            "responseKind": {"group": group, "version": version, "kind": resource.kind},
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "singularResource": kind.singular,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            shown["shortNames"] = list(kind.short_names)
        if kind.categories:
            shown["categories"] = list(kind.categories)
        children: list[Object] = []
        for name in sorted(kind.subresources):
            of_group, of_version, of_kind, verbs = _subresource(kind, name)
            response = {"group": of_group, "version": of_version, "kind": of_kind}
            children.append({"subresource": name, "responseKind": response, "verbs": list(verbs)})
        if children:
            shown["subresources"] = children
        resources.append(shown)
    for virtual in VIRTUAL:
        if (virtual.group, virtual.version) == (group, version):
            resources.append(
                {
                    "resource": virtual.plural,
                    "responseKind": {"group": group, "version": version, "kind": virtual.kind},
                    "scope": "Namespaced" if virtual.namespaced else "Cluster",
                    "singularResource": virtual.kind.lower(),
                    "verbs": list(virtual.verbs),
                }
            )
    return resources
