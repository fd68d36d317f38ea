"""EndpointSlices of a plane whose Pods have loopback addresses: ``python slices.py KUBECONFIG API_HOST:PORT``.

kube-controller-manager's own slices would be refused there (discovery/v1: no loopback IPs), so it does not run that
controller. Here the addresses are written with type FQDN, whose syntax an IPv4 address has too; who dials them cannot
tell the difference. Everything else is as the EndpointSlice controller does it, one slice for each Service.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

from quarterdeck.errors import NotFound, QuarterdeckError
from quarterdeck.kube.client import KubeClient, load_config
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.resource import ENDPOINT_SLICE, POD, SERVICE, Object

_AGAIN = 0.5


def slice_of(service: Object, pods: Iterable[Object]) -> Object:
    """The EndpointSlice of a Service with a selector; ``pods`` are those of its namespace."""
    selector = service["spec"].get("selector") or {}
    chosen = [
        pod for pod in pods
        if selector.items() <= (pod["metadata"].get("labels") or {}).items()
        and (pod.get("status") or {}).get("podIP") and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]  # fmt: skip
    endpoints = [_endpoint(service, pod) for pod in sorted(chosen, key=lambda p: p["metadata"]["name"])]
    return _slice(service, endpoints, _ports(service, chosen))


def _slice(service: Object, endpoints: list[Object], ports: list[Object]) -> Object:
    meta = service["metadata"]
    owner = {"apiVersion": "v1", "kind": "Service", "name": meta["name"], "uid": meta["uid"], "controller": True}
    labels = {"kubernetes.io/service-name": meta["name"], "endpointslice.kubernetes.io/managed-by": "testplane"}
    told = {"name": meta["name"], "namespace": meta["namespace"], "labels": labels, "ownerReferences": [owner]}
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": told, "addressType": "FQDN",
        "endpoints": endpoints, "ports": ports,
    }  # fmt: skip


def _endpoint(service: Object, pod: Object) -> Object:
    meta, status = pod["metadata"], pod["status"]
    terminating = bool(meta.get("deletionTimestamp"))
    serving = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    target = {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
    return {
        "addresses": [status["podIP"]], "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "nodeName": pod["spec"].get("nodeName"), "targetRef": target,
    }  # fmt: skip


def _ports(service: Object, pods: list[Object]) -> list[Object]:
    """A target named instead of numbered is the port of that name in the Pods; here they all have the same."""
    named = {p["name"]: p["containerPort"] for pod in pods for c in pod["spec"]["containers"]
             for p in c.get("ports") or () if p.get("name")}  # fmt: skip
    found: list[Object] = []
    for port in service["spec"].get("ports") or ():
        target = port.get("targetPort") or port["port"]
        number = named.get(target) if isinstance(target, str) else target
        if number is not None:
            found.append({"name": port.get("name") or "", "port": number, "protocol": port.get("protocol", "TCP")})
    return found


class Slices:
    """Keeps one slice for each Service; ``api`` is the endpoint of ``kubernetes.default``."""

    def __init__(self, client: KubeClient, api: tuple[str, int]) -> None:
        self._client = client
        self._api = api
        self._services = Informer(client, SERVICE)
        self._pods = Informer(client, POD)
        self._written: dict[tuple[str, str], Object] = {}
        self._dirty = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        for informer in (self._services, self._pods):
            informer.on_change(lambda *_: self._dirty.set())
            informer.start()
            await informer.synced.wait()
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._write()
            except QuarterdeckError as error:
                print(error, file=sys.stderr, flush=True)
                self._dirty.set()
                await asyncio.sleep(_AGAIN)

    async def _write(self) -> None:
        for service in self._services.list():
            key = (service["metadata"]["namespace"], service["metadata"]["name"])
            if key == ("default", "kubernetes"):
                host, port = self._api
                wanted = _slice(service, [{"addresses": [host], "conditions": {"ready": True}}],
                                [{"name": "https", "port": port, "protocol": "TCP"}])  # fmt: skip
            elif service["spec"].get("selector") and service["spec"].get("type") != "ExternalName":
                wanted = slice_of(service, self._pods.list(key[0]))
            else:
                continue
            if self._written.get(key) != wanted:
                try:
                    await self._client.apply(ENDPOINT_SLICE, wanted, field_manager="testplane")
                except NotFound:  # its namespace is gone
                    continue
                self._written[key] = wanted


async def main(kubeconfig: str, api: str) -> None:
    host, _, port = api.rpartition(":")
    async with KubeClient(load_config(kubeconfig)) as client:
        await Slices(client, (host, int(port))).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
