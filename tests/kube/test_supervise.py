"""A background loop that dies is noticed and started again; a reader's bug does not stop what others read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from quarterdeck.errors import ServiceUnavailable
from quarterdeck.kube import metrics
from quarterdeck.kube.client import KubeClient, ObjectList
from quarterdeck.kube.controller import Controller, ControllerSet, Result
from quarterdeck.kube.events import EventRecorder
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.lease import LeaderElector
from quarterdeck.kube.resource import CONFIG_MAP, Key, Object
from quarterdeck.kube.supervise import Supervisor
from quarterdeck.telemetry.metrics import Registry

from .fake_api import FakeApi
from .fake_clock import FakeClock


async def until(check: Callable[[], bool], clock: FakeClock | None = None) -> None:
    """Poll; ``clock`` goes on a second with each look."""
    async with asyncio.timeout(30):
        while not check():
            if clock is not None:
                clock.advance(1)
            await asyncio.sleep(0.01)


def config_map(name: str, data: dict[str, str] | None = None) -> Object:
    return {"metadata": {"name": name, "namespace": "ns"}, "data": data or {}}


async def test_each_failure_waits_longer_and_a_steady_run_starts_anew() -> None:
    clock = FakeClock()
    supervisor = Supervisor(clock)
    starts: list[float] = []
    lasts = [0.0, 0.0, 0.0, 100.0, 0.0]

    async def loop() -> None:
        starts.append(clock.now)
        if len(starts) > len(lasts):
            return
        clock.now += lasts[len(starts) - 1]
        raise KeyError("a bug")

    task = asyncio.create_task(supervisor.keep("test", loop))
    await until(task.done, clock)
    pauses = [b - a - last for a, b, last in zip(starts, starts[1:], lasts, strict=False)]
    assert pauses == [1, 2, 4, 1, 2]
    assert supervisor.failures == {"test": 5}


async def test_a_loop_that_dies_is_told_counted_and_started_again(
    client: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    controllers = ControllerSet(client, clock=clock)
    runs: list[str] = []

    async def watchman() -> None:
        runs.append("again")
        if len(runs) == 1:
            raise RuntimeError("nobody thought of that")
        await asyncio.Event().wait()

    async def reconcile(key: Key) -> Result | None:
        del key
        return None

    controllers.add(Controller("test", CONFIG_MAP, reconcile))
    controllers.add_loop("watchman", watchman)
    registry = Registry()
    metrics.register(registry, controllers)
    await controllers.start()
    try:
        await until(lambda: len(runs) == 2, clock)
        assert "watchman ended of a bug" in caplog.text and "nobody thought of that" in caplog.text
        text = registry.render().decode()
        assert 'quarterdeck_loop_failures_total{loop="watchman"} 1' in text
        assert 'quarterdeck_loop_failures_total{loop="workers of test"} 0' in text, "there before the first failure"
    finally:
        await controllers.stop()


async def test_one_odd_object_does_not_stop_what_others_read(client: KubeClient) -> None:
    """Its readers are callbacks, indexes and, of lean kinds, those who refer to it."""
    informer = Informer(client, CONFIG_MAP)
    seen: list[str] = []

    def odd(obj: Object) -> list[str]:
        if obj["metadata"]["name"] == "odd":
            raise KeyError("unexpected shape")
        return [obj["metadata"]["name"]]

    def broken(kind: str, old: Object | None, new: Object | None) -> None:
        raise TypeError("always")

    informer.add_index("names", odd)
    informer.referrers.append(lambda obj: (Key("ns", name) for name in odd(obj)))
    informer.lean = True
    informer.on_change(broken)
    informer.on_change(lambda kind, old, new: seen.append((new or old or {})["metadata"]["name"]))
    await client.create(CONFIG_MAP, config_map("odd"))
    await client.create(CONFIG_MAP, config_map("fine", {"k": "v"}))
    informer.start()
    try:
        await asyncio.wait_for(informer.synced.wait(), 30)
        await client.create(CONFIG_MAP, config_map("later"))
        await until(lambda: len(seen) == 3)
        assert sorted(seen) == ["fine", "later", "odd"]
        assert [o["metadata"]["name"] for o in informer.by_index("names", "later")] == ["later"]
        assert (informer.get("ns", "fine") or {})["data"] == {"k": "v"}
        assert informer.stats.bugs == 5, "three objects of the broken one, the odd one's index and reference"
        assert informer.relists == 1
    finally:
        await informer.stop()


async def test_a_cache_that_could_not_take_a_list_lists_again(
    client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    supervisor = Supervisor(clock)
    informer = Informer(client, CONFIG_MAP, clock=clock, supervisor=supervisor)
    await client.create(CONFIG_MAP, config_map("a"))
    first = [ServiceUnavailable, KeyError]

    def trim(obj: Object) -> Object:
        if first:
            raise first.pop()("not now")
        return obj

    informer.trim = trim
    informer.start()
    try:
        await until(informer.synced.is_set, clock)
        assert informer.get("ns", "a") is not None, "what was not taken in is not taken for known"
        assert supervisor.failures == {"informer configmaps": 1}, "the other one was no bug"
        assert informer.relists == 3
    finally:
        await informer.stop()


async def test_events_go_on_after_one_that_cannot_be_written(client: KubeClient) -> None:
    clock = FakeClock()
    recorder = EventRecorder(client, "test", clock=clock)
    obj = await client.create(CONFIG_MAP, config_map("a"))
    recorder.event({"metadata": {"name": "no kind"}}, "Normal", "Odd", "an object that we did not read from a server")
    recorder.event(obj, "Normal", "Fine", "the next one")
    flushed = asyncio.create_task(recorder.flush())
    await until(flushed.done, clock)
    listed: ObjectList = await client.list(CONFIG_MAP.__class__("", "v1", "Event", "events"))
    assert [event["reason"] for event in listed.items] == ["Fine"]
    await recorder.close()


async def test_a_renewal_that_dies_ends_the_leadership_and_says_so(
    client: KubeClient, api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    elector = LeaderElector(client, "ns", "qd", "one", clock=clock)
    works = asyncio.Event()

    async def work() -> None:
        works.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(elector.run(work))
    await asyncio.wait_for(works.wait(), 30)
    lease = api.objects["coordination.k8s.io", "leases", "ns", "qd"]
    lease["spec"] = {"holderIdentity": "one", "leaseDurationSeconds": "soon"}  # no server would take that
    with caplog.at_level(logging.ERROR):
        await until(running.done, clock)
    assert not elector.is_leader
    assert "renewing the lease ns/qd hit a bug" in caplog.text
