"""``GET /v1/usage``: tokens and cost of runs by agent, user, model, day and more."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec

from quarterdeck.errors import BadRequest

from .http import Answer, Call, Route, route
from .runs_access import RunsAccess
from .runs_store import RunStore
from .usage import GROUPS, Usage, Wanted, of_steps

_MOST = 10_000
_NAMES = {"input": "inputTokens", "output": "outputTokens", "cached": "cachedTokens"}


class UsageApi:
    """Who may list runs may see what they used: people where they have that verb, agents their own."""

    def __init__(self, usage: Usage, store: RunStore, access: RunsAccess) -> None:
        self._usage = usage
        self._store = store
        self._access = access

    def routes(self) -> list[Route]:
        return [route("GET", "/v1/usage", self.get)]

    async def get(self, call: Call) -> Answer:
        """``?by=agent,model&from=&to=&agent=&namespace=&user=&model=&run=&limit=``; times RFC 3339 or seconds.

        ``by=step`` with ``run``: its model calls one by one.
        """
        query = call.query
        by = [name for name in query.get("by", "agent").split(",") if name]
        if query.get("run"):
            _, row = await self._access.of(call, query["run"], "list")
            run, agent, namespace = row["id"], row["agent"], ""
            if by == ["step"]:
                steps = of_steps(await self._store.events(row))
                return Answer({"by": by, "rows": [_renamed(found) for found in steps]})
        else:
            agent, namespace = query.get("agent", ""), query.get("namespace", "")
            who = await self._access.who(call, "list", agent.partition("/")[0] or namespace)
            run, agent = "", who.agent or agent
            if by == ["step"]:
                raise BadRequest("by=step: say of which run, with run=ID")
        wrong = next((name for name in by if name not in GROUPS), None)
        if wrong is not None or len(set(by)) != len(by):
            raise BadRequest(f"by={wrong or ','.join(by)}: must be one or more of {', '.join(GROUPS)}, or step")
        wanted = Wanted(
            _time(query.get("from", ""), "from", 0.0), _time(query.get("to", ""), "to", math.inf), agent,
            "" if agent else namespace, query.get("user", ""), query.get("model", ""), run,
        )  # fmt: skip
        rows, total = await self._usage.grouped(by, wanted, _limit(query.get("limit", "1000")))
        shown = _renamed(msgspec.to_builtins(total))
        return Answer({"by": by, "rows": [_renamed(found) for found in rows], "total": shown})


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    return {_NAMES.get(name, name): value for name, value in row.items()}


def _time(text: str, name: str, default: float) -> float:
    """Seconds since the epoch. Raises BadRequest."""
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise BadRequest(f"{name}={text[:40]}: must be a time such as 2026-11-01T00:00:00Z, or seconds") from None
        value = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(value):
        raise BadRequest(f"{name}={text[:40]}: must be a finite number")
    return value


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= _MOST:
        raise BadRequest(f"limit={text[:20]}: must be a whole number from 1 to {_MOST}")
    return int(text)
