"""What the control plane may do in a cluster: the one table its Roles are generated from.

Kinds × verbs as the controllers really use them; tests/charts runs them with exactly these Roles and compares with the
API server's audit log, so that no verb is missing and none is there in vain. No wildcards.
``python -m quarterdeck.controllers.rbac charts/quarterdeck/templates`` writes them for the chart, and the ClusterRoles
for people (``resources.roles``) with them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.kube import resource as k
from quarterdeck.kube.resource import Resource
from quarterdeck.resources.roles import cluster_roles

_HEADER = "{{/* Generated from quarterdeck.controllers.rbac; do not edit. */}}\n"

FOLLOW = ("list", "watch")
APPLY = ("create", "patch")
"""Server-side apply; an object that is not there yet needs ``create`` too."""


@dataclass(frozen=True, slots=True)
class Grant:
    """``names``: only objects of these names (not possible for create, list and watch). ``why``: for the reader."""

    resource: Resource
    verbs: tuple[str, ...]
    why: str
    subresource: str = ""
    names: tuple[str, ...] = ()
    implied: bool = False
    """Asked by the API server on the way of another request, so the audit log does not show it."""

    @property
    def path(self) -> str:
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural


def _kind(resource: Resource, why: str, *, scale: bool = False, children: bool = True) -> tuple[Grant, ...]:
    """A kind of ours: followed, its status written, never its spec."""
    grants = [Grant(resource, FOLLOW, why), Grant(resource, ("patch",), "conditions", "status")]
    if scale:
        grants.append(Grant(resource, ("patch",), "spec.replicas seeded from deployment.replicas", "scale"))
    if children:
        finalizers = "owner references that block deletion, where OwnerReferencesPermissionEnforcement is on"
        grants.append(Grant(resource, ("update",), finalizers, "finalizers", implied=True))
    return tuple(grants)


LOCAL_ACCESS_REVIEW = Resource("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews")
WATCHED: tuple[Grant, ...] = (
    *_kind(k.AGENT, "Agents", scale=True),
    *_kind(k.MCP_SERVER, "MCP servers", scale=True),
    *_kind(k.MODEL_CONFIG, "models; Scripted ones run as a Pod"),
    *_kind(k.MODEL_PROVIDER_CONFIG, "model discovery", children=False),
    *_kind(k.REMOTE_MCP_SERVER, "tool discovery", children=False),
    *_kind(k.VIRTUAL_SERVER, "virtual servers", children=False),
    *_kind(k.APPROVAL_POLICY, "which calls people approve", children=False),
    Grant(k.APPROVAL, ("list",), "copies of what is kept in the database"),
    # not marked as used: what there is to copy, only a call of an agent makes
    Grant(k.APPROVAL, (*APPLY, "delete"), "the same", implied=True),
    Grant(k.APPROVAL, ("patch",), "what was said of the call", "status", implied=True),
    Grant(k.RUN, ("list",), "copies of what is kept in the database"),
    # not marked as used: what there is to copy, only somebody makes who starts a run in the background
    Grant(k.RUN, (*APPLY, "delete"), "the same", implied=True),
    Grant(k.RUN, ("patch",), "what became of the run", "status", implied=True),
    *_kind(k.TRIGGER, "what starts runs", children=False),
    Grant(LOCAL_ACCESS_REVIEW, ("create",), "what the ServiceAccounts of triggers may do"),
    Grant(k.DEPLOYMENT, (*FOLLOW, "get", *APPLY, "delete"), "agents, MCP servers, scripted models, canaries"),
    Grant(k.SERVICE, (*FOLLOW, *APPLY, "delete"), "their Services; Services labelled as MCP servers"),
    Grant(k.CONFIG_MAP, (*FOLLOW, *APPLY), "configuration of bridges; prompts and values that resources name"),
    # not marked as used: only what was there before something named it is fetched
    Grant(k.CONFIG_MAP, ("get",), "prompts and values that resources name", implied=True),
    Grant(k.SECRET, (*FOLLOW, "get", *APPLY, "delete"), "config.json of agents; keys and headers that resources name"),
    Grant(k.SERVICE_ACCOUNT, (*FOLLOW, *APPLY), "identities of agents and MCP servers"),
    Grant(k.NETWORK_POLICY, (*FOLLOW, *APPLY, "delete"), "who may talk to agents and MCP servers"),
    Grant(k.CONTROLLER_REVISION, (*FOLLOW, "get", "create", "patch", "delete"), "accepted specs"),
    Grant(k.POD, FOLLOW, "which Agent a caller's Pod belongs to"),
    Grant(k.REPLICA_SET, FOLLOW, "the way from a Pod to its Deployment"),
    Grant(k.ENDPOINT_SLICE, FOLLOW, "addresses for the gateway"),
    Grant(k.HPA, FOLLOW, "whether somebody else owns replicas"),
    Grant(k.RESOURCE_QUOTA, FOLLOW, "trying again when quota is freed"),
    Grant(k.EVENT, APPLY, "what happened, told at the object"),
    Grant(k.EVENT, FOLLOW, "triggers that Events fire; not watched while there is none"),
)
"""In every namespace that is served."""

OWN: tuple[Grant, ...] = (
    Grant(k.LEASE, ("create",), "leader election"),
    Grant(k.LEASE, ("get", "update"), "leader election", names=("quarterdeck-controller",)),
    Grant(k.SECRET, ("create",), "the gateways' key, the access token, the webhook's certificates"),
    Grant(
        k.SECRET,
        ("get",),
        "the same",
        names=("quarterdeck-access-token", "quarterdeck-gateway-key", "quarterdeck-webhook"),
    ),
    Grant(k.SECRET, ("patch",), "certificates of the webhook are rotated", names=("quarterdeck-webhook",)),
    Grant(k.DEPLOYMENT, ("get",), "owner of what the operator makes", names=("quarterdeck-controller",)),
)
"""In the control plane's own namespace."""

