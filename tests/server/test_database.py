"""Conversations and tasks in a real SQLite file and in a real PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import DDL, select, text, update

from quarterdeck.errors import Conflict, NotFound, StorageError
from quarterdeck.server.database import VERSION, Database, TaskRow, schema_version, tasks
from quarterdeck.server.runs_tables import UNENDED, runs
from support.databases import Servers, fresh


def _task(data: str, name: str = "t1", state: str = "working") -> TaskRow:
    return TaskRow("kagent/a", "alice", name, "s1", "1.0", state, data)


async def test_replicas_that_start_together_take_turns(postgres_servers: Servers) -> None:
    url = await fresh(postgres_servers.url())
    opened = await asyncio.gather(*(Database.open(f"{url}?sslmode=prefer") for _ in range(4)))
    await opened[0].create_session("kagent/a", "alice", "s1", "hello", None)
    assert [(await each.session("kagent/a", "alice", "s1"))["name"] for each in opened] == ["hello"] * 4
    await asyncio.gather(*(each.close() for each in opened))


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/x", "nosuch://x/y", "postgresql://"])
async def test_a_database_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(StorageError, match="cannot be used"):
        await Database.open(url)


async def test_a_request_that_is_cut_off_twice_leaves_nothing_that_waits_for_ever(database: Database) -> None:
    numbers = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 50000) SELECT sum(x) FROM t"
    for turns in range(40):
        reading = asyncio.create_task(database.rows(text(numbers)))
        await asyncio.sleep(0.002)
        reading.cancel()
        for _ in range(turns % 4 + 1):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left or not (await asyncio.wait(left, timeout=30))[1]
    assert [row["one"] for row in await database.rows(text("SELECT 1 AS one"))] == [1]


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
    await asyncio.gather(*(database.save_task(_task(f'{{"n":{n}}}')) for n in range(5)))
    assert len(await database.list_tasks("kagent/a", "alice", "s1")) == 1
    with pytest.raises(NotFound):
        await database.task("kagent/b", "t1")


async def test_deleting_a_session_deletes_what_hangs_on_it(database: Database) -> None:
    await database.append_event("kagent/a", "alice", "s1", "e", "{}")
    await database.save_task(_task("{}"))
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


async def test_a_database_of_version_1_is_brought_up(tmp_path: Path) -> None:
    path = str(tmp_path / "server.db")
    database = await Database.open(path)
    async with database._engine.begin() as connection:
        for statement in (
            "DROP INDEX ix_tasks_state", "ALTER TABLE tasks DROP COLUMN state",
            "ALTER TABLE tasks DROP COLUMN status_at", "DROP TABLE runs", "DROP TABLE run_events",
            "DROP INDEX ix_sessions_owner",
        ):  # fmt: skip
            await connection.execute(DDL(statement))
        await connection.execute(update(schema_version).values(version=1))
    await database.close()
    database = await Database.open(path)
    await database.save_task(_task("{}"))
    [row] = await database.rows(select(tasks.c.state, tasks.c.status_at))
    assert row["state"] == "working" and row["status_at"]
    assert await database.rows(select(runs)) == []
    indexes = await database.rows(text("SELECT name FROM sqlite_master WHERE type = 'index'"))
    assert "ix_sessions_owner" in {row["name"] for row in indexes}
    await database.close()


async def test_runs_that_have_not_ended_are_found_without_looking_at_all(tmp_path: Path) -> None:
    """Triggers ask for them every other second; an older database has no index for that."""
    path = str(tmp_path / "server.db")
    database = await Database.open(path)
    async with database._engine.begin() as connection:
        await connection.execute(DDL("DROP INDEX ix_runs_unended"))
    await database.close()
    database = await Database.open(path)
    plan = await database.rows(text(f"EXPLAIN QUERY PLAN {select(runs.c.id).where(UNENDED)}"))
    assert "ix_runs_unended" in plan[0]["detail"]
    await database.close()


async def test_an_unusable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        await Database.open(str(tmp_path / "file" / "server.db"))


async def test_conversations_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "server.db"
    path.touch(mode=0o644)
    database = await Database.open(str(path))
    await database.create_session("kagent/a", "alice", "s1", "hello", None)
    assert {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {
        name: 0o600 for name in ("server.db", "server.db-wal", "server.db-shm")
    }
    await database.close()


async def test_hundreds_that_write_at_once_all_get_their_turn(database: Database) -> None:
    """SQLite alone lets some of them wait until it gives up: "database is locked"."""

    async def turn(number: int) -> None:
        name = f"s{number % 50}"
        await database.create_session("kagent/a", "alice", name, None, None)
        await database.save_task(TaskRow("kagent/a", "alice", f"t{number}", name, "1.0", "working", "{}"))
        await database.save_task(TaskRow("kagent/a", "alice", f"t{number}", name, "1.0", "completed", "{}"))

    await asyncio.gather(*(turn(number) for number in range(200)))
    assert len(await database.list_sessions("kagent/a", "alice")) == 50
