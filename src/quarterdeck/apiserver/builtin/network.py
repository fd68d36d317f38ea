"""Validation of Service, Endpoints, EndpointSlice, NetworkPolicy, Ingress and Lease."""

from __future__ import annotations

import ipaddress
from typing import Any

from quarterdeck.errors import Cause

from . import names
from .errors import IMMUTABLE, duplicate, invalid, required, unsupported
from .pods import port_number
from .workloads import label_selector

Json = dict[str, Any]

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PORT_RANGE = "must be between 1 and 65535, inclusive"
_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")


def service(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    kind = spec.get("type", "")
    if kind not in _TYPES:
        causes.append(unsupported("spec.type", kind, _TYPES))
    if spec.get("sessionAffinity") not in ("ClientIP", "None"):
        causes.append(unsupported("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None")))
    if kind == "ExternalName" and (wrong := names.subdomain(spec.get("externalName", "").rstrip("."))):
        causes.append(invalid("spec.externalName", spec.get("externalName", ""), wrong))
    ports: list[Json] = spec.get("ports") or []
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != "None":
        causes.append(required("spec.ports"))
    _service_ports(ports, causes)
    causes += names.labels(spec.get("selector"), "spec.selector")
    address = spec.get("clusterIP", "")
    if address and address != "None" and not _is_ip(address):
        text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        causes.append(invalid("spec.clusterIPs[0]", address, text))
    before = (old or {}).get("spec") or {}
    earlier = before.get("clusterIP")
    if earlier and "ExternalName" not in (kind, before.get("type")) and address and address != earlier:
        causes.append(invalid("spec.clusterIPs[0]", [address], "may not change once set"))
    return causes


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _service_ports(ports: list[Json], causes: list[Cause]) -> None:
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        where, number = f"spec.ports[{index}]", port.get("port", 0)
        name = port.get("name", "")
        if not name and len(ports) > 1:
            causes.append(required(f"{where}.name"))
        elif name and (wrong := names.label(name)):
            causes.append(invalid(f"{where}.name", name, wrong))
        if not 0 < number < 65536:
            causes.append(invalid(f"{where}.port", number, _PORT_RANGE))
        if port.get("protocol") not in _PROTOCOLS:
            causes.append(unsupported(f"{where}.protocol", port.get("protocol"), _PROTOCOLS))
        causes += port_number(port.get("targetPort") or number, f"{where}.targetPort")
        key = (number, port.get("protocol"))
        if key in seen:
            causes.append(duplicate(where, {"port": number, "protocol": port.get("protocol")}))
        seen.add(key)
    causes += names.unique([port.get("name") for port in ports], "spec.ports", "name")


def endpoint_slice(obj: Json, old: Json | None) -> list[Cause]:
    causes: list[Cause] = []
    kind = obj.get("addressType", "")
    if not kind:
        causes.append(required("addressType"))
    elif kind not in _ADDRESS_TYPES:
        causes.append(unsupported("addressType", kind, _ADDRESS_TYPES))
    if old is not None and kind != old.get("addressType"):
        causes.append(invalid("addressType", kind, IMMUTABLE))
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        where = f"endpoints[{index}].addresses"
        if not endpoint.get("addresses"):
            causes.append(required(where, "must contain at least 1 address"))
        for position, address in enumerate(endpoint.get("addresses") or ()):
            if kind in ("IPv4", "IPv6") and (not _is_ip(address) or (":" in address) != (kind == "IPv6")):
                causes.append(invalid(f"{where}[{position}]", address, f"must be an {kind} address"))
    for index, port in enumerate(obj.get("ports") or ()):
        if port.get("protocol") not in _PROTOCOLS:
            causes.append(unsupported(f"ports[{index}].protocol", port.get("protocol"), _PROTOCOLS))
    return causes + names.unique([port.get("name") for port in obj.get("ports") or ()], "ports", "name")


def endpoints(obj: Json, old: Json | None) -> list[Cause]:
    del old
    causes: list[Cause] = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        where = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            causes.append(required(where, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for position, address in enumerate(subset.get(key) or ()):
                if not _is_ip(address.get("ip", "")):
                    text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                    causes.append(invalid(f"{where}.{key}[{position}].ip", address.get("ip", ""), text))
        for position, port in enumerate(subset.get("ports") or ()):
            if not 0 < port.get("port", 0) < 65536:
                causes.append(invalid(f"{where}.ports[{position}].port", port.get("port", 0), _PORT_RANGE))
    return causes


def network_policy(obj: Json, old: Json | None) -> list[Cause]:
    del old
    spec = obj.get("spec") or {}
    causes = label_selector(spec.get("podSelector") or {}, "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            where = f"spec.{direction}[{index}]"
            for position, port in enumerate(rule.get("ports") or ()):
                if "port" in port:
                    causes += port_number(port["port"], f"{where}.ports[{position}].port")
                if port.get("protocol") not in _PROTOCOLS:
                    causes.append(unsupported(f"{where}.ports[{position}].protocol", port.get("protocol"), _PROTOCOLS))
            for position, peer in enumerate(rule.get(peers) or ()):
                if not peer:
                    causes.append(required(f"{where}.{peers}[{position}]", "must specify a peer"))
    wrong = [kind for kind in spec.get("policyTypes") or () if kind not in ("Ingress", "Egress")]
    return causes + [unsupported("spec.policyTypes", kind, ("Egress", "Ingress")) for kind in wrong]


def ingress(obj: Json, old: Json | None) -> list[Cause]:
    del old
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        causes.append(invalid("spec", spec.get("rules"), "either `defaultBackend` or `rules` must be specified"))
    for index, rule in enumerate(spec.get("rules") or ()):
        for position, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            where, kind = f"spec.rules[{index}].http.paths[{position}]", path.get("pathType")
            if not kind:
                causes.append(required(f"{where}.pathType", "pathType must be specified"))
            elif kind not in _PATH_TYPES:
                causes.append(unsupported(f"{where}.pathType", kind, _PATH_TYPES))
            elif kind != "ImplementationSpecific" and not path.get("path", "").startswith("/"):
                causes.append(invalid(f"{where}.path", path.get("path", ""), "must be an absolute path"))
            backend = path.get("backend") or {}
            if not backend.keys() & {"service", "resource"}:
                causes.append(required(f"{where}.backend", "must specify service or resource"))
    return causes


def lease(obj: Json, old: Json | None) -> list[Cause]:
    del old
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        causes.append(invalid("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0"))
    if spec.get("leaseTransitions", 0) < 0:
        value = spec["leaseTransitions"]
        causes.append(invalid("spec.leaseTransitions", value, "must be greater than or equal to 0"))
    return causes
