"""What the platform needs in the API: namespaces, the default ModelConfig, the gateway. Manifests only, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from quarterdeck.kube.resource import Object
from quarterdeck.resources.images import own_image
from quarterdeck.resources.model_config import ModelConfigSpec

SYSTEM_NAMESPACE = "quarterdeck-system"
GATEWAY = "quarterdeck"
GATEWAY_SERVICE = "quarterdeck-gateway"
GATEWAY_KEY, GATEWAY_KEY_FILE = "quarterdeck-gateway-key", "gateway.key"
"""Secret, and key in it, with the key that all replicas of the gateway share, in a cluster."""
ACCESS_TOKEN, ACCESS_TOKEN_KEY = "quarterdeck-access-token", "token"
"""The same for the token of people at the gateway."""
KAGENT_SERVICE = "kagent-controller"
"""Where images of kagent's SDKs look for the control plane."""
_LABELS = {"app.kubernetes.io/part-of": "quarterdeck", "app.kubernetes.io/managed-by": "quarterdeck"}
_SELECTOR = {"app.kubernetes.io/name": "quarterdeck-gateway", "app.kubernetes.io/instance": GATEWAY}


@dataclass(frozen=True, slots=True)
class GatewayListeners:
    """Where the gateway listens and whom it asks for its configuration. Addresses are ``host:port``."""

    control_plane: str
    """URL of the management API."""
    local: str = "127.0.0.1:8701"
    workloads: str = "127.0.0.1:8702"
    stats: str = "127.0.0.1:15020"
    ready: str = "127.0.0.1:15021"
    admin: str = "off"
    extra_args: tuple[str, ...] = ()
    """Further flags; one given twice counts the last time."""
    host_network: bool = True
    image: str = field(default_factory=own_image)


def namespaces(default_namespace: str = "kagent") -> list[Object]:
    return [namespace_manifest(name) for name in (SYSTEM_NAMESPACE, default_namespace)]


def namespace_manifest(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(_LABELS)}}


def own_secret(namespace: str, name: str, data: dict[str, str]) -> Object:
    """A Secret of the control plane's own; values in base64."""
    metadata: Object = {"name": name, "namespace": namespace, "labels": dict(_LABELS)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


def default_model_config(spec: ModelConfigSpec | Object, namespace: str = "kagent") -> Object:
    """``kagent/default-model-config``; create it only when it is absent: one the user edited is never overwritten."""
    body = spec if isinstance(spec, dict) else spec.model_dump(by_alias=True, exclude_none=True)
    return {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "ModelConfig",
        "metadata": {"name": "default-model-config", "namespace": namespace, "labels": dict(_LABELS)},
        "spec": body,
    }


def scripted_model() -> Object:
    """Spec of the ModelConfig used when no provider is at hand."""
    return {"provider": "Scripted", "model": "scripted"}


def gateway(listeners: GatewayListeners) -> list[Object]:
    """ServiceAccount, claim, Deployment and Service of the default gateway."""
    labels = _LABELS | _SELECTOR
    ports = {"local": _port(listeners.local), "workloads": _port(listeners.workloads), "stats": _port(listeners.stats)}
    meta = {"namespace": SYSTEM_NAMESPACE, "labels": labels}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": GATEWAY} | meta},
        {
            # The last good configuration and the audit records outlive the Pod.
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": GATEWAY_SERVICE} | meta,
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": GATEWAY} | meta,
            "spec": {
                "replicas": 1,
                # With host networking two replicas would want the same ports, so the old one goes first.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": _SELECTOR},
                "template": {"metadata": {"labels": labels}, "spec": _pod(listeners, ports)},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": GATEWAY_SERVICE} | meta,
            "spec": {
                "selector": _SELECTOR,
                "ports": [
                    {"name": "local", "port": 8701, "targetPort": ports["local"], "protocol": "TCP"},
                    {"name": "workloads", "port": 8702, "targetPort": ports["workloads"], "protocol": "TCP"},
                ],
            },
        },
    ]


def kagent_service(port: int) -> list[Object]:
    """Service and endpoint of the control plane's kagent listener on this machine, for Pods behind the egress proxy."""
    meta = {"name": KAGENT_SERVICE, "namespace": SYSTEM_NAMESPACE, "labels": dict(_LABELS)}
    named = {"kubernetes.io/service-name": KAGENT_SERVICE, "endpointslice.kubernetes.io/managed-by": "quarterdeck"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"ports": [{"name": "kagent", "port": 8083, "targetPort": port, "protocol": "TCP"}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": meta | {"labels": _LABELS | named},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            "ports": [{"name": "kagent", "port": port, "protocol": "TCP"}],
        },
    ]


def _pod(listeners: GatewayListeners, ports: dict[str, int]) -> Object:
    token = {"audience": "quarterdeck", "expirationSeconds": 3600, "path": "quarterdeck-token"}
    return {
        "serviceAccountName": GATEWAY,
        "hostNetwork": listeners.host_network,
        "containers": [_container(listeners, ports)],
        "volumes": [
            {"name": "tokens", "projected": {"sources": [{"serviceAccountToken": token}]}},
            {"name": "state", "persistentVolumeClaim": {"claimName": GATEWAY_SERVICE}},
        ],
    }


def _container(listeners: GatewayListeners, ports: dict[str, int]) -> Object:
    ready_host, _, ready_port = listeners.ready.rpartition(":")
    probe = {"httpGet": {"host": ready_host, "port": int(ready_port), "path": "/healthz/ready"}, "periodSeconds": 2}
    args = [
        "--local", listeners.local, "--workloads", listeners.workloads, "--stats", listeners.stats,
        "--ready", listeners.ready, "--admin", listeners.admin, "--control-plane", listeners.control_plane,
        "--token-file", "/var/run/secrets/tokens/quarterdeck-token", "--data-dir", "/var/lib/quarterdeck",
        *listeners.extra_args,
    ]  # fmt: skip
    return {
        "name": "gateway",
        "image": listeners.image,
        "command": ["python", "-m", "quarterdeck.gateway"],
        "args": args,
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "startupProbe": probe | {"periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": probe,
        "volumeMounts": [
            {"name": "tokens", "mountPath": "/var/run/secrets/tokens"},
            {"name": "state", "mountPath": "/var/lib/quarterdeck"},
        ],
    }


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
