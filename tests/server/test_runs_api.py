"""Who may begin runs over REST, and with what names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from quarterdeck.errors import Unauthorized
from quarterdeck.server.database import Database
from quarterdeck.server.http import Router
from quarterdeck.server.identity import Caller, Identity
from quarterdeck.server.management import failure
from quarterdeck.server.runs_again import Again
from quarterdeck.server.runs_api import RunsApi
from quarterdeck.server.runs_store import RunStore
from quarterdeck.wire.http import Server

HOSTED, BYO = "ns/ours", "ns/byo"


class Tokens:
    """``Bearer NS/NAME`` is that agent's Pod, else a person who may do all."""

    async def workload(self, authorization: str) -> Caller:
        name = authorization.removeprefix("Bearer ")
        if "/" not in name:
            raise Unauthorized("no Pod")
        return Caller("system:serviceaccount:ns:x", (), name)

    async def person(self, authorization: str, verb: str, resource: str, namespace: str = "") -> Caller:
        return Caller(authorization.removeprefix("Bearer "), (), None)


@pytest.fixture
async def begin(database: Database) -> AsyncIterator[Any]:
    store = RunStore(database)
    api = RunsApi(
        store,
        Again(store, database),
        cast(Identity, Tokens()),
        agent=lambda name: name in (HOSTED, BYO),
        hosted=lambda name: name == HOSTED,
    )
    server = Server(Router(api.routes(), failure).handle)
    host, port = await server.listen("127.0.0.1", 0)
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False, timeout=60) as http:

        async def post(who: str, body: dict[str, Any]) -> tuple[int, Any]:
            answer = await http.post("/v1/runs", headers={"authorization": f"Bearer {who}"}, json=body)
            return answer.status_code, answer.json()

        yield post
    await server.stop(0)


def body(**more: Any) -> dict[str, Any]:
    return {"user": "alice", "session": "s", "task": "t", "message": {"parts": [{"text": "hi"}]}, **more}


async def test_an_image_of_others_begins_no_runs_in_anybodys_name(begin: Any) -> None:
    assert (await begin(HOSTED, body()))[0] == 201
    status, said = await begin(BYO, body())
    assert status == 403 and BYO in said["error"]["message"]


async def test_a_run_that_nobody_would_work_on_is_not_begun(begin: Any) -> None:
    assert (await begin("carol", {"agent": HOSTED, "text": "go"}))[0] == 201
    status, said = await begin("carol", {"agent": BYO, "text": "go"})
    assert status == 400 and "has no runs" in said["error"]["message"]
    assert (await begin("carol", {"agent": "ns/none", "text": "go"}))[0] == 404


async def test_names_that_no_column_holds_are_refused(begin: Any) -> None:
    for name in ("user", "session", "task", "replica", "before"):
        for wrong in ("x" * 256, "a\0b"):
            status, said = await begin(HOSTED, body(**{name: wrong}))
            assert status == 400 and name in said["error"]["message"], name
    for name, wrong in (("session", "x" * 256), ("source", "x" * 65)):
        assert (await begin("carol", {"agent": HOSTED, "text": "go", name: wrong}))[0] == 400, name
