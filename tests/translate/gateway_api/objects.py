"""Objects of a small cluster, written as YAML, and what they are compiled to."""

from __future__ import annotations

import base64
from typing import Any

import yaml

from quarterdeck.kube.resource import Object
from quarterdeck.kube.selector import selects
from quarterdeck.resources.gateway_api import CONTROLLER
from quarterdeck.snapshot import McpServer
from quarterdeck.translate.gateway_api.compile import Result, compile_gateways
from quarterdeck.translate.gateway_api.status import ParentStatus, Verdict
from quarterdeck.translate.gateway_api.world import GatewayWorld
from quarterdeck.translate.resolve import Services
from quarterdeck.translate.snapshot import Values

_FIELDS = {
    "GatewayClass": "classes",
    "Gateway": "gateways",
    "HTTPRoute": "http_routes",
    "GRPCRoute": "grpc_routes",
    "ReferenceGrant": "grants",
    "Backend": "backends",
    "AgentgatewayBackend": "agentgateway_backends",
    "TrafficPolicy": "traffic_policies",
    "AgentgatewayPolicy": "agentgateway_policies",
    "Service": "services",
}
CLASSES = "\n---\n".join(
    f"kind: GatewayClass\nmetadata: {{name: {name}}}\nspec: {{controllerName: {CONTROLLER}}}"
    for name in ("quarterdeck", "agentgateway")
)
GATEWAY = """
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: quarterdeck
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
"""
SERVICE = """
kind: Service
metadata: {name: web, namespace: app}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
kind: EndpointSlice
metadata: {name: web-1, namespace: app, labels: {kubernetes.io/service-name: web}}
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.4]}]
"""
ROUTE = """
kind: HTTPRoute
metadata: {name: r, namespace: app}
spec:
  parentRefs: [{name: gw, namespace: infra}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
"""


def objects(*texts: str) -> list[Object]:
    return [obj for text in texts for obj in yaml.safe_load_all(text) if obj]


def world(*texts: str, servers: dict[str, McpServer] | None = None, shared: bool = False) -> GatewayWorld:
    """Everything with the classes; Secrets may be written with ``stringData``."""
    found = objects(CLASSES, *texts)
    kinds: dict[str, list[Object]] = {}
    for obj in found:
        kinds.setdefault(obj["kind"], []).append(obj)
    secrets = kinds.get("Secret", [])
    for obj in secrets:
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in obj.pop("stringData", {}).items()}
        obj["data"] = obj.get("data", {}) | encoded
    by_name = {(obj["metadata"]["namespace"], obj["metadata"]["name"]): obj for obj in secrets}
    return GatewayWorld(
        **{field: kinds.get(kind, []) for kind, field in _FIELDS.items()},
        endpoints=Services.of(kinds.get("Service", ()), kinds.get("EndpointSlice", ())),
        values=Values.of(secrets, kinds.get("ConfigMap", ())),
        secret=lambda namespace, name: by_name.get((namespace, name)),
        secrets=lambda namespace, labels: [
            name
            for (home, name), obj in by_name.items()
            if home == namespace and selects({"matchLabels": labels}, obj["metadata"].get("labels") or {})
        ],
        labels={obj["metadata"]["name"]: obj["metadata"].get("labels") or {} for obj in kinds.get("Namespace", ())},
        servers=servers or {},
        shared=shared,
    )


def compiled(*texts: str, **options: Any) -> Result:
    return compile_gateways(world(*texts, **options))


def verdict(verdicts: list[Verdict], kind: str) -> tuple[str, str]:
    """(status, reason) of one condition."""
    return next((v.status, v.reason) for v in verdicts if v.type == kind)


def only(entries: list[ParentStatus]) -> list[Verdict]:
    assert len(entries) == 1, entries
    return entries[0].verdicts
