"""core/v1 Events about objects: repeated ones are counted, a noisy object is bounded (as client-go's correlator)."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Clock, SystemClock, timestamp
from quarterdeck.kube.resource import EVENT, Object
from quarterdeck.kube.supervise import Supervisor

log = logging.getLogger(__name__)

_KNOWN = 4096
_BURST = 25.0
_REFILL_PER_SECOND = 1 / 300
_WAITING = 1000
_MESSAGE_LIMIT = 1024


@dataclass(slots=True)
class _Sent:
    name: str
    namespace: str
    count: int


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class EventRecorder:
    """Events are written in the background in order; when the server cannot be reached they are dropped, with a log."""

    def __init__(
        self, client: KubeClient, component: str, *, clock: Clock | None = None, supervisor: Supervisor | None = None
    ) -> None:
        self.client = client
        self.component = component
        self.dropped = 0
        self._clock = clock or SystemClock()
        self._supervisor = supervisor or Supervisor(self._clock)
        self._sent: OrderedDict[tuple[str, str, str, str], _Sent] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._queue: asyncio.Queue[tuple[Object, str, str, str, float]] = asyncio.Queue(_WAITING)
        self._task: asyncio.Task[None] | None = None

    def event(self, obj: Object, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Record that something happened to ``obj`` (which needs kind, apiVersion, name and uid). Never blocks."""
        if not self._allowed(obj["metadata"].get("uid", "")) or self._queue.full():
            self.dropped += 1
            return
        self._queue.put_nowait((obj, type, reason, message[:_MESSAGE_LIMIT], self._clock.time()))
        if self._task is None:
            self._task = asyncio.create_task(
                self._supervisor.keep("events", self._write_all), name=f"events {self.component}"
            )

    async def flush(self) -> None:
        """Wait until everything recorded so far was sent or dropped."""
        await self._queue.join()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _allowed(self, uid: str) -> bool:
        now = self._clock.monotonic()
        bucket = self._buckets.get(uid)
        if bucket is None:
            bucket = self._buckets[uid] = _Bucket(_BURST, now)
            if len(self._buckets) > _KNOWN:
                self._buckets.popitem(last=False)
        bucket.tokens = min(_BURST, bucket.tokens + (now - bucket.at) * _REFILL_PER_SECOND)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def _write_all(self) -> None:
        while True:
            obj, kind, reason, message, at = await self._queue.get()
            try:
                await self._write(obj, kind, reason, message, at)
            except errors.QuarterdeckError as error:
                self.dropped += 1
                log.debug("event %s for %s was not recorded: %s", reason, obj["metadata"]["name"], error)
            finally:
                self._queue.task_done()

    async def _write(self, obj: Object, kind: str, reason: str, message: str, at: float) -> None:
        key = (obj["metadata"].get("uid", ""), kind, reason, message)
        known = self._sent.get(key)
        now = timestamp(at)
        if known is not None:
            try:
                body = {"count": known.count + 1, "lastTimestamp": now}
                await self.client.patch(EVENT, known.name, body, known.namespace)
            except errors.NotFound:
                pass  # events expire: start a new one
            else:
                known.count += 1
                return
        metadata = obj["metadata"]
        namespace = metadata.get("namespace") or "default"
        name = f"{metadata['name'][:220].rstrip('.-')}.{uuid4().hex[:16]}"
        involved = {
            "kind": obj["kind"],
            "apiVersion": obj["apiVersion"],
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        if metadata.get("namespace"):
            involved["namespace"] = namespace
        event: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": kind,
            "source": {"component": self.component},
            "reportingComponent": self.component,
            "reportingInstance": self.component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self.client.create(EVENT, event)
        self._sent[key] = _Sent(name, namespace, 1)
        if len(self._sent) > _KNOWN:
            self._sent.popitem(last=False)
