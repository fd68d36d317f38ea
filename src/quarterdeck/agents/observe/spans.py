"""Spans of agents by OpenTelemetry's GenAI conventions, sent as OTLP/HTTP (JSON) when the environment says where.

Read: ``OTEL_EXPORTER_OTLP_ENDPOINT``, ``…_TRACES_ENDPOINT``, ``…_HEADERS``, ``OTEL_TRACES_SAMPLER`` and ``…_ARG``,
``OTEL_TRACES_EXPORTER``, ``OTEL_SDK_DISABLED``, ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES`` and
``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` (https://opentelemetry.io/docs/specs/otel/configuration/).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import Literal
from urllib.parse import unquote, urlsplit

import msgspec

from quarterdeck import __version__
from quarterdeck.errors import ConfigError
from quarterdeck.gateway.audit import otlp
from quarterdeck.gateway.audit.delivery import Exporter, Target
from quarterdeck.gateway.audit.otlp import Value
from quarterdeck.telemetry.environment import endpoint
from quarterdeck.telemetry.trace import Ids, parse

log = logging.getLogger("quarterdeck.agents")
INTERNAL, CLIENT = 1, 3
_OK, _ERROR = 1, 2
_QUEUE = 20_000
"""Spans that wait for the collector; more are dropped and counted."""
_RANDOM = 2**56
SAMPLERS = (
    "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
    "parentbased_traceidratio",
)  # fmt: skip
_GRPC = 4317


@dataclass(frozen=True, slots=True)
class Sampler:
    """``share`` of the traces that nobody has decided on; ``parent``: whether a caller's decision holds."""

    share: float = 1.0
    parent: bool = True

    def sampled(self, trace_id: str, flags: int | None) -> bool:
        """``flags`` are the caller's; None: there is no caller."""
        if self.parent and flags is not None:
            return bool(flags & 1)
        return int(trace_id[-14:], 16) < self.share * _RANDOM


@dataclass(slots=True)
class Span:
    """One operation that is under way. ``parent`` is a span's id or empty."""

    trace_id: str
    span_id: str
    parent: str
    name: str
    kind: Literal[1, 3]
    began: float
    attributes: list[tuple[str, Value]] = field(default_factory=list[tuple[str, Value]])


class Tracer:
    """Makes spans and gives those that are over to the exporter. ``content``: whether what is said goes along."""

    def __init__(
        self, exporter: Exporter | None = None, sampler: Sampler | None = None, *, content: bool = False
    ) -> None:
        self.exporter = exporter
        self.content = content and exporter is not None
        self.dropped = 0
        self._sampler = sampler or Sampler()
        self._ids = Ids()

    def join(self, incoming: str, run: str) -> tuple[str, str, bool]:
        """Trace id, span id of the caller (or empty) and whether it is sampled, for a run.

        A run that nobody's trace led to has its own id as trace id, on whichever replica it is worked on.
        """
        known = parse(incoming.encode("latin-1", "replace")) if incoming else None
        if known is not None:
            trace_id, parent, flags = known
            return trace_id, parent, self.exporter is not None and self._sampler.sampled(trace_id, flags)
        trace_id = run.replace("-", "").lower()
        if parse(f"00-{trace_id}-{'1' * 16}-00".encode("latin-1", "replace")) is None:
            trace_id = self._ids.hex(16)
        return trace_id, "", self.exporter is not None and self._sampler.sampled(trace_id, None)

    def begin(self, trace_id: str, parent: str, name: str, kind: Literal[1, 3]) -> Span:
        return Span(trace_id, self._ids.hex(8), parent, name, kind, time())

    def root(self, trace_id: str) -> str:
        """``traceparent`` for the calls of a run that is not sampled and that nobody's trace led to."""
        return f"00-{trace_id}-{self._ids.hex(8)}-00"

    def end(self, span: Span, error: str = "") -> None:
        """Export it. ``error``: what went wrong, in one word; empty for what went well."""
        exporter = self.exporter
        if exporter is None:
            return
        if exporter.full:
            self.dropped += 1
            return
        document = {
            "traceId": span.trace_id,
            "spanId": span.span_id,
            **({"parentSpanId": span.parent} if span.parent else {}),
            "flags": 1,
            "name": span.name,
            "kind": span.kind,
            "startTimeUnixNano": str(int(span.began * 1e9)),
            "endTimeUnixNano": str(int(max(time(), span.began) * 1e9)),
            "attributes": otlp.attributes(span.attributes),
            "status": {"code": _ERROR, "message": error} if error else {"code": _OK},
        }
        exporter.offer([msgspec.json.encode(document)])


def traceparent(span: Span) -> str:
    """To send on with what is called within the span."""
    return f"00-{span.trace_id}-{span.span_id}-01"


def configured(env: Mapping[str, str], service: str) -> tuple[Tracer, Target | None]:
    """By the environment; without an endpoint nothing is exported. Raises ConfigError naming the variable."""
    url = endpoint(env)
    if not url:
        return Tracer(), None
    if urlsplit(url).port == _GRPC or env.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").startswith("grpc"):
        log.warning("spans are sent to %s as OTLP over HTTP (JSON); collectors take that on port 4318", url)
    target = Target(url, b"application/json")
    encode = partial(otlp.traces, resource=otlp.attributes(_resource(env, service)), by="quarterdeck.agents")
    exporter = Exporter(target.post, encode, limit=_QUEUE, on_error=lambda text: log.warning("OTLP: %s", text))
    content = env.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").lower()
    tracer = Tracer(exporter, sampler(env), content=content in ("true", "1", "span_only", "span_and_event"))
    return tracer, target


def sampler(env: Mapping[str, str]) -> Sampler:
    """Raises ConfigError for a name or a share that does not exist."""
    name = env.get("OTEL_TRACES_SAMPLER", "") or "parentbased_always_on"
    if name not in SAMPLERS:
        raise ConfigError(f"OTEL_TRACES_SAMPLER={name}: must be one of {', '.join(SAMPLERS)}")
    text = env.get("OTEL_TRACES_SAMPLER_ARG", "") or "1"
    try:
        share = float(text) if name.endswith("ratio") else float(name.endswith("on"))
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"OTEL_TRACES_SAMPLER_ARG={text}: must be between 0 and 1")
    return Sampler(share, name.startswith("parentbased"))


def _resource(env: Mapping[str, str], service: str) -> list[tuple[str, Value]]:
    found: dict[str, Value] = {"service.version": __version__}
    for pair in env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, equals, value = pair.partition("=")
        if equals:
            found[name.strip()] = unquote(value.strip())
    found["service.name"] = env.get("OTEL_SERVICE_NAME", "") or str(found.get("service.name", "")) or service
    return list(found.items())
