from __future__ import annotations

import asyncio

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.conditions import set_condition
from quarterdeck.kube.controller import Controller, ControllerSet, Result
from quarterdeck.kube.events import EventRecorder
from quarterdeck.kube.lease import LeaderElector
from quarterdeck.kube.owner import owner_reference
from quarterdeck.kube.resource import CONFIG_MAP, DEPLOYMENT, EVENT, LEASE, Key

from .fake_api import FakeApi
from .fake_clock import FakeClock


async def test_failures_come_back_and_owned_objects_wake_their_owner(client: KubeClient) -> None:
    calls: list[Key] = []
    arrived = asyncio.Event()

    async def reconcile(key: Key) -> Result | None:
        calls.append(key)
        arrived.set()
        if len(calls) == 1:
            raise errors.ServiceUnavailable("not yet")
        if len(calls) == 2:
            raise KeyError("a bug")
        return None

    async def until(count: int) -> None:
        async with asyncio.timeout(30):
            while len(calls) < count:
                arrived.clear()
                await arrived.wait()

    set_ = ControllerSet(client)
    controller = Controller("test", DEPLOYMENT, reconcile, owns=[CONFIG_MAP])
    set_.add(controller)
    await set_.start()
    owner = await client.create(DEPLOYMENT, {"metadata": {"name": "web", "namespace": "ns"}, "spec": {}})
    await until(3)
    assert (controller.stats.errors, controller.stats.reconciles) == (2, 3)
    child = {"metadata": {"name": "c", "namespace": "ns", "ownerReferences": [owner_reference(owner)]}}
    await client.create(CONFIG_MAP, child)
    await until(4)
    assert set(calls) == {Key("ns", "web")}
    await set_.stop()


async def test_repeated_events_are_counted_and_floods_bounded(client: KubeClient, api: FakeApi) -> None:
    clock = FakeClock()
    recorder = EventRecorder(client, "test", clock=clock)
    obj = await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns"}})
    for _ in range(3):
        recorder.event(obj, "Warning", "Broken", "it broke")
    await recorder.flush()
    (event,) = (await client.list(EVENT)).items
    assert (event["count"], event["involvedObject"]["name"]) == (3, "a")
    for i in range(100):
        recorder.event(obj, "Normal", "Noise", str(i))
    await recorder.flush()
    assert len((await client.list(EVENT)).items) == 23  # 25 tokens, 3 used
    assert recorder.dropped == 78
    await recorder.close()


async def test_one_leader_and_take_over(client: KubeClient) -> None:
    clock = FakeClock()
    first, second = (LeaderElector(client, "ns", "qd", name, clock=clock) for name in ("one", "two"))
    working = {name: asyncio.Event() for name in ("one", "two")}

    async def work(name: str) -> None:
        working[name].set()
        await asyncio.Event().wait()

    one = asyncio.create_task(first.run(lambda: work("one")))
    await asyncio.wait_for(working["one"].wait(), 30)
    two = asyncio.create_task(second.run(lambda: work("two")))
    async with asyncio.timeout(30):
        while second.holder != "one":  # the rival saw the lease
            await asyncio.sleep(0.01)
    assert not second.is_leader
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    async with asyncio.timeout(30):
        while not working["two"].is_set():
            clock.advance(1)
            await asyncio.sleep(0.01)
    lease = await client.get(LEASE, "qd", "ns")
    assert lease["spec"]["holderIdentity"] == "two"
    two.cancel()
    await asyncio.gather(two, return_exceptions=True)
    assert not second.is_leader


def test_condition_time_moves_only_when_the_status_flips() -> None:
    first = set_condition(None, "Ready", "False", "Starting", "", 1, "t1")
    second = set_condition(first, "Ready", "False", "Waiting", "for x", 2, "t2")
    third = set_condition(second, "Ready", "True", "Ready", "", 2, "t3")
    assert [c[0]["lastTransitionTime"] for c in (first, second, third)] == ["t1", "t1", "t3"]
    assert second[0]["observedGeneration"] == 2
