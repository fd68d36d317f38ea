"""What a cluster's provider installs beside the control plane: metrics-server's objects, and storage to claim."""

from __future__ import annotations

from typing import Any

METRICS_SERVER = "metrics-server"
NETWORK = "system:node-network"
"""Who reads NetworkPolicies for the nodes, as a network plugin's agents do."""
METRICS_ACCOUNT = f"system:serviceaccount:kube-system:{METRICS_SERVER}"
_RBAC = "rbac.authorization.k8s.io"


def _binding(kind: str, name: str, role_kind: str, role: str, namespace: str = "") -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": METRICS_SERVER, "namespace": "kube-system"}],
    }


def _cluster_role(name: str, rules: list[dict[str, Any]], labels: dict[str, str] = {}) -> dict[str, Any]:
    meta = {"name": name, "labels": labels}
    return {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules}


def network() -> list[tuple[str, dict[str, Any]]]:
    """What a node's firewall may read: a network plugin's rights."""
    rbac = f"/apis/{_RBAC}/v1"
    reads = {"verbs": ["get", "list", "watch"]}
    rules = [
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], **reads},
        {"apiGroups": [""], "resources": ["namespaces", "pods"], **reads},
    ]
    bound = _binding("ClusterRoleBinding", NETWORK, "ClusterRole", NETWORK)
    bound["subjects"] = [{"apiGroup": _RBAC, "kind": "User", "name": NETWORK}]
    return [(f"{rbac}/clusterroles", _cluster_role(NETWORK, rules)), (f"{rbac}/clusterrolebindings", bound)]


def metrics_server(address: str, port: int) -> list[tuple[str, dict[str, Any]]]:
    """(collection path, object) in order. ``address``: where it listens; a loopback one is named by an ExternalName
    Service, since EndpointSlices may not hold it."""
    rbac, core = f"/apis/{_RBAC}/v1", "/api/v1/namespaces/kube-system"
    meta = {"name": METRICS_SERVER, "namespace": "kube-system"}
    spec: dict[str, Any] = {"ports": [{"name": "https", "port": port, "targetPort": port}]}
    spec |= {"type": "ExternalName", "externalName": "localhost"} if address.startswith("127.") else {}
    slices: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta | {"labels": {"kubernetes.io/service-name": METRICS_SERVER}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
    reads = {"verbs": ["get", "list", "watch"]}
    aggregate = {f"{_RBAC}/aggregate-to-{role}": "true" for role in ("view", "edit", "admin")}
    objects: list[tuple[str, dict[str, Any]]] = [
        (f"{core}/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}),
        (f"{rbac}/clusterroles", _cluster_role("system:metrics-server", [
            {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods", "nodes"], **reads},
        ])),
        (f"{rbac}/clusterroles", _cluster_role("system:aggregated-metrics-reader", [
            {"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], **reads},
        ], aggregate)),
        (f"{rbac}/clusterrolebindings",
         _binding("ClusterRoleBinding", "system:metrics-server", "ClusterRole", "system:metrics-server")),
        (f"{rbac}/clusterrolebindings",
         _binding("ClusterRoleBinding", "metrics-server:auth", "ClusterRole", "system:auth-delegator")),
        (f"{rbac}/namespaces/kube-system/rolebindings",
         _binding("RoleBinding", "metrics-server-auth-reader", "Role", "extension-apiserver-authentication-reader",
                  "kube-system")),
        (f"{core}/services", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}),
    ]  # fmt: skip
    if "externalName" not in spec:
        objects.append(("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", slices))
    registered = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "service": {"name": METRICS_SERVER, "namespace": "kube-system", "port": port},
            "group": "metrics.k8s.io", "version": "v1beta1", "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100, "versionPriority": 100,
        },
    }  # fmt: skip
    return [*objects, ("/apis/apiregistration.k8s.io/v1/apiservices", registered)]


def storage(volumes: int) -> list[tuple[str, dict[str, Any]]]:
    """A default StorageClass and that many volumes for its claims. The node keeps the data in its own folder, so the
    path of a volume is a name only."""
    name = "node-local"
    chosen = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
    }
    found: list[tuple[str, dict[str, Any]]] = [("/apis/storage.k8s.io/v1/storageclasses", chosen)]
    for index in range(volumes):
        spec = {
            "capacity": {"storage": "100Gi"}, "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "storageClassName": name, "hostPath": {"path": f"/var/lib/quarterdeck/{index}"},
            "persistentVolumeReclaimPolicy": "Retain",
        }  # fmt: skip
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{name}-{index}"}, "spec": spec}
        found.append(("/api/v1/persistentvolumes", volume))
    return found
