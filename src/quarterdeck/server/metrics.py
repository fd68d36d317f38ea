"""``kubectl top`` and the HPA: CPU rates out of the node's counters, as metrics.k8s.io/v1beta1 objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.resource import Object

WINDOW = 10.0
"""Seconds between two looks; a container shows up after the second."""

Sample = dict[str, Any]
"""As ``Node.pod_metrics`` gives it: namespace, pod, container, cpu_nanoseconds (a counter), memory_bytes."""


@dataclass(frozen=True, slots=True)
class Usage:
    """One container: CPU in nanocores, memory in bytes."""

    cpu: int
    memory: int


class PodMetrics:
    """Keeps the newest rates. ``source`` is the node's reading; ``node`` its name."""

    def __init__(self, source: Callable[[], list[Sample]], node: str) -> None:
        self._source = source
        self._node = node
        self._before: dict[tuple[str, str, str], tuple[float, int]] = {}
        self._usage: dict[tuple[str, str, str], Usage] = {}

    async def run(self) -> None:
        """Look every :data:`WINDOW` seconds until cancelled."""
        while True:
            self.look(monotonic())
            await asyncio.sleep(WINDOW)

    def look(self, now: float) -> None:
        """Take one reading; rates are against the one before."""
        before, self._before = self._before, {}
        usage: dict[tuple[str, str, str], Usage] = {}
        for sample in self._source():
            key = (sample["namespace"], sample["pod"], sample["container"])
            counter = int(sample["cpu_nanoseconds"])
            self._before[key] = (now, counter)
            earlier = before.get(key)
            if earlier is not None and counter >= earlier[1] and now > earlier[0]:
                usage[key] = Usage(int((counter - earlier[1]) / (now - earlier[0])), int(sample["memory_bytes"]))
        self._usage = usage

    def pods(self, namespace: str | None) -> list[Object]:
        """PodMetrics, of one namespace or all."""
        grouped: dict[tuple[str, str], list[Object]] = {}
        for (ns, pod, container), usage in sorted(self._usage.items()):
            if namespace is None or ns == namespace:
                grouped.setdefault((ns, pod), []).append({"name": container, "usage": _quantities(usage)})
        return [
            self._metrics("PodMetrics", {"name": pod, "namespace": ns}, {"containers": containers})
            for (ns, pod), containers in grouped.items()
        ]

    def nodes(self) -> list[Object]:
        """NodeMetrics of the one node: the sum of its Pods."""
        total = Usage(sum(u.cpu for u in self._usage.values()), sum(u.memory for u in self._usage.values()))
        return [self._metrics("NodeMetrics", {"name": self._node}, {"usage": _quantities(total)})]

    def _metrics(self, kind: str, metadata: Object, rest: Object) -> Object:
        now = timestamp(time())
        return {
            "apiVersion": "metrics.k8s.io/v1beta1",
            "kind": kind,
            "metadata": metadata | {"creationTimestamp": now},
            "timestamp": now,
            "window": f"{WINDOW:g}s",
        } | rest


def _quantities(usage: Usage) -> Object:
    return {"cpu": f"{usage.cpu}n", "memory": f"{usage.memory // 1024}Ki"}
