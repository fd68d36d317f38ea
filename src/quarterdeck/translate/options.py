"""Where the platform answers, as the controllers are told; the same in both modes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from quarterdeck.resources.images import own_image


@dataclass(frozen=True, slots=True)
class NetworkPolicies:
    """Who is who in NetworkPolicies. Labels are those of the chart's Pods in ``namespace``."""

    namespace: str = "quarterdeck-system"
    """Of gateway and control plane."""
    gateway: tuple[tuple[str, str], ...] = (
        ("app.kubernetes.io/component", "gateway"),
        ("app.kubernetes.io/name", "quarterdeck"),
    )
    controller: tuple[tuple[str, str], ...] = (
        ("app.kubernetes.io/component", "controller"),
        ("app.kubernetes.io/name", "quarterdeck"),
    )
    gateway_port: int = 8702
    controller_ports: tuple[int, ...] = (8083, 8700)
    dns_namespaces: tuple[str, ...] = ("kube-system", "openshift-dns")
    node_local_dns: str = "169.254.20.10/32"
    private: tuple[str, ...] = (
        "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    )  # fmt: skip
    """Networks that are not outside; a cluster with public Pod or Service addresses adds its own."""
    private6: tuple[str, ...] = ("::1/128", "fc00::/7", "fe80::/10")


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
    network_policies: NetworkPolicies | None = None
    """None: workloads get none, and lose those they had."""
    pod_gateway_url: str = ""
    """For Pods with a network of their own, which others' images have; empty: ``gateway_url``."""
    pod_kagent_url: str = ""
    byo_sidecar: bool = False
    """Whether others' images have our relay beside them, as a kubelet has none; then these are addresses of it."""

    def inside(self) -> Options:
        """With the addresses that others' images use."""
        gateway, kagent = self.pod_gateway_url or self.gateway_url, self.pod_kagent_url or self.kagent_url
        return replace(self, gateway_url=gateway, kagent_url=kagent)

    def mcp_url(self, namespace: str, name: str, kind: str = "MCPServer") -> str:
        """The gateway's endpoint of one server; kinds other than MCPServer are named, so that names cannot collide."""
        return f"{self.gateway_url}/mcp/{namespace}/{server_path(name, kind)}"

    def llm_url(self, namespace: str, name: str) -> str:
        return f"{self.gateway_url}/llm/{namespace}/{name}/v1"

    def a2a_url(self, namespace: str, name: str) -> str:
        return f"{self.gateway_url}/a2a/{namespace}/{name}"


def server_path(name: str, kind: str) -> str:
    return name if kind == "MCPServer" else f"{kind.lower()}.{name}"
