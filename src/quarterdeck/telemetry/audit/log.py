"""Collecting records, and writing them before anybody sees an answer.

The hot path appends to a list; :meth:`AuditLog.flush` chains and writes what has gathered with one ``write(2)``. The
HTTP server calls it once for all responses of one loop iteration, before it sends them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic, time
from typing import Literal, Protocol

from .record import GENESIS, Chain, Position, Record
from .sinks import FileSink, Sink

_BATCH = 1024
_RETRY = 0.5
"""Seconds between attempts while the sink is down."""

OnFailure = Literal["block", "drop"]


class Export(Protocol):
    """A copy of the log elsewhere: a bounded queue that a task empties. ``full``: it can hold no more."""

    full: bool
    dropped: int

    def offer(self, lines: list[bytes]) -> None: ...


class AuditLog:
    """The log of one process: one chain.

    ``on_failure`` says what happens while records cannot be written: ``block`` sets :attr:`blocked`, and whoever serves
    calls refuses them; ``drop`` goes on without. At most ``backlog`` records wait in memory; what exceeds that is
    counted in :attr:`lost`. Either way a record of kind ``audit`` tells of the gap when the sink is back.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        prev: str = GENESIS,
        interval: float = 0.05,
        backlog: int = 100_000,
        on_failure: OnFailure = "block",
        on_error: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._sink = sink
        self.chain = Chain(prev)
        self._interval = interval
        self._backlog = backlog
        self._on_failure: OnFailure = on_failure
        self._on_error = on_error
        self._clock = clock
        self._pending: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None
        self._retry_at = 0.0
        self._down_since = 0.0
        self._said_lost = self._said_refused = 0
        self.exports: list[Export] = []
        self.blocked = False
        """Whether calls must be refused: what they do could not be recorded."""
        self.refused = 0
        """Calls refused for that reason; counted by who refuses them."""
        self.written = 0
        self.lost = 0
        self.errors = 0

    def append(self, record: Record) -> None:
        """Take a record; never blocks."""
        self._pending.append(record)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._tick)

    def flush(self) -> bool:
        """Write what is pending now. False when responses must not go out, since their record is not written."""
        if not self._pending and not self._down_since:
            return True
        if self._down_since and self._clock() < self._retry_at:
            return self._on_failure == "drop"
        try:
            self._write()
        except OSError as error:
            self._failed(error)
            return self._on_failure == "drop"
        if self._down_since:
            self._recovered()
        return True

    def close(self) -> None:
        """Write everything and close the sink."""
        self._retry_at = 0.0
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sink.close()

    def position(self) -> Position | None:
        """The newest line that is written; None before the first."""
        chain = self.chain
        return Position(chain.id, chain.seq - 1, chain.prev) if chain.seq and not self._sink.behind else None

    def pruned(self) -> list[Position]:
        """Ends of the files that rotation has removed since this was asked for last."""
        sink = self._sink
        if not isinstance(sink, FileSink):
            return []
        taken, sink.pruned = sink.pruned, []
        return taken

    def refresh(self) -> None:
        """Once a second: follow a file that was moved, and look whether the exports have room again."""
        if isinstance(self._sink, FileSink):
            try:
                self._sink.refresh()
            except OSError as error:
                self._failed(error)
        self._block()

    def _write(self) -> None:
        pending, chain, sink = self._pending, self.chain, self._sink
        if sink.behind:
            sink.write(b"")
        done = 0
        try:
            while done < len(pending):
                batch = pending[done : done + _BATCH]
                before = chain.mark()
                lines = [chain.link(record) for record in batch]
                try:
                    sink.write(lines[0] if len(lines) == 1 else b"".join(lines))
                except OSError:
                    chain.back(before)
                    raise
                done += len(batch)
                if self.exports:
                    self._export(lines)
        finally:
            self.written += done
            self._pending = pending[done:] if done < len(pending) else []
        if sink.behind:
            raise BlockingIOError(11, "the audit sink took a part only")

    def _export(self, lines: list[bytes]) -> None:
        for export in self.exports:
            if export.full and self._on_failure == "drop":
                export.dropped += len(lines)
            else:
                export.offer(lines)
        self._block()

    def _block(self) -> None:
        self.blocked = self._on_failure == "block" and (
            self._down_since > 0.0 or any(export.full for export in self.exports)
        )

    def _tick(self) -> None:
        self._timer = None
        self.flush()
        if self._pending or self._down_since:
            self._schedule(_RETRY if self._down_since else self._interval)

    def _schedule(self, seconds: float) -> None:
        if self._timer is None:
            with contextlib.suppress(RuntimeError):  # no loop: flushed by hand, the next append starts the timer
                self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _failed(self, error: OSError) -> None:
        now = self._clock()
        first = not self._down_since
        self._down_since = self._down_since or now or 1e-9
        self._retry_at = now + _RETRY
        self.errors += 1
        excess = len(self._pending) - self._backlog
        if excess > 0:
            del self._pending[:excess]
            self.lost += excess
        self._block()
        if first:
            effect = "calls are refused (503)" if self._on_failure == "block" else "calls go on unrecorded"
            self._on_error(f"audit records cannot be written: {error.strerror or error}; {effect} until they can")
        self._schedule(_RETRY)

    def _recovered(self) -> None:
        down = self._clock() - self._down_since
        self._down_since = 0.0
        self._block()
        lost, refused = self.lost - self._said_lost, self.refused - self._said_refused
        self._said_lost, self._said_refused = self.lost, self.refused
        text = f"no record could be written for {down:.1f} s: {lost} were lost, {refused} calls refused"
        self._on_error(f"audit records are written again; {text}")
        self._append_gap(text)

    def _append_gap(self, detail: str) -> None:
        self._pending.append(
            Record(
                ts=time(), id="", principal="", on_behalf_of="", agent="", kind="audit", server="", tool="", method="",
                arguments_hash="", decision="deny", rule="audit/sink", outcome="gap", status=503, latency_ms=0.0,
                trace_id="", detail=detail,
            )
        )  # fmt: skip
        self._schedule(self._interval)
