"""Endpoints of Services straight from their Pods, where EndpointSlices cannot name them.

A real API server refuses loopback addresses in EndpointSlices, and without the right to add routes a node has no
others to give. The rules are the EndpointSlice controller's.
"""

from __future__ import annotations

from collections.abc import Iterable

from quarterdeck.kube.resource import Object


def slices_of(service: Object, pods: Iterable[Object]) -> list[Object]:
    """One EndpointSlice for each Pod that a Service selects; ``pods`` are those of its namespace."""
    selector = service["spec"].get("selector") or {}
    if not selector:
        return []
    return [
        {"metadata": service["metadata"], "ports": _ports(service, pod), "endpoints": [_endpoint(service, pod)]}
        for pod in pods
        if selector.items() <= (pod["metadata"].get("labels") or {}).items()
        and (pod.get("status") or {}).get("podIP")
        and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]


def _endpoint(service: Object, pod: Object) -> Object:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions") or ()}
    terminating = bool(pod["metadata"].get("deletionTimestamp"))
    serving = conditions.get("Ready") == "True"
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    told = {"ready": ready, "serving": serving, "terminating": terminating}
    return {"addresses": [pod["status"]["podIP"]], "conditions": told}


def _ports(service: Object, pod: Object) -> list[Object]:
    """A target named instead of numbered is the port of that name in this Pod."""
    named = {p["name"]: p["containerPort"] for c in pod["spec"].get("containers") or ()
             for p in c.get("ports") or () if p.get("name")}  # fmt: skip
    found: list[Object] = []
    for port in service["spec"].get("ports") or ():
        target = port.get("targetPort") or port["port"]
        number = named.get(target) if isinstance(target, str) else target
        if number is not None:
            found.append({"name": port.get("name") or "", "port": number, "protocol": port.get("protocol", "TCP")})
    return found
