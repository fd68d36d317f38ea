"""What is to be told to whom of a task: push notification configs, and the queue of what is not delivered yet.

A notification is queued in the transaction that saves the task: whoever saves one notifies, and nothing that was saved
is forgotten when a process dies. Notifications for one config are delivered in the order they were queued.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from quarterdeck.a2atypes import Json, legacy
from quarterdeck.a2atypes.updates import updates

from .a2a_tables import push_configs, push_queue
from .database import Database, Row, tasks

PER_TASK = 16
"""Configs a task may have."""
_LARGEST = 1024 * 1024
_ENDED = frozenset({"completed", "failed", "canceled", "rejected", "input-required", "auth-required"})


_CONFIGS = select(push_configs).where(
    and_(push_configs.c.agent == bindparam("of_agent"), push_configs.c.task_id == bindparam("of_task"))
)


def record(connection: Connection, agent: str, task_id: str, data: str) -> bool:
    """Queue what a task's saving tells, before it is saved; whether there was anything."""
    found = connection.execute(_CONFIGS, {"of_agent": agent, "of_task": task_id})
    configs = [dict(row) for row in found.mappings()]
    if not configs:
        return False
    where = and_(tasks.c.agent == agent, tasks.c.id == task_id)
    before = connection.execute(select(tasks.c.data).where(where)).scalar_one_or_none()
    after: Json = json.loads(data)
    if after.get("kind") == "task":  # written in 0.3 by a BYO agent
        return _queue(connection, configs, [after], after)
    return _queue(connection, configs, updates(json.loads(before) if before else None, after), after)


def _queue(connection: Connection, configs: list[Row], events: list[Json], task: Json) -> bool:
    if not events:
        return False
    old = task if task.get("kind") == "task" else legacy.task_out(task)
    rows: list[Row] = []
    for config in configs:
        for body in [old] if config["version"] == "0.3" else events:
            text = json.dumps(body, ensure_ascii=False)
            if len(text) > _LARGEST:
                text = json.dumps(_shortened(body))
            names = {"agent": config["agent"], "task_id": config["task_id"], "config_id": config["id"]}
            rows.append(names | {"body": text, "attempts": 0, "due": 0.0, "claimed": 0.0})
    connection.execute(insert(push_queue), rows)
    return True


def _shortened(body: Json) -> Json:
    """A notification that would be too large says what the task's state is; the rest is there to be fetched."""
    task = body.get("task", body)
    if "status" not in task:
        return {k: v | {"artifact": {"artifactId": v["artifact"]["artifactId"], "parts": []}} for k, v in body.items()}
    small = {k: task[k] for k in ("id", "contextId", "kind") if k in task} | {"status": task["status"]}
    return {"task": small} if "task" in body else small


class PushStore:
    """Configs and queue in the control plane's database. Each statement names agent and user, or a claimed row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- configs
    async def create(self, agent: str, user: str, config: Json, version: str, now: float, *, catch_up: bool) -> Json:
        """Keep a config; one of the same id is replaced. ``catch_up``: tell what the task has come to already."""
        task_id = str(config["taskId"])
        kept = config | {"id": str(config.get("id") or uuid4())}
        key = and_(_of_task(agent, task_id), push_configs.c.id == kept["id"])
        row: Row = {
            "agent": agent, "task_id": task_id, "id": kept["id"], "user_id": user, "version": version,
            "config": json.dumps(kept), "created": now,
        }  # fmt: skip
        async with self._database.write() as connection:
            await connection.execute(delete(push_configs).where(key))
            await connection.execute(insert(push_configs).values(**row))
            if catch_up:
                where = and_(tasks.c.agent == agent, tasks.c.id == task_id)
                found = (await connection.execute(select(tasks).where(where))).mappings().one_or_none()
                if found is not None and found["state"] in _ENDED:
                    task = json.loads(found["data"])
                    if await connection.run_sync(_queue, [row], [{"task": task}], task):
                        self._database.queued.set()
        return kept

    async def count(self, agent: str, task_id: str) -> int:
        return len(await self._database.rows(select(push_configs.c.id).where(_of_task(agent, task_id))))

    async def configs(self, agent: str, user: str, task_id: str) -> list[Json]:
        where = and_(_of_task(agent, task_id), push_configs.c.user_id == user)
        rows = await self._database.rows(select(push_configs).where(where).order_by(push_configs.c.created))
        return [json.loads(row["config"]) for row in rows]

    async def delete(self, agent: str, user: str, task_id: str, ident: str) -> None:
        """Forget a config and what is queued for it; one that is not there is no error."""
        where = and_(_of_task(agent, task_id), push_configs.c.id == ident)
        async with self._database.write() as connection:
            done = await connection.execute(delete(push_configs).where(and_(where, push_configs.c.user_id == user)))
            if done.rowcount:
                await connection.execute(delete(push_queue).where(_queued_for(agent, task_id, ident)))

    # -- queue
    async def claim(self, now: float, until: float, most: int) -> list[tuple[Row, Row]]:
        """The next notification of each config that is due, with its config; nobody else gets them until then."""
        first = select(func.min(push_queue.c.seq)).group_by(
            push_queue.c.agent, push_queue.c.task_id, push_queue.c.config_id
        )
        due = and_(push_queue.c.seq.in_(first), push_queue.c.due <= now, push_queue.c.claimed <= now)
        claimed: list[tuple[Row, Row]] = []
        for row in await self._database.rows(select(push_queue).where(due).order_by(push_queue.c.seq).limit(most)):
            mine = and_(push_queue.c.seq == row["seq"], push_queue.c.claimed == row["claimed"])
            async with self._database.write() as connection:
                done = await connection.execute(update(push_queue).where(mine).values(claimed=until))
            key = and_(_of_task(row["agent"], row["task_id"]), push_configs.c.id == row["config_id"])
            config = await self._database.rows(select(push_configs).where(key)) if done.rowcount else []
            if config:
                claimed.append((row, config[0]))
            elif done.rowcount:
                await self.done(row)
        return claimed

    async def done(self, row: Row) -> None:
        """Delivered, or given up."""
        async with self._database.write() as connection:
            await connection.execute(delete(push_queue).where(push_queue.c.seq == row["seq"]))

    async def later(self, row: Row, due: float) -> None:
        values: dict[str, Any] = {"attempts": row["attempts"] + 1, "due": due, "claimed": 0.0}
        async with self._database.write() as connection:
            await connection.execute(update(push_queue).where(push_queue.c.seq == row["seq"]).values(**values))

    async def waiting(self) -> int:
        return len(await self._database.rows(select(push_queue.c.seq)))


def _of_task(agent: str, task_id: str) -> Any:
    return and_(push_configs.c.agent == agent, push_configs.c.task_id == task_id)


def _queued_for(agent: str, task_id: str, ident: str) -> Any:
    return and_(push_queue.c.agent == agent, push_queue.c.task_id == task_id, push_queue.c.config_id == ident)
