"""networking.k8s.io/v1 NetworkPolicy, evaluated: may this connection be made? Pure.

A Pod that no policy selects for a direction is open in that direction; the policies that select it add up. Both ends
must allow a connection (Kubernetes documentation: concepts/services-networking/network-policies).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from quarterdeck.kube.resource import Object
from quarterdeck.kube.selector import selects

Direction = Literal["Ingress", "Egress"]


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of a connection. ``namespace`` is empty for what is no Pod; ``ports``: container ports by name and
    protocol. Pods of the node's network are no Pods here: no selector finds them."""

    ip: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    namespace_labels: Mapping[str, str] = field(default_factory=dict[str, str])
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    name: str = ""

    @classmethod
    def of(cls, pod: Object, namespace_labels: Mapping[str, str], ip: str = "") -> Peer:
        """A Pod object; ``ip`` where its status does not say it yet."""
        meta, spec = pod["metadata"], pod["spec"]
        address = ip or (pod.get("status") or {}).get("podIP") or ""
        if spec.get("hostNetwork"):
            return cls(address, name=f"{meta['namespace']}/{meta['name']}")
        ports = {
            (port["name"], port.get("protocol") or "TCP"): int(port["containerPort"])
            for container in spec.get("containers") or ()
            for port in container.get("ports") or ()
            if port.get("name")
        }
        labels = {"kubernetes.io/metadata.name": meta["namespace"]} | dict(namespace_labels)
        name = f"{meta['namespace']}/{meta['name']}"
        return cls(address, meta["namespace"], meta.get("labels") or {}, labels, ports, name)

    def __str__(self) -> str:
        return f"Pod {self.name}" if self.name else (self.ip or "a peer without address")


@dataclass(frozen=True, slots=True)
class Verdict:
    """``policies``: the one that allowed it, or all that select the Pod and do not; empty: none selects it.
    ``selected``: the rule names Pods, not just anybody or an address range."""

    allowed: bool
    direction: Direction
    policies: tuple[str, ...] = ()
    selected: bool = False

    def __str__(self) -> str:
        names = ", ".join(self.policies)
        if not self.policies:
            return "no NetworkPolicy applies" if self.allowed else "the Pod is not known to the node's rules"
        word = "allowed by" if self.allowed else "not allowed by"
        return f"{self.direction.lower()} {word} NetworkPolicy {names}"


class Policies:
    """A set of NetworkPolicies. Malformed parts of one allow nothing."""

    def __init__(self, policies: Iterable[Object]) -> None:
        self._by_namespace: dict[str, list[Object]] = {}
        for policy in policies:
            self._by_namespace.setdefault(policy["metadata"]["namespace"], []).append(policy)

    def selecting(self, pod: Peer, direction: Direction) -> list[Object]:
        """The policies that apply to a Pod in one direction."""
        return [
            policy
            for policy in (self._by_namespace.get(pod.namespace) or () if pod.namespace else ())
            if direction in policy_types(policy) and selects(policy["spec"].get("podSelector") or {}, pod.labels)
        ]

    def decide(self, source: Peer, destination: Peer, port: int, protocol: str = "TCP") -> Verdict:
        """Both ends together: the first refusal, else the allowance of the egress side."""
        egress = self.check("Egress", source, destination, port, protocol)
        if not egress.allowed:
            return egress
        ingress = self.check("Ingress", source, destination, port, protocol)
        return ingress if not ingress.allowed or not egress.policies else egress

    def check(self, direction: Direction, source: Peer, destination: Peer, port: int, protocol: str = "TCP") -> Verdict:
        """One end: the source's egress policies, or the destination's ingress policies."""
        subject, other = (source, destination) if direction == "Egress" else (destination, source)
        applying = self.selecting(subject, direction)
        if not applying or (source.name and source == destination):
            return Verdict(True, direction)
        for policy in applying:
            for rule in _rules(policy, direction):
                peers = rule.get("to" if direction == "Egress" else "from")
                if not _on_port(rule.get("ports"), destination, port, protocol):
                    continue
                matching = _first(peers, policy["metadata"]["namespace"], other)
                if matching is not None:
                    return Verdict(True, direction, (_name(policy),), "ipBlock" not in matching and bool(matching))
        return Verdict(False, direction, tuple(_name(policy) for policy in applying))

    def egress_ports(self, pod: Peer, peers: Sequence[Peer]) -> frozenset[int] | None:
        """TCP ports that a Pod's egress rules mention (None: any); named ports are looked up among ``peers``.

        For what can be told ports only: more than the policies allow, never less.
        """
        applying = self.selecting(pod, "Egress")
        if not applying:
            return None
        found: set[int] = set()
        for rule in (rule for policy in applying for rule in _rules(policy, "Egress")):
            if not rule.get("ports"):
                return None
            for entry in rule["ports"]:
                if (entry.get("protocol") or "TCP") != "TCP":
                    continue
                numbers = _numbers(entry, peers)
                if numbers is None:
                    return None
                found |= numbers
        return frozenset(found)


def policy_types(policy: Object) -> Sequence[str]:
    """As the API server fills them in: Ingress, and Egress where there are egress rules."""
    spec = policy["spec"]
    return spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def _name(policy: Object) -> str:
    return f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"


def _rules(policy: Object, direction: Direction) -> Iterator[dict[str, Any]]:
    yield from policy["spec"].get(direction.lower()) or ()


def _first(peers: Sequence[dict[str, Any]] | None, namespace: str, other: Peer) -> dict[str, Any] | None:
    """The first of a rule's peers that ``other`` is; {} where the rule is for everybody."""
    if not peers:
        return {}
    return next((peer for peer in peers if _is(peer, namespace, other)), None)


def _is(peer: Mapping[str, Any], namespace: str, other: Peer) -> bool:
    block = peer.get("ipBlock")
    if block is not None:
        return _within(block, other.ip)
    pods, namespaces = peer.get("podSelector"), peer.get("namespaceSelector")
    if not other.namespace or (pods is None and namespaces is None):
        return False
    if namespaces is None:
        if other.namespace != namespace:
            return False
    elif not selects(namespaces, other.namespace_labels):
        return False
    return pods is None or selects(pods, other.labels)


def _within(block: Mapping[str, Any], address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address)
        inside = ip in ipaddress.ip_network(block["cidr"], strict=False)
        return inside and not any(ip in ipaddress.ip_network(e, strict=False) for e in block.get("except") or ())
    except (ValueError, KeyError):
        return False


def _on_port(ports: Sequence[dict[str, Any]] | None, destination: Peer, port: int, protocol: str) -> bool:
    return not ports or any(_port_is(entry, destination, port, protocol) for entry in ports)


def _port_is(entry: Mapping[str, Any], destination: Peer, port: int, protocol: str) -> bool:
    if (entry.get("protocol") or "TCP") != protocol:
        return False
    wanted = entry.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return destination.ports.get((wanted, protocol)) == port
    return wanted <= port <= (entry.get("endPort") or wanted)


def _numbers(entry: Mapping[str, Any], peers: Sequence[Peer]) -> set[int] | None:
    """The TCP ports of one entry; None: too many to list."""
    wanted = entry.get("port")
    if wanted is None:
        return None
    if isinstance(wanted, str):
        return {peer.ports[wanted, "TCP"] for peer in peers if (wanted, "TCP") in peer.ports}
    last = entry.get("endPort") or wanted
    return set(range(wanted, last + 1)) if last - wanted < 1024 else None
