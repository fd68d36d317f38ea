"""The store: replayable history, durability under kill -9, one process per directory."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.apiserver.database import DELETED
from quarterdeck.apiserver.store import Event, Retention, Store
from quarterdeck.errors import Expired, ServiceUnavailable, StorageError


def config_map(name: str, value: int) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": str(value)}}


_STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "reopen"]), st.sampled_from("abc"), st.integers(0, 9)), max_size=30
)


@settings(max_examples=25, deadline=None)
@given(_STEPS)
def test_history_replays_to_the_state(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]]
) -> None:
    async def run() -> None:
        directory = tmp_path_factory.mktemp("store")
        store = Store(directory)
        store.open()
        model: dict[str, str] = {}
        for step, name, value in steps:
            if step == "reopen":
                store.close()
                store = Store(directory)
                store.open()
            elif step == "put":
                await store.put("configmaps", ("ns", name), config_map(name, value))
                model[name] = str(value)
            elif name in model:
                await store.remove("configmaps", ("ns", name))
                del model[name]
        replayed: dict[str, bytes] = {}
        versions: list[int] = []
        for event in store.since(store.bucket("configmaps"), 0):
            versions.append(event.rv)
            if event.type == DELETED:
                del replayed[event.entry.name]
            else:
                replayed[event.entry.name] = event.entry.raw
        assert versions == sorted(set(versions))
        assert replayed == {e.name: e.raw for e in store.bucket("configmaps").range("ns")}
        assert {e.name: e.load()["data"]["v"] for e in store.bucket("configmaps").range(None)} == model
        store.close()

    asyncio.run(run())


async def test_old_versions_expire(tmp_path: Path) -> None:
    store = Store(tmp_path, retention=Retention(count=3))
    store.open()
    for value in range(10):
        await store.put("configmaps", ("ns", "a"), config_map("a", value))
    with pytest.raises(Expired, match="too old resource version: 1"):
        store.since(store.bucket("configmaps"), 1)
    assert len(store.since(store.bucket("configmaps"), store.visible - 2)) == 2
    store.close()


async def test_listeners_see_writes_in_version_order(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    seen: list[Event] = []
    store.bucket("configmaps").listeners.add(seen.append)
    await asyncio.gather(*(store.put("configmaps", ("ns", f"n{i}"), config_map(f"n{i}", i)) for i in range(200)))
    assert [e.rv for e in seen] == list(range(1, 201))
    store.close()


async def test_second_start_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    await store.put("configmaps", ("ns", "a"), config_map("a", 1))
    with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
        Store(tmp_path).open()
    assert store.entry("configmaps", "ns", "a") is not None
    store.close()


def test_newer_layout_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "state.db")
    db.execute("PRAGMA user_version=99")
    db.close()

    async def run() -> None:
        with pytest.raises(StorageError, match="newer Quarterdeck"):
            Store(tmp_path).open()

    asyncio.run(run())


async def test_a_full_disk_leaves_no_half_state(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    await store.put("configmaps", ("ns", "a"), config_map("a", 1))
    before = store.visible
    database = store._database  # pyright: ignore[reportPrivateUsage]
    assert database is not None
    database._db.execute("PRAGMA max_page_count=1")  # pyright: ignore[reportPrivateUsage]
    big = {**config_map("b", 1), "data": {"v": "x" * 1_000_000}}
    with pytest.raises(ServiceUnavailable, match="free some space"):
        await store.put("configmaps", ("ns", "b"), big)
    assert store.entry("configmaps", "ns", "b") is None and store.visible == before
    database._db.execute("PRAGMA max_page_count=1000000")  # pyright: ignore[reportPrivateUsage]
    await store.put("configmaps", ("ns", "b"), config_map("b", 2))
    store.close()


_WRITER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from quarterdeck.apiserver.store import Store

    async def main():
        store = Store(Path(sys.argv[1])); store.open()
        async def one(worker):
            for n in range(100000):
                name = f"w{worker}-{n}"
                await store.put("configmaps", ("ns", name),
                                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
                sys.stdout.write(name + "\\n"); sys.stdout.flush()
        await asyncio.gather(*(one(w) for w in range(20)))
    asyncio.run(main())
    """
)


async def test_acknowledged_writes_survive_kill_9(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acked = [child.stdout.readline().strip() for _ in range(500)]
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().splitlines()
    child.wait()
    acked += rest[:-1]  # the last line may be cut
    store = Store(tmp_path)
    store.open()
    missing = [name for name in acked if store.entry("configmaps", "ns", name) is None]
    assert missing == []
    store.close()
