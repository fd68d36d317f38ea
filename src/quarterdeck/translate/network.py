"""NetworkPolicies of what we run: agents reach gateway, control plane and DNS; who reaches what we run is the gateway.

Policies add up: whoever wants more (a server that reads a database in the cluster) writes one more that selects it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

from quarterdeck.errors import ConfigError
from quarterdeck.kube.owner import owner_reference
from quarterdeck.kube.resource import Object

from .objects import metadata
from .options import NetworkPolicies

EGRESS = "quarterdeck.dev/egress"
"""Annotation on an MCPServer: ``public`` (default: addresses outside the cluster), ``none`` or ``all``."""
ENVIRONMENT = "quarterdeck.dev/environment"
"""Label on a namespace (``dev``, ``prod``): what runs in other environments cannot connect to its Pods."""
ENVIRONMENT_POLICY = "quarterdeck-environment"
CANARY_SUFFIX = "-canary"
_OURS = ("kagent", "kmcp", "quarterdeck")
_Rules = list[dict[str, Any]]


def agent_policy(
    obj: Object,
    labels: Mapping[str, str],
    settings: NetworkPolicies,
    public: tuple[int, ...] = (),
    collector: tuple[str, int] | None = None,
) -> Object:
    """For an Agent's Pods and its canary's: in from the gateway, out to gateway, control plane and DNS, to addresses
    outside the cluster on the ports ``public``, where its skills come from, and to the ``collector`` of spans."""
    name = obj["metadata"]["name"]
    selector = {
        "matchLabels": {"app": "kagent"},
        "matchExpressions": [{"key": "kagent", "operator": "In", "values": [name, name + CANARY_SUFFIX]}],
    }
    egress = [
        {"to": [_pods(settings, settings.gateway)], "ports": _tcp(settings.gateway_port)},
        {"to": [_pods(settings, settings.controller)], "ports": _tcp(*settings.controller_ports)},
        _dns(settings),
    ]
    if public:
        egress.append({"to": _outside(settings), "ports": _tcp(*public)})
    if collector is not None:
        egress.append({"to": _named(collector[0], settings), "ports": _tcp(collector[1])})
    return _policy(obj, labels, selector, [{"from": [_pods(settings, settings.gateway)]}], egress)


def mcp_server_policy(
    obj: Object, labels: Mapping[str, str], selector: Mapping[str, str], settings: NetworkPolicies
) -> Object:
    """For an MCPServer's Pods: in from the gateway, and from the control plane that asks for its tools; out as
    :data:`EGRESS` says. Raises ConfigError for a value it does not know."""
    callers = [_pods(settings, settings.gateway), _pods(settings, settings.controller)]
    egress = _egress(obj, settings)
    return _policy(obj, labels, {"matchLabels": dict(selector)}, [{"from": callers}], egress)


def model_policy(
    obj: Object, labels: Mapping[str, str], selector: Mapping[str, str], settings: NetworkPolicies
) -> Object:
    """For a scripted model: in from the gateway, nothing out."""
    ingress = [{"from": [_pods(settings, settings.gateway)]}]
    return _policy(obj, labels, {"matchLabels": dict(selector)}, ingress, [])


def environment_policy(namespace: Object, settings: NetworkPolicies) -> Object | None:
    """In a namespace of an environment, for Pods that are not ours (ours have stricter ones): in from the same
    environment and from the gateway's namespace only. None for a namespace of no environment."""
    labels = namespace["metadata"].get("labels") or {}
    environment = labels.get(ENVIRONMENT)
    if not environment:
        return None
    others = {"matchExpressions": [{"key": "app.kubernetes.io/managed-by", "operator": "NotIn", "values": list(_OURS)}]}
    callers = [
        {"namespaceSelector": {"matchLabels": {ENVIRONMENT: environment}}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}}},
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": ENVIRONMENT_POLICY,
            "namespace": namespace["metadata"]["name"],
            "labels": {"app.kubernetes.io/managed-by": "quarterdeck"},
            "ownerReferences": [owner_reference(namespace)],
        },
        "spec": {"podSelector": others, "policyTypes": ["Ingress"], "ingress": [{"from": callers}]},
    }


def _policy(
    obj: Object, labels: Mapping[str, str], selector: dict[str, Any], ingress: _Rules, egress: _Rules
) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(obj, obj["metadata"]["name"], labels),
        "spec": {
            "podSelector": selector,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            **({"egress": egress} if egress else {}),
        },
    }


def _egress(obj: Object, settings: NetworkPolicies) -> _Rules:
    wanted = (obj["metadata"].get("annotations") or {}).get(EGRESS, "public")
    if wanted == "none":
        return []
    if wanted == "all":
        return [{}]
    if wanted != "public":
        name = obj["metadata"]["name"]
        raise ConfigError(f"{obj['kind']} {name}: annotation {EGRESS}: {wanted!r} is not one of public, none, all")
    return [{"to": _outside(settings)}, _dns(settings)]


def _outside(settings: NetworkPolicies) -> _Rules:
    return [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(settings.private)}},
        {"ipBlock": {"cidr": "::/0", "except": list(settings.private6)}},
    ]


def _named(host: str, settings: NetworkPolicies) -> _Rules:
    """Where a host name leads: a Service's namespace, else an address outside the cluster; what may be both, both."""
    with suppress(ValueError):
        return [{"ipBlock": {"cidr": str(ip_network(host))}}]
    labels = host.split(".")
    if len(labels) == 1:
        return [{"podSelector": {}}]
    namespace: dict[str, Any] = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": labels[1]}}}
    if len(labels) == 2:
        return [namespace, *_outside(settings)]
    return [namespace] if labels[2] == "svc" else _outside(settings)


def _pods(settings: NetworkPolicies, labels: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Pods of the platform's namespace."""
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}},
        "podSelector": {"matchLabels": dict(labels)},
    }


def _tcp(*ports: int) -> _Rules:
    return [{"port": port, "protocol": "TCP"} for port in ports]


def _dns(settings: NetworkPolicies) -> dict[str, Any]:
    """To the cluster's DNS, whose Pods listen on 53, in OpenShift on 5353."""
    names = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(settings.dns_namespaces)}
    peers = [
        {"namespaceSelector": {"matchExpressions": [names]}},
        {"ipBlock": {"cidr": settings.node_local_dns}},
    ]
    return {"to": peers, "ports": [{"port": p, "protocol": kind} for p in (53, 5353) for kind in ("UDP", "TCP")]}
