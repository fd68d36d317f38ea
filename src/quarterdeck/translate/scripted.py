"""ModelConfig with provider Scripted → Deployment and Service of our scripted model server."""

from __future__ import annotations

from typing import Any

from quarterdeck.kube.resource import Object
from quarterdeck.resources.model_config import ModelConfigSpec

from .names import check_name
from .network import model_policy
from .objects import POD_IP, digest, http_probe, metadata
from .options import Options
from .pod_security import restricted

PORT = 8080


def selector(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "scripted-model", "app.kubernetes.io/instance": name}


def labels(name: str) -> dict[str, str]:
    return selector(name) | {
        "app.kubernetes.io/managed-by": "quarterdeck",
        "quarterdeck.dev/modelconfig": name,
    }


def translate_scripted(obj: Object, spec: ModelConfigSpec, options: Options, script_hash: str = "") -> list[Object]:
    """The server named like the ModelConfig; ``script_hash`` rolls it when its script changes."""
    name = check_name(obj)
    settings = spec.scripted
    args = ["--host", "$(POD_IP)", "--port", str(PORT), "--model", spec.model]
    container: dict[str, Any] = {
        "name": "model",
        "image": options.image,
        "command": ["python", "-m", "quarterdeck.agents.scripted"],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": [POD_IP],
        "startupProbe": http_probe("/health", "http", periodSeconds=1, failureThreshold=60),
        "readinessProbe": http_probe("/health", "http", periodSeconds=5),
        "livenessProbe": http_probe("/health", "http", periodSeconds=10, timeoutSeconds=5),
    }
    pod: dict[str, Any] = {"automountServiceAccountToken": False, "containers": [container]}
    if settings is not None and settings.script_from is not None:
        source = settings.script_from
        args += ["--script", f"/script/{source.key}"]
        container["volumeMounts"] = [{"name": "script", "mountPath": "/script"}]
        pod["volumes"] = [{"name": "script", "configMap": {"name": source.name}}]
    container["args"] = args
    template = {
        "metadata": {
            "labels": labels(name),
            "annotations": {"quarterdeck.dev/config-hash": digest([spec.model, script_hash])[:32]},
        },
        "spec": restricted(pod, ("model",)),
    }
    count = settings.replicas if settings is not None else None
    deployment: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(obj, name, labels(name)),
        "spec": {
            "replicas": 1 if count is None else count,
            "selector": {"matchLabels": selector(name)},
            "template": template,
        },
    }
    port = {"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(obj, name, labels(name)),
        "spec": {"type": "ClusterIP", "selector": selector(name), "ports": [port]},
    }
    policies = options.network_policies
    policy = [model_policy(obj, labels(name), selector(name), policies)] if policies is not None else []
    return [*policy, deployment, service]
