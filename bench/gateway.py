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


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of calling: the request as bytes, where to, and the limit of its ratio."""

    name: str
    port: int
    request: bytes
    limit: float | None
    upstream: str = "json"
    expect: str = '"hello"'


async def bench(quick: bool) -> list[Row]:
    """Raises RuntimeError where there is no Go."""
    command = await asyncio.to_thread(gotools.binary)
    if command is None:
        raise RuntimeError(gotools.NO_GO)
    seconds = 1.5 if quick else 4.0
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(rig(command))
        direct = await _direct(command, running, seconds)
        rows = [
            Row("Go upstream, called directly, c=16: CPU per call", direct["json"].cpu, "µs"),
            Row("the same, c=1: p50", direct["one"].p50, "ms", None, f"p99 {direct['one'].p99:.2f} ms"),
            Row(
                "relay that reads nothing (uvloop), c=16: CPU, times the upstream's",
                direct["floor"].cpu / direct["json"].cpu,
                "×",
            ),
            Row("gateway memory at start", rss(running.pid), "MB", 60.0),
        ]
        for mode in modes(running):
            rows += await _measure(command, running, mode, direct, seconds)
        rows += await _lists(command, running, direct, seconds)
        rows += await _audited(command, running, seconds)
        rows += await _endurance(command, running, 50_000 if quick else 1_000_000)
        rows += await _idle(command, running, 500 if quick else _IDLE)
    rows += await _two_workers(command, seconds)
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


async def _direct(command: Path, running: Rig, seconds: float) -> dict[str, Figures]:
    """What the upstream costs by itself, by kind of request."""
    found: dict[str, Figures] = {}
    for name, pid, port, request in running.upstreams():
        found[name] = await gotools.load(command, pid, port, request, connections=16, seconds=seconds)
    _, pid, port, request = running.upstreams()[0]
    with child("bench.peers", "relay", str(port)) as (relay, line):
        found["floor"] = await gotools.load(command, relay, int(line), request, connections=16, seconds=seconds)
    found["one"] = await gotools.load(command, pid, port, request, connections=1, seconds=seconds)
    return found


async def _measure(command: Path, running: Rig, mode: Mode, direct: dict[str, Figures], seconds: float) -> list[Row]:
    async def run(connections: int) -> Figures:
        return await gotools.load(
            command, running.pid, mode.port, mode.request, connections=connections, seconds=seconds, expect=mode.expect
        )

    one, many, more = await run(1), await run(16), await run(64)
    base = direct[mode.upstream].cpu
    rows = [
        Row(
            f"{mode.name}: CPU, times the upstream's", many.cpu / base, "×", mode.limit,
            f"{many.cpu:.1f} µs c=16 ({more.cpu:.1f} c=64, {one.cpu:.1f} c=1); upstream {base:.1f} µs",
        ),
        Row(f"{mode.name}: calls/s, c=16", many.rate, "1/s", None, f"p99 {many.p99:.1f} ms; c=64 {more.rate:,.0f}/s"),
    ]  # fmt: skip
    if mode.limit in (PASS, GOVERNED):
        rows.append(Row(f"{mode.name}: p50, c=1", one.p50, "ms", 0.2, f"direct {direct['one'].p50:.3f}"))
        rows.append(Row(f"{mode.name}: p99, c=1", one.p99, "ms", 0.5, f"direct {direct['one'].p99:.3f}"))
    return rows


async def _lists(command: Path, running: Rig, direct: dict[str, Figures], seconds: float) -> list[Row]:
    """A denied call, and the list of 200 tools, of which the caller may see half."""
    port, wire = running.ports["governed"], running.wire
    denied = await gotools.load(
        command, running.pid, port, wire.call("denied"), connections=16, seconds=seconds, expect="-32602",
        status=running.wire.denied_status,
    )  # fmt: skip
    listed = await gotools.load(
        command, running.pid, port, wire.call("list"), connections=4, seconds=seconds, expect="echo19"
    )
    kept = await gotools.load(
        command, running.pid, port, wire.call("kept"), connections=4, seconds=seconds, expect="echo19"
    )
    return [
        Row(
            "denied call: CPU, times the upstream's",
            denied.cpu / direct["json"].cpu,
            "×",
            30.0 / _REFERENCE,
            f"{denied.cpu:.1f} µs",
        ),
        Row(
            "tools/list of 200 tools of 10 servers, filtered: CPU, times the upstream's",
            listed.cpu / direct["json"].cpu,
            "×",
            1000.0 / _REFERENCE,
            f"{listed.cpu:,.0f} µs, p50 {listed.p50:.2f} ms, c=4",
        ),
        Row(
            "the same, while the servers say that it is fresh (ttlMs): CPU, times the upstream's",
            kept.cpu / direct["json"].cpu,
            "×",
            OTHER,
            f"{kept.cpu:,.0f} µs, p50 {kept.p50:.2f} ms, c=4",
        ),
    ]


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


async def _two_workers(command: Path, seconds: float) -> list[Row]:
    """CPU per call of one worker, and of two with twice as many connections; and how these were split."""
    async with rig(command, workers=1) as single:
        alone = await gotools.load(
            command, single.pid, single.ports["governed"], single.wire.call("user"), connections=64, seconds=seconds
        )
    async with rig(command, workers=2) as running:
        processes = [pid for pid in children(running.pid) if pid != running.pid]
        before = {pid: gotools.used(pid) for pid in processes}
        both = await gotools.load(
            command, running.pid, running.ports["governed"], running.wire.call("user"), connections=128, seconds=seconds
        )
        spent = sorted(gotools.used(pid) - before[pid] for pid in processes)[-2:]
    share = spent[0] / sum(spent) if sum(spent) else 0.0
    return [
        Row(
            "two workers, 64 connections each: CPU per call, times one worker's",
            both.cpu / alone.cpu,
            "×",
            1.1,
            f"{both.rate:,.0f} calls/s",
        ),
        Row("two workers: share of the lesser one's CPU", share * 100, "%", None, "35 to 65 % wanted, c=128"),
    ]
