"""What an agent host counts, for its ``/metrics``."""

from __future__ import annotations

from quarterdeck.telemetry import names
from quarterdeck.telemetry.metrics import Registry

from .spans import Tracer
from .usage import Tokens


class Metrics:
    """The families. ``outcome`` of a run is completed, failed or canceled, with the reason it failed for."""

    def __init__(self, registry: Registry, tracer: Tracer) -> None:
        self.active = 0
        self._runs = registry.counter(names.AGENT_RUNS, "Runs that have ended here.", ("outcome", "reason"))
        self._run = registry.histogram(
            names.AGENT_RUN_DURATION, "Seconds from a message to the end of its run.", ("outcome",), names.RUN_BUCKETS
        )
        self._step = registry.histogram(
            names.AGENT_STEP_DURATION, "Seconds of a model call or a tool call.", ("kind", "name", "outcome"),
            names.STEP_BUCKETS,
        )  # fmt: skip
        self._first = registry.histogram(
            names.AGENT_FIRST_TOKEN, "Seconds from asking a streaming model to its first text.", ("model",),
            names.MODEL_BUCKETS,
        )  # fmt: skip
        self._tokens = registry.counter(
            names.AGENT_TOKENS, "Tokens, by input, output, and cached input.", ("model", "type")
        )
        self._cost = registry.counter(
            names.AGENT_COST, "Cost of model calls in the currency of the prices.", ("model",)
        )
        registry.gauge(names.AGENT_RUNS_ACTIVE, "Runs that are worked on.", lambda: [({}, float(self.active))])
        registry.gauge(
            names.AGENT_SPANS, "Spans the collector has taken.",
            lambda: [({}, float(tracer.exporter.sent if tracer.exporter is not None else 0))], kind="counter",
        )  # fmt: skip
        registry.gauge(
            names.AGENT_SPANS_DROPPED, "Spans dropped because too many wait.", lambda: [({}, float(tracer.dropped))],
            kind="counter",
        )  # fmt: skip
        registry.gauge(
            names.AGENT_SPANS_WAITING, "Spans that wait for the collector.",
            lambda: [({}, float(tracer.exporter.waiting if tracer.exporter is not None else 0))],
        )  # fmt: skip

    def ended(self, outcome: str, reason: str, seconds: float) -> None:
        self._runs.labels(outcome, reason).value += 1
        self._run.labels(outcome).observe(seconds)

    def model(self, model: str, tokens: Tokens, seconds: float, first: float | None, cost: float) -> None:
        """A model call that gave an answer. ``first``: seconds to its first text, if it streamed."""
        self._step.labels("model", model, "ok").observe(seconds)
        if first is not None:
            self._first.labels(model).observe(first)
        for kind, count in (("input", tokens.input), ("output", tokens.output), ("cached", tokens.cached)):
            if count:
                self._tokens.labels(model, kind).value += count
        if cost:
            self._cost.labels(model).value += cost

    def step(self, kind: str, name: str, outcome: str, seconds: float) -> None:
        self._step.labels(kind, name, outcome).observe(seconds)
