"""Agent → Secret, ServiceAccount, Deployment, Service: names, labels, mounts and ports as kagent (§3.1)."""

from __future__ import annotations

import base64
import json
from typing import Any

from quarterdeck.kube.resource import Object
from quarterdeck.resources.agent import ByoDeployment, DeclarativeDeployment, SharedDeployment
from quarterdeck.resources.images import OWN_REPOSITORY
from quarterdeck.resources.replicas import Replicas, settle
from quarterdeck.telemetry.environment import collector

from .agent_config import AgentInputs, agent_card, agent_config
from .names import check_image, check_name, check_size
from .network import agent_policy
from .objects import LEAVE, LIFECYCLE, POD_IP, digest, http_probe, metadata, present, sources_annotation
from .options import Options
from .pod_security import restricted
from .skills import CONTAINER as INIT
from .skills import FILE as SKILLS
from .skills import SkillParts, skill_parts

PORT = 8080
GRPC_PORT = 8081
"""A2A over gRPC, of our host only: BYO images speak A2A on 8080."""
CONTAINER = "kagent"
RELAY = "quarterdeck-relay"
RELAY_PORTS = (18702, 18083)
"""Of the relay beside others' images in a cluster: to the gateway, to the control plane."""
TOKENS = "/var/run/secrets/tokens"
CONFIG_HASH = "kagent.dev/config-hash"
WORKLOAD_TOKEN = "quarterdeck.dev/workload-token"  # noqa: S105 - an annotation
"""The node puts the Pod's own token on what it sends to gateway and control plane (node.workload_token)."""
_DRAIN = 600
"""Seconds our host gets to finish the conversations at hand: as long as a turn may take."""
_BYO_GRACE = 60
_RESOURCES = {"requests": {"cpu": "100m", "memory": "384Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}


def selector(name: str) -> dict[str, str]:
    """Labels that select the agent's Pods."""
    return {"app": "kagent", "kagent": name}


def labels(name: str) -> dict[str, str]:
    return selector(name) | {
        "app.kubernetes.io/managed-by": "kagent",
        "app.kubernetes.io/part-of": "kagent",
        "app.kubernetes.io/name": name,
    }


def settings(inputs: AgentInputs) -> SharedDeployment:
    """The agent's deployment settings, or their defaults."""
    spec = inputs.spec
    if spec.type == "BYO":
        return (spec.byo.deployment if spec.byo else None) or ByoDeployment.model_validate({})
    return (spec.declarative.deployment if spec.declarative else None) or DeclarativeDeployment.model_validate({})


def replicas(inputs: AgentInputs) -> Replicas:
    """Pods wanted: ``spec.replicas``, seeded from ``deployment.replicas``."""
    seeded = (inputs.obj.get("status") or {}).get("seededReplicas")
    return settle(inputs.spec.replicas, settings(inputs).replicas, seeded)


def translate_agent(inputs: AgentInputs, options: Options, *, release_replicas: bool = False) -> list[Object]:
    """All objects of an agent, in the order to apply them. ``release_replicas``: an autoscaler owns the number.

    Raises ConfigError for names, images and sizes that no cluster would take.
    """
    check_name(inputs.obj)
    config, card = agent_config(inputs, options), agent_card(inputs)
    shared = settings(inputs)
    added = skill_parts(inputs.spec.skills, _image(shared, options), shared.image_pull_policy)
    objects = [_secret(inputs, config, card, added)]
    if not shared.service_account_name:
        objects.append(_service_account(inputs, shared))
    hashed = {"config": config, "card": card, "mounted": dict(sorted(inputs.mounted.items()))}
    hashed |= {"skills": added.config.decode()} if added.config else {}
    deployment = _deployment(inputs, options, shared, added, digest(hashed)[:32])
    if not release_replicas:
        deployment["spec"]["replicas"] = replicas(inputs).wanted
    if options.network_policies is not None:  # in force before the first Pod
        spans = collector(dict(options.environment))
        objects.append(agent_policy(inputs.obj, labels(inputs.name), options.network_policies, added.ports, spans))
    return [*objects, deployment, _service(inputs)]


def _annotations(inputs: AgentInputs) -> dict[str, str]:
    return dict(inputs.obj["metadata"].get("annotations") or {})


def _secret(inputs: AgentInputs, config: dict[str, Any], card: dict[str, Any], added: SkillParts) -> Object:
    data = {"config.json": _json(config), "agent-card.json": _json(card)}
    data |= {SKILLS: added.config} if added.config else {}
    check_size(inputs.obj, "Secret", data, "shorten the system message (what promptTemplate includes counts too)")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(inputs.obj, inputs.name, labels(inputs.name), _annotations(inputs)),
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def _service_account(inputs: AgentInputs, shared: SharedDeployment) -> Object:
    config = shared.service_account_config
    extra = (config.labels or {}) if config else {}
    annotations = _annotations(inputs) | ((config.annotations or {}) if config else {})
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(inputs.obj, inputs.name, labels(inputs.name) | extra, annotations),
    }


def _service(inputs: AgentInputs) -> Object:
    port: dict[str, Any] = {"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}
    declarative = inputs.spec.declarative
    if inputs.spec.type == "BYO" or (declarative is not None and declarative.a2a_config is not None):
        port["appProtocol"] = "kgateway.dev/a2a"
    ports = [port]
    if inputs.spec.type != "BYO":
        grpc = {"name": "grpc", "port": GRPC_PORT, "targetPort": GRPC_PORT, "protocol": "TCP"}
        ports.append(grpc | {"appProtocol": "kubernetes.io/h2c"})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(inputs.obj, inputs.name, labels(inputs.name), _annotations(inputs)),
        "spec": {"type": "ClusterIP", "selector": selector(inputs.name), "ports": ports},
    }


def _deployment(
    inputs: AgentInputs, options: Options, shared: SharedDeployment, added: SkillParts, config_hash: str
) -> Object:
    own = {WORKLOAD_TOKEN: "true"} if inputs.spec.type == "BYO" else {}
    template_annotations = (
        own | (shared.annotations or {}) | {CONFIG_HASH: config_hash} | sources_annotation(inputs.mounted)
    )
    annotations = _annotations(inputs) | (shared.deployment_annotations or {})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(inputs.obj, inputs.name, labels(inputs.name), annotations),
        "spec": {
            "selector": {"matchLabels": selector(inputs.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                # Selector labels win: a Deployment whose template they do not match is refused.
                "metadata": {
                    "labels": labels(inputs.name) | (shared.labels or {}) | selector(inputs.name),
                    "annotations": template_annotations,
                },
                "spec": _pod(inputs, options, shared, added),
            },
        },
    }


def _pod(inputs: AgentInputs, options: Options, shared: SharedDeployment, added: SkillParts) -> dict[str, Any]:
    volumes = [
        {"name": "config", "secret": {"secretName": inputs.name}},
        {"name": "tokens", "projected": {"sources": [_token("quarterdeck"), _token("kagent")]}},
        *added.volumes,
        *(shared.volumes or ()),
    ]
    pod = {
        "serviceAccountName": shared.service_account_name or inputs.name,
        "terminationGracePeriodSeconds": _BYO_GRACE if inputs.spec.type == "BYO" else LEAVE + _DRAIN + 25,
        "containers": [
            _container(inputs, options, shared, added),
            *([_relay(options)] if inputs.spec.type == "BYO" and options.byo_sidecar else []),
            *(shared.extra_containers or ()),
        ],
        "volumes": volumes,
    }
    pod |= present(
        initContainers=list(added.init),
        imagePullSecrets=shared.image_pull_secrets,
        tolerations=shared.tolerations,
        affinity=shared.affinity,
        nodeSelector=shared.node_selector,
        topologySpreadConstraints=shared.topology_spread_constraints,
        securityContext=shared.pod_security_context,
    )
    return restricted(pod, (INIT, RELAY) if isinstance(shared, ByoDeployment) else (INIT, CONTAINER))


def _relay(options: Options) -> dict[str, Any]:
    """Puts the Pod's token on what the image sends to gateway and control plane."""
    urls = (options.gateway_url, options.kagent_url)
    ports = [f"127.0.0.1:{port}={url}" for port, url in zip(RELAY_PORTS, urls, strict=True)]
    return {
        "name": RELAY,
        "image": options.image,
        "command": ["python", "-m", "quarterdeck.agents.relay"],
        "args": ["--token-file", f"{TOKENS}/quarterdeck-token", *ports],
        "volumeMounts": [{"name": "tokens", "mountPath": TOKENS, "readOnly": True}],
        "resources": {"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"cpu": "1", "memory": "192Mi"}},
        "lifecycle": LIFECYCLE,
    }


def _token(audience: str) -> dict[str, Any]:
    token = {"audience": audience, "expirationSeconds": 3600, "path": f"{audience}-token"}
    return {"serviceAccountToken": token}


def _container(inputs: AgentInputs, options: Options, shared: SharedDeployment, added: SkillParts) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": CONTAINER,
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": [*_env(inputs, options), *_byo_env(inputs, options, shared), *added.env, *(shared.env or ())],
        "volumeMounts": [
            {"name": "config", "mountPath": "/config"},
            {"name": "tokens", "mountPath": TOKENS},
            *added.mounts,
            *(shared.volume_mounts or ()),
        ],
        "resources": shared.resources or _RESOURCES,
        "lifecycle": LIFECYCLE,
    }
    container |= present(
        envFrom=shared.env_from, imagePullPolicy=shared.image_pull_policy, securityContext=shared.security_context
    )
    if isinstance(shared, ByoDeployment):
        check_image(inputs.obj, "spec.byo.deployment.image", shared.image)
        ready = http_probe("/.well-known/agent-card.json", "http", periodSeconds=5, timeoutSeconds=5)
        container |= {"image": shared.image or "", "readinessProbe": ready}
        command = [shared.cmd] if shared.cmd else None
        return container | present(command=command, args=shared.args, workingDir=shared.working_dir)
    return container | {
        "image": _image(shared, options),
        "command": ["python", "-m", "quarterdeck.agents"],
        "args": [
            "--host",
            "$(POD_IP)",
            "--port",
            str(PORT),
            "--grpc-port",
            str(GRPC_PORT),
            "--filepath",
            "/config",
            "--drain",
            str(_DRAIN),
        ],
        "ports": [*container["ports"], {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"}],
        "startupProbe": http_probe(
            "/health", "http", periodSeconds=1, failureThreshold=120, timeoutSeconds=5, terminationGracePeriodSeconds=30
        ),
        "readinessProbe": http_probe("/ready", "http", periodSeconds=2, timeoutSeconds=5),
        "livenessProbe": http_probe(
            "/health", "http", periodSeconds=10, timeoutSeconds=10, failureThreshold=3, terminationGracePeriodSeconds=30
        ),
    }


def _image(shared: SharedDeployment, options: Options) -> str:
    """Our image; another registry keeps repository path and tag."""
    registry = shared.image_registry if isinstance(shared, DeclarativeDeployment) else None
    if registry and options.image.startswith(OWN_REPOSITORY):
        return f"{registry.rstrip('/')}/{options.image.split('/', 1)[1]}"
    return options.image


def _byo_env(inputs: AgentInputs, options: Options, shared: SharedDeployment) -> list[dict[str, Any]]:
    """The model of the agent as OpenAI's clients find it, unless the user set one up."""
    model, own = inputs.model, [str(each.get("name", "")) for each in shared.env or ()]
    if inputs.spec.type != "BYO" or model is None:
        return []
    found = [{"name": "QUARTERDECK_MODEL", "value": model.model}]
    if shared.env_from or any(name.startswith("OPENAI_") for name in own):
        return found
    url = options.inside().llm_url(model.namespace, model.name)
    return [
        *found,
        {"name": "OPENAI_BASE_URL", "value": url},
        {"name": "OPENAI_API_BASE", "value": url},
        {"name": "OPENAI_API_KEY", "value": "the-pods-token-is-used"},
    ]


def _env(inputs: AgentInputs, options: Options) -> list[dict[str, Any]]:
    options = options.inside() if inputs.spec.type == "BYO" else options
    return [
        {"name": "KAGENT_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "KAGENT_NAME", "value": inputs.name},
        {"name": "KAGENT_URL", "value": options.kagent_url},
        {"name": "QUARTERDECK_GATEWAY_URL", "value": options.gateway_url},
        POD_IP,
        *({"name": name, "value": value} for name, value in options.environment),
    ]
