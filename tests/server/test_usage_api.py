"""Who may see what runs used, and what people see of a transcript."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from quarterdeck.errors import Forbidden, Unauthorized
from quarterdeck.server.database import Database
from quarterdeck.server.http import Router
from quarterdeck.server.identity import Caller, Identity
from quarterdeck.server.management import failure
from quarterdeck.server.runs_access import RunsAccess
from quarterdeck.server.runs_again import Again
from quarterdeck.server.runs_api import RunsApi
from quarterdeck.server.runs_metrics import MetricsApi, RunMetrics
from quarterdeck.server.runs_store import Draft, NewRun, RunStore
from quarterdeck.server.usage import Usage
from quarterdeck.server.usage_api import UsageApi
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.http import Server

ARGUMENTS = {"city": "Kiel", "card": "4111", "password": "hunter2"}
RESULT = json.dumps({"ok": True, "token": "t0k"})


class Tokens:
    """``agent NS/NAME`` is that agent's Pod, ``viewer`` may do all in namespace ns, ``root`` everywhere."""

    async def workload(self, authorization: str) -> Caller:
        name = authorization.removeprefix("Bearer agent ")
        if name == authorization:
            raise Unauthorized("no Pod")
        return Caller("system:serviceaccount:x", (), name)

    async def agent(self, authorization: str) -> str:
        return str((await self.workload(authorization)).agent)

    async def person(self, authorization: str, verb: str, resource: str, namespace: str = "") -> Caller:
        name = authorization.removeprefix("Bearer ")
        if name != "root" and (name, namespace) != ("viewer", "ns"):
            raise Forbidden(f"{name} cannot {verb} {resource} in {namespace or 'all namespaces'}")
        return Caller(name, (), None)


@pytest.fixture
async def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setenv("QUARTERDECK_REDACT", "/card, ")
    database = await Database.open(str(tmp_path / "server.db"))
    registry, identity = Registry(), cast(Identity, Tokens())
    store = RunStore(database)
    store.wrote = RunMetrics(registry).wrote
    for agent, user in (("ns/a", "alice"), ("other/b", "bob")):
        run, _ = await store.create(NewRun(agent, user, "s", "t", {"parts": [{"text": "pay"}]}, replica="p/1"))
        message = {"role": "tool", "content": RESULT}
        drafts = [
            Draft(
                "model.result", 1, {"model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 2}, "took": 0.5}
            ),
            Draft("tool.intent", 2, {"name": "pay", "arguments": ARGUMENTS, "attempt": 1}),
            Draft("tool.result", 2, {"name": "pay", "failed": False, "message": message, "id": "c"}),
            Draft("final", 0, {"state": "completed", "reason": "", "text": "paid", "usage": {}}),
        ]
        await store.append(agent, run["id"], 1, "b", drafts)
    again = Again(store, database)
    usage = UsageApi(Usage(database), store, RunsAccess(store, identity)).routes()
    routes = [*RunsApi(store, again, identity).routes(), *usage, *MetricsApi(registry, identity).routes()]
    server = Server(Router(routes, failure).handle)
    host, port = await server.listen("127.0.0.1", 0)
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False, timeout=60) as http:

        async def get(path: str, who: str = "root") -> httpx.Response:
            return await http.get(path, headers={"authorization": f"Bearer {who}"})

        yield get
    await server.stop(0)
    await database.close()


async def test_usage_is_shown_to_who_may_list_runs(ask: Any) -> None:
    whole = (await ask("/v1/usage?by=agent,user")).json()
    assert [(row["agent"], row["user"], row["inputTokens"]) for row in whole["rows"]] == [
        ("ns/a", "alice", 5), ("other/b", "bob", 5),
    ]  # fmt: skip
    assert whole["total"] == {"calls": 2, "inputTokens": 10, "outputTokens": 4, "cachedTokens": 0, "cost": 0, "runs": 2}
    assert (await ask("/v1/usage", "viewer")).status_code == 403
    for where in ("agent=ns/a", "namespace=ns", "run=t"):
        shown = (await ask(f"/v1/usage?{where}", "viewer")).json()
        assert [row["agent"] for row in shown["rows"]] == ["ns/a"], where
    for where in ("agent=other/b", "agent=other/b&namespace=ns"):
        assert (await ask(f"/v1/usage?{where}", "viewer")).status_code == 403, where
    own = (await ask("/v1/usage?agent=ns/a&by=agent", "agent other/b")).json()
    assert [row["agent"] for row in own["rows"]] == ["other/b"], "an agent sees its own, whatever it asks for"
    assert (await ask("/v1/usage?run=t&by=step", "viewer")).json()["rows"][0]["took"] == 0.5
    assert (await ask("/v1/usage?to=2020-01-01T00:00:00Z")).json()["rows"] == []
    for wrong in ("by=step", "by=colour", "by=agent,agent", "from=yesterday", "to=nan", "limit=0", "limit=x"):
        found = await ask(f"/v1/usage?{wrong}")
        assert found.status_code == 400 and found.json()["error"]["message"], wrong


async def test_runs_are_listed_by_namespace_for_who_may_list_them_there(ask: Any) -> None:
    assert len((await ask("/v1/runs")).json()["runs"]) == 2
    assert (await ask("/v1/runs", "viewer")).status_code == 403
    for where in ("namespace=ns", "agent=ns/a", "agent=ns/a&namespace=other"):
        shown = (await ask(f"/v1/runs?{where}", "viewer")).json()["runs"]
        assert [run["agent"] for run in shown] == ["ns/a"], where
    assert (await ask("/v1/runs?namespace=n")).json()["runs"] == [], "of no namespace whose name only begins so"
    assert (await ask("/v1/runs?agent=other/b&namespace=ns", "viewer")).status_code == 403
    own = (await ask("/v1/runs?namespace=ns", "agent other/b")).json()["runs"]
    assert [run["agent"] for run in own] == ["other/b"], "an agent sees its own, whatever it asks for"


async def test_people_get_transcripts_without_secrets_and_agents_their_own_as_it_is(ask: Any) -> None:
    shown = (await ask("/v1/runs/t/events", "viewer")).text
    assert "Kiel" in shown and not any(secret in shown for secret in ("hunter2", "4111", "t0k"))
    watched = (await ask("/v1/runs/t/events?watch", "viewer")).text
    assert "Kiel" in watched and not any(secret in watched for secret in ("hunter2", "4111", "t0k"))
    own = await ask("/v1/runs/t/events", "agent ns/a")
    assert next(e["data"] for e in own.json()["events"] if e["kind"] == "tool.intent")["arguments"] == ARGUMENTS


async def test_metrics_of_runs_are_for_who_may_see_the_status(ask: Any) -> None:
    found = await ask("/metrics")
    assert 'quarterdeck_runs_total{agent="ns/a",source="chat",outcome="completed",reason=""} 1' in found.text
    assert (await ask("/metrics", "viewer")).status_code == 403
