"""Names of Kubernetes resources: how a kind is addressed in a URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

Object = dict[str, Any]
"""A Kubernetes object as JSON data."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One served kind in one version, e.g. ``Resource("apps", "v1", "Deployment", "deployments")``."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path. ``namespace`` None on a namespaced kind means all namespaces (lists only)."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{quote(namespace, safe='')}")
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


def core(kind: str, plural: str, *, namespaced: bool = True) -> Resource:
    return Resource("", "v1", kind, plural, namespaced)


NAMESPACE = core("Namespace", "namespaces", namespaced=False)
NODE = core("Node", "nodes", namespaced=False)
POD = core("Pod", "pods")
SERVICE = core("Service", "services")
ENDPOINTS = core("Endpoints", "endpoints")
CONFIG_MAP = core("ConfigMap", "configmaps")
SECRET = core("Secret", "secrets")
SERVICE_ACCOUNT = core("ServiceAccount", "serviceaccounts")
EVENT = core("Event", "events")
PERSISTENT_VOLUME_CLAIM = core("PersistentVolumeClaim", "persistentvolumeclaims")
RESOURCE_QUOTA = core("ResourceQuota", "resourcequotas")
LIMIT_RANGE = core("LimitRange", "limitranges")
DEPLOYMENT = Resource("apps", "v1", "Deployment", "deployments")
REPLICA_SET = Resource("apps", "v1", "ReplicaSet", "replicasets")
CONTROLLER_REVISION = Resource("apps", "v1", "ControllerRevision", "controllerrevisions")
JOB = Resource("batch", "v1", "Job", "jobs")
CRON_JOB = Resource("batch", "v1", "CronJob", "cronjobs")
HPA = Resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
ENDPOINT_SLICE = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
LEASE = Resource("coordination.k8s.io", "v1", "Lease", "leases")
NETWORK_POLICY = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
INGRESS = Resource("networking.k8s.io", "v1", "Ingress", "ingresses")
PDB = Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
ROLE = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDING = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", False)
CLUSTER_ROLE_BINDING = Resource("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", False)
CRD = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)

AGENT = Resource("kagent.dev", "v1alpha2", "Agent", "agents")
MODEL_CONFIG = Resource("kagent.dev", "v1alpha2", "ModelConfig", "modelconfigs")
MODEL_PROVIDER_CONFIG = Resource("kagent.dev", "v1alpha2", "ModelProviderConfig", "modelproviderconfigs")
REMOTE_MCP_SERVER = Resource("kagent.dev", "v1alpha2", "RemoteMCPServer", "remotemcpservers")
MCP_SERVER = Resource("kagent.dev", "v1alpha1", "MCPServer", "mcpservers")
TOOL_SERVER = Resource("kagent.dev", "v1alpha1", "ToolServer", "toolservers")
MEMORY = Resource("kagent.dev", "v1alpha1", "Memory", "memories")

VIRTUAL_SERVER = Resource("quarterdeck.dev", "v1alpha1", "VirtualServer", "virtualservers")
APPROVAL_POLICY = Resource("quarterdeck.dev", "v1alpha1", "ApprovalPolicy", "approvalpolicies")
APPROVAL = Resource("quarterdeck.dev", "v1alpha1", "Approval", "approvals")
RUN = Resource("quarterdeck.dev", "v1alpha1", "Run", "runs")
TRIGGER = Resource("quarterdeck.dev", "v1alpha1", "Trigger", "triggers")

GATEWAY_CLASS = Resource("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses", False)
GATEWAY = Resource("gateway.networking.k8s.io", "v1", "Gateway", "gateways")
HTTP_ROUTE = Resource("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
GRPC_ROUTE = Resource("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes")
REFERENCE_GRANT = Resource("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant", "referencegrants")
"""In the version that all releases of Gateway API serve."""
BACKEND = Resource("gateway.kgateway.dev", "v1alpha1", "Backend", "backends")
TRAFFIC_POLICY = Resource("gateway.kgateway.dev", "v1alpha1", "TrafficPolicy", "trafficpolicies")
AGENTGATEWAY_BACKEND = Resource("agentgateway.dev", "v1alpha1", "AgentgatewayBackend", "agentgatewaybackends")
AGENTGATEWAY_POLICY = Resource("agentgateway.dev", "v1alpha1", "AgentgatewayPolicy", "agentgatewaypolicies")


class Key(NamedTuple):
    """Name of one object of a known kind; ``namespace`` is empty for cluster-scoped kinds."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(obj: Object) -> Key:
    metadata = obj["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])
