"""What a Gateway consists of: a Deployment and Service of its name, or a Service that leads to a shared gateway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.kube.resource import Object
from quarterdeck.resources.gateway_api.gateway import GatewaySpec
from quarterdeck.resources.images import own_image
from quarterdeck.translate.mcp_server import selector as mcp_selector
from quarterdeck.translate.objects import LIFECYCLE, POD_IP, metadata
from quarterdeck.translate.pod_security import restricted

from .world import key_of

NAME_LABEL = "gateway.networking.k8s.io/gateway-name"
CLASS_LABEL = "gateway.networking.k8s.io/gateway-class-name"
SERVICE_TYPE = "quarterdeck.dev/service-type"
"""Annotation on a Gateway: ClusterIP, NodePort or LoadBalancer."""
REPLICAS = "quarterdeck.dev/replicas"
"""Annotation on a Gateway: Pods of its Deployment."""
KEY_FILE = "gateway.key"
"""The key in :func:`key_name`'s Secret: 32 bytes that all replicas seal sessions with."""
_STATS, _READY, _PEERS = 15020, 15021, 8704
_TOKEN_SECONDS = 3600
_STATE = "64Mi"
_MANAGED = {"app.kubernetes.io/managed-by": "quarterdeck", "app.kubernetes.io/part-of": "quarterdeck"}


@dataclass(frozen=True, slots=True)
class GatewayPods:
    """How Gateways are run. ``shared`` set: all by the default gateway, which listens on that address."""

    control_plane: str = ""
    """URL of the management API, as Pods of other namespaces reach it."""
    shared: str = ""
    service_type: str = "ClusterIP"
    image: str = field(default_factory=own_image)


def labels_of(gateway: Object, spec: GatewaySpec) -> dict[str, str]:
    """Of everything made for it."""
    name = gateway["metadata"]["name"]
    given = (spec.infrastructure.labels if spec.infrastructure else None) or {}
    return {**given, **_MANAGED, NAME_LABEL: name, CLASS_LABEL: spec.gateway_class_name}


def selector_of(gateway: Object) -> dict[str, str]:
    return {"app.kubernetes.io/name": "quarterdeck-gateway", NAME_LABEL: gateway["metadata"]["name"]}


def key_name(gateway: Object) -> str:
    return f"{gateway['metadata']['name']}-session-key"


def dedicated(
    gateway: Object, spec: GatewaySpec, ports: Mapping[int, int], pods: GatewayPods, key: str
) -> list[Object]:
    """ServiceAccount, Secret, Deployment and Service. ``ports``: of the Gateway to those that are bound; ``key``: the
    replicas' own, in base64."""
    name = gateway["metadata"]["name"]
    labels = labels_of(gateway, spec) | selector_of(gateway) | {"app.kubernetes.io/component": "gateway"}
    annotations = (spec.infrastructure.annotations if spec.infrastructure else None) or {}
    meta = metadata(gateway, name, labels, annotations)
    pod_meta: Object = {"labels": labels} | ({"annotations": annotations} if annotations else {})
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta, "automountServiceAccountToken": False},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata(gateway, key_name(gateway), labels, annotations),
            "type": "Opaque",
            "data": {KEY_FILE: key},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": replicas_of(gateway),
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "selector": {"matchLabels": selector_of(gateway)},
                "template": {"metadata": pod_meta, "spec": _pod(gateway, pods)},
            },
        },
        _service(gateway, meta, ports, pods),
    ]


def admission(gateway: Object, spec: GatewaySpec, used: Iterable[str]) -> list[Object]:
    """A NetworkPolicy that lets the Gateway's Pods reach the MCPServers of its namespace that its routes lead to
    (``used``: ``kind/namespace/name``), which else take nobody but the default gateway; none when there are none."""
    namespace, name = key_of(gateway)
    parts = [key.split("/", 2) for key in used]
    names = sorted(found for kind, home, found in parts if (kind, home) == ("MCPServer", namespace))
    if not names:
        return []
    servers = [{"key": key, "operator": "In", "values": names} for key in mcp_selector("")]
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(gateway, name, labels_of(gateway, spec)),
            "spec": {
                "podSelector": {"matchExpressions": servers},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": selector_of(gateway)}}]}],
            },
        }
    ]


