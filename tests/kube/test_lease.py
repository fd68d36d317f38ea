"""Who may write, and until when."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.controller import Controller, ControllerSet
from quarterdeck.kube.lease import LeaderElector
from quarterdeck.kube.resource import CONFIG_MAP, LEASE, Key

from .fake_api import FakeApi
from .fake_clock import FakeClock


async def until(condition: object, clock: FakeClock | None = None) -> None:
    async with asyncio.timeout(30):
        while not condition():  # type: ignore[operator]
            if clock is not None:
                clock.advance(1)
            await asyncio.sleep(0.005)


async def forever() -> None:
    await asyncio.Event().wait()


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_nothing_is_sent_once_the_lease_may_have_run_out(client: KubeClient, api: FakeApi) -> None:
    clock = FakeClock()
    elector = LeaderElector(client, "ns", "qd", "one", clock=clock)
    async with KubeClient(api.config, gate=elector.check) as gated:
        with pytest.raises(errors.NotLeader):
            await gated.create(CONFIG_MAP, {"metadata": {"name": "early", "namespace": "ns"}})
        leading = asyncio.create_task(elector.run(forever))
        await until(lambda: elector.is_leader)
        await gated.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns"}})
        api.fail += [("PUT", "/leases/", 500, {})] * 100
        # As after SIGSTOP: no timer of ours has fired yet when the next request is about to leave.
        clock.now += 10.0
        seen = len(api.requests)
        for write in (
            gated.create(CONFIG_MAP, {"metadata": {"name": "b", "namespace": "ns"}}),
            gated.patch(CONFIG_MAP, "a", {"data": {}}, "ns"),
            gated.delete(CONFIG_MAP, "a", "ns"),
        ):
            with pytest.raises(errors.NotLeader):
                await write
        assert [r for r in api.requests[seen:] if "/leases/" not in r[1]] == []
        assert (await gated.get(CONFIG_MAP, "a", "ns"))["metadata"]["name"] == "a", "reads go on"
        await end(leading)


async def test_a_retried_write_asks_again(client: KubeClient, api: FakeApi) -> None:
    asked: list[bool] = []

    def gate() -> None:
        asked.append(True)
        if len(asked) > 1:
            raise errors.NotLeader("over")

    api.fail.append(("POST", "/configmaps", 429, {"Retry-After": "0"}))
    async with KubeClient(api.config, gate=gate) as gated:
        with pytest.raises(errors.NotLeader):
            await gated.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns"}})
    assert len([r for r in api.requests if r[0] == "POST"]) == 1


async def test_a_leader_that_sees_another_stops_at_once_and_may_run_again(client: KubeClient) -> None:
    clock = FakeClock()
    elector = LeaderElector(client, "ns", "qd", "one", clock=clock)
    leading = asyncio.create_task(elector.run(forever))
    await until(lambda: elector.is_leader)
    lease = await client.get(LEASE, "qd", "ns")
    lease["spec"]["holderIdentity"] = "two"
    await client.replace(LEASE, lease)
    await until(leading.done, clock)
    assert not elector.is_leader
    assert elector.holder == "two"
    again = asyncio.create_task(elector.run(forever))
    await until(lambda: elector.is_leader, clock)
    await end(again)
    spec = (await client.get(LEASE, "qd", "ns"))["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("", 1), "given back at the end"


async def test_a_server_without_answer_costs_the_lease_in_time(client: KubeClient, api: FakeApi) -> None:
    clock = FakeClock()
    elector = LeaderElector(client, "ns", "qd", "one", clock=clock)
    began = clock.monotonic()
    leading = asyncio.create_task(elector.run(forever))
    await until(lambda: elector.is_leader)
    api.fail += [("GET", "/leases/", 500, {})] * 100
    await until(leading.done, clock)
    assert clock.monotonic() - began == pytest.approx(10.0, abs=1.5)
    assert not elector.is_leader


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_skewed_clocks_neither_steal_nor_block(client: KubeClient, skew: float) -> None:
    ours, theirs = FakeClock(), FakeClock()
    theirs.offset = skew
    first = LeaderElector(client, "ns", "qd", "one", clock=ours)
    second = LeaderElector(client, "ns", "qd", "two", clock=theirs)
    one = asyncio.create_task(first.run(forever))
    await until(lambda: first.is_leader)
    two = asyncio.create_task(second.run(forever))
    await until(lambda: second.holder == "one")
    assert not second.is_leader
    theirs.advance(14)
    await asyncio.sleep(0.02)
    assert not second.is_leader
    await end(one)
    await until(lambda: second.is_leader, theirs)
    await end(two)


async def test_a_standby_watches_and_a_new_leader_looks_at_everything(client: KubeClient) -> None:
    seen: list[Key] = []

    async def reconcile(key: Key) -> None:
        seen.append(key)

    await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns"}})
    set_ = ControllerSet(client)
    set_.add(Controller("test", CONFIG_MAP, reconcile))
    await set_.start(workers=False)
    await until(lambda: set_.informer(CONFIG_MAP).synced.is_set())
    assert seen == []
    for _ in range(2):
        leading = asyncio.create_task(set_.work())
        await until(lambda: seen == [Key("ns", "a")])
        await end(leading)
        seen.clear()
    await set_.stop()
