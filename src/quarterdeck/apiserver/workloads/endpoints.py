"""Service → EndpointSlice, and the Endpoints of the same name that older clients read.

One slice per port set and address family, at most 100 endpoints each, as upstream's controller makes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from quarterdeck import errors
from quarterdeck.kube.apply import covers
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.owner import owner_reference
from quarterdeck.kube.resource import ENDPOINT_SLICE, ENDPOINTS, POD, SERVICE, Key, Object, key_of

from .pods import is_finished, is_ready, is_terminating

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
_HEADLESS = "service.kubernetes.io/headless"
_PER_SLICE = 100


def target_port(port: Object, pod: Object) -> int | None:
    """The container port a Service port means on this Pod; None when a named port is not there."""
    target = port.get("targetPort", port.get("port"))
    if isinstance(target, int):
        return target or port["port"]
    protocol = port.get("protocol", "TCP")
    spec = pod.get("spec") or {}
    containers = [
        *(spec.get("containers") or ()),
        *(c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"),
    ]
    for container in containers:
        for declared in container.get("ports") or ():
            if declared.get("name") == target and declared.get("protocol", "TCP") == protocol:
                return declared["containerPort"]
    return int(target) if isinstance(target, str) and target.isdigit() else None


def slice_ports(service: Object, pod: Object) -> list[Object]:
    ports: list[Object] = []
    for port in service["spec"].get("ports") or ():
        number = target_port(port, pod)
        if number is not None:
            entry = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
            ports.append(entry | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {}))
    return ports


def endpoint(service: Object, pod: Object, address: str) -> Object:
    """One endpoint; not ready and terminating ones stay listed, their conditions say so."""
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    serving, terminating = is_ready(pod), is_terminating(pod)
    metadata = pod["metadata"]
    result: Object = {
        "addresses": [address],
        "conditions": {"ready": publish or (serving and not terminating), "serving": serving,
                       "terminating": terminating},
        "targetRef": {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"],
                      "uid": metadata["uid"]},
    }  # fmt: skip
    node = (pod.get("spec") or {}).get("nodeName")
    if node:
        result["nodeName"] = node
    hostname, subdomain = pod["spec"].get("hostname"), pod["spec"].get("subdomain")
    if hostname and subdomain == service["metadata"]["name"]:
        result["hostname"] = hostname
    return result


def addresses(pod: Object, family: str) -> list[str]:
    status = pod.get("status") or {}
    ips = [entry["ip"] for entry in status.get("podIPs") or ()] or ([status["podIP"]] if status.get("podIP") else [])
    return [ip for ip in ips if (":" in ip) == (family == "IPv6")][:1]


def desired_slices(service: Object, pods: Sequence[Object]) -> list[Object]:
    """Slices without names' random part: each carries what it should hold, in a stable order."""
    spec = service["spec"]
    families = spec.get("ipFamilies") or ["IPv4"]
    slices: list[Object] = []
    for family in families:
        groups: dict[str, tuple[list[Object], list[Object]]] = {}
        for pod in sorted(pods, key=lambda p: p["metadata"]["name"]):
            if is_finished(pod):
                continue
            for address in addresses(pod, family):
                ports = slice_ports(service, pod)
                _, members = groups.setdefault(json.dumps(ports), (ports, []))
                members.append(endpoint(service, pod, address))
        for ports, members in groups.values() or [([], [])]:
            for start in range(0, max(len(members), 1), _PER_SLICE):
                slices.append(_slice(service, family, ports, members[start : start + _PER_SLICE], len(slices)))
    return slices


def _slice(service: Object, family: str, ports: list[Object], members: list[Object], index: int) -> Object:
    metadata = service["metadata"]
    labels = {**(metadata.get("labels") or {}), SERVICE_NAME: metadata["name"], MANAGED_BY: CONTROLLER}
    if service["spec"].get("clusterIP") == "None":
        labels[_HEADLESS] = ""
    suffix = hashlib.sha256(f"{metadata['uid']}/{family}/{index}".encode()).hexdigest()[:5]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{metadata['name']}-{suffix}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [owner_reference(service)],
        },
        "addressType": family,
        "endpoints": members,
        "ports": ports,
    }


def desired_endpoints(service: Object, slices: Sequence[Object]) -> Object:
    """The legacy Endpoints object of the first address family."""
    subsets: list[Object] = []
    for entry in slices:
        if entry["addressType"] != slices[0]["addressType"]:
            continue
        ready: list[Object] = []
        waiting: list[Object] = []
        for member in entry["endpoints"]:
            if member["conditions"]["terminating"] and not member["conditions"]["ready"]:
                continue
            address: Object = {"ip": member["addresses"][0], "targetRef": member["targetRef"]}
            address |= {key: member[key] for key in ("nodeName", "hostname") if key in member}
            (ready if member["conditions"]["ready"] else waiting).append(address)
        if ready or waiting:
            lists = (("addresses", ready), ("notReadyAddresses", waiting), ("ports", entry["ports"]))
            subsets.append({key: value for key, value in lists if value})
    metadata = service["metadata"]
    labels = {**(metadata.get("labels") or {}), "endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "labels": labels},
        "subsets": subsets,
    }


