"""What is recorded of each call: one audit record, metrics."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time

from quarterdeck.telemetry import names
from quarterdeck.telemetry.audit import AuditLog, Record
from quarterdeck.telemetry.metrics import Counter, Histogram, Registry
from quarterdeck.telemetry.trace import Ids

from .activity import Ledger
from .call import Call, Outcome


class Observer:
    """Counts calls and writes the audit record when a call is over."""

    def __init__(self, audit: AuditLog, registry: Registry, clock: Callable[[], float] = time) -> None:
        self.audit = audit
        self.registry = registry
        self.ids = Ids()
        self.ledger = Ledger()
        self._clock = clock
        self._requests = registry.counter(
            names.REQUESTS, "Requests by protocol, backend and status.", ("protocol", "backend", "method", "status")
        )
        self._duration = registry.histogram(
            names.REQUEST_DURATION, "Time to the end of the response.", ("protocol", "backend"), names.DURATION_BUCKETS
        )
        self._mcp = registry.counter(names.MCP_REQUESTS, "MCP requests.", ("method", "server", "resource"))
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
        self._children: dict[tuple[str, str, str, str, int], tuple[Counter, Counter, Counter | None, Histogram]] = {}

    def begin(self, call: Call) -> None:
        """Continue the caller's trace or start one."""
        call.trace_id, call.traceparent = self.ids.continue_trace(call.headers.get(b"traceparent"))

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
        key = (call.kind, call.server, call.method, "" if denied else call.tool, status)
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
        decision = call.decision
        self.audit.append(
            Record(
                ts=self._clock(),
                id=self.ids.hex(16),
                principal=call.principal.id,
                on_behalf_of=call.principal.on_behalf_of,
                agent=call.principal.agent,
                kind=call.kind,
                server=call.server,
                tool=call.tool,
                method=call.method,
                arguments_hash=call.arguments_hash,
                decision="deny" if denied else "allow",
                rule=decision.rule if decision is not None else "",
                outcome=outcome,
                status=status,
                latency_ms=round(elapsed * 1000, 3),
                trace_id=call.trace_id,
                detail=detail,
            )
        )

    def tokens(self, call: Call, model: str, answered_by: str, prompt: int, completion: int) -> None:
        """Model tokens that a call used."""
        agent = call.principal.agent
        self._tokens.labels("input", model, answered_by, agent).observe(prompt)
        self._tokens.labels("output", model, answered_by, agent).observe(completion)

    def _make_children(self, key: tuple[str, str, str, str, int]) -> tuple[Counter, Counter, Counter | None, Histogram]:
        kind, server, method, tool, status = key
        if len(self._children) > 20_000:
            self._children.clear()
        children = (
            self._requests.labels(kind, server, method, str(status)),
            self._mcp.labels(method, server, tool) if kind == "mcp" else Counter(),
            self._tools.labels(tool, server) if method == "tools/call" else None,
            self._duration.labels(kind, server),
        )
        self._children[key] = children
        return children
