"""CPU per call in the gateway process, latency and memory, beside the upstream's own CPU per call in the same run.

Upstream and load are Go (`bench/golang`): without a Go toolchain nothing is measured. What passes or fails is the ratio
of the gateway's CPU per call to the Go upstream's (issue 5 §4); the microseconds beside it are this machine's.
"""

from __future__ import annotations

import asyncio
import resource
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import gateway_peers as peers
from . import gotools
from .gateway_rig import Rig, governed_calls, rig
from .gateway_rig import Wire as Wire
from .measure import Figures, Row, child, children, rss

PASS, GOVERNED, OTHER = 2.7, 3.85, 4.6
"""How many times the Go upstream's CPU per request a call may cost."""
_REFERENCE = 13.0
"""What the Go upstream takes for a request, in µs, where the issue's absolute limits were set."""
_IDLE, _OTHER_FILES = 10_000, 1_000
_ROUNDS = 3
"""How often upstream and gateway are measured in turn: each ratio is of two runs side by side, the median counts."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of calling: the request as bytes, where to, and the limit of its ratio."""

    name: str
    port: int
    request: bytes
    limit: float | None
    upstream: str = "json"
    expect: str = '"hello"'
    status: int = 200


async def bench(quick: bool) -> list[Row]:
    """Raises RuntimeError where there is no Go."""
    command = await asyncio.to_thread(gotools.binary)
    if command is None:
        raise RuntimeError(gotools.NO_GO)
    seconds, rounds = (1.5, 1) if quick else (4.0, _ROUNDS)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(rig(command))
        rows = await _direct(command, running, seconds)
        rows.append(Row("gateway memory at start", rss(running.pid), "MB", 60.0))
        for mode in modes(running):
            rows += await _measure(command, running, mode, seconds / rounds, rounds)
        rows += await _lists(command, running, seconds / rounds, rounds)
        rows += await _audited(command, running, seconds)
        rows += await _endurance(command, running, 50_000 if quick else 1_000_000)
        rows += await _idle(command, running, 500 if quick else _IDLE)
    rows += await _two_workers(command, seconds / rounds, rounds)
    return rows + await peers.rows(command, seconds)


def modes(running: Rig) -> list[Mode]:
    wire = running.wire
    ports = running.ports
    return [
        Mode("pass-through (person, no token)", ports["local"], wire.call("person"), PASS),
        Mode("agent: workload token, allow list, audit, metrics", ports["workloads"], wire.call("agent"), GOVERNED),
        Mode("governed: JWT, CEL, rate limit, breaker, audit, metrics", ports["governed"], wire.call("user"), GOVERNED),
        Mode("governed, every call in another trace", ports["governed"], wire.call("traced"), GOVERNED),
        Mode("governed, every call with a request id", ports["governed"], wire.call("fresh"), GOVERNED),
        Mode("governed, multiplexed: 10 servers, 200 tools", ports["governed"], wire.call("many"), OTHER, "many"),
        Mode("governed, answers as SSE", ports["governed"], wire.call("sse"), OTHER, "sse"),
        Mode("governed, 2026-07-28", ports["governed"], wire.call("modern"), OTHER),
        Mode("governed, 16 KiB message", ports["governed"], wire.call("large"), OTHER, "large"),
    ]


async def _direct(command: Path, running: Rig, seconds: float) -> list[Row]:
    """What the upstream costs by itself, and a relay that does nothing else."""
    _, pid, port, request = running.upstreams()[0]
    base = await gotools.load(command, pid, port, request, connections=16, seconds=seconds)
    with child("bench.peers", "relay", str(port)) as (relay, line):
        floor = await gotools.load(command, relay, int(line), request, connections=16, seconds=seconds)
    one = await gotools.load(command, pid, port, request, connections=1, seconds=seconds)
    return [
        Row("Go upstream, called directly, c=16: CPU per call", base.cpu, "µs"),
        Row("the same, c=1: p50", one.p50, "ms", None, f"p99 {one.p99:.2f} ms"),
        Row("relay that reads nothing (uvloop), c=16: CPU, times the upstream's", floor.cpu / base.cpu, "×"),
    ]


async def _pairs(
    command: Path, running: Rig, mode: Mode, connections: int, seconds: float, rounds: int, direct: int = 0
) -> list[tuple[Figures, Figures]]:
    """Upstream and gateway in turn; ``direct``: with how many connections the upstream is asked, where not the same."""
    _, pid, port, request = next(one for one in running.upstreams() if one[0] == mode.upstream)
    found: list[tuple[Figures, Figures]] = []
    for _ in range(rounds):
        base = await gotools.load(command, pid, port, request, connections=direct or connections, seconds=seconds)
        found.append((base, await _through(command, running, mode, connections, seconds)))
    return found


async def _through(command: Path, running: Rig, mode: Mode, connections: int, seconds: float) -> Figures:
    return await gotools.load(
        command, running.pid, mode.port, mode.request, connections=connections, seconds=seconds, expect=mode.expect,
        status=mode.status,
    )  # fmt: skip


def _ratio(mode: Mode, pairs: list[tuple[Figures, Figures]], more: str = "") -> Row:
    ratios = [gateway.cpu / base.cpu for base, gateway in pairs]
    upstream, ours = (median(pair[which].cpu for pair in pairs) for which in (0, 1))
    beside = f"{min(ratios):.2f} to {max(ratios):.2f}; {ours:.1f} µs{more}; upstream {upstream:.1f} µs"
    return Row(f"{mode.name}: CPU, times the upstream's", median(ratios), "×", mode.limit, beside)


