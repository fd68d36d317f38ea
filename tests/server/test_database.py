"""Conversations and tasks in a real SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from quarterdeck.errors import Conflict, NotFound, StorageError
from quarterdeck.server.database import VERSION, Database, schema_version


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(str(tmp_path / "server.db"))
    yield opened
    await opened.close()


async def test_a_session_belongs_to_its_agent_and_user(database: Database) -> None:
    await database.create_session("kagent/a", "alice", "s1", "hello", None)
    assert (await database.session("kagent/a", "alice", "s1"))["name"] == "hello"
    for agent, user in (("kagent/b", "alice"), ("kagent/a", "bob")):
        with pytest.raises(NotFound, match="s1"):
            await database.session(agent, user, "s1")


async def test_creating_the_same_session_twice_keeps_the_first(database: Database) -> None:
    first = await database.create_session("kagent/a", "alice", "s1", "first", None)
    again = await database.create_session("kagent/a", "alice", "s1", "second", None)
    assert again["created_at"] == first["created_at"] and again["name"] == "first"


async def test_events_come_in_order_and_once(database: Database) -> None:
    for number in range(5):
        await database.append_event("kagent/a", "alice", "s1", f"e{number}", str(number))
    await database.append_event("kagent/a", "alice", "s1", "e4", "4")  # a retry of a write whose answer was lost
    with pytest.raises(Conflict, match="e4"):
        await database.append_event("kagent/a", "alice", "s1", "e4", "other")
    rows = await database.list_events("kagent/a", "alice", "s1", limit=-1, ascending=True)
    assert [row["data"] for row in rows] == ["0", "1", "2", "3", "4"]
    newest = await database.list_events("kagent/a", "alice", "s1", limit=2, ascending=True)
    assert [row["data"] for row in newest] == ["3", "4"]


async def test_a_task_is_replaced_not_doubled_even_when_saved_at_once(database: Database) -> None:
    await database.save_task("kagent/a", "alice", "t1", "s1", "1.0", "{}")
    await asyncio.gather(
        *(database.save_task("kagent/a", "alice", "t1", "s1", "1.0", f'{{"n":{n}}}') for n in range(5))
    )
    assert len(await database.list_tasks("kagent/a", "alice", "s1")) == 1
    with pytest.raises(NotFound):
        await database.task("kagent/b", "t1")


async def test_deleting_a_session_deletes_what_hangs_on_it(database: Database) -> None:
    await database.append_event("kagent/a", "alice", "s1", "e", "{}")
    await database.save_task("kagent/a", "alice", "t1", "s1", "1.0", "{}")
    await database.delete_session("kagent/a", "alice", "s1")
    assert await database.count() == {"sessions": 0, "events": 0, "tasks": 0}


async def test_rows_survive_a_restart_and_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "server.db")
    database = await Database.open(path)
    await database.create_session("kagent/a", "alice", "s1", None, None)
    await database.close()
    database = await Database.open(path)
    assert await database.session("kagent/a", "alice", "s1")
    async with database._engine.begin() as connection:  # what a newer release would leave behind
        await connection.execute(update(schema_version).values(version=VERSION + 1))
    await database.close()
    with pytest.raises(StorageError, match="newer release"):
        await Database.open(path)


async def test_an_unusable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        await Database.open(str(tmp_path / "file" / "server.db"))
