"""MCPServer → ConfigMap, ServiceAccount, Deployment, Service: names, labels and ports as kmcp (§3.5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from quarterdeck.errors import ConfigError
from quarterdeck.kube.resource import Object
from quarterdeck.resources.mcp_server import MCPServerDeployment, MCPServerSpec
from quarterdeck.resources.replicas import Replicas, settle

from .names import check_image, check_name, check_size
from .network import mcp_server_policy
from .objects import LIFECYCLE, POD_IP, digest, duration, http_probe, metadata, present, sources_annotation
from .options import Options
from .pod_security import restricted

CONFIG_HASH = "kmcp.kagent.dev/mcpserver-config-hash"
STDIO_MODE = "quarterdeck.dev/stdio"
CONTAINER, INIT_CONTAINER = "mcp-server", "copy-binary"
_PACKAGE_IMAGES = {"uvx": "ghcr.io/astral-sh/uv:debian", "npx": "node:24-alpine3.21"}


def selector(name: str) -> dict[str, str]:
    """Labels that select the server's Pods."""
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": name}


def labels(name: str) -> dict[str, str]:
    return selector(name) | {"app.kubernetes.io/managed-by": "kmcp"}


def replicas(obj: Object, spec: MCPServerSpec) -> Replicas:
    """Pods wanted: ``spec.replicas``, seeded from ``deployment.replicas``."""
    return settle(spec.replicas, spec.deployment.replicas, (obj.get("status") or {}).get("seededReplicas"))


def validate(spec: MCPServerSpec) -> None:
    """Raises ConfigError for what the schema cannot say."""
    deployment = spec.deployment
    if not spec.transport_type:
        raise ConfigError("spec.transportType is required: stdio or http")
    if not deployment.image and deployment.cmd not in _PACKAGE_IMAGES:
        raise ConfigError("spec.deployment.image is required unless spec.deployment.cmd is uvx or npx")
    if spec.transport_type == "stdio" and not deployment.cmd:
        raise ConfigError("spec.deployment.cmd is required for transportType stdio: the command to start")


def target_port(spec: MCPServerSpec) -> int:
    """The port the server itself listens on."""
    transport = spec.http_transport if spec.transport_type == "http" else None
    return (transport.target_port if transport else None) or spec.deployment.port


def mcp_path(spec: MCPServerSpec) -> str:
    """The path of the server's MCP endpoint."""
    transport = spec.http_transport if spec.transport_type == "http" else None
    path = (transport.path if transport else None) or "/mcp"
    return path if path.startswith("/") else f"/{path}"


def translate_mcp_server(
    obj: Object,
    spec: MCPServerSpec,
    options: Options,
    mounted: Mapping[str, str] | None = None,
    *,
    release_replicas: bool = False,
) -> list[Object]:
    """All objects of a server, in the order to apply them. ``mounted``: hashes of what is mounted or in env.

    Raises ConfigError when the spec cannot be run.
    """
    validate(spec)
    name = check_name(obj)
    check_image(obj, "spec.deployment.image", spec.deployment.image)
    init = spec.deployment.init_container
    check_image(obj, "spec.deployment.initContainer.image", init.image if init else None)
    bridge = _bridge_config(obj, spec) if spec.transport_type == "stdio" else {}
    data = {"bridge.json": json.dumps(bridge, sort_keys=True)} if bridge else {}
    sizes = {key: value.encode() for key, value in data.items()}
    check_size(obj, "ConfigMap", sizes, "pass what is long in a file (spec.deployment.configMapRefs)")
    objects: list[Object] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(obj, name, labels(name)),
            "data": data,
        }
    ]
    if not spec.deployment.service_account_name:
        objects.append(_service_account(obj, spec.deployment))
    mounted = dict(sorted((mounted or {}).items()))
    config_hash = digest({"bridge": bridge, "mounted": mounted})[:32]
    marks = {CONFIG_HASH: config_hash} | sources_annotation(mounted)
    deployment = _deployment(obj, spec, options, marks)
    if not release_replicas:
        deployment["spec"]["replicas"] = replicas(obj, spec).wanted
    if options.network_policies is not None:  # in force before the first Pod
        objects.append(mcp_server_policy(obj, labels(name), selector(name), options.network_policies))
    return [*objects, deployment, _service(obj, spec)]


def _bridge_config(obj: Object, spec: MCPServerSpec) -> dict[str, Any]:
    annotations = obj["metadata"].get("annotations") or {}
    return {
        "listen": {"port": spec.deployment.port},
        "command": spec.deployment.cmd or "",
        "args": spec.deployment.args or [],
        "mode": "shared" if annotations.get(STDIO_MODE) == "shared" else "per-session",
        "timeout": duration(spec.timeout),
        "name": obj["metadata"]["name"],
    }


def _service_account(obj: Object, deployment: MCPServerDeployment) -> Object:
    name = obj["metadata"]["name"]
    config = deployment.service_account
    extra = (config.labels or {}) if config else {}
    annotations = (config.annotations or {}) if config else {}
    meta = metadata(obj, name, labels(name) | extra, annotations)
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}