DEFAULT_NAMESPACE: tuple[Grant, ...] = (
    Grant(k.MODEL_CONFIG, APPLY, "default-model-config, where absent"),
    Grant(k.MODEL_CONFIG, ("get", "delete"), "renewed unless edited", names=("default-model-config",)),
)
"""In the namespace of default-model-config."""

GATEWAYS: tuple[Grant, ...] = (
    Grant(k.GATEWAY_CLASS, (*FOLLOW, "create"), "the classes quarterdeck and agentgateway"),
    Grant(k.GATEWAY_CLASS, ("patch",), "conditions", "status"),
    *_kind(k.GATEWAY, "Gateways; each becomes a Deployment and Service"),
    *_kind(k.HTTP_ROUTE, "routes", children=False),
    *_kind(k.GRPC_ROUTE, "told that they are not served", children=False),
    Grant(k.REFERENCE_GRANT, FOLLOW, "what may be referred to from other namespaces"),
    *_kind(k.BACKEND, "MCP servers and hosts that routes lead to", children=False),
    *_kind(k.AGENTGATEWAY_BACKEND, "the same", children=False),
    *_kind(k.TRAFFIC_POLICY, "rules of Gateways, routes and backends", children=False),
    *_kind(k.AGENTGATEWAY_POLICY, "the same", children=False),
)
"""Gateway API, with the backends and policies that belong to it."""

TOKEN_REVIEW = Resource("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", False)
ACCESS_REVIEW = Resource("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False)
CLUSTER: tuple[Grant, ...] = (
    Grant(k.NAMESPACE, (*FOLLOW, "get", "create"), "allowedNamespaces selectors; the default namespace"),
    Grant(TOKEN_REVIEW, ("create",), "who calls the REST APIs"),
    Grant(ACCESS_REVIEW, ("create",), "what people may see there; what another controller may write"),
    Grant(
        k.CRD,
        ("get", "patch"),
        "conversion webhook in our own definitions",
        names=("agents.kagent.dev", "modelconfigs.kagent.dev"),
    ),
    *GATEWAYS,
)
"""In cluster mode only."""

PATHS = ("/.well-known/openid-configuration", "/openid/v1/jwks")
"""Keys of ServiceAccount tokens. Every ServiceAccount may read them already, but in clusters that took that away."""

NAMESPACED: tuple[Grant, ...] = (
    Grant(k.NAMESPACE, ("get",), "labels of this very namespace"),
    *(grant for grant in GATEWAYS if grant.resource.namespaced),
)
"""In each namespace of ``watchNamespaces``, besides :data:`WATCHED`."""


def rules(grants: Iterable[Grant]) -> list[dict[str, Any]]:
    """PolicyRules, one per grant set of the same group, verbs and names; deterministic."""
    merged: dict[tuple[str, tuple[str, ...], tuple[str, ...]], set[str]] = {}
    for grant in grants:
        key = (grant.resource.group, tuple(sorted(set(grant.verbs))), grant.names)
        merged.setdefault(key, set()).add(grant.path)
    return [
        {"apiGroups": [group], "resources": sorted(paths), "verbs": list(verbs)}
        | ({"resourceNames": list(names)} if names else {})
        for (group, verbs, names), paths in merged.items()
    ]


def templates() -> dict[str, str]:
    """The generated files of the chart's ``templates`` folder, by name."""
    return {"_rules.tpl": _rules_template(), "aggregated-roles.yaml": _roles_template()}


def _rules_template() -> str:
    """The rules as named templates."""
    parts = [_HEADER]
    sets: Sequence[tuple[str, Iterable[Grant]]] = (
        ("watched", WATCHED),
        ("own", OWN),
        ("defaultNamespace", DEFAULT_NAMESPACE),
        ("cluster", CLUSTER),
        ("namespaced", NAMESPACED),
    )
    for name, grants in sets:
        lines = [f"- {json.dumps(rule)}" for rule in rules(grants)]
        if name == "cluster":
            lines.append(f"- {json.dumps({'nonResourceURLs': list(PATHS), 'verbs': ['get']})}")
        body = "\n".join(lines)
        parts.append(f'{{{{- define "quarterdeck.rules.{name}" -}}}}\n{body}\n{{{{- end -}}}}\n')
    return "\n".join(parts)


def _roles_template() -> str:
    parts = [_HEADER + "{{- if and .Values.rbac.aggregatedRoles (not .Values.watchNamespaces) }}"]
    for role in cluster_roles():
        metadata = role["metadata"]
        parts.append(
            f"---\napiVersion: {role['apiVersion']}\nkind: {role['kind']}\nmetadata:\n  name: {metadata['name']}"
        )
        parts.append('  labels:\n    {{- include "quarterdeck.labels" . | nindent 4 }}')
        parts += [f"    {label}: {json.dumps(value)}" for label, value in metadata["labels"].items()]
        parts += ["rules:", *(f"  - {json.dumps(rule)}" for rule in role["rules"])]
    return "\n".join([*parts, "{{- end }}", ""])


if __name__ == "__main__":
    for file, text in templates().items():
        (Path(sys.argv[1]) / file).write_text(text)
