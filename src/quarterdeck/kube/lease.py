"""Leader election on a coordination.k8s.io Lease, with client-go's times and rules.

Two things keep a deposed leader from writing: its work is cancelled when it loses the lease, and
:meth:`LeaderElector.check` is the gate of the client that the work uses. The gate needs no timer to fire: a process
that was stopped for a minute finds its lease run out at its first write, before anything else has run. The lease itself
goes through a client without gate.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Clock, SystemClock, micro_timestamp, sleep
from quarterdeck.kube.resource import LEASE, Object

log = logging.getLogger(__name__)
_LEAST = 0.1


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. A leader that cannot renew for ``renew_deadline`` stops before others may take over."""

    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0


class LeaderElector:
    """``identity`` must be unique among the candidates, also among restarts of one Pod."""

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
        self.owners: list[Object] = []
        """Owner references of the Lease when it is made here: who takes it along when going."""
        self.holder = ""
        """Who held the lease when it was last read."""
        self._timing = timing or Timing()
        self._clock = clock or SystemClock()
        self._until = -math.inf
        # Judged by our own clock since we first saw the record, so that skewed clocks do no harm.
        self._observed: tuple[Any, ...] = ()
        self._observed_at = 0.0
        self._free_at = 0.0

    @property
    def is_leader(self) -> bool:
        """Whether nobody else can have taken the lease yet."""
        return self._clock.monotonic() < self._until

    def check(self) -> None:
        """The gate of writes. Raises errors.NotLeader."""
        if not self.is_leader:
            lease = f"{self.namespace}/{self.name}"
            raise errors.NotLeader(
                f"not sent: {self.identity} does not hold {lease}, {self.holder or 'nobody'} did last"
            )

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for leadership, then run ``work`` until it returns or leadership is lost (work is then cancelled).

        Returns in both cases: a process that lost leadership should exit or call again. Releases the lease on the way.
        """
        while not await self._try(self._timing.renew_deadline):
            await sleep(self._clock, self._pause())
        log.info("%s is now the leader of %s/%s", self.identity, self.namespace, self.name)
        job = asyncio.ensure_future(work())
        renewal = asyncio.create_task(self._renew(), name=f"lease {self.name}")
        try:
            await asyncio.wait({job, renewal}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost = renewal.done()
            for task in (job, renewal):
                task.cancel()
            results = await asyncio.gather(job, renewal, return_exceptions=True)
            self._until = -math.inf
            if not lost:
                await self._release()
        if isinstance(results[1], Exception):
            log.error("renewing the lease %s/%s hit a bug", self.namespace, self.name, exc_info=results[1])
        if isinstance(results[0], Exception):
            raise results[0]

    def _pause(self) -> float:
        """Seconds until the next attempt: the retry period with jitter, but no later than the lease runs out."""
        period = self._timing.retry_period * random.uniform(0.9, 1.1)  # noqa: S311
        left = self._free_at - self._clock.monotonic()
        return max(min(period, left), _LEAST) if left > 0 else period

    async def _renew(self) -> None:
        """Return when the lease is lost."""
        while self.is_leader:
            left = self._until - self._clock.monotonic()
            await sleep(self._clock, max(min(self._timing.retry_period, left), 0.0))
            await self._try(max(self._until - self._clock.monotonic(), _LEAST))
        log.warning("%s lost the lease %s/%s", self.identity, self.namespace, self.name)

    async def _try(self, limit: float) -> bool:
        """Take or renew the lease within ``limit`` seconds; whether we hold it."""
        # Nobody can see our record before we send it: their time runs out after ours.
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(limit):
                held = await self._take()
        except TimeoutError:
            log.warning("lease %s/%s: no answer in %.1f s", self.namespace, self.name, limit)
            return False
        except (errors.Conflict, errors.AlreadyExists):
            return False
        except errors.QuarterdeckError as error:
            log.warning("lease %s/%s: %s", self.namespace, self.name, error)
            return False
        self._until = began + self._timing.renew_deadline if held else -math.inf
        return held

    async def _take(self) -> bool:
        now = self._clock.time()
        try:
            lease = await self.client.get(LEASE, self.name, self.namespace)
        except errors.NotFound:
            await self.client.create(LEASE, self._lease(self._spec({}, now)))
            self.holder = self.identity
            return True
        spec: dict[str, Any] = lease.get("spec") or {}
        self.holder = spec.get("holderIdentity") or ""
        record = (self.holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._observed:
            self._observed, self._observed_at = record, self._clock.monotonic()
        self._free_at = self._observed_at + float(spec.get("leaseDurationSeconds") or self._timing.lease_duration)
        if self.holder not in ("", self.identity) and self._clock.monotonic() < self._free_at:
            return False
        lease["spec"] = self._spec(spec, now)
        await self.client.replace(LEASE, lease)
        self.holder = self.identity
        return True

    def _spec(self, old: dict[str, Any], now: float) -> dict[str, Any]:
        mine = old.get("holderIdentity") == self.identity
        transitions = int(old.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(int(self._timing.lease_duration), 1),
            "acquireTime": old.get("acquireTime") if mine else micro_timestamp(now),
            "renewTime": micro_timestamp(now),
            "leaseTransitions": transitions if mine or not old else transitions + 1,
        }

    def _lease(self, spec: dict[str, Any]) -> Object:
        metadata: Object = {"name": self.name, "namespace": self.namespace}
        if self.owners:
            metadata["ownerReferences"] = self.owners
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}

    async def _release(self) -> None:
        """Let the next candidate start at once."""
        try:
            async with asyncio.timeout(self._timing.retry_period):
                lease = await self.client.get(LEASE, self.name, self.namespace)
                if lease["spec"].get("holderIdentity") == self.identity:
                    now = micro_timestamp(self._clock.time())
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now}
                    await self.client.replace(LEASE, lease)
        except (errors.QuarterdeckError, TimeoutError) as error:
            log.debug("lease %s/%s was not released: %s", self.namespace, self.name, error)
