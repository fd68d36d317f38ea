"""The Node authorizer: a node may touch its own Node and Lease, its Pods, and only what those Pods use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quarterdeck.kube.resource import POD, Object

from .identity import NODE_PREFIX, Attributes, Decision, ObjectReader

_READ = frozenset({"get", "list", "watch"})
_WRITE = frozenset({"create", "update", "patch", "delete"})
_PLAIN: dict[tuple[str, str], frozenset[str]] = {
    ("", "services"): _READ,
    ("", "endpoints"): _READ,
    ("", "namespaces"): _READ,
    ("", "pods"): _READ | {"create", "delete"},
    ("", "pods/status"): frozenset({"get", "update", "patch"}),
    ("", "pods/eviction"): frozenset({"create"}),
    ("", "nodes"): _READ | {"create", "update", "patch"},
    ("", "nodes/status"): frozenset({"get", "update", "patch"}),
    ("", "events"): frozenset({"create", "update", "patch"}),
    ("events.k8s.io", "events"): frozenset({"create", "update", "patch"}),
    ("discovery.k8s.io", "endpointslices"): _READ,
    ("authentication.k8s.io", "tokenreviews"): frozenset({"create"}),
    ("authorization.k8s.io", "subjectaccessreviews"): frozenset({"create"}),
    ("certificates.k8s.io", "certificatesigningrequests"): frozenset({"create", "get", "list", "watch"}),
    ("metrics.k8s.io", "pods"): _READ,
    ("metrics.k8s.io", "nodes"): _READ,
}
_REFERENCED = {"secrets": "secret", "configmaps": "configmap", "persistentvolumeclaims": "pvc"}


class NodeAuthorizer:
    """Decides for users ``system:node:<name>``."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader

    def decide(self, request: Attributes) -> Decision:
        node = request.user.name.removeprefix(NODE_PREFIX)
        if not request.resource:
            return Decision(False)
        if request.group == "" and request.resource in _REFERENCED and not request.subresource:
            return self._referenced(node, request)
        account = (request.group, request.combined, request.verb)
        if account in (("", "serviceaccounts/token", "create"), ("", "serviceaccounts", "get")):
            found = any(
                _account_of(p) == request.name
                for p in self._pods(node)
                if p["metadata"]["namespace"] == request.namespace
            )
            return _related(found, node)
        if request.group == "coordination.k8s.io" and request.combined == "leases":
            own = request.namespace == "kube-node-lease" and request.verb in _WRITE | {"get"}
            if own and request.name in (node, ""):
                return Decision(True)
            return Decision(False, "can only access node lease with the same name as the requesting node")
        if request.verb in _PLAIN.get((request.group, request.combined), ()):
            return self._own(node, request)
        return Decision(False)

    def _own(self, node: str, request: Attributes) -> Decision:
        """Narrow plain permissions to what is the node's own where the name already tells."""
        if request.group or not request.name or request.verb in _READ:
            return Decision(True)
        if request.resource == "nodes" and request.name != node:
            return Decision(False, f'node "{node}" is not allowed to modify node "{request.name}"')
        if request.resource == "pods":
            pod = self._reader.get(POD, request.namespace, request.name)
            if pod is not None and (pod.get("spec") or {}).get("nodeName") != node:
                return Decision(False, f'node "{node}" can only modify pods with spec.nodeName set to itself')
        return Decision(True)

    def _referenced(self, node: str, request: Attributes) -> Decision:
        if request.verb not in _READ:
            return Decision(False, f"can only read resources of this type: {request.resource}")
        if not request.name:
            return Decision(False, f"can only list or watch individual resources of this type: {request.resource}")
        wanted = (_REFERENCED[request.resource], request.name)
        found = any(
            wanted in set(references(p)) for p in self._pods(node) if p["metadata"]["namespace"] == request.namespace
        )
        return _related(found, node)

    def _pods(self, node: str) -> Iterator[Object]:
        return (p for p in self._reader.list(POD) if (p.get("spec") or {}).get("nodeName") == node)


def _related(found: bool, node: str) -> Decision:
    if found:
        return Decision(True)
    return Decision(False, f"no relationship found between node '{node}' and this object")


def _account_of(pod: Object) -> str:
    return str((pod.get("spec") or {}).get("serviceAccountName") or "default")


def references(pod: Object) -> Iterator[tuple[str, str]]:
    """("secret" | "configmap" | "pvc", name) of everything a Pod's spec refers to."""
    spec: dict[str, Any] = pod.get("spec") or {}
    for pull in spec.get("imagePullSecrets") or ():
        yield "secret", pull.get("name", "")
    for volume in spec.get("volumes") or ():
        yield from _volume_references(volume)
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(key) or ():
            yield from _env_references(container)


def _volume_references(volume: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "secret" in volume:
        yield "secret", volume["secret"].get("secretName", "")
    if "configMap" in volume:
        yield "configmap", volume["configMap"].get("name", "")
    if "persistentVolumeClaim" in volume:
        yield "pvc", volume["persistentVolumeClaim"].get("claimName", "")
    for source in (volume.get("projected") or {}).get("sources") or ():
        if "secret" in source:
            yield "secret", source["secret"].get("name", "")
        if "configMap" in source:
            yield "configmap", source["configMap"].get("name", "")


def _env_references(container: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or ():
        if "secretRef" in source:
            yield "secret", source["secretRef"].get("name", "")
        if "configMapRef" in source:
            yield "configmap", source["configMapRef"].get("name", "")
    for variable in container.get("env") or ():
        origin = variable.get("valueFrom") or {}
        if "secretKeyRef" in origin:
            yield "secret", origin["secretKeyRef"].get("name", "")
        if "configMapKeyRef" in origin:
            yield "configmap", origin["configMapKeyRef"].get("name", "")
