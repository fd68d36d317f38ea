from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.resource import CONFIG_MAP, Object, Resource

from .fake_api import FakeApi


def config_map(name: str, **data: str) -> Object:
    metadata = {"name": name, "namespace": "default", "managedFields": [{"manager": "x"}]}
    return {"metadata": metadata, "data": data}


class Log:
    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []
        self.arrived = asyncio.Event()

    def __call__(self, kind: str, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        self.entries.append((kind, obj["metadata"]["name"]))
        self.arrived.set()

    async def until(self, *entries: tuple[str, str]) -> None:
        async with asyncio.timeout(30):
            while not set(entries) <= set(self.entries):
                self.arrived.clear()
                await self.arrived.wait()


@pytest.fixture
async def informer(client: KubeClient) -> AsyncIterator[Informer]:
    informer = Informer(client, CONFIG_MAP)
    informer.add_index("value", lambda obj: [obj["data"]["k"]] if "k" in obj.get("data", {}) else [])
    yield informer
    await informer.stop()


async def test_follows_changes_and_indexes(client: KubeClient, informer: Informer) -> None:
    await client.create(CONFIG_MAP, config_map("a", k="1"))
    log = Log()
    informer.on_change(log)
    informer.start()
    await asyncio.wait_for(informer.synced.wait(), 30)
    assert "managedFields" not in informer.get("default", "a")["metadata"]  # type: ignore[index]
    await client.create(CONFIG_MAP, config_map("b", k="1"))
    await client.patch(CONFIG_MAP, "a", {"data": {"k": "2"}}, "default")
    await log.until(("added", "a"), ("added", "b"), ("modified", "a"))
    assert [o["metadata"]["name"] for o in informer.by_index("value", "1")] == ["b"]
    await client.delete(CONFIG_MAP, "b", "default")
    await log.until(("deleted", "b"))
    assert informer.by_index("value", "1") == []


async def test_resumes_a_dropped_watch_without_listing(client: KubeClient, api: FakeApi, informer: Informer) -> None:
    log = Log()
    informer.on_change(log)
    informer.start()
    await asyncio.wait_for(informer.synced.wait(), 30)
    await api.drop_watches()
    await client.create(CONFIG_MAP, config_map("a"))
    await log.until(("added", "a"))
    assert informer.relists == 1


async def test_deletions_missed_during_a_gap_are_delivered(
    client: KubeClient, api: FakeApi, informer: Informer
) -> None:
    for name in ("kept", "gone", "remade"):
        await client.create(CONFIG_MAP, config_map(name))
    log = Log()
    informer.on_change(log)
    informer.start()
    await asyncio.wait_for(informer.synced.wait(), 30)
    await log.until(("added", "kept"), ("added", "gone"), ("added", "remade"))
    log.entries.clear()
    # All of it happens behind the informer's back, and the server forgets it: resuming gets 410.
    for name in ("gone", "remade"):
        api.objects.pop(("", "configmaps", "default", name))
    api.version += 10
    api.history_from = api.version
    await client.create(CONFIG_MAP, config_map("remade"))
    api.log.clear()
    api.history_from = api.version
    await api.drop_watches()
    await log.until(("deleted", "gone"), ("deleted", "remade"), ("added", "remade"))
    assert informer.relists == 2
    assert sorted(o["metadata"]["name"] for o in informer.list()) == ["kept", "remade"]


async def test_resumes_at_the_last_bookmark_where_older_versions_are_forgotten(
    client: KubeClient, api: FakeApi, informer: Informer
) -> None:
    """Other kinds have moved the server's version on; without the bookmark the watch would have to list anew."""
    await client.create(CONFIG_MAP, config_map("a"))
    log = Log()
    informer.on_change(log)
    informer.start()
    await asyncio.wait_for(informer.synced.wait(), 30)
    api.version += 1000
    await api.tell(CONFIG_MAP, "BOOKMARK", {"kind": "ConfigMap", "apiVersion": "v1"})
    bookmark = api.history_from = api.version
    await api.drop_watches()
    await client.create(CONFIG_MAP, config_map("b"))
    await log.until(("added", "b"))
    assert api.watched[-1] == str(bookmark) and informer.relists == 1
    assert len(informer.list()) == 2, "a bookmark is no object"


async def test_a_watch_that_is_told_in_the_middle_that_it_is_too_old_lists_anew(
    client: KubeClient, api: FakeApi, informer: Informer
) -> None:
    await client.create(CONFIG_MAP, config_map("gone"))
    log = Log()
    informer.on_change(log)
    informer.start()
    await asyncio.wait_for(informer.synced.wait(), 30)
    api.objects.pop(("", "configmaps", "default", "gone"))
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (1002)"}
    await api.tell(CONFIG_MAP, "ERROR", status)
    api.log.clear()
    await client.create(CONFIG_MAP, config_map("new"))
    await log.until(("deleted", "gone"), ("added", "new"))
    assert informer.relists == 2
    async with asyncio.timeout(30):
        while len(api.watched) < 2:
            await asyncio.sleep(0.01)
    assert int(api.watched[-1]) > int(api.watched[0]), "the new list's version, not the old one again"


async def test_own_writes_are_seen_at_once_and_ghosts_are_not(client: KubeClient, informer: Informer) -> None:
    log = Log()
    informer.on_change(log)
    informer.start()
    await asyncio.wait_for(informer.synced.wait(), 30)
    made = await client.create(CONFIG_MAP, config_map("a"))
    informer.observe(made)
    assert informer.get("default", "a") is not None
    await client.delete(CONFIG_MAP, "a", "default")
    await log.until(("deleted", "a"))
    informer.observe(made)  # the answer of the create comes late
    assert informer.get("default", "a") is None


async def test_a_kind_that_a_real_server_does_not_know_counts_as_answered(client: KubeClient, api: FakeApi) -> None:
    """It says "404 page not found" in plain text where no definition of the group and version is there."""
    informer = Informer(client, Resource("kagent.dev", "v1alpha2", "Agent", "agents"))
    api.plain_404.add("agents")
    informer.start()
    try:
        await asyncio.wait_for(informer.answered.wait(), 30)
        assert not informer.synced.is_set()
        api.plain_404.clear()
        await asyncio.wait_for(informer.synced.wait(), 30)
    finally:
        await informer.stop()
