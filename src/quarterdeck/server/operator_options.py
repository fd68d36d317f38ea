"""Command line of the control plane in a cluster; every flag has a variable, for the chart and for people."""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from quarterdeck.controllers import ControllerOptions
from quarterdeck.controllers.bootstrap import GATEWAY, scripted_model
from quarterdeck.errors import UsageError
from quarterdeck.gateway.options import Address, address
from quarterdeck.kube.config import SERVICE_ACCOUNT_DIR
from quarterdeck.kube.resource import Object
from quarterdeck.resources.images import own_image
from quarterdeck.telemetry.environment import handed_on
from quarterdeck.translate.agent import RELAY_PORTS
from quarterdeck.translate.gateway_api.workload import GatewayPods
from quarterdeck.translate.options import NetworkPolicies


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """Where the operator listens, what it watches, and what it tells the workloads."""

    namespace: str
    """Its own: leases, the gateway and its key are there."""
    identity: str
    """Unique among candidates and restarts."""
    api: Address | None
    kagent: Address | None
    health: Address | None
    webhook: Address | None = None
    """Conversion of v1alpha1; None where nobody may write definitions."""
    webhook_certificates: Path | None = None
    """Folder of certificates that somebody else renews (cert-manager)."""
    database: str = field(repr=False, default="")
    """SQLAlchemy URL, or a path for SQLite."""
    kubeconfig: str = ""
    """Empty: the Pod's own ServiceAccount."""
    default_model: Object | None = None
    """Spec of ``default-model-config``; None leaves it to others."""
    owner: str = ""
    """Name of the Deployment that owns what the operator itself creates."""
    drain: float = 0.0
    """Seconds between the end of readiness and the end of the servers."""
    controllers: ControllerOptions = field(default_factory=ControllerOptions)


def parse(arguments: list[str], environment: Mapping[str, str] | None = None) -> OperatorOptions:
    """Flags win over ``QUARTERDECK_*`` variables. Raises UsageError naming the flag."""
    env = os.environ if environment is None else environment
    given: dict[str, Any] = vars(_parser(env).parse_args(arguments))
    namespace = given["namespace"] or _own_namespace()
    if not namespace:
        raise UsageError("--namespace is needed outside a cluster")
    if not given["database_url"]:
        raise UsageError("--database-url (QUARTERDECK_DATABASE_URL) is needed: a SQLAlchemy URL or a file for SQLite")
    return OperatorOptions(
        namespace=namespace,
        identity=f"{env.get('POD_NAME') or socket.gethostname()}_{uuid4()}",
        api=address(given["api"]),
        kagent=address(given["kagent"]),
        health=address(given["health"]),
        webhook=address(given["webhook"]),
        webhook_certificates=Path(given["webhook_certificates"]) if given["webhook_certificates"] else None,
        database=given["database_url"],
        kubeconfig=given["kubeconfig"],
        default_model=_model(given["default_model"]),
        owner=given["owner"],
        drain=_seconds(given["drain"], "--drain"),
        controllers=_controllers(given, namespace, env),
    )