def shared(gateway: Object, spec: GatewaySpec, ports: Mapping[int, int], addresses: Sequence[str]) -> list[Object]:
    """A Service without selector and its EndpointSlice: the default gateway's Pods are in another namespace."""
    name = gateway["metadata"]["name"]
    meta = metadata(gateway, name, labels_of(gateway, spec))
    service = _service(gateway, meta, ports, GatewayPods(), selected=False)
    piece = metadata(gateway, name, labels_of(gateway, spec) | {"kubernetes.io/service-name": name})
    listed = [{"name": _port_name(port), "port": bound, "protocol": "TCP"} for port, bound in sorted(ports.items())]
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
    return [
        service,
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": piece,
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": listed,
        },
    ]


def replicas_of(gateway: Object) -> int:
    """As annotated; one when that is no number."""
    text = (gateway["metadata"].get("annotations") or {}).get(REPLICAS, "")
    return int(text) if text.isdigit() else 1


def _service(
    gateway: Object, meta: Object, ports: Mapping[int, int], pods: GatewayPods, *, selected: bool = True
) -> Object:
    wanted = (gateway["metadata"].get("annotations") or {}).get(SERVICE_TYPE, "")
    kind = wanted if wanted in ("ClusterIP", "NodePort", "LoadBalancer") else pods.service_type
    listed = [
        {"name": _port_name(port), "port": port, "targetPort": bound, "protocol": "TCP"}
        for port, bound in sorted(ports.items())
    ]
    spec: dict[str, Any] = {"type": kind if selected else "ClusterIP", "ports": listed}
    if selected:
        spec["selector"] = selector_of(gateway)
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def _port_name(port: int) -> str:
    return f"port-{port}"


def _pod(gateway: Object, pods: GatewayPods) -> Object:
    namespace, name = key_of(gateway)
    args = [
        f"--gateway={namespace}/{name}", f"--control-plane={pods.control_plane}", "--local=off", "--workloads=off",
        f"--stats=$(POD_IP):{_STATS}", f"--ready=$(POD_IP):{_READY}", "--admin=127.0.0.1:15000",
        f"--peers=$(POD_IP):{_PEERS}", f"--key-file=/var/run/secrets/gateway/{KEY_FILE}",
        "--token-file=/var/run/secrets/tokens/quarterdeck-token", "--data-dir=/var/lib/quarterdeck", "--audit-file=-",
    ]  # fmt: skip
    field_env = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}
    container: Object = {
        "name": "gateway",
        "image": pods.image,
        "command": ["python", "-m", "quarterdeck.gateway"],
        "args": args,
        "env": [
            POD_IP,
            *({"name": n, "valueFrom": {"fieldRef": {"fieldPath": path}}} for n, path in field_env.items()),
        ],
        # Not the listeners': another listener is bound by the running process and must not roll the Pods.
        "ports": [
            {"name": "peers", "containerPort": _PEERS, "protocol": "TCP"},
            {"name": "stats", "containerPort": _STATS, "protocol": "TCP"},
            {"name": "ready", "containerPort": _READY, "protocol": "TCP"},
        ],
        "startupProbe": {"tcpSocket": {"port": "ready"}, "periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"tcpSocket": {"port": "ready"}, "periodSeconds": 10, "timeoutSeconds": 5},
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": "ready"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
        },
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "lifecycle": LIFECYCLE,
        "volumeMounts": [
            {"name": "tokens", "mountPath": "/var/run/secrets/tokens", "readOnly": True},
            {"name": "key", "mountPath": "/var/run/secrets/gateway", "readOnly": True},
            {"name": "state", "mountPath": "/var/lib/quarterdeck"},
        ],
    }
    token = {"audience": "quarterdeck", "expirationSeconds": _TOKEN_SECONDS, "path": "quarterdeck-token"}
    pod: Object = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [
            {"name": "tokens", "projected": {"sources": [{"serviceAccountToken": token}]}},
            {"name": "key", "secret": {"secretName": key_name(gateway), "defaultMode": 0o440}},
            {"name": "state", "emptyDir": {"sizeLimit": _STATE}},
        ],
    }
    return restricted(pod, {"gateway"})
