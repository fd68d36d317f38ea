"""Where the platform answers, as the controllers are told; the same in both modes."""

from __future__ import annotations

from dataclasses import dataclass, field

from quarterdeck.resources.images import own_image


@dataclass(frozen=True, slots=True)
class Options:
    """Addresses written into Pods and configuration. URLs without a trailing slash."""

    gateway_url: str = "http://quarterdeck-gateway.quarterdeck-system:8702"
    """The gateway's listener for workloads."""
    kagent_url: str = "http://kagent-controller.kagent:8083"
    gateway: str = "quarterdeck-system/quarterdeck"
    """``namespace/name`` of the default Gateway, whose configuration is compiled."""
    image: str = field(default_factory=own_image)
    default_namespace: str = "kagent"
    default_model: str = "default-model-config"
    environment: tuple[tuple[str, str], ...] = ()
    """Variables every agent gets (OTEL_*)."""

    def mcp_url(self, namespace: str, name: str, kind: str = "MCPServer") -> str:
        """The gateway's endpoint of one server; kinds other than MCPServer are named, so that names cannot collide."""
        return f"{self.gateway_url}/mcp/{namespace}/{server_path(name, kind)}"

    def llm_url(self, namespace: str, name: str) -> str:
        return f"{self.gateway_url}/llm/{namespace}/{name}/v1"

    def a2a_url(self, namespace: str, name: str) -> str:
        return f"{self.gateway_url}/a2a/{namespace}/{name}"


def server_path(name: str, kind: str) -> str:
    return name if kind == "MCPServer" else f"{kind.lower()}.{name}"