def _parser(env: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.server operator", description=__doc__)
    pod_ip = env.get("POD_IP", "127.0.0.1")
    flags = (
        ("namespace", env.get("POD_NAMESPACE", ""), "namespace of the control plane (default: the Pod's)"),
        ("api", f"{pod_ip}:8700", "management API and the gateways' configuration, HOST:PORT"),
        ("kagent", f"{pod_ip}:8083", "kagent's REST contract"),
        ("health", f"{pod_ip}:8080", "/livez, /readyz, /metrics"),
        ("webhook", f"{pod_ip}:8443", "conversion webhook for the API server"),
        ("webhook-certificates", "", "folder with tls.crt and tls.key; empty: made and rotated here"),
        ("database-url", "", "SQLAlchemy URL, or a file for SQLite; better given by the variable than by the flag"),
        ("kubeconfig", "", "file to use instead of the Pod's ServiceAccount"),
        ("watch-namespaces", "", "namespaces to serve, comma separated; empty: all"),
        ("default-namespace", "kagent", "namespace whose ModelConfig default-model-config all may use"),
        ("default-model", json.dumps(scripted_model()), "spec of default-model-config (JSON); 'off' creates none"),
        ("gateway-url", "", "the gateway's listener for workloads, as Pods reach it"),
        ("kagent-url", "", "this control plane's kagent API, as Pods reach it"),
        ("control-plane-url", "", "this control plane's management API, as Pods of Gateways reach it"),
        ("gateway-service-type", "ClusterIP", "type of the Services of Gateways: ClusterIP, NodePort or LoadBalancer"),
        ("image", own_image(), "image of agents, bridges and scripted models"),
        ("network-policies", "on", "'on' makes one for each agent, MCP server and scripted model, 'off' none"),
        ("byo-relay", "sidecar", "what puts tokens on requests of others' agent images: 'sidecar', or 'node' (ours)"),
        ("discovery-interval", "60", "seconds between two questions for a server's tools"),
        ("drain", "0", "seconds to go on serving after SIGTERM, until nobody sends new connections"),
        ("owner", "", "Deployment that owns what the operator creates for itself"),
    )
    for name, default, text in flags:
        variable = "QUARTERDECK_" + name.replace("-", "_").upper()
        parser.add_argument(f"--{name}", default=env.get(variable, default), help=f"{text} [{variable}]")
    return parser


def _controllers(given: Mapping[str, str], namespace: str, env: Mapping[str, str]) -> ControllerOptions:
    if given["byo_relay"] not in ("sidecar", "node"):
        raise UsageError(f"--byo-relay {given['byo_relay']!r} is neither sidecar nor node")
    sidecar = given["byo_relay"] == "sidecar"
    return ControllerOptions(
        gateway_url=given["gateway_url"].rstrip("/") or f"http://quarterdeck-gateway.{namespace}:8702",
        kagent_url=given["kagent_url"].rstrip("/") or f"http://kagent-controller.{namespace}:8083",
        pod_gateway_url=f"http://127.0.0.1:{RELAY_PORTS[0]}" if sidecar else "",
        pod_kagent_url=f"http://127.0.0.1:{RELAY_PORTS[1]}" if sidecar else "",
        byo_sidecar=sidecar,
        image=given["image"],
        default_namespace=given["default_namespace"],
        environment=handed_on(env),
        discovery_interval=_seconds(given["discovery_interval"], "--discovery-interval"),
        gateway=f"{namespace}/{GATEWAY}",
        watch_namespaces=tuple(sorted({n.strip() for n in given["watch_namespaces"].split(",") if n.strip()})),
        network_policies=_network_policies(given["network_policies"], namespace),
        gateways=GatewayPods(
            given["control_plane_url"].rstrip("/") or f"http://quarterdeck.{namespace}:8700",
            service_type=_service_type(given["gateway_service_type"]),
            image=given["image"],
        ),
    )


def _network_policies(given: str, namespace: str) -> NetworkPolicies | None:
    if given not in ("on", "off"):
        raise UsageError(f"--network-policies {given!r} is neither on nor off")
    return NetworkPolicies(namespace) if given == "on" else None


def _service_type(given: str) -> str:
    if given not in ("ClusterIP", "NodePort", "LoadBalancer"):
        raise UsageError(f"--gateway-service-type {given!r} must be ClusterIP, NodePort or LoadBalancer")
    return given


def _own_namespace() -> str:
    file = SERVICE_ACCOUNT_DIR / "namespace"
    return file.read_text().strip() if Path(file).is_file() else ""


def _model(text: str) -> Object | None:
    if text == "off":
        return None
    try:
        spec: Any = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--default-model is not JSON: {error}") from error
    if not isinstance(spec, dict) or not spec.get("model"):
        raise UsageError('--default-model must be the spec of a ModelConfig, e.g. {"provider":"Ollama","model":"…"}')
    return spec


def _seconds(text: str, flag: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{flag} {text!r} must be a number of seconds")
    return value
