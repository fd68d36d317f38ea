"""Leader election on a coordination.k8s.io Lease, with client-go's times and rules."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Clock, SystemClock, micro_timestamp, sleep
from quarterdeck.kube.resource import LEASE, Object

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. A leader that cannot renew for ``renew_deadline`` stops before others may take over."""

    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0


class LeaderElector:
    """``identity`` must be unique among the candidates."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        timing: Timing | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.name = name
        self.identity = identity
        self.is_leader = False
        self._timing = timing or Timing()
        self._clock = clock or SystemClock()
        # Judged by our own clock since we first saw the record, so that skewed clocks do no harm.
        self._observed: tuple[Any, ...] = ()
        self._observed_at = 0.0

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for leadership, then run ``work`` until it returns or leadership is lost (work is then cancelled).

        Returns in both cases: a process that lost leadership should exit or call again. Releases the lease on the way.
        """
        while not await self._try():
            await sleep(self._clock, self._timing.retry_period)
        self.is_leader = True
        log.info("%s is now the leader of %s/%s", self.identity, self.namespace, self.name)
        job = asyncio.ensure_future(work())
        renewal = asyncio.create_task(self._renew(), name=f"lease {self.name}")
        try:
            await asyncio.wait({job, renewal}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_leader = False
            lost = renewal.done()
            for task in (job, renewal):
                task.cancel()
            results = await asyncio.gather(job, renewal, return_exceptions=True)
            if not lost:
                await self._release()
        if isinstance(results[0], Exception):
            raise results[0]

    async def _renew(self) -> None:
        renewed = self._clock.monotonic()
        while self._clock.monotonic() - renewed < self._timing.renew_deadline:
            await sleep(self._clock, self._timing.retry_period)
            if await self._try():
                renewed = self._clock.monotonic()
        log.warning("%s lost the lease %s/%s", self.identity, self.namespace, self.name)

    async def _try(self) -> bool:
        """Take or renew the lease; whether we hold it."""
        try:
            return await self._take()
        except errors.Conflict:
            return False
        except errors.AlreadyExists:
            return False
        except errors.QuarterdeckError as error:
            log.warning("lease %s/%s: %s", self.namespace, self.name, error)
            return False

    async def _take(self) -> bool:
        now = self._clock.time()
        try:
            lease = await self.client.get(LEASE, self.name, self.namespace)
        except errors.NotFound:
            await self.client.create(LEASE, self._lease(self._spec({}, now)))
            return True
        spec: dict[str, Any] = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        record = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._observed:
            self._observed, self._observed_at = record, self._clock.monotonic()
        expired = self._clock.monotonic() - self._observed_at >= float(
            spec.get("leaseDurationSeconds") or self._timing.lease_duration
        )
        if holder not in ("", self.identity) and not expired:
            return False
        lease["spec"] = self._spec(spec, now)
        await self.client.replace(LEASE, lease)
        return True

    def _spec(self, old: dict[str, Any], now: float) -> dict[str, Any]:
        mine = old.get("holderIdentity") == self.identity
        transitions = int(old.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self._timing.lease_duration),
            "acquireTime": old.get("acquireTime") if mine else micro_timestamp(now),
            "renewTime": micro_timestamp(now),
            "leaseTransitions": transitions if mine or not old else transitions + 1,
        }

    def _lease(self, spec: dict[str, Any]) -> Object:
        metadata = {"name": self.name, "namespace": self.namespace}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}

    async def _release(self) -> None:
        """Let the next candidate start at once."""
        try:
            lease = await self.client.get(LEASE, self.name, self.namespace)
            if lease["spec"].get("holderIdentity") == self.identity:
                now = micro_timestamp(self._clock.time())
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now}
                await self.client.replace(LEASE, lease)
        except errors.QuarterdeckError as error:
            log.debug("lease %s/%s was not released: %s", self.namespace, self.name, error)
