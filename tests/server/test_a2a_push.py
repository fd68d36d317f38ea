"""Push notifications at the control plane: queued with the task, delivered by whoever runs next, to public hosts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.server.a2a_delivery import ATTEMPTS, Client, Guard, Pusher
from quarterdeck.server.a2a_queue import PushStore, record
from quarterdeck.server.database import Database, TaskRow
from quarterdeck.server.signing import SigningKey
from quarterdeck.wire.http import Exchange, Server

AGENT, USER = "kagent/a", "alice"


@dataclass
class Webhook:
    """A receiver. ``answers``: statuses in order, then 200."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    got: list[Any] = field(default_factory=list)

    def __call__(self, exchange: Exchange) -> None:
        self.got.append(json.loads(exchange.body))
        status = self.answers.pop(0) if self.answers else 200
        exchange.respond(status, b"", [(b"location", b"http://169.254.169.254/")] if status == 302 else [])


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    receiver = Webhook()
    server = Server(receiver, name="webhook")
    _, receiver.port = await server.listen("127.0.0.1", 0)
    yield receiver
    await server.stop(0)


async def opened(path: Path) -> Database:
    database = await Database.open(str(path / "server.db"))
    database.record = record
    return database


async def save(database: Database, state: str, *, artifacts: Any = (), agent: str = AGENT) -> None:
    status = {"state": f"TASK_STATE_{state.upper()}"}
    task = {"id": "t", "contextId": "c", "status": status, "artifacts": list(artifacts), "history": []}
    await database.save_task(TaskRow(agent, USER, "t", "c", "1.0", state, json.dumps(task)))


def config(webhook: Webhook, ident: str = "c1") -> dict[str, Any]:
    return {"id": ident, "taskId": "t", "url": f"http://127.0.0.1:{webhook.port}/hook"}


async def test_what_was_queued_outlives_the_process(tmp_path: Path, webhook: Webhook) -> None:
    database = await opened(tmp_path)
    await save(database, "working")
    await PushStore(database).create(AGENT, USER, config(webhook), "1.0", 0.0, catch_up=False)
    await save(database, "completed", artifacts=[{"artifactId": "a", "parts": [{"text": "x"}]}])
    key = (await SigningKey.open(database)).kid
    await database.close()  # nobody has delivered anything yet

    database = await opened(tmp_path)
    client = Client(Guard(["127.0.0.0/8"]))
    signing = await SigningKey.open(database)
    assert signing.kid == key, "the same key after a restart"
    pusher = Pusher(database, signing, client.send)
    assert [await pusher.step(), await pusher.step(), await pusher.step()] == [1, 1, 0]
    kinds = [next(iter(payload)) for payload in webhook.got]
    assert kinds == ["artifactUpdate", "statusUpdate"], "in the order of the events"
    await save(database, "completed", artifacts=[{"artifactId": "a", "parts": [{"text": "x"}]}])
    assert await pusher.store.waiting() == 0, "saving the same again is no news"
    await client.close()
    await database.close()


async def test_two_replicas_deliver_once_and_one_that_died_is_taken_over(tmp_path: Path, webhook: Webhook) -> None:
    database = await opened(tmp_path)
    await save(database, "working")
    store = PushStore(database)
    await store.create(AGENT, USER, config(webhook), "1.0", 0.0, catch_up=False)
    await save(database, "completed")
    assert len(await store.claim(100.0, 160.0, 10)) == 1
    assert await store.claim(101.0, 161.0, 10) == [], "somebody is at it"
    assert len(await store.claim(161.0, 221.0, 10)) == 1, "who claimed it has died"
    await database.close()


async def test_a_late_config_is_told_what_has_happened(tmp_path: Path, webhook: Webhook) -> None:
    database = await opened(tmp_path)
    await save(database, "completed")
    client = Client(Guard(["127.0.0.0/8"]))
    pusher = Pusher(database, await SigningKey.open(database), client.send)
    await pusher.store.create(AGENT, USER, config(webhook, "late"), "1.0", 0.0, catch_up=True)
    await pusher.store.create(AGENT, USER, config(webhook, "old"), "0.3", 0.0, catch_up=True)
    while await pusher.step():
        pass
    assert webhook.got[0]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert webhook.got[1]["kind"] == "task" and webhook.got[1]["status"]["state"] == "completed"
    await client.close()
    await database.close()


async def test_redirects_are_failures_and_what_always_fails_is_given_up(tmp_path: Path, webhook: Webhook) -> None:
    database = await opened(tmp_path)
    await save(database, "working")
    client, now = Client(Guard(["127.0.0.0/8"])), [0.0]
    pusher = Pusher(database, await SigningKey.open(database), client.send, clock=lambda: now[0])
    await pusher.store.create(AGENT, USER, config(webhook), "1.0", 0.0, catch_up=False)
    webhook.answers = [302] * ATTEMPTS
    await save(database, "completed")
    for _ in range(ATTEMPTS):
        assert await pusher.step() == 1
        now[0] += 1000.0
    assert await pusher.store.waiting() == 0 and len(webhook.got) == ATTEMPTS
    await client.close()
    await database.close()


async def test_addresses_are_judged_when_they_are_called(webhook: Webhook) -> None:
    client = Client(Guard())
    for url in (f"http://127.0.0.1:{webhook.port}/", f"http://localhost:{webhook.port}/"):
        with pytest.raises(OSError, match="no public address"):
            await client.send(url, {}, b"{}")
    assert webhook.got == []
    await client.close()


async def test_what_is_deleted_is_not_delivered(tmp_path: Path, webhook: Webhook) -> None:
    database = await opened(tmp_path)
    await save(database, "working")
    store = PushStore(database)
    await store.create(AGENT, USER, config(webhook), "1.0", 0.0, catch_up=False)
    await save(database, "completed")
    await store.delete(AGENT, "mallory", "t", "c1")
    assert await store.waiting() == 1, "another user's config stays"
    await store.delete(AGENT, USER, "t", "c1")
    assert await store.waiting() == 0 and await store.configs(AGENT, USER, "t") == []
    await database.close()