class EndpointSlices:
    def __init__(self, controllers: ControllerSet) -> None:
        self._client = controllers.client
        self._services = controllers.informer(SERVICE)
        self._slices = controllers.informer(ENDPOINT_SLICE)
        self._slices.add_index("service", _service_of)
        self._endpoints = controllers.informer(ENDPOINTS)
        self._pods = controllers.informer(POD)
        self._pods.add_index("namespace", lambda pod: [pod["metadata"]["namespace"]])
        self._services.add_index("namespace", lambda service: [service["metadata"]["namespace"]])
        maps = [(POD, self._for_pod)]
        controllers.add(Controller("endpointslice", SERVICE, self.reconcile, owns=[ENDPOINT_SLICE], maps=maps))

    def _for_pod(self, pod: Object) -> list[Key]:
        labels = pod["metadata"].get("labels") or {}
        services = self._services.by_index("namespace", pod["metadata"]["namespace"])
        return [key_of(s) for s in services if _selects(s, labels)]

    async def reconcile(self, key: Key) -> Result:
        service = self._services.get(*key)
        if service is None:
            await self._remove_endpoints(key)
            return DONE
        selector = service["spec"].get("selector")
        if not selector or service["spec"].get("type") == "ExternalName" or "deletionTimestamp" in service["metadata"]:
            return DONE
        namespace_pods = self._pods.by_index("namespace", key.namespace)
        wanted = desired_slices(service, [p for p in namespace_pods if _selects(service, p["metadata"].get("labels"))])
        live = {s["metadata"]["name"]: s for s in self._slices.by_index("service", str(key))}
        for entry in wanted:
            await self._write_slice(entry, live.pop(entry["metadata"]["name"], None))
        for surplus in live.values():
            await self._delete_slice(surplus)
        await self._write_endpoints(desired_endpoints(service, wanted))
        return DONE

    async def _write_slice(self, wanted: Object, live: Object | None) -> None:
        if live is None:
            try:
                self._slices.observe(await self._client.create(ENDPOINT_SLICE, wanted))
            except errors.AlreadyExists as error:
                raise errors.Conflict(error.message) from error  # the cache is behind: look again
            return
        same = all(_equal(live.get(part), wanted[part]) for part in ("endpoints", "ports"))
        if same and covers(wanted["metadata"], live["metadata"]):
            return
        metadata = live["metadata"] | {"labels": wanted["metadata"]["labels"]}
        self._slices.observe(await self._client.replace(ENDPOINT_SLICE, live | wanted | {"metadata": metadata}))

    async def _delete_slice(self, obj: Object) -> None:
        metadata = obj["metadata"]
        try:
            await self._client.delete(ENDPOINT_SLICE, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except errors.NotFound:
            return

    async def _write_endpoints(self, wanted: Object) -> None:
        live = self._endpoints.get(wanted["metadata"]["namespace"], wanted["metadata"]["name"])
        if live is None:
            try:
                self._endpoints.observe(await self._client.create(ENDPOINTS, wanted))
            except errors.AlreadyExists as error:
                raise errors.Conflict(error.message) from error
        elif not _equal(live.get("subsets"), wanted["subsets"]) or not covers(wanted["metadata"], live["metadata"]):
            metadata = live["metadata"] | {"labels": wanted["metadata"]["labels"]}
            body = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": wanted["subsets"]}
            self._endpoints.observe(await self._client.replace(ENDPOINTS, body))

    async def _remove_endpoints(self, key: Key) -> None:
        live = self._endpoints.get(*key)
        labels = (live["metadata"].get("labels") or {}) if live else {}
        if live is not None and labels.get("endpoints.kubernetes.io/managed-by") == "endpoint-controller":
            try:
                await self._client.delete(ENDPOINTS, key.name, key.namespace, uid=live["metadata"]["uid"])
            except errors.NotFound:
                return


def _selects(service: Object, labels: dict[str, str] | None) -> bool:
    selector = service["spec"].get("selector")
    return bool(selector) and all((labels or {}).get(k) == v for k, v in selector.items())


def _service_of(obj: Object) -> list[str]:
    labels = obj["metadata"].get("labels") or {}
    if labels.get(MANAGED_BY) != CONTROLLER:
        return []
    return [f"{obj['metadata']['namespace']}/{labels.get(SERVICE_NAME, '')}"]


def _equal(live: Any, wanted: list[Any]) -> bool:
    live = live or []
    return len(live) == len(wanted) and covers(wanted, live) and covers(live, wanted)
