"""What the store fills into a Service: cluster IP, IP families and node ports, from the core's allocator."""

from __future__ import annotations

from typing import Any, Protocol

from quarterdeck.kube.resource import Object


class Allocator(Protocol):
    """Cluster IPs and node ports; implemented by the core, which persists nothing: it rebuilds from stored Services."""

    def cluster_ip(self, requested: str = "") -> str:
        """A free address, or ``requested`` itself. Raises Invalid when it is taken or out of range."""
        ...

    def node_port(self, requested: int = 0) -> int:
        """A free node port, or ``requested`` itself. Raises Invalid when it is taken or out of range."""
        ...


def allocate(obj: Object, old: Object | None, allocator: Allocator) -> None:
    """Complete ``spec`` of a Service in place; call it after defaulting and before storing."""
    spec: dict[str, Any] = obj["spec"]
    before: dict[str, Any] = (old or {}).get("spec") or {}
    if spec.get("type") == "ExternalName":
        for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(key, None)
        return
    for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if key not in spec and key in before and before.get("type") != "ExternalName":
            spec[key] = before[key]
    address = spec.get("clusterIP", "")
    if address != before.get("clusterIP") or not address:
        address = address if address == "None" else allocator.cluster_ip(address)
    spec["clusterIP"] = address
    spec["clusterIPs"] = [address]
    spec.setdefault("ipFamilies", ["IPv6" if ":" in address else "IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    _node_ports(spec, before, allocator)


def _node_ports(spec: dict[str, Any], before: dict[str, Any], allocator: Allocator) -> None:
    if spec.get("type") not in ("NodePort", "LoadBalancer"):
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)
        return
    known = {(p.get("port"), p.get("protocol")): p.get("nodePort", 0) for p in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        earlier = known.get((port.get("port"), port.get("protocol")), 0)
        wanted = port.get("nodePort", 0) or earlier
        port["nodePort"] = wanted if wanted and wanted == earlier else allocator.node_port(wanted)
