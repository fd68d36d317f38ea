"""A core Service labelled ``kagent.dev/mcp-service: "true"`` as an MCP server (reference/kagent.md §2.10)."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.errors import ConfigError
from quarterdeck.kube.resource import Object

SERVICE_LABEL = "kagent.dev/mcp-service"


def is_mcp_service(obj: Object) -> bool:
    return (obj["metadata"].get("labels") or {}).get(SERVICE_LABEL) == "true"


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    port: int
    path: str
    protocol: str


def service_endpoint(obj: Object) -> ServiceEndpoint:
    """Port, path and protocol of the Service's MCP endpoint. Raises ConfigError when the port is not clear."""
    annotations: dict[str, str] = obj["metadata"].get("annotations") or {}
    path = annotations.get("kagent.dev/mcp-service-path", "/mcp")
    protocol = annotations.get("kagent.dev/mcp-service-protocol", "").upper()
    return ServiceEndpoint(
        _port(obj, annotations.get("kagent.dev/mcp-service-port", "")),
        path if path.startswith("/") else f"/{path}",
        "SSE" if protocol == "SSE" else "STREAMABLE_HTTP",
    )


def _port(obj: Object, annotated: str) -> int:
    ports = (obj.get("spec") or {}).get("ports") or []
    name = f"Service {obj['metadata']['namespace']}/{obj['metadata']['name']}"
    if annotated:
        for port in ports:
            if annotated in (str(port["port"]), port.get("name")):
                return int(port["port"])
        raise ConfigError(f"{name}: annotation kagent.dev/mcp-service-port {annotated!r} names none of its ports")
    if len(ports) == 1:
        return int(ports[0]["port"])
    for port in ports:
        if port.get("appProtocol") == "mcp":
            return int(port["port"])
    raise ConfigError(
        f"{name} has {len(ports)} ports: set appProtocol mcp on one or annotate kagent.dev/mcp-service-port"
    )
