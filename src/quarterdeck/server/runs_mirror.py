"""``Run`` objects: copies of runs that were started in the background, for ``kubectl get runs``. Nothing is read from
them; one that somebody edited is put right, one that nobody started goes away."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import msgspec

from quarterdeck.errors import Conflict, NotFound, QuarterdeckError
from quarterdeck.kube.apply import apply_if_changed, apply_status_if_changed
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import RUN, Object
from quarterdeck.snapshot.runs import FINAL

from .database import Row
from .runs_store import RunStore

log = logging.getLogger(__name__)
LOOK = 2.0
SETTLE = 60.0
"""Seconds between looks at what has changed, and between comparisons of all copies."""
KEPT = 200
"""Copies of ended runs, the newest; the database has the others."""
_TEXT = 200
Key = tuple[str, str]


class RunMirror:
    """Writes the copies until cancelled."""

    def __init__(self, client: KubeClient, store: RunStore, namespaces: tuple[str, ...] = ()) -> None:
        """``namespaces``: the only ones that may be looked at; all when empty."""
        self._client = client
        self._store = store
        self._namespaces = namespaces
        self._since = 0.0
        self._said = ""

    async def run(self) -> None:
        looks = 0
        while True:
            try:
                await (self.settle() if looks % int(SETTLE / LOOK) == 0 else self.look())
                self._said = ""
            except (Conflict, NotFound):
                pass  # the next comparison puts it right
            except QuarterdeckError as error:
                if self._said != str(error):
                    self._said = str(error)
                    log.warning("Run objects cannot be written (runs are not affected): %s", error)
            looks += 1
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Copy what has changed since the last look. Raises QuarterdeckError."""
        rows = await self._store.background(self._since)
        for row in rows:
            await self._write(row, None)
        self._since = max((row["updated_at"] for row in rows), default=self._since)

    async def settle(self) -> None:
        """Compare all copies with the database. Raises QuarterdeckError."""
        lists = [await self._client.list(RUN, where) for where in self._namespaces or (None,)]
        live = {(obj["metadata"]["namespace"], obj["metadata"]["name"]): obj for found in lists for obj in found.items}
        rows = await self._store.background(0.0)
        over = sorted((row for row in rows if row["state"] in FINAL), key=lambda row: row["number"])[:-KEPT]
        gone = {row["id"] for row in over}
        kept = {_key(row): row for row in rows if row["id"] not in gone}
        for key, row in kept.items():
            await self._write(row, live.get(key))
        for namespace, name in live.keys() - kept.keys():
            await self._client.delete(RUN, name, namespace)
        self._since = max((row["updated_at"] for row in rows), default=self._since)

    async def _write(self, row: Row, live: Object | None) -> None:
        namespace, name = _key(row)
        desired = {"metadata": {"name": name, "namespace": namespace}, "spec": _spec(row)}
        written = await apply_if_changed(self._client, RUN, desired, live) or live
        if written is not None:
            await apply_status_if_changed(self._client, RUN, written, _status(row, written))


def _key(row: Row) -> Key:
    """Namespace and name of the copy: the agent's, and the run's id behind the agent's name."""
    namespace, _, agent = row["agent"].partition("/")
    return namespace, f"{agent[:200]}-{row['id'][-12:]}"


def _spec(row: Row) -> Object:
    text = str(_summary(row).get("text", ""))
    return {
        "agent": row["agent"].partition("/")[2], "user": row["user_id"], "source": row["source"],
        "message": text[:_TEXT],
    }  # fmt: skip


def _status(row: Row, live: Object) -> Object:
    summary = _summary(row)
    usage: dict[str, int] = summary.get("usage") or {}
    tokens = usage.get("total_tokens") or usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
    status: Object = {
        "phase": row["state"].capitalize(), "run": row["id"], "steps": summary.get("steps", 0),
        "toolCalls": summary.get("toolCalls", 0), "tokens": tokens, "startedAt": _when(row["created_at"]),
        "observedGeneration": int(live["metadata"].get("generation") or 1),
    }  # fmt: skip
    if row["reason"]:
        status["reason"] = row["reason"]
    if row["state"] in FINAL:
        status["endedAt"] = _when(row["updated_at"])
    return status


def _summary(row: Row) -> dict[str, Any]:
    return msgspec.json.decode(row["summary"])


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
