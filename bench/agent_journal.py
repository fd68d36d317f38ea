"""What the journal of runs costs: CPU of agent host and control plane for a step that is written before and after.

A run of three steps (model, tool, model) is written exactly as the host and the gateway write it, over HTTP, into a
real database; beside it a bare HTTP request to the same server, as a ratio.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from quarterdeck.agents.journal.client import Draft, JournalClient
from quarterdeck.agents.journal.journal import Journal
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Header

from .measure import Row, child, cpu

STEPS = 3
_HASH = "sha256:" + "0" * 64
_TEXT = "What the tool found. " * 20


async def _headers() -> list[Header]:
    return []


def _said(content: str | None, *calls: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    return {"message": message, "usage": {"prompt_tokens": 900, "completion_tokens": 60}, "calls": list(calls)}


async def _one(pool: Pool, client: JournalClient, port: int, number: int) -> None:
    """One run: what the host writes, and the gateway's word that the tool call is under way."""
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "What runs there?"}]}
    run = await client.create(
        {"user": "alice", "session": f"s{number}", "task": uuid4().hex, "message": message, "replica": "pod/boot",
         "before": uuid4().hex, "asks": True}
    )  # fmt: skip
    if not run["leased"] or run["seq"] != 3:
        raise RuntimeError(f"the run did not begin with its first model call: {run}")
    journal = Journal(client, run["id"], run["fence"])
    journal.defer("model.result", 1, _said(None, {"id": "c", "name": "look", "arguments": {"n": 1}}))
    intent = {"id": "c", "name": "look", "arguments": {"n": 1}, "hash": _HASH, "attempt": 1}
    await journal.append(Draft("tool.intent", 2, intent | {"tool": "look", "server": "kagent/tools"}))
    start = b'{"gateway":"ns/gw","fence":1,"attempt":1,"key":"k"}'
    path = f"/v1/runs/{run['id']}/steps/2/start"
    response = await pool.request("POST", ("127.0.0.1", port, False), path, [], start, timeout=10)
    await response.read()
    if response.status != 200:
        raise RuntimeError(f"the step did not start: HTTP {response.status}")
    told = {"role": "tool", "tool_call_id": "c", "content": _TEXT}
    journal.defer("tool.result", 2, {"id": "c", "name": "look", "hash": _HASH, "failed": False, "message": told})
    await journal.append(Draft("model.intent", 3, {}))
    journal.defer("model.result", 3, _said("That runs there."))
    await journal.append(Draft("final", 0, {"state": "completed", "reason": "", "text": "That.", "usage": {}}))


async def rows(quick: bool) -> list[Row]:
    """Sequential runs, then bare requests."""
    count = 100 if quick else 500
    with (
        tempfile.TemporaryDirectory(prefix="qd-bench-") as folder,
        child("bench.journal_process", str(Path(folder, "server.db"))) as (pid, line),
    ):
        port, pool = int(line), Pool()
        client = JournalClient(pool, f"http://127.0.0.1:{port}", _headers)
        for number in range(20):
            await _one(pool, client, port, number)
        theirs, ours, began = cpu(pid), time.process_time(), time.perf_counter()
        for number in range(count):
            await _one(pool, client, port, 100 + number)
        steps = count * STEPS
        theirs, ours = (cpu(pid) - theirs) / steps * 1e3, (time.process_time() - ours) / steps * 1e3
        elapsed = (time.perf_counter() - began) / steps * 1e3
        before, here = cpu(pid), time.process_time()
        for _ in range(count * 2):
            response = await pool.request("GET", ("127.0.0.1", port, False), "/health", [], b"", timeout=10)
            await response.read()
        bare = (cpu(pid) - before + time.process_time() - here) / (count * 2) * 1e3
        pool.close()
    beside = f"host {ours:.2f} ms, control plane {theirs:.2f} ms; {elapsed:.1f} ms elapsed"
    return [
        Row("journal of a run: CPU per step, host and control plane", ours + theirs, "ms", 2.0, beside),
        Row("the same as a ratio to a bare HTTP request there", (ours + theirs) / bare, "×", None, f"{bare:.2f} ms"),
    ]
