"""What is recorded of each call: one audit record, metrics."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from time import perf_counter, time
from typing import Any

import msgspec
from msgspec import UNSET

from quarterdeck.telemetry import names
from quarterdeck.telemetry.audit import AuditLog, Record
from quarterdeck.telemetry.metrics import Counter, Histogram, Registry
from quarterdeck.telemetry.trace import Ids
from quarterdeck.wire.http import Exchange

from .activity import Ledger
from .audit.accesslog import AccessLog
from .audit.arguments import Redaction
from .audit.attributes import attributes
from .audit.tracing import Tracer
from .call import Call, Outcome
from .http.call import RouteRef

_ROUTE = ("gateway", "listener", "route", "route_rule")
_Key = tuple[str, str, str, str, int, RouteRef | None]


class Observer:
    """Counts calls and writes the audit record when a call is over."""

    def __init__(
        self,
        audit: AuditLog,
        registry: Registry,
        clock: Callable[[], float] = time,
        *,
        gateway: str = "",
        redaction: Redaction | None = None,
        access: AccessLog | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """``redaction``: record arguments, too. ``access`` and ``tracer`` are optional sinks besides ``audit``."""
        self.audit = audit
        self._gateway = gateway
        self._redaction = redaction
        self._access = access
        self._tracer = tracer
        self.tells = access is not None or tracer is not None
        """Whether anybody is told of calls besides audit log and metrics."""
        self.registry = registry
        self.ids = Ids()
        self.ledger = Ledger()
        self._clock = clock
        self._requests = registry.counter(
            names.REQUESTS,
            "Requests by protocol, backend, status and route.",
            ("protocol", "backend", "method", "status", *_ROUTE),
        )
        self._duration = registry.histogram(
            names.REQUEST_DURATION,
            "Time to the end of the response.",
            ("protocol", "backend", *_ROUTE),
            names.DURATION_BUCKETS,
        )
        self._mcp = registry.counter(names.MCP_REQUESTS, "MCP requests.", ("method", "server", "resource", *_ROUTE))
        self._tools = registry.counter(names.TOOL_CALLS, "Tool calls.", ("tool_name", "server"))
        self._tool_errors = registry.counter(
            names.TOOL_CALL_ERRORS, "Tool calls that failed or were denied.", ("tool_name", "server")
        )
        self._denied = registry.counter(names.DENIED, "Refused requests.", ("protocol", "backend", "agent"))
        self._tokens = registry.histogram(
            names.TOKEN_USAGE,
            "Model tokens per request.",
            ("gen_ai_token_type", "gen_ai_request_model", "gen_ai_response_model", "agent"),
            names.TOKEN_BUCKETS,
        )
        registry.gauge(names.AUDIT_RECORDS, "Audit records written.", lambda: [({}, float(audit.written))])
        registry.gauge(names.AUDIT_ERRORS, "Failed writes of audit records.", lambda: [({}, float(audit.errors))])
        self._children: dict[_Key, tuple[Counter, Counter, Counter | None, Histogram]] = {}

    def begin(self, call: Call) -> None:
        """Continue the caller's trace or start one."""
        incoming = call.headers.get(b"traceparent")
        call.trace_id, call.traceparent = self.ids.continue_trace(incoming, span=self.tells)
        if self._tracer is not None:
            call.traceparent = self._tracer.sampled(incoming, call.traceparent)

    def unavailable(self, exchange: Exchange) -> None:
        """Answer 503 while :attr:`AuditLog.blocked`: nothing may happen that could not be recorded."""
        self.audit.refused += 1
        message = "the gateway cannot write its audit log; try again later"
        body = msgspec.json.encode({"error": {"message": message, "code": 503}})
        exchange.pass_barrier()
        exchange.respond(503, body, [(b"content-type", b"application/json"), (b"retry-after", b"1")])

    def finish(self, call: Call, outcome: Outcome, status: int, detail: str = "") -> None:
        """Record the call; later calls for the same one do nothing."""
        if call.done:
            return
        call.done = True
        if call.guard is not None:
            call.guard.over(call, outcome, status)
        elapsed = perf_counter() - call.started
        denied = outcome == "denied"
        # a denied name is the caller's text, not one of ours: as a label value it would let callers make series
        key = (call.kind, call.server, call.method, "" if denied else call.tool, status, call.exchange.route)
        children = self._children.get(key) or self._make_children(key)
        children[0].value += 1
        children[1].value += 1
        children[3].observe(elapsed)
        self.ledger.used(call.kind, call.server, call.principal.agent)
        if children[2] is not None:
            children[2].value += 1
            if outcome != "ok":
                self._tool_errors.labels("" if denied else call.tool, call.server).value += 1
        if denied:
            self._denied.labels(call.kind, call.server, call.principal.agent).value += 1
        self.audit.append(self._record(call, outcome, status, elapsed, detail))
        if self.tells:
            self._tell(call, outcome, status, elapsed, detail)

    def _record(self, call: Call, outcome: Outcome, status: int, elapsed: float, detail: str) -> Record:
        decision, principal, arguments, route = call.decision, call.principal, call.arguments, call.exchange.route
        return Record(
            self._clock(),
            self.ids.hex(16),
            principal.id,
            principal.on_behalf_of,
            principal.agent,
            call.kind,
            call.server,
            call.tool,
            call.method,
            sha256(arguments).hexdigest() if arguments is not None else call.arguments_hash,
            "deny" if outcome == "denied" else "allow",
            decision.rule if decision is not None else "",
            outcome,
            status,
            int(elapsed * 1_000_000) / 1000,
            call.trace_id,
            detail,
            getattr(route, "route", UNSET) if route is not None else UNSET,
            self._redaction.recorded(arguments) if self._redaction is not None and arguments is not None else UNSET,
            call.exposed or UNSET,
        )

    def _tell(self, call: Call, outcome: Outcome, status: int, elapsed: float, detail: str) -> None:
        """Access log and span."""
        pairs: list[tuple[str, Any]] = attributes(self._gateway, call, outcome, status, detail)
        if self._access is not None:
            self._access.write(pairs, elapsed)
        if self._tracer is not None:
            name = f"{call.method or call.exchange.method} {call.tool}".rstrip()
            error = (detail or outcome) if outcome in ("error", "denied") else ""
            incoming = call.headers.get(b"traceparent")
            self._tracer.ended(incoming, call.traceparent, name, pairs, elapsed, error)

    def tokens(self, call: Call, model: str, answered_by: str, prompt: int, completion: int) -> None:
        """Model tokens that a call used."""
        agent = call.principal.agent
        self._tokens.labels("input", model, answered_by, agent).observe(prompt)
        self._tokens.labels("output", model, answered_by, agent).observe(completion)
        admission = call.exchange.admission
        if admission is not None and admission.meter is not None:
            admission.meter(prompt + completion)

    def _make_children(self, key: _Key) -> tuple[Counter, Counter, Counter | None, Histogram]:
        kind, server, method, tool, status, ref = key
        route = (ref.gateway, ref.listener, ref.route, ref.rule) if ref is not None else ("", "", "", "")
        route = tuple(label or "unknown" for label in route)  # as agentgateway shows what it does not know
        if len(self._children) > 20_000:
            self._children.clear()
        children = (
            self._requests.labels(kind, server, method, str(status), *route),
            self._mcp.labels(method, server, tool, *route) if kind == "mcp" else Counter(),
            self._tools.labels(tool, server) if method == "tools/call" else None,
            self._duration.labels(kind, server, *route),
        )
        self._children[key] = children
        return children
