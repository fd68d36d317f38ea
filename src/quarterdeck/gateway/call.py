"""One call through the gateway: what is known about it so far, and what will be recorded of it."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Raw

from quarterdeck.snapshot import HeaderValue
from quarterdeck.wire.http import Exchange

from .policy.authorizer import Decision
from .policy.principal import Principal

if TYPE_CHECKING:
    from .limits.retry import Attempts

Kind = Literal["mcp", "llm", "a2a", "http"]
Outcome = Literal["ok", "error", "tool_error", "denied"]

UNKNOWN = Principal("unknown")

_SINGLE = frozenset(
    {b"authorization", b"host", b"content-type", b"origin", b"mcp-session-id", b"mcp-protocol-version", b"mcp-method",
     b"mcp-name", b"last-event-id"}
)  # fmt: skip
"""Headers a decision may rest on: two of one kind could be read differently here and behind, so they are refused."""


Health = Literal["", "answered", "failed", "unknown"]


class Guard(Protocol):
    """What wants to know how a call went, such as a circuit breaker."""

    def over(self, call: Call, outcome: Outcome, status: int) -> None: ...


class Call:
    """Filled in by the stages as they learn more. ``headers`` maps lower-case names to the last value."""

    __slots__ = (
        "agent", "arguments", "arguments_hash", "attempts", "decision", "done", "exchange", "exposed", "guard",
        "headers", "health", "kind", "method", "principal", "probe", "raw_id", "server", "started", "tool", "trace_id",
        "traceparent",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, kind: Kind, server: str) -> None:
        self.exchange = exchange
        self.headers: dict[bytes, bytes] = exchange.context  # made by the router
        self.kind: Kind = kind
        self.server = server
        self.principal = UNKNOWN
        self.method = ""
        self.tool = ""
        self.exposed = ""
        """What the client calls the tool, prompt or resource, where several servers are behind one path."""
        self.arguments: bytes | Raw | None = None
        """Of a tool, prompt or the like, as JSON: hashed for the record, or recorded, when the call is over."""
        self.arguments_hash = ""
        self.decision: Decision | None = None
        self.raw_id: bytes = b""
        """The JSON-RPC id as it came; empty for notifications and other protocols."""
        self.started = perf_counter()
        self.trace_id = ""
        self.traceparent = b""
        self.done = False
        self.guard: Guard | None = None
        self.health: Health = ""
        """What the answer says of its server; empty: what outcome and status say."""
        self.attempts: Attempts | None = None
        """Those that may follow the first, where rules allow any."""
        self.probe = False
        """Whether this is the call by which an open circuit breaker tries the server again."""

    def repeated_header(self) -> str:
        """Name of a header that came twice though it must not; empty when all is well."""
        if len(self.headers) == len(self.exchange.headers):
            return ""
        seen: set[bytes] = set()
        for name, _ in self.exchange.headers:
            if name in seen and name in _SINGLE:
                return name.decode("latin-1")
            seen.add(name)
        return ""


def header_lines(headers: tuple[HeaderValue, ...]) -> bytes:
    """Configured headers as lines of a request head. Values are stripped: a secret often ends in a newline."""
    return b"".join(
        f"{h.name.lower()}: {h.value.strip()}\r\n".encode() for h in headers if is_header(h.name, h.value.strip())
    )


def is_header(name: str, value: str) -> bool:
    """Whether name and value can be sent without breaking the framing."""
    return (
        bool(name)
        and all(c.isalnum() or c in "-_.!#$%&'*+^`|~" for c in name)
        and not any(c in value for c in "\r\n\0")
    )
