from __future__ import annotations

import asyncio

import pytest

from quarterdeck.kube.queue import QueueClosed, WorkQueue

from .fake_clock import FakeClock


async def test_a_key_waits_once_and_runs_alone() -> None:
    queue = WorkQueue[str](FakeClock())
    for key in ("a", "b", "a"):
        queue.add(key)
    assert await queue.get() == "a"
    queue.add("a")  # while it is worked on: not given out a second time
    assert await queue.get() == "b"
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"


async def test_back_off_doubles_to_its_limit_and_forgets() -> None:
    clock = FakeClock()
    queue = WorkQueue[str](clock, base=1, limit=5, jitter=lambda: 0.5)
    delays = []
    for _ in range(5):
        delays.append(queue.add_rate_limited("a"))
        clock.advance(10)
        queue.done(await queue.get())
    assert delays == [1, 2, 4, 5, 5]
    queue.forget("a")
    assert queue.add_rate_limited("a") == 1


async def test_the_earliest_delay_wins() -> None:
    clock = FakeClock()
    queue = WorkQueue[str](clock)
    queue.add_after("a", 10)
    queue.add_after("a", 2)
    queue.add_after("a", 7)
    clock.advance(2)
    assert await queue.get() == "a"
    queue.done("a")
    clock.advance(20)
    assert len(queue) == 0


async def test_workers_are_woken_and_closed() -> None:
    queue = WorkQueue[int](FakeClock())
    seen: list[int] = []

    async def work() -> None:
        while True:
            key = await queue.get()
            seen.append(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in range(20):
        queue.add(key)
    while len(seen) < 20:
        await asyncio.sleep(0)
    queue.close()
    results = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(r, QueueClosed) for r in results)
    assert seen == list(range(20))
    with pytest.raises(QueueClosed):
        await queue.get()