def _service(obj: Object, spec: MCPServerSpec) -> Object:
    name = obj["metadata"]["name"]
    port = {
        "name": "http",
        "port": spec.deployment.port,
        "targetPort": target_port(spec),
        "protocol": "TCP",
        "appProtocol": "kgateway.dev/mcp",
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(obj, name, labels(name)),
        "spec": {"type": "ClusterIP", "selector": selector(name), "ports": [port]},
    }


def _deployment(obj: Object, spec: MCPServerSpec, options: Options, marks: Mapping[str, str]) -> Object:
    name, deployment = obj["metadata"]["name"], spec.deployment
    template = {
        "metadata": {
            "labels": labels(name) | (deployment.labels or {}) | selector(name),
            "annotations": {**(deployment.annotations or {}), **marks},
        },
        "spec": _pod(name, spec, options),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(obj, name, labels(name)),
        "spec": {
            "selector": {"matchLabels": selector(name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def _pod(name: str, spec: MCPServerSpec, options: Options) -> dict[str, Any]:
    deployment = spec.deployment
    stdio = spec.transport_type == "stdio"
    config_maps = [ref.name for ref in deployment.config_map_refs or ()]
    volumes = [
        *([{"name": "binary", "emptyDir": {}}, {"name": "config", "configMap": {"name": name}}] if stdio else ()),
        *({"name": f"cm-{ref}", "configMap": {"name": ref}} for ref in config_maps),
        *(deployment.volumes or ()),
    ]
    pod: dict[str, Any] = {
        "serviceAccountName": deployment.service_account_name or name,
        "containers": [_container(spec, config_maps), *(deployment.sidecars or ())],
    }
    if stdio:
        pod["initContainers"] = [_init_container(deployment, options)]
    pod |= present(
        volumes=volumes,
        imagePullSecrets=deployment.image_pull_secrets,
        tolerations=deployment.tolerations,
        affinity=deployment.affinity,
        nodeSelector=deployment.node_selector,
        securityContext=deployment.pod_security_context,
    )
    # An image of the user's may write where it likes (as far as its uid gets); those of uvx and npx do so in HOME.
    return restricted(pod, (INIT_CONTAINER,) if deployment.image else (INIT_CONTAINER, CONTAINER))


def _init_container(deployment: MCPServerDeployment, options: Options) -> dict[str, Any]:
    init = deployment.init_container
    container: dict[str, Any] = {
        "name": INIT_CONTAINER,
        "image": (init.image if init else None) or options.image,
        "command": ["python", "-m", "quarterdeck.bridge", "install", "/adapterbin"],
        "volumeMounts": [{"name": "binary", "mountPath": "/adapterbin"}],
    }
    if init is None:
        return container
    return container | present(
        imagePullPolicy=init.image_pull_policy, resources=init.resources, securityContext=init.security_context
    )


def _container(spec: MCPServerSpec, config_maps: list[str]) -> dict[str, Any]:
    deployment = spec.deployment
    stdio = spec.transport_type == "stdio"
    port = deployment.port if stdio else target_port(spec)
    # Without a user of that uid in the image HOME would be /, and uvx and npx could not keep what they fetch.
    own = {} if deployment.image else {"HOME": "/tmp"}  # noqa: S108 - the Pod's own
    environment = [{"name": key, "value": value} for key, value in sorted((own | (deployment.env or {})).items())]
    mounts = [
        *(
            [{"name": "binary", "mountPath": "/adapterbin"}, {"name": "config", "mountPath": "/config"}]
            if stdio
            else ()
        ),
        *({"name": f"cm-{ref}", "mountPath": f"/configmaps/{ref}"} for ref in config_maps),
        *(deployment.volume_mounts or ()),
    ]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": deployment.image or _PACKAGE_IMAGES[deployment.cmd or ""],
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "env": [POD_IP, *environment],
        "lifecycle": LIFECYCLE,
    }
    if stdio:
        container |= {
            "command": ["/adapterbin/quarterdeck-bridge"],
            "args": ["--config", "/config/bridge.json"],
            "startupProbe": http_probe("/health", "http", periodSeconds=1, failureThreshold=120, timeoutSeconds=5),
            "readinessProbe": http_probe("/ready", "http", periodSeconds=2, timeoutSeconds=5),
            "livenessProbe": http_probe("/health", "http", periodSeconds=10, timeoutSeconds=10),
        }
    else:
        command = [deployment.cmd] if deployment.cmd else None
        container |= present(command=command, args=deployment.args)
        container["readinessProbe"] = {"tcpSocket": {"port": "http"}, "periodSeconds": 2}
    return container | present(
        volumeMounts=mounts,
        envFrom=[{"secretRef": {"name": ref.name}} for ref in deployment.secret_refs or ()],
        imagePullPolicy=deployment.image_pull_policy,
        resources=deployment.resources,
        securityContext=deployment.security_context,
    )
