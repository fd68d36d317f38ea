"""Tokens and cost of runs: counted in a run's summary while it goes on, kept in ``run_usage`` when it has ended."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Any, Final

import msgspec
from sqlalchemy import and_, delete, distinct, func, select
from sqlalchemy.exc import SQLAlchemyError

from quarterdeck.agents.observe.usage import tokens_of
from quarterdeck.snapshot.runs import FINAL, Event

from .database import Database, Row
from .runs_tables import runs
from .usage_tables import run_usage

log = logging.getLogger(__name__)
VARIABLE = "QUARTERDECK_USAGE_RETENTION"
"""Environment variable: how long what ended runs used is kept, as for journals."""
DEFAULT = "400d"
EVERY = 6 * 3600.0
MODELS = 50
"""Models counted apart in one run; the others are ``other``."""
_LIVE, _GROUPED = 10_000, 10_000
"""Open runs, and groups of ended ones, that are looked at for one answer."""
_LARGEST: Final = 10**12
"""Of one count: sums of them fit into a column, whatever an agent says."""
COUNTS: Final = ("calls", "input", "output", "cached", "cost")
GROUPS: Final = ("agent", "namespace", "user", "model", "source", "run", "day")
_COLUMNS: Final = {
    "agent": run_usage.c.agent, "namespace": run_usage.c.agent, "user": run_usage.c.user_id,
    "model": run_usage.c.model, "source": run_usage.c.source, "run": run_usage.c.run, "day": run_usage.c.day,
}  # fmt: skip


class Used(msgspec.Struct):
    """Model calls, their tokens (``cached`` are among ``input``) and what they cost."""

    calls: int = 0
    input: int = 0
    output: int = 0
    cached: int = 0
    cost: float = 0.0
    runs: int = 0

    def add(self, other: Mapping[str, Any], count: int) -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + (other.get(name) or 0))
        self.runs += count


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which usage: of runs that ended (or go on) from ``since`` up to ``until``, seconds since the epoch."""

    since: float = 0.0
    until: float = math.inf
    agent: str = ""
    namespace: str = ""
    user: str = ""
    model: str = ""
    run: str = ""


