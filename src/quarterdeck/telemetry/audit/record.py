"""The audit record and the chain it becomes a line of.

A line is the record's JSON with four more members at its end: ``chain`` (one per start of a gateway process),
``seq`` (from 0, without gaps), ``prev`` and ``hash``. ``hash`` is SHA-256 over the line up to that member, and this
holds ``prev``, the hash of the chain's line before. The first line of a chain has the hash of what the file ended with.
"""

from __future__ import annotations

from hashlib import sha256
from os import urandom
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

GENESIS = "0" * 64
"""``prev`` of the first record of all."""

Kind = Literal["mcp", "llm", "a2a", "http", "audit"]
Outcome = Literal["ok", "error", "tool_error", "denied", "gap"]


class Record(Struct, rename="camel", gc=False):
    """One decision and what came of it. ``ts`` is seconds since the epoch; ``latency_ms`` is milliseconds.

    ``kind`` ``audit`` with ``outcome`` ``gap`` tells of a time in which no records could be written.
    """

    ts: float
    id: str
    principal: str
    on_behalf_of: str
    agent: str
    kind: Kind
    server: str
    tool: str
    method: str
    arguments_hash: str
    """SHA-256 of the arguments as they came, or as a virtual server filled them in; empty when there were none."""
    decision: Literal["allow", "deny"]
    rule: str
    outcome: Outcome
    status: int
    latency_ms: float
    trace_id: str
    detail: str = ""
    """Why it was denied, or what went wrong."""
    route: str | UnsetType = UNSET
    """``namespace/name`` of the route that led to the server; absent on the built-in paths."""
    arguments: Raw | UnsetType = UNSET
    """The arguments, redacted; only where the configuration asks for them."""
    exposed: str | UnsetType = UNSET
    """What the client called the tool, prompt or resource; absent where that is the server's own name for it."""


_encode = msgspec.json.Encoder().encode


class Chain:
    """Makes lines of records. ``prev``: the hash that the first one follows."""

    __slots__ = ("_label", "_prev", "id", "seq")

    def __init__(self, prev: str = GENESIS, ident: str = "") -> None:
        self.id = ident or urandom(8).hex()
        self.seq = 0
        """Of the next line."""
        self._prev = prev.encode()
        self._label = b',"chain":"%b","seq":' % self.id.encode()

    @property
    def prev(self) -> str:
        """Hash of the last line."""
        return self._prev.decode()

    def link(self, record: Record) -> bytes:
        """The record's line, with its newline."""
        head = b'%b%b%d,"prev":"%b"' % (_encode(record)[:-1], self._label, self.seq, self._prev)
        digest = self._prev = sha256(head).hexdigest().encode()
        self.seq += 1
        return b'%b,"hash":"%b"}\n' % (head, digest)

    def mark(self) -> tuple[int, bytes]:
        """Where the chain is, for :meth:`back`."""
        return self.seq, self._prev

    def back(self, mark: tuple[int, bytes]) -> None:
        """Take back the lines after a mark: they were not written."""
        self.seq, self._prev = mark


class Position(Struct, frozen=True):
    """The newest written line of a chain."""

    chain: str
    seq: int
    hash: str
