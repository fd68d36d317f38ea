"""The gateway's configuration: compiled when anything it depends on changes, streamed to every gateway replica."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from quarterdeck import snapshot
from quarterdeck.errors import QuarterdeckError
from quarterdeck.kube import resource as k
from quarterdeck.kube.clock import sleep
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.informer import Callback, ChangeKind, Informer, NotLoaded
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.snapshot import Identities, Snapshot
from quarterdeck.snapshot.activity import Report
from quarterdeck.snapshot.pins import ServerPins
from quarterdeck.snapshot.revocations import Revocation
from quarterdeck.translate.options import Options
from quarterdeck.translate.resolve import Services, closed_addresses
from quarterdeck.translate.snapshot import Lookup, Values, World, compile_snapshot

from .activity import Target
from .canary import Contents
from .gateway_api import GatewayApi
from .idle import Idle
from .triggers import Triggers

log = logging.getLogger(__name__)

_SOURCES: dict[str, Resource] = {
    "agents": k.AGENT,
    "model_configs": k.MODEL_CONFIG,
    "mcp_servers": k.MCP_SERVER,
    "remote_mcp_servers": k.REMOTE_MCP_SERVER,
    "virtual_servers": k.VIRTUAL_SERVER,
    "services": k.SERVICE,
    "endpoint_slices": k.ENDPOINT_SLICE,
    "pods": k.POD,
    "deployments": k.DEPLOYMENT,
    "replica_sets": k.REPLICA_SET,
    "namespaces": k.NAMESPACE,
    "approval_policies": k.APPROVAL_POLICY,
    "triggers": k.TRIGGER,
}
_VALUES = (k.SECRET, k.CONFIG_MAP)
_OURS = (k.AGENT, k.MODEL_CONFIG, k.MCP_SERVER, k.REMOTE_MCP_SERVER)
_KEYS_REFRESH = 300.0
_KEYS_RETRY = 1.0
_REST = 4.0
"""Pause between compilations as a multiple of what the last one took: with 1,000 agents one takes 20 ms and more, and
while they are being created everything changes all the time."""
_LONGEST_REST = 1.0
_LOADS_AT_ONCE = 8
_OWNED = {k.POD, k.REPLICA_SET, k.DEPLOYMENT}


@dataclass(frozen=True, slots=True)
class Ack:
    """What one gateway replica said about a version."""

    version: str
    accepted: bool
    errors: tuple[str, ...] = ()


class GatewayConfig:
    """Holds the current Snapshot; :meth:`stream` gives it and every later one.

    ``local_token_hashes`` and ``anonymous_local`` are the embedded mode's answer to who may use the local listener.
    """

    def __init__(
        self,
        controllers: ControllerSet,
        options: Options,
        contents: Contents,
        idle: Idle,
        *,
        local_token_hashes: tuple[str, ...] = (),
        anonymous_local: bool = False,
        gateways: GatewayApi | None = None,
        pinned: Callable[[tuple[ServerPins, ...]], None] = lambda _: None,
        debounce: float = 0.05,
    ) -> None:
        """``pinned`` is told of approved tools when they change."""
        self._set = controllers
        self._options = options
        self._contents = contents
        self._idle = idle
        self._identities = Identities(local_token_hashes=local_token_hashes, anonymous_local=anonymous_local)
        self._debounce = debounce
        self._gateways = gateways
        self._pinned = pinned
        self._dirty = asyncio.Event()
        self._changed = asyncio.Condition()
        self._keys_known = False
        self.snapshot: Snapshot | None = None
        self.line = b""
        """The current snapshot as an NDJSON line, without the newline; empty until the first is compiled."""
        self.acks: dict[tuple[str, str], Ack] = {}
        """By (gateway, replica)."""
        self._revocations: tuple[Revocation, ...] = ()
        self._pins: tuple[ServerPins, ...] = ()
        self._permit_keys: tuple[str, ...] = ()
        self._hosted: tuple[Snapshot | None, frozenset[str]] = None, frozenset()
        """Of which snapshot, and who they are: one assignment, as journals are written in another thread."""
        self.compilations = 0
        self.triggers: Triggers | None = None
        """What starts runs by itself; None where no controllers are built."""
        for res in (*_SOURCES.values(), *_VALUES):
            controllers.informer(res).on_change(self._marker(res))
        if gateways is not None:
            gateways.follow(self._dirty.set)
        controllers.add_loop("gateway configuration", self._follow)
        controllers.add_loop("token keys", self._follow_keys)

    def current(self, gateway: str) -> bytes | None:
        """The present line for a gateway (``namespace/name``); None while there is none yet."""
        return self._line_of(gateway) or None

    def _line_of(self, gateway: str) -> bytes:
        """Of the default gateway, or of one that a Gateway asks for; of nobody else: secrets are inside."""
        if gateway == self._options.gateway:
            return self.line
        return self._gateways.lines.get(gateway, b"") if self._gateways is not None else b""

    async def stream(self, gateway: str) -> AsyncGenerator[bytes]:
        """Lines for one gateway (``namespace/name``): the current one at once, then each new one."""
        sent = b""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda last=sent: self._line_of(gateway) not in (b"", last))
                sent = self._line_of(gateway)
            log.debug("configuration to gateway %s", gateway)
            yield sent

    def acknowledge(
        self,
        gateway: str,
        replica: str,
        version: str,
        accepted: bool,
        errors: list[str],
        problems: Mapping[str, str] | None = None,
    ) -> None:
        """Record what a replica said; refused versions are logged with the replica's words.

        ``problems``: listeners of an accepted version that cannot be served there, by name, and why.
        """
        self.acks[gateway, replica] = Ack(version, accepted, tuple(errors))
        if self._gateways is not None:
            refused = () if accepted else tuple(errors) or ("no reason is given",)
            self._gateways.acknowledge(gateway, replica, version, refused, problems or {})
        if not accepted:
            log.warning("gateway %s (%s) refused configuration %s: %s", gateway, replica, version, "; ".join(errors))

    def report(self, gateway: str, report: Report) -> None:
        """What a gateway process says of its traffic. Raises NotLeader where the controllers do not run."""
        self._leading()
        self._idle.activity.report(gateway, report)

    async def wake(self, target: Target) -> int:
        """Start a Pod of what is scaled to zero; gives the Deployment's replicas. Raises as :meth:`Idle.wake`."""
        self._leading()
        return await self._idle.wake(target)

    def _leading(self) -> None:
        if self._set.client.gate is not None:
            self._set.client.gate()

    def compile(self) -> tuple[Snapshot, list[NotLoaded]]:
        """The snapshot of what the informers hold now, and what it lacks: data that must be loaded first."""
        objects: dict[str, Any] = {name: self._set.informer(res).list() for name, res in _SOURCES.items()}
        absent: list[NotLoaded] = []

        def reader(informer: Informer) -> Lookup:
            def read(namespace: str, name: str) -> Object | None:
                try:
                    return informer.get(namespace, name)
                except NotLoaded as error:
                    absent.append(error)
                    return None

            return read

        values = Values(*(reader(self._set.informer(res)) for res in _VALUES))
        self.compilations += 1
        world = World(**objects, values=values, revisions=self._contents.known, identities=self._identities)
        compiled = compile_snapshot(world, self._options)
        if self._gateways is not None:
            secret = reader(self._set.informer(k.SECRET))
            services = partial(Services.of, world.services, world.endpoint_slices, world.pods)
            compiled = self._gateways.compile(compiled, services, values, secret, world.labels)
            if not absent:
                self._gateways.settle()
        return compiled, absent

    def _marker(self, res: Resource) -> Callback:
        def changed(kind: ChangeKind, old: Object | None, new: Object | None) -> None:
            del kind
            if old is None or new is None or _matters(res, old, new):
                self._dirty.set()

        return changed

    async def _load(self, absent: list[NotLoaded]) -> None:
        limit = asyncio.Semaphore(_LOADS_AT_ONCE)

        async def load(one: NotLoaded) -> None:
            async with limit:
                await one.load()

        try:
            await asyncio.gather(*map(load, absent))
        except QuarterdeckError as error:
            log.warning("cannot read what the gateway's configuration needs, trying again: %s", error)
            await sleep(self._set.clock, _KEYS_RETRY)
        self._dirty.set()

    async def _read_revisions(self) -> None:
        """What Pods run while their Agent's spec is on trial: they keep what that grants them."""
        try:
            await self._contents.read(self._set.informer(k.AGENT).list())
        except QuarterdeckError as error:
            log.warning("cannot read the specs that are served, trying again: %s", error)
            await sleep(self._set.clock, _KEYS_RETRY)
            self._dirty.set()

    async def _follow(self) -> None:
        gateways = self._gateways.sources.values() if self._gateways is not None else ()
        for res in (*_SOURCES.values(), *_VALUES, *gateways):
            await self._set.informer(res).answered.wait()
        # Where none of our definitions is there yet, gateways keep what they have.
        await _first(self._set.informer(res).synced for res in _OURS)
        self._dirty.set()
        clock, took = self._set.clock, 0.0
        while True:
            await self._dirty.wait()
            # One rollout is a dozen changes; the gateways need the result only.
            await sleep(clock, min(max(self._debounce, took * _REST), _LONGEST_REST))
            self._dirty.clear()
            if not self._keys_known:
                continue
            await self._read_revisions()
            start = clock.monotonic()
            compiled, absent = self.compile()
            if absent:
                await self._load(absent)
                continue
            await self._publish(compiled)
            took = clock.monotonic() - start

    async def govern(self, revocations: tuple[Revocation, ...], pins: tuple[ServerPins, ...]) -> None:
        """Have these in all that is streamed from now on. A kill switch waits for no compilation."""
        if (revocations, pins) == (self._revocations, self._pins):
            return
        self._revocations, self._pins = revocations, pins
        self._pinned(pins)
        if self.snapshot is not None:
            await self._publish(self.snapshot)

    async def trust(self, permit_keys: tuple[str, ...]) -> None:
        """Have the gateways accept permits that are signed with these keys."""
        self._permit_keys = permit_keys
        if self.snapshot is not None:
            await self._publish(self.snapshot)

    def serves(self, gateway: str) -> bool:
        """Whether a gateway (``namespace/name``) is given a configuration by us."""
        return bool(self._line_of(gateway))

    def has_agent(self, agent: str) -> bool:
        """Whether there is an agent of that name (``namespace/name``)."""
        agents = self.snapshot.agents if self.snapshot is not None else ()
        return any(f"{one.namespace}/{one.name}" == agent for one in agents)

    def hosted(self, agent: str) -> bool:
        """Whether gateways want permits for the tool calls of an agent (``namespace/name``)."""
        current, (known, hosted) = self.snapshot, self._hosted
        if current is not known:
            policies = current.policies if current is not None else ()
            hosted = frozenset(f"{p.namespace}/{p.name}" for p in policies if p.hosted)
            self._hosted = current, hosted
        return agent in hosted

    async def _publish(self, compiled: Snapshot) -> None:
        async with self._changed:
            current = msgspec.structs.replace(
                compiled, revocations=self._revocations, pins=self._pins, permit_keys=self._permit_keys
            )
            line = snapshot.encode(current)
            others = self._gateways is not None and self._gateways.publish(current, line)
            if line != self.line or others:
                self.snapshot, self.line = current, line
                self._changed.notify_all()

    async def _follow_keys(self) -> None:
        """The ServiceAccount issuer and its keys, refreshed: without them no workload can be told from another."""
        while True:
            wait = _KEYS_REFRESH
            try:
                discovery = await self._set.client.request("GET", "/.well-known/openid-configuration")
                keys = await self._set.client.request("GET", "/openid/v1/jwks", accept="application/jwk-set+json")
            except QuarterdeckError as error:
                log.warning("cannot read the ServiceAccount token keys, trying again: %s", error)
                wait = _KEYS_RETRY
            else:
                self._set_keys(discovery, keys)
            await sleep(self._set.clock, wait)

    def _set_keys(self, discovery: Any, keys: Any) -> None:
        def data(value: Any) -> dict[str, Any]:
            return value if isinstance(value, dict) else msgspec.json.decode(value)

        self._identities = msgspec.structs.replace(
            self._identities, issuer=str(data(discovery).get("issuer") or ""), jwks=data(keys)
        )
        self._keys_known = True
        self._dirty.set()


async def _first(events: Iterable[asyncio.Event]) -> None:
    """Until one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


def _matters(res: Resource, old: Object, new: Object) -> bool:
    """Whether a change can show in the configuration: of workloads of others, and of Pods, only whose they are does,
    and which addresses ours have."""
    if res == k.TRIGGER:  # its status tells of each firing
        return old["metadata"].get("generation") != new["metadata"].get("generation")
    if res not in _OWNED:
        return True
    if res == k.DEPLOYMENT and old["spec"].get("replicas") != new["spec"].get("replicas"):
        return True  # it may be a gateway's, whose limits are divided by that
    if res == k.POD and closed_addresses(old) != closed_addresses(new):
        return True
    owners = new["metadata"].get("ownerReferences") or ()
    if owners != (old["metadata"].get("ownerReferences") or ()):
        return True
    return res == k.DEPLOYMENT and any(str(owner.get("apiVersion")).startswith("kagent.dev/") for owner in owners)
