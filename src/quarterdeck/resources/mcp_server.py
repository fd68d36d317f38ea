"""MCPServer (kagent.dev v1alpha1, from kmcp): an MCP server that runs here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import (
    AGE,
    Affinity,
    Column,
    Containers,
    Kind,
    Model,
    NameRef,
    PodSecurityContext,
    PullSecrets,
    Resources,
    SecurityContext,
    Status,
    Tolerations,
    Version,
    VolumeMounts,
    Volumes,
    condition_column,
    rules,
)
from .remote_mcp_server import DiscoveredTool
from .replicas import DEFAULT as DEFAULT_REPLICAS
from .rollout import ScaleToZero

PullPolicy = Annotated[str, Field(json_schema_extra={"enum": ["Always", "Never", "IfNotPresent"]})]


class HTTPTransportTLS(Model):
    secret_ref: str | None = Field(None, description="Secret with the certificate authority.")
    insecure_skip_verify: bool = Field(False, description="Do not verify the server's certificate.")


class HTTPTransport(Model):
    target_port: int | None = Field(None, json_schema_extra={"format": "int32"}, description="Port the server uses.")
    path: str | None = Field(None, description="Path of the MCP endpoint; /mcp when unset.")
    tls: HTTPTransportTLS | None = Field(None, description="TLS towards the server.")


class StdioTransport(Model):
    """No settings."""


class InitContainer(Model):
    image: str | None = Field(None, description="Image of the bridge; Quarterdeck's own when unset.")
    image_pull_policy: PullPolicy | None = Field(None, description="Always, Never or IfNotPresent.")
    resources: Resources | None = Field(None, description="CPU and memory of the init container.")
    security_context: SecurityContext | None = Field(None, description="Of the init container.")


class ServiceAccountConfig(Model):
    labels: dict[str, str] | None = Field(None, description="Labels of the ServiceAccount.")
    annotations: dict[str, str] | None = Field(None, description="Annotations of the ServiceAccount.")


class MCPServerDeployment(Model):
    """The server's container and Pod."""

    model_config = rules(
        (
            "!(has(self.serviceAccount) && has(self.serviceAccountName) && size(self.serviceAccountName) > 0)",
            "serviceAccount and serviceAccountName are mutually exclusive",
        )
    )
    image: str | None = Field(None, description="Image; may be empty for the commands uvx and npx.")
    image_pull_policy: PullPolicy | None = Field(None, description="Always, Never or IfNotPresent.")
    port: int = Field(3000, json_schema_extra={"format": "int32"}, description="Port of the Service and the server.")
    cmd: str | None = Field(None, description="Command that starts the server.")
    args: list[str] | None = Field(None, description="Its arguments.")
    env: dict[str, str] | None = Field(None, description="Its environment.")
    secret_refs: list[NameRef] | None = Field(None, description="Secrets whose keys become variables.")
    config_map_refs: list[NameRef] | None = Field(None, description="ConfigMaps mounted at /configmaps/NAME.")
    volumes: Volumes | None = Field(None, description="Further volumes of the Pod.")
    volume_mounts: VolumeMounts | None = Field(None, description="Where the server's container mounts them.")
    init_container: InitContainer | None = Field(None, description="The container that installs the stdio bridge.")
    service_account: ServiceAccountConfig | None = Field(None, description="Of the ServiceAccount created.")
    service_account_name: str | None = Field(None, description="An existing ServiceAccount; none is created then.")
    sidecars: Containers | None = Field(None, description="Further containers of the Pod.")
    labels: dict[str, str] | None = Field(None, description="Further labels of the Pod.")
    annotations: dict[str, str] | None = Field(None, description="Further annotations of the Pod.")
    resources: Resources | None = Field(None, description="CPU and memory of the server.")
    security_context: SecurityContext | None = Field(None, description="Of the server's container.")
    pod_security_context: PodSecurityContext | None = Field(None, description="Of the Pod.")
    tolerations: Tolerations | None = Field(None, description="Taints the Pod tolerates.")
    affinity: Affinity | None = Field(None, description="Scheduling constraints.")
    node_selector: dict[str, str] | None = Field(None, description="Labels of the nodes the Pod may run on.")
    replicas: int | None = Field(None, json_schema_extra={"format": "int32"}, description="Pods to run; 1 when unset.")
    image_pull_secrets: PullSecrets | None = Field(None, description="Secrets to pull images with.")


class MCPServerSpec(Model):
    """The server and its transport."""

    deployment: MCPServerDeployment = Field(description="The server's container and Pod.")
    transport_type: Annotated[str, Field(json_schema_extra={"enum": ["stdio", "http"]})] | None = Field(
        None, description="stdio: a bridge serves it over HTTP. http: the server speaks Streamable HTTP itself."
    )
    stdio_transport: StdioTransport | None = Field(None, description="Settings of transport stdio.")
    http_transport: HTTPTransport | None = Field(None, description="Settings of transport http.")
    timeout: str = Field("30s", description="Longest silence of a call, as a duration.")
    replicas: int = Field(
        DEFAULT_REPLICAS,
        ge=0,
        json_schema_extra={"format": "int32"},
        description="Pods to run; what `kubectl scale mcpserver` sets. Seeded from deployment.replicas.",
    )
    scale_to_zero: ScaleToZero | None = Field(None, description="End the Pods while nobody calls the server.")


class MCPServerStatus(Status):
    discovered_tools: list[DiscoveredTool] | None = Field(None, description="Tools the server offered when last asked.")
    replicas: int | None = Field(None, json_schema_extra={"format": "int32"}, description="Pods that exist.")
    seeded_replicas: int | None = Field(
        None, json_schema_extra={"format": "int32"}, description="The deployment.replicas last copied to spec.replicas."
    )
    selector: str | None = Field(None, description="Label selector of the Pods, for autoscalers.")


class MCPServer(Model):
    """An MCP server run as a Deployment; reached through the gateway at /mcp/NAMESPACE/NAME."""

    spec: MCPServerSpec | None = Field(None, description="The server and its transport.")
    status: MCPServerStatus | None = Field(None, description="Observed state.")


KIND = Kind(
    "MCPServer",
    "mcpservers",
    (
        Version(
            "v1alpha1",
            MCPServer,
            (condition_column("Ready"), Column("Transport", ".spec.transportType", priority=1), AGE),
        ),
    ),
    short_names=("mcps", "mcp"),
    scale=True,
)
