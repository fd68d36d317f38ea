"""What agents do, counted at the control plane from their journals: one place for all replicas of all agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quarterdeck.snapshot.runs import FINAL, Event
from quarterdeck.telemetry import names
from quarterdeck.telemetry.metrics import Registry

from .database import Row
from .http import Call, Route, route
from .identity import Identity
from .usage import of_event

_LONGEST = 7 * 86400.0


class MetricsApi:
    """``GET /metrics`` of the management API: who may see the platform's status may scrape it."""

    def __init__(self, registry: Registry, identity: Identity) -> None:
        self._registry = registry
        self._identity = identity

    def routes(self) -> list[Route]:
        return [route("GET", "/metrics", self.get)]

    async def get(self, call: Call) -> None:
        await self._identity.person(call.header(b"authorization"), "get", "status")
        call.exchange.respond(200, self._registry.render(), [(b"content-type", self._registry.content_type)])


class RunMetrics:
    """:meth:`wrote` is called with what is written of a run."""

    def __init__(self, registry: Registry) -> None:
        self._runs = registry.counter(names.RUNS, "Runs that have ended.", ("agent", "source", "outcome", "reason"))
        self._run = registry.histogram(
            names.RUN_DURATION, "Seconds from a run's beginning to its end.", ("agent", "outcome"), names.RUN_BUCKETS
        )
        self._step = registry.histogram(
            names.RUN_STEP_DURATION, "Seconds of a model call or a tool call.", ("agent", "kind", "outcome"),
            names.STEP_BUCKETS,
        )  # fmt: skip
        self._first = registry.histogram(
            names.RUN_FIRST_TOKEN, "Seconds from asking a streaming model to its first text.", ("agent", "model"),
            names.MODEL_BUCKETS,
        )  # fmt: skip
        self._tokens = registry.counter(
            names.RUN_TOKENS, "Tokens, by input, output, and cached input.", ("agent", "model", "type")
        )
        self._cost = registry.counter(
            names.RUN_COST, "Cost of model calls in the currency of the prices.", ("agent", "model")
        )

    def wrote(self, row: Row, events: Sequence[Event]) -> None:
        """``row`` is the run as it is after them. What a new run took over from another one was counted there."""
        if events[0].kind == "created":
            return
        agent = row["agent"]
        for event in events:
            data = event.data
            if event.kind in ("model.result", "compaction"):
                self._model(agent, data)
            elif event.kind == "tool.result":
                took = _seconds(data.get("took"))
                if took is not None:
                    self._step.labels(agent, "tool", "error" if data.get("failed") else "ok").observe(took)
            elif event.kind == "final" and row["state"] in FINAL:
                self._runs.labels(agent, row["source"], row["state"], row["reason"]).value += 1
                self._run.labels(agent, row["state"]).observe(max(0.0, event.at - row["created_at"]))

    def _model(self, agent: str, data: dict[str, Any]) -> None:
        model, counts = of_event(data)
        took, first = _seconds(data.get("took")), _seconds(data.get("first"))
        if took is not None:
            self._step.labels(agent, "model", "ok").observe(took)
        if first is not None:
            self._first.labels(agent, model).observe(first)
        for kind in ("input", "output", "cached"):
            if counts[kind]:
                self._tokens.labels(agent, model, kind).value += counts[kind]
        if counts["cost"]:
            self._cost.labels(agent, model).value += counts["cost"]


def _seconds(value: Any) -> float | None:
    """An agent's word about a duration, if it can be one."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST
    return float(value) if good else None