async def _measure(command: Path, running: Rig, mode: Mode, seconds: float, rounds: int) -> list[Row]:
    many = await _pairs(command, running, mode, 16, seconds, rounds)
    more = await _through(command, running, mode, 64, seconds)
    rate, p99 = median(g.rate for _, g in many), median(g.p99 for _, g in many)
    rows = [
        _ratio(mode, many, f" c=16 ({more.cpu:.1f} c=64)"),
        Row(f"{mode.name}: calls/s, c=16", rate, "1/s", None, f"p99 {p99:.1f} ms; c=64 {more.rate:,.0f}/s"),
    ]
    if mode.limit in (PASS, GOVERNED):
        one = await _pairs(command, running, mode, 1, seconds, rounds)
        used = f"direct {median(b.p50 for b, _ in one):.3f}; {median(g.cpu for _, g in one):.0f} µs CPU"
        rows.append(Row(f"{mode.name}: p50, c=1", median(g.p50 for _, g in one), "ms", 0.2, used))
        straight = f"direct {median(b.p99 for b, _ in one):.3f}"
        rows.append(Row(f"{mode.name}: p99, c=1", median(g.p99 for _, g in one), "ms", 0.5, straight))
    return rows


async def _lists(command: Path, running: Rig, seconds: float, rounds: int) -> list[Row]:
    """A denied call, and the list of 200 tools, of which the caller may see half."""
    port, wire = running.ports["governed"], running.wire
    denied = Mode(
        "denied call", port, wire.call("denied"), 30.0 / _REFERENCE, expect="-32602", status=wire.denied_status
    )
    listed, kept = (
        Mode(name, port, wire.call(kind), limit, expect="echo19")
        for name, kind, limit in (
            ("tools/list of 200 tools of 10 servers, filtered", "list", 1000.0 / _REFERENCE),
            ("the same, while the servers say that it is fresh (ttlMs)", "kept", OTHER),
        )
    )
    rows = [_ratio(denied, await _pairs(command, running, denied, 16, seconds, rounds))]
    for mode in (listed, kept):
        pairs = await _pairs(command, running, mode, 4, seconds, rounds, direct=16)
        rows.append(_ratio(mode, pairs, f", p50 {median(g.p50 for _, g in pairs):.2f} ms, c=4"))
    return rows


async def _audited(command: Path, running: Rig, seconds: float) -> list[Row]:
    """As many audit records as governed calls: every one was decided on."""
    before = governed_calls(running.audit)
    found = await gotools.load(
        command, running.pid, running.ports["governed"], running.wire.call("user"), connections=16, seconds=seconds,
        warm=0.0,
    )  # fmt: skip
    await asyncio.sleep(0.5)
    written = governed_calls(running.audit) - before
    return [Row("audit records missing", max(found.calls - written, 0), "", 0.0, f"{found.calls:,} calls")]


async def _idle(command: Path, running: Rig, count: int) -> list[Row]:
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(count, (files - _OTHER_FILES) // 2)  # each takes one towards the client and one towards the server
    before = rss(running.pid)
    headers = running.wire.bearer.decode()
    async with gotools.idle_sessions(command, running.ports["governed"], running.wire.path("user"), count, headers):
        grown = rss(running.pid) - before
    limit = 60.0 * count / _IDLE
    return [Row(f"{count:,} idle sessions, each with a GET stream: memory", grown, "MB", limit, f"{files:,} files")]


async def _endurance(command: Path, running: Rig, calls: int) -> list[Row]:
    """Memory after the first and the second half of many calls."""
    made, deadline, marks = 0, time.monotonic() + 180.0, [rss(running.pid)]
    for half in (calls // 2, calls):
        while made < half and time.monotonic() < deadline:
            found = await gotools.load(
                command, running.pid, running.ports["governed"], running.wire.call("user"), connections=16, seconds=5.0
            )
            made += found.calls
        marks.append(rss(running.pid))
    return [
        Row(
            f"gateway memory after {made:,} more governed calls", marks[2], "MB", 60.0, f"{marks[2] - marks[0]:+.1f} MB"
        ),
        Row("growth over the second half", marks[2] - marks[1], "MB", 1.0),
    ]


async def _two_workers(command: Path, seconds: float, rounds: int) -> list[Row]:
    """CPU per call of one worker, and of two with twice as many connections; and how these were split."""
    pairs: list[tuple[Figures, Figures]] = []
    spent: list[float] = []
    async with rig(command, workers=1) as single, rig(command, workers=2) as pair:
        one, two = (Mode("", rig.ports["governed"], rig.wire.call("user"), None) for rig in (single, pair))
        processes = [pid for pid in children(pair.pid) if pid != pair.pid]
        for _ in range(rounds):
            alone = await _through(command, single, one, 64, seconds)
            before = [gotools.used(pid) for pid in processes]
            both = await _through(command, pair, two, 128, seconds)
            spent = sorted(gotools.used(pid) - had for pid, had in zip(processes, before, strict=True))[-2:]
            pairs.append((alone, both))
    share = spent[0] / sum(spent) if sum(spent) else 0.0
    ratios = [both.cpu / alone.cpu for alone, both in pairs]
    rates = [median(pair[which].rate for pair in pairs) for which in (0, 1)]
    said = f"{min(ratios):.2f} to {max(ratios):.2f}; {rates[1]:,.0f} calls/s, one worker {rates[0]:,.0f}"
    return [
        Row("two workers, 64 connections each: CPU per call, times one worker's", median(ratios), "×", 1.1, said),
        Row("two workers: share of the lesser one's CPU", share * 100, "%", None, "35 to 65 % wanted, c=128"),
    ]
