"""Cluster IPs and node ports of Services: free ones are found in memory, what is taken is read from the store."""

from __future__ import annotations

import ipaddress
from typing import Any

from quarterdeck.apiserver.builtin import allocate
from quarterdeck.apiserver.database import DELETED
from quarterdeck.apiserver.kinds import Kind
from quarterdeck.apiserver.store import Event, Store, storage_key
from quarterdeck.errors import Cause, Invalid
from quarterdeck.kube.resource import SERVICE, Object

_KEY = storage_key(SERVICE)
_NODE_PORTS = range(30000, 32768)


class ServiceAddresses:
    """Allocates for :func:`builtin.allocate`; a hook of :class:`Writes` and a listener of the store."""

    def __init__(self, store: Store, cidr: str) -> None:
        self._store = store
        self._network = ipaddress.ip_network(cidr)
        self._taken: dict[str, str] = {}  # address or port → uid of its Service, "" while the write is under way
        self._next = 10

    def load(self) -> None:
        for entry in self._store.bucket(_KEY).range(None):
            self._take(entry.load())
        self._store.bucket(_KEY).listeners.add(self._changed)

    def close(self) -> None:
        self._store.bucket(_KEY).listeners.discard(self._changed)

    def prepare(self, kind: Kind, obj: Object, old: Object | None) -> None:
        """Complete a Service's addresses in place. Raises Invalid."""
        if kind.resource == SERVICE and isinstance(obj.get("spec"), dict):
            allocate(obj, old, self)

    def cluster_ip(self, requested: str = "") -> str:
        if requested:
            self._check(requested)
            self._taken[requested] = ""
            return requested
        for _ in range(self._network.num_addresses - 12):
            address = str(self._network[self._next])
            self._next = self._next + 1 if self._next + 2 < self._network.num_addresses else 10
            if address not in self._taken:
                self._taken[address] = ""
                return address
        raise _invalid("spec.clusterIP", f"Internal error: no address is free in {self._network}")

    def node_port(self, requested: int = 0) -> int:
        if requested:
            if requested not in _NODE_PORTS:
                text = f"Invalid value: {requested}: provided port is not in the valid range."
                raise _invalid("spec.ports[0].nodePort", f"{text} The range of valid ports is 30000-32767")
            if str(requested) in self._taken:
                text = f"Invalid value: {requested}: provided port is already allocated"
                raise _invalid("spec.ports[0].nodePort", text)
            self._taken[str(requested)] = ""
            return requested
        for port in _NODE_PORTS:
            if str(port) not in self._taken:
                self._taken[str(port)] = ""
                return port
        raise _invalid("spec.ports[0].nodePort", "Internal error: no node port is free")

    def _check(self, requested: str) -> None:
        shown = f'Invalid value: "{requested}": failed to allocate IP {requested}'
        try:
            inside = ipaddress.ip_address(requested) in self._network
        except ValueError as error:
            raise _invalid("spec.clusterIPs[0]", f'Invalid value: "{requested}": must be a valid IP address') from error
        if not inside:
            raise _invalid("spec.clusterIPs", f"{shown}: the provided IP ({requested}) is not in the valid range. "
                           f"The range of valid IPs is {self._network}")  # fmt: skip
        if requested in self._taken:
            raise _invalid("spec.clusterIPs", f"{shown}: provided IP is already allocated")

    def _changed(self, event: Event) -> None:
        if event.old is not None:
            for value in _addresses(event.old.load()):
                self._taken.pop(value, None)
        if event.type != DELETED:
            self._take(event.entry.load())

    def _take(self, service: Object) -> None:
        for value in _addresses(service):
            self._taken[value] = str(service["metadata"].get("uid", ""))


def _addresses(service: Object) -> list[str]:
    spec: dict[str, Any] = service.get("spec") or {}
    found = [str(a) for a in spec.get("clusterIPs") or () if a != "None"]
    return found + [str(p["nodePort"]) for p in spec.get("ports") or () if p.get("nodePort")]


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(f'Service "" is invalid: {field}: {message}', kind="Service", causes=(Cause(field, message),))
