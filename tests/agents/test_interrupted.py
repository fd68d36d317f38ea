"""Tasks of dead replicas, through the real REST API on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from quarterdeck.agents.interrupted import REPLICA, SILENCE, Heartbeat
from quarterdeck.agents.state import ControlPlaneState
from quarterdeck.server.database import Database
from quarterdeck.server.identity import Identity
from quarterdeck.server.kagent import KagentApi
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Header, Server


class _Caller:
    """Every caller is the agent kagent/a: tokens are tested elsewhere."""

    async def agent(self, authorization: str) -> str:
        del authorization
        return "kagent/a"


@dataclass
class Rig:
    state: ControlPlaneState
    now: float = 0.0
    active: dict[str, list[str]] = field(default_factory=dict)

    def replica(self, name: str) -> Heartbeat:
        return Heartbeat(self.state, name, lambda: self.active.get(name, []), clock=lambda: self.now)

    async def work(self, task_id: str, replica: str, state: str = "TASK_STATE_WORKING") -> None:
        task = {"id": task_id, "contextId": "s1", "status": {"state": state}, "metadata": {REPLICA: replica}}
        await self.state.save_task("alice", task)

    async def status(self, task_id: str) -> Any:
        task = await self.state.task(task_id)
        assert task is not None
        return task["status"]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async def headers() -> list[Header]:
        return []

    database = await Database.open(str(tmp_path / "server.db"))
    server = Server(KagentApi(database, cast(Identity, _Caller())).router().handle, name="kagent")
    _, port = await server.listen("127.0.0.1", 0)
    pool = Pool()
    yield Rig(ControlPlaneState(pool, f"http://127.0.0.1:{port}", headers))
    pool.close()
    await server.stop(0)
    await database.close()


async def test_a_restarted_process_ends_what_it_left_at_once(rig: Rig) -> None:
    await rig.work("t1", "pod-1/old")
    await rig.work("t2", "pod-1/old", "TASK_STATE_INPUT_REQUIRED")
    await rig.work("t3", "pod-1/old", "TASK_STATE_COMPLETED")
    await rig.replica("pod-1/new").beat()
    status = await rig.status("t1")
    assert status["state"] == "TASK_STATE_FAILED"
    assert "interrupted" in status["message"]["parts"][0]["text"]
    assert (await rig.status("t2"))["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert (await rig.status("t3"))["state"] == "TASK_STATE_COMPLETED"


async def test_another_pods_task_is_ended_only_after_its_silence(rig: Rig) -> None:
    await rig.work("dead", "pod-1/boot")
    await rig.work("alive", "pod-2/boot")
    rig.active["pod-2/boot"] = ["alive"]
    third, second = rig.replica("pod-3/boot"), rig.replica("pod-2/boot")
    for _ in range(int(SILENCE // 10)):
        await second.beat()
        await third.beat()
        rig.now += 10.0
        assert (await rig.status("dead"))["state"] == "TASK_STATE_WORKING"
    await second.beat()
    await third.beat()
    assert (await rig.status("dead"))["state"] == "TASK_STATE_FAILED"
    assert (await rig.status("alive"))["state"] == "TASK_STATE_WORKING"
