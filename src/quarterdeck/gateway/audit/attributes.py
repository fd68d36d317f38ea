"""What access log and spans say of a call, under agentgateway's names (reference/agentgateway_and_peers.md §3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quarterdeck.telemetry import names

from .otlp import Value

if TYPE_CHECKING:
    from ..call import Call, Outcome

_MCP_NAMES = {
    "tools/call": ("tool", names.TOOL_NAME),
    "prompts/get": ("prompt", names.PROMPT_NAME),
    "resources/read": ("resource", names.MCP_RESOURCE_URI),
}


def attributes(gateway: str, call: Call, outcome: Outcome, status: int, detail: str) -> list[tuple[str, Value]]:
    """Only those that are known, in agentgateway's order."""
    exchange = call.exchange
    route = exchange.route
    peer = exchange.peer
    given: list[tuple[str, Value | None]] = [
        (names.GATEWAY, getattr(route, "gateway", "") or gateway),
        (names.LISTENER, getattr(route, "listener", "") or exchange.listener),
        (names.ROUTE_RULE, getattr(route, "rule", "")),
        (names.ROUTE, getattr(route, "route", "")),
        (names.SOURCE_ADDRESS, f"{peer[0]}:{peer[1]}" if peer is not None else ""),
        (names.SOURCE_IDENTITY, call.principal.id),
        (names.HTTP_METHOD, exchange.method),
        (names.HTTP_HOST, call.headers.get(b"host", b"").decode("latin-1")),
        (names.HTTP_PATH, exchange.raw_path.decode("latin-1")),
        (names.HTTP_VERSION, "HTTP/1.1"),
        (names.HTTP_STATUS, status),
        (names.TRACE_ID, call.trace_id),
        (names.SPAN_ID, call.traceparent[36:52].decode()),
        (names.JWT_SUBJECT, str(call.principal.claims.get("sub") or "")),
        (names.PROTOCOL, call.kind),
    ]
    if call.kind == "mcp":
        kind, name = _MCP_NAMES.get(call.method, ("", names.TOOL_NAME))
        given += [
            (names.MCP_METHOD, call.method), (names.MCP_TARGET, call.server), (names.MCP_RESOURCE_TYPE, kind),
            (name, call.tool),
        ]  # fmt: skip
    elif call.kind == "a2a":
        given.append((names.A2A_METHOD, call.method))
    elif call.kind == "llm":
        given.append((names.REQUEST_MODEL, call.server))
    if outcome in ("error", "denied"):
        reason = call.decision.rule if outcome == "denied" and call.decision is not None else outcome
        given += [(names.ERROR, detail), (names.REASON, reason)]
    return [(name, value) for name, value in given if value != "" and value is not None]
