"""What every cluster has from the start: system namespaces, RBAC policy, the Service ``kubernetes``."""

from __future__ import annotations

from quarterdeck.apiserver.kinds import KindRegistry
from quarterdeck.apiserver.namespaces import SYSTEM, new_namespace
from quarterdeck.apiserver.objects import new_metadata
from quarterdeck.apiserver.options import WriteOptions
from quarterdeck.apiserver.security.bootstrap import aggregated_updates, bootstrap_policy, reconciled
from quarterdeck.apiserver.security.controllers import PLATFORM
from quarterdeck.apiserver.store import storage_key
from quarterdeck.apiserver.writes import Writes
from quarterdeck.errors import ApiError, InternalError
from quarterdeck.kube.resource import CLUSTER_ROLE, ENDPOINT_SLICE, NAMESPACE, SERVICE, Object, Resource

_OPTIONS = ("kube-apiserver", False, "Ignore")


class Bootstrap:
    """Creates what is missing and keeps aggregated ClusterRoles in step."""

    def __init__(self, writes: Writes, registry: KindRegistry) -> None:
        self._writes = writes
        self._registry = registry

    async def ensure(self, host: str, port: int) -> None:
        """Idempotent; runs before the first request is served. ``host:port`` is where the API server listens."""
        for name in SYSTEM:
            await self._ensure(NAMESPACE, "", new_namespace(name))
        for resource, wanted in bootstrap_policy(PLATFORM):
            stored = self._writes.store.get(resource, None, wanted["metadata"]["name"])
            merged = reconciled(wanted, stored)
            if merged is not None:
                await self._put(resource, merged, stored is not None)
        await self.aggregate()
        await self._ensure(SERVICE, "default", _service(port))
        await self._endpoint(host, port)

    async def aggregate(self) -> None:
        """Write the rules of ClusterRoles that are put together from others."""
        for role in aggregated_updates(self._writes.store.list(CLUSTER_ROLE)):
            await self._put(CLUSTER_ROLE, role, True)

    async def _endpoint(self, host: str, port: int) -> None:
        # Straight to the store: users may not name loopback addresses in an EndpointSlice, and this one is on loopback.
        wanted = _endpoint_slice(host, port)
        store, now = self._writes.store, self._writes.now()
        stored = store.get(ENDPOINT_SLICE, "default", "kubernetes")
        if stored is None:
            new_metadata(wanted, now)
        elif (stored.get("endpoints"), stored.get("ports")) == (wanted["endpoints"], wanted["ports"]):
            return
        else:
            wanted["metadata"] = stored["metadata"]
        key = storage_key(ENDPOINT_SLICE)
        async with store.lock(key, ("default", "kubernetes")):
            await store.put(key, ("default", "kubernetes"), wanted)

    async def _ensure(self, resource: Resource, namespace: str, obj: Object) -> None:
        if self._writes.store.get(resource, namespace, obj["metadata"]["name"]) is None:
            await self._put(resource, obj, False)

    async def _put(self, resource: Resource, obj: Object, exists: bool) -> None:
        kind = self._registry.get(resource.group, resource.version, resource.plural)
        if kind is None:
            raise InternalError(f"{resource.kind} is not served")
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        namespace = obj["metadata"].get("namespace") or ("default" if resource.namespaced else "")
        options = WriteOptions(*_OPTIONS)
        try:
            if exists:
                await self._writes.update(kind, namespace, obj["metadata"]["name"], obj, options)
            else:
                await self._writes.create(kind, namespace, obj, options)
        except ApiError as error:
            raise InternalError(f"{resource.kind} {obj['metadata']['name']} cannot be set up: {error}") from error


def _service(port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]},
    }


def _endpoint_slice(host: str, port: int) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
