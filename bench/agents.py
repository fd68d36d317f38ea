"""The agent host: CPU of a turn, its first streamed event, 200 conversations at once, its journal, its start; and other
agents at the same turn, in the same run."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from quarterdeck.wire.client import Pool

from . import agent_journal, agent_others
from .agent_rig import StandIns, first_event, host, stand_ins, turn
from .measure import Row, child, cpu, rss

CONVERSATIONS = 200
ROUNDS = 6
WARM = 20


async def bench(quick: bool) -> list[Row]:
    """Everything but the peers is ours; peers come last, the first time with their installation."""
    turns = 100 if quick else 400
    rows: list[Row] = []
    with stand_ins() as at:
        started = [await _start(at) for _ in range(3)]
        told = f"the least of {', '.join(f'{each:.2f}' for each in started)} s"
        plain, elapsed, _ = await _turns(at, turns, stream=False)
        rows.append(_turn("plain model", plain, elapsed))
        streaming, elapsed, memory = await _turns(at, turns, stream=True)
        rows.append(_turn("streaming model", streaming, elapsed))
        rows.append(Row("agent process after these turns: memory", memory, "MB", 150.0))
        rows.append(Row("start of the host: CPU until it is ready", min(started), "s", 2.5, told))
        rows.append(await _first(30 if quick else 200))
        rows += await _conversations(2 if quick else ROUNDS)
        rows += await agent_journal.rows(quick)
        rows += await agent_others.rows(at, turns, plain, min(started))
    return rows


def _turn(kind: str, used: float, elapsed: float) -> Row:
    what = f"turn with one tool call, {kind}: CPU of the host"
    return Row(what, used, "ms", 10.0, f"{elapsed:.1f} ms elapsed with the stand-ins")


async def _start(at: StandIns) -> float:
    async with host(at) as process:
        return process.started


async def _turns(at: StandIns, turns: int, *, stream: bool) -> tuple[float, float, float]:
    """Milliseconds of CPU and elapsed per turn, and memory in MB; turns one after the other, in new conversations."""
    pool = Pool()
    async with host(at, stream=stream) as process:
        try:
            for number in range(WARM):
                await turn(pool, process.port, number, "0.3")
            before, start = cpu(process.pid), time.perf_counter()
            for number in range(turns):
                await turn(pool, process.port, 100 + number, "1.0" if number % 2 else "0.3")
            used, elapsed = cpu(process.pid) - before, time.perf_counter() - start
        finally:
            pool.close()
        return used / turns * 1e3, elapsed / turns * 1e3, rss(process.pid)


async def _first(times: int) -> Row:
    """How much later than the model wrote its first text a client of the agent's stream reads it."""
    pool = Pool()
    with stand_ins("timed") as at:
        async with host(at, stream=True) as process:
            try:
                for number in range(WARM):
                    await first_event(pool, process.port, number)
                late = sorted([await first_event(pool, process.port, 100 + n) * 1e3 for n in range(times)])
            finally:
                pool.close()
    p99 = late[min(len(late) - 1, int(len(late) * 0.99))]
    beside = f"median of {times}; p99 {p99:.1f} ms, least {late[0]:.2f} ms"
    return Row("first streamed event after the model's first token", late[len(late) // 2], "ms", 10.0, beside)


async def _conversations(rounds: int) -> list[Row]:
    """Memory while 200 conversations are under way at once, turn after turn; their journal is a real one.

    The model takes half a second for each answer, so that all of them are in the middle of something.
    """
    pool = Pool(max_idle=CONVERSATIONS)
    with (
        tempfile.TemporaryDirectory(prefix="qd-bench-") as folder,
        stand_ins("slow") as at,
        child("bench.journal_process", str(Path(folder, "server.db"))) as (_, journal),
    ):
        async with host(StandIns(at.model, at.tools, journal)) as process:
            try:
                sizes, began, before = [rss(process.pid)], time.perf_counter(), cpu(process.pid)
                for number in range(rounds):
                    sizes.append(await _round(pool, process.port, process.pid, number))
                elapsed, used = time.perf_counter() - began, cpu(process.pid) - before
            finally:
                pool.close()
    shown = ", ".join(f"{size:.0f}" for size in sizes)
    turns = CONVERSATIONS * rounds
    detail = f"at rest and by round {shown} MB; {turns / elapsed:.0f} turns/s, {used / turns * 1e3:.1f} ms CPU each"
    return [
        Row(f"{CONVERSATIONS} conversations at once in one replica: memory", max(sizes), "MB", 350.0, detail),
        Row("the same: growth from the second round to the last", sizes[-1] - sizes[2], "MB", 15.0),
    ]


async def _round(pool: Pool, port: int, pid: int, number: int) -> float:
    """One turn of every conversation, all at once; the largest memory seen meanwhile."""
    turns = asyncio.gather(
        *(turn(pool, port, number * 1000 + each, "1.0", f"context-{each}") for each in range(CONVERSATIONS))
    )
    largest = 0.0
    while not turns.done():
        largest = max(largest, rss(pid))
        await asyncio.wait([turns], timeout=0.1)
    await turns
    return largest
