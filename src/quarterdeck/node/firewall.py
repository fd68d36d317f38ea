"""NetworkPolicies applied on this node: at the egress proxy, at the inbound relays, and at the Service relay.

Senders on this machine are known by the uid their socket has, where every Pod has one of its own. What no Pod's uid
has (the node itself, people, Pods of the machine's network) counts as the node, whose traffic NetworkPolicies never
stop; its callers still need their tokens.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.network_policy import Peer, Policies, Verdict
from quarterdeck.kube.resource import NAMESPACE, NETWORK_POLICY, POD, Object
from quarterdeck.node.uids import Uids, uid_key

Address = tuple[str, int]
_IP, _UID = "ip", "uid"
_FIELDS = 10


class Firewall:
    """Follows NetworkPolicies, Namespaces and Pods of the cluster. ``uids``: None where senders have no uid of their
    own; then only what a Pod sends through the egress proxy is known to be its."""

    def __init__(self, client: KubeClient, uids: Uids | None) -> None:
        self._uids = uids
        self._policies = Informer(client, NETWORK_POLICY)
        self._namespaces = Informer(client, NAMESPACE)
        self._pods = Informer(client, POD)
        self._pods.trim = _of_pod
        self._pods.add_index(_IP, _addresses_of)
        self._pods.add_index(_UID, lambda pod: [uid_key(pod)])
        self._compiled: Policies | None = None
        self._changed: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Returns when everything has been read once: nothing is let through on what is not known."""
        self._policies.on_change(lambda *_: self._recompile())
        for informer in (self._policies, self._namespaces, self._pods):
            informer.start()
        await asyncio.gather(*(i.synced.wait() for i in (self._policies, self._namespaces, self._pods)))

    async def stop(self) -> None:
        for informer in (self._policies, self._namespaces, self._pods):
            await informer.stop()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Called when the policies are others than before."""
        self._changed.append(callback)

    def _recompile(self) -> None:
        self._compiled = None
        for callback in self._changed:
            callback()

    @property
    def policies(self) -> Policies:
        if self._compiled is None:
            self._compiled = Policies(self._policies.list())
        return self._compiled

    def peer(self, pod: Object, ip: str = "") -> Peer:
        """A Pod as policies see it; ``ip`` where its status may not say it yet."""
        namespace = self._namespaces.get(None, pod["metadata"]["namespace"])
        return Peer.of(pod, ((namespace or {}).get("metadata") or {}).get("labels") or {}, ip)

    def at(self, ip: str) -> Peer:
        """Who has an address: a Pod of the cluster, or somebody outside."""
        found = self._pods.by_index(_IP, ip)
        return self.peer(found[0]) if found else Peer(ip)

    def named(self, pod: str) -> Peer | None:
        """The Pod ``namespace/name``; None when it is not known (yet)."""
        found = self._pods.get(*pod.split("/", 1))
        return self.peer(found) if found is not None else None

    def policed(self, pod: Object) -> bool:
        """Whether a policy selects this Pod for ingress."""
        return bool(self.policies.selecting(self.peer(pod), "Ingress"))

    def egress_ports(self, pod: Object) -> tuple[int, ...] | None:
        """TCP ports that a Pod may dial at all by its policies; None: any."""
        everybody = [self.peer(each) for each in self._pods.list()]
        found = self.policies.egress_ports(self.peer(pod), everybody)
        return tuple(sorted(found)) if found is not None else None

    def outbound(self, pod: str, target: Address) -> Verdict:
        """What a Pod sends through its egress proxy. A Pod nobody knows gets nowhere."""
        source = self.named(pod)
        if source is None:
            return Verdict(False, "Egress", ())
        return self.policies.decide(source, self.at(target[0]), target[1])

    async def inbound(self, pod: str, sender: Address, local: Address) -> Verdict:
        """A TCP connection of this machine from ``sender`` to a Pod's own address. To a Pod nobody knows comes none."""
        destination = self.named(pod)
        if destination is None:
            return Verdict(False, "Ingress")
        sources = await self._senders(sender, local)
        return self._decide(sources, destination, local[1]) if sources is not None else Verdict(False, "Ingress")

    async def relayed(self, sender: Address, service: Address, target: Address) -> Verdict:
        """A TCP connection of this machine to a Service's address, which is to be carried to one of its endpoints."""
        sources = await self._senders(sender, service)
        return self._decide(sources, self.at(target[0]), target[1]) if sources is not None else Verdict(False, "Egress")

    def _decide(self, sources: Iterable[Peer], destination: Peer, port: int) -> Verdict:
        """The first refusal: of several Pods that share a uid, each must be allowed."""
        verdict = Verdict(True, "Ingress")
        for source in sources:
            verdict = self.policies.decide(source, destination, port)
            if not verdict.allowed:
                return verdict
        return verdict

    async def _senders(self, sender: Address, local: Address) -> list[Peer] | None:
        """The Pods whose socket this can be: those of its uid. An empty list: it is the node's own.

        None: it is of a Pod nobody knows (yet, or any more), which must not pass for the node.
        """
        if self._uids is None:
            return []
        uid = await asyncio.to_thread(socket_uid, sender, local)
        if uid is None and _is_ours(sender[0]):
            return None  # it has hung up already, and what it sent must not arrive in the node's name
        key = self._uids.owner(uid) if uid is not None else None
        pods = self._pods.by_index(_UID, key) if key is not None else []
        if key is not None and not pods:
            return None
        return [self.peer(pod) for pod in pods if not pod["spec"].get("hostNetwork")]


def socket_uid(local: Address, remote: Address) -> int | None:
    """The uid of the TCP socket of this machine that is connected from ``local`` to ``remote``.

    None: there is none, or its process has closed it (the kernel goes on sending then, as uid 0 and without an inode).
    """
    for path, mapped in (("/proc/net/tcp", False), ("/proc/net/tcp6", True)):
        try:
            wanted = [_hexadecimal(local, mapped), _hexadecimal(remote, mapped)]
            lines = Path(path).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) >= _FIELDS and fields[1:3] == wanted:
                return int(fields[7]) if int(fields[9]) else None
    return None


def _is_ours(ip: str) -> bool:
    """Whether it is an address of this machine: others' sockets are not ours to find."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
    return True


def _hexadecimal(address: Address, mapped: bool) -> str:
    """An address as /proc/net/tcp and tcp6 write it: 32-bit words in the machine's byte order."""
    ip = ipaddress.ip_address(address[0])
    packed = ipaddress.ip_address(f"::ffff:{ip}").packed if mapped and ip.version == 4 else ip.packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"


def _of_pod(pod: Object) -> Object:
    """What policies look at."""
    meta, spec = pod["metadata"], pod["spec"]
    kept = {name: meta[name] for name in ("name", "namespace", "uid", "labels", "resourceVersion") if name in meta}
    claims = [v for v in spec.get("volumes") or () if "persistentVolumeClaim" in v]
    containers = [{"name": c["name"], "ports": c.get("ports") or []} for c in spec.get("containers") or ()]
    status = pod.get("status") or {}
    return {
        "metadata": kept,
        "spec": {"hostNetwork": bool(spec.get("hostNetwork")), "volumes": claims, "containers": containers},
        "status": {"podIP": status.get("podIP") or "", "phase": status.get("phase") or ""},
    }


def _addresses_of(pod: Object) -> Iterable[str]:
    over = pod["status"]["phase"] in ("Succeeded", "Failed")
    return [pod["status"]["podIP"]] if pod["status"]["podIP"] and not over and not pod["spec"]["hostNetwork"] else []
