"""Service addresses on this node: what kube-proxy does elsewhere, by relays in this process.

Every ClusterIP:port that has a ready endpoint is listened on and carried to one of them; without endpoints nothing
listens, so clients are refused as kube-proxy refuses them. The addresses are local because the whole range is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from quarterdeck.errors import StorageError
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.resource import ENDPOINT_SLICE, SERVICE, Object
from quarterdeck.kube.supervise import Supervisor
from quarterdeck.node.addresses import drop_local, make_local
from quarterdeck.node.egress import is_ours
from quarterdeck.node.firewall import Firewall
from quarterdeck.node.sandbox.relay import join
from quarterdeck.node.services import port_endpoints

log = logging.getLogger(__name__)

Address = tuple[str, int]
Targets = Mapping[Address, Sequence[Address]]
"""Where a connection to a Service's address and port may go."""

_CONNECTIONS = 4096
"""At once, of all Services: descriptors are the node's."""
_DIAL_SECONDS = 5.0
_ATTEMPTS = 3
_BACKLOG = 1024
_ACCEPT_AGAIN = 0.1
_SLICES = "service"


def targets(service: Object, slices: Sequence[Object]) -> dict[Address, list[Address]]:
    """The TCP ports of one Service that somebody serves. Headless and external Services have none."""
    spec = service["spec"]
    found: dict[Address, list[Address]] = {}
    for ip in spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else []):
        for port in spec.get("ports") or () if ip != "None" else ():
            if port.get("protocol", "TCP") == "TCP" and (served := port_endpoints(slices, port.get("name") or "")):
                found[(ip, int(port["port"]))] = served
    return found


class ServiceProxy:
    """Follows Services and EndpointSlices. ``changed`` is called after every change of either, once for many;
    ``firewall`` knows the NetworkPolicies (None: there are none)."""

    def __init__(
        self, client: KubeClient, cidr: str, changed: Callable[[], None], firewall: Firewall | None = None
    ) -> None:
        self._firewall = firewall
        self._range = ipaddress.ip_network(cidr)
        self._changed = changed
        self._services = Informer(client, SERVICE)
        self._slices = Informer(client, ENDPOINT_SLICE)
        self._slices.add_index(_SLICES, _service_of)
        self._targets: Targets = {}
        self._listeners: dict[Address, asyncio.Task[None]] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._turn = 0
        self._dirty = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._route = ""

    async def start(self) -> None:
        """Raises StorageError when the range can be made local neither by us nor was by somebody else."""
        first = str(self._range[1])
        if not is_ours(first):
            if not await asyncio.to_thread(make_local, str(self._range)):
                raise StorageError(f"the Service range {self._range} is not local, and this process may not add routes")
            self._route = str(self._range)
        for informer in (self._services, self._slices):
            informer.on_change(lambda *_: self._dirty.set())
            informer.start()
        await asyncio.gather(self._services.synced.wait(), self._slices.synced.wait())
        self._reconcile()
        self._following = asyncio.create_task(Supervisor().keep("service proxy", self._follow), name="service proxy")

    async def stop(self) -> None:
        """Close the relays, connections included, and take the range away again."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        for informer in (self._services, self._slices):
            await informer.stop()
        tasks = [*self._listeners.values(), *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._route:
            await asyncio.to_thread(drop_local, self._route)

    def services(self) -> list[tuple[Object, list[Object]]]:
        """Every Service with its EndpointSlices."""
        return [(s, self._slices_of(s)) for s in self._services.list()]

    def _slices_of(self, service: Object) -> list[Object]:
        meta = service["metadata"]
        return self._slices.by_index(_SLICES, f"{meta['namespace']}/{meta['name']}")

    async def _follow(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            self._reconcile()
            self._changed()

    def _reconcile(self) -> None:
        wanted: dict[Address, list[Address]] = {}
        for service, slices in self.services():
            wanted |= targets(service, slices)
        wanted = {a: t for a, t in wanted.items() if ipaddress.ip_address(a[0]) in self._range}
        self._targets = wanted
        for address in [a for a in self._listeners if a not in wanted]:
            self._listeners.pop(address).cancel()
        for address in [a for a in wanted if a not in self._listeners]:
            self._listen(address)

    def _listen(self, address: Address) -> None:
        """Other nodes of this machine serve the same addresses: the kernel spreads connections over all."""
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            log.warning("Service address %s:%d cannot be served: %s", *address, error)
            return
        sock.setblocking(False)
        self._listeners[address] = asyncio.create_task(self._accept(address, sock), name=f"Service {address}")

    async def _accept(self, address: Address, listener: socket.socket) -> None:
        """Accepted here and not by asyncio's servers: those lose a connection that comes in while they are closed."""
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    accepted, _ = await loop.sock_accept(listener)
                except OSError as error:  # no descriptors left, or the client gave up
                    log.warning("Service address %s:%d: %s", *address, error)
                    await asyncio.sleep(_ACCEPT_AGAIN)
                    continue
                if len(self._connections) >= _CONNECTIONS:
                    log.warning("Service address %s:%d: %d connections are open already", *address, _CONNECTIONS)
                    accepted.close()
                    continue
                task = loop.create_task(self._carry(address, accepted))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)

    async def _carry(self, address: Address, accepted: socket.socket) -> None:
        """One connection; without endpoint it is reset."""
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            other = await self._dial(address, writer.get_extra_info("peername"))
            if other is not None:
                with suppress(OSError):
                    await join(reader, writer, *other)
        finally:
            writer.transport.abort()

    async def _dial(
        self, address: Address, sender: Address | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to one of the endpoints in turn; another one where the first refuses."""
        choices = self._targets.get(address) or ()
        self._turn += 1
        for step in range(min(_ATTEMPTS, len(choices))):
            target = choices[(self._turn + step) % len(choices)]
            if not await self._admitted(address, sender, target):
                continue
            try:
                return await asyncio.wait_for(asyncio.open_connection(*target), _DIAL_SECONDS)
            except (OSError, TimeoutError) as error:
                log.info("Service address %s:%d: endpoint %s:%d: %s", *address, *target, error)
        return None

    async def _admitted(self, address: Address, sender: Address | None, target: Address) -> bool:
        """Whether NetworkPolicies let the sender through to ``target``."""
        if self._firewall is None:
            return True
        verdict = await self._firewall.relayed(sender[:2], address, target) if sender else None
        if verdict is None or not verdict.allowed:
            log.warning("Service address %s:%d denied to %s: %s", *address, sender, verdict)
        return verdict is not None and verdict.allowed


def _service_of(piece: Object) -> list[str]:
    meta = piece["metadata"]
    name = (meta.get("labels") or {}).get("kubernetes.io/service-name")
    return [f"{meta['namespace']}/{name}"] if name else []