def of_event(data: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """Model and counts of a ``model.result``: an agent's word, bounded."""
    usage = data.get("usage")
    tokens = tokens_of(usage if isinstance(usage, Mapping) else None)
    cost = data.get("cost")
    spent = float(cost) if isinstance(cost, int | float) and math.isfinite(cost) and cost > 0 else 0.0
    counts = {"calls": 1, "input": tokens.input, "output": tokens.output, "cached": tokens.cached, "cost": spent}
    return str(data.get("model") or "unknown")[:255], {name: min(value, _LARGEST) for name, value in counts.items()}


def spend(summary: dict[str, Any], data: Mapping[str, Any]) -> None:
    """Count a model call in the summary of its run: member ``models``."""
    model, counts = of_event(data)
    models: dict[str, dict[str, float]] = summary.setdefault("models", {})
    used = models.setdefault(model if model in models or len(models) < MODELS else "other", {})
    for name, value in counts.items():
        used[name] = used.get(name, 0) + value


def rows_of(row: Row, summary: Mapping[str, Any], at: float) -> list[Row]:
    """What is kept of a run that has ended, as rows of ``run_usage``."""
    day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
    base = {"run": row["id"], "agent": row["agent"], "user_id": row["user_id"], "source": row["source"]}
    return [
        {**base, "model": model, "day": day, "at": at, **{name: used.get(name, 0) for name in COUNTS}}
        for model, used in (summary.get("models") or {}).items()
    ]


class Usage:
    """Reads what was used."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time) -> None:
        self._database = database
        self._clock = clock

    async def grouped(self, by: Sequence[str], wanted: Wanted, limit: int = 1000) -> tuple[list[Row], Used]:
        """Rows with the members of ``by`` and the counts, costliest first, at most ``limit``; and the sum of all."""
        live = await self._live(wanted)
        found: dict[tuple[str, ...], Used] = {}
        for row in [*await self._ended(by, wanted), *live]:
            key = tuple(_shown(name, row[name]) for name in by)
            found.setdefault(key, Used()).add(row, row["runs"])
        total = Used()
        for row in [*await self._ended((), wanted), *live]:  # apart: a run of two models counts once
            total.add(row, row["runs"])
        order = sorted(found.items(), key=lambda item: (-item[1].cost, -item[1].input - item[1].output, item[0]))
        rows: list[Row] = [
            {**dict(zip(by, key, strict=True)), **msgspec.to_builtins(used)} for key, used in order[:limit]
        ]
        return rows, total

    async def prune(self, before: float) -> int:
        """Forget what ended before that time; how many rows."""
        async with self._database.write() as connection:
            return (await connection.execute(delete(run_usage).where(run_usage.c.at < before))).rowcount

    async def keep(self, seconds: float) -> None:
        """Prune now and then, until cancelled; ends at once when all is kept (0)."""
        while seconds > 0:
            try:
                await self.prune(self._clock() - seconds)
            except (SQLAlchemyError, OSError) as error:
                log.warning("old usage could not be deleted, trying again later: %s", error)
            await asyncio.sleep(EVERY)

    async def _ended(self, by: Sequence[str], wanted: Wanted) -> list[Row]:
        groups = [_COLUMNS[name].label(name) for name in by]
        sums = [func.sum(run_usage.c[name]).label(name) for name in COUNTS]
        count = func.count(distinct(run_usage.c.run)).label("runs")
        query = select(*groups, *sums, count).where(_where(wanted))
        if by:
            worth = (func.sum(run_usage.c.cost).desc(), func.sum(run_usage.c.input + run_usage.c.output).desc())
            query = query.group_by(*(_COLUMNS[name] for name in by)).order_by(*worth).limit(_GROUPED)
        found = await self._database.rows(query)
        return [row | {name: _number(row[name]) for name in COUNTS} for row in found if row["runs"]]

    async def _live(self, wanted: Wanted) -> list[Row]:
        """Runs that go on, or wait, by their summaries."""
        where = [runs.c.state.not_in(sorted(FINAL)), runs.c.updated_at >= wanted.since]
        if wanted.until != math.inf:
            where.append(runs.c.updated_at < wanted.until)
        for column, value in ((runs.c.agent, wanted.agent), (runs.c.user_id, wanted.user), (runs.c.id, wanted.run)):
            if value:
                where.append(column == value)
        if wanted.namespace:
            where.append(runs.c.agent.startswith(f"{wanted.namespace}/", autoescape=True))
        found = await self._database.rows(select(runs).where(and_(*where)).limit(_LIVE))
        rows: list[Row] = []
        for row in found:
            summary = msgspec.json.decode(row["summary"], type=dict[str, Any])
            parts = [p for p in rows_of(row, summary, row["updated_at"]) if wanted.model in ("", p["model"])]
            rows += [
                part | {"user": part["user_id"], "namespace": part["agent"], "runs": int(at == 0)}
                for at, part in enumerate(parts)
            ]
        return rows


def of_steps(events: Sequence[Event]) -> list[Row]:
    """The model calls of one run, step by step."""
    rows: list[Row] = []
    for event in events:
        if event.kind in ("model.result", "compaction"):
            model, counts = of_event(event.data)
            rows.append({"step": event.step, "model": model, "took": event.data.get("took"), **counts})
    return rows


def _where(wanted: Wanted) -> Any:
    where = [run_usage.c.at >= wanted.since]
    if wanted.until != math.inf:
        where.append(run_usage.c.at < wanted.until)
    for column, value in (
        (run_usage.c.agent, wanted.agent), (run_usage.c.user_id, wanted.user), (run_usage.c.model, wanted.model),
        (run_usage.c.run, wanted.run),
    ):  # fmt: skip
        if value:
            where.append(column == value)
    if wanted.namespace:
        where.append(run_usage.c.agent.startswith(f"{wanted.namespace}/", autoescape=True))
    return and_(*where)


def _number(value: Any) -> float:
    """A sum: PostgreSQL's are decimals."""
    return value if isinstance(value, int | float) else int(value)


def _shown(group: str, value: str) -> str:
    return value.partition("/")[0] if group == "namespace" else value
