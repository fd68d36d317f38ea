"""Who reaches what of memory over HTTP, and what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from quarterdeck.agents.memory.offline import embed
from quarterdeck.errors import Forbidden, Unauthorized
from quarterdeck.server.database import Database
from quarterdeck.server.http import Router
from quarterdeck.server.identity import Caller, Identity
from quarterdeck.server.kagent import KagentApi
from quarterdeck.server.kagent_sessions import Conversations
from quarterdeck.server.memory_api import MemoryApi
from quarterdeck.server.memory_people import MemoryPeople
from quarterdeck.server.memory_store import MemoryStore
from quarterdeck.server.runs_api import failure
from quarterdeck.server.runs_store import Draft, NewRun, RunStore
from quarterdeck.wire.http import Server

TEAL = "Alice's favourite colour is teal"
VECTOR = embed(TEAL, 64)


class Tokens:
    """``agent NAME`` is an agent of namespace ns, ``admin`` may do all, ``ns-admin`` all in ns, others nothing."""

    async def agent(self, authorization: str) -> str:
        kind, _, name = authorization.removeprefix("Bearer ").partition(" ")
        if kind != "agent":
            raise Unauthorized("no token of a Pod")
        return f"ns/{name}"

    async def person(self, authorization: str, verb: str, resource: str, namespace: str = "") -> Caller:
        assert resource == "memories" and verb in ("get", "list", "delete")
        caller = await self.somebody(authorization)
        if caller.name == "admin" or (caller.name == "ns-admin" and namespace == "ns"):
            return caller
        raise Forbidden(f"{caller.name} cannot {verb} memories")

    async def somebody(self, authorization: str) -> Caller:
        name = authorization.removeprefix("Bearer ")
        if name == "stranger":
            raise Unauthorized("no token of a person")
        return Caller(name, (), None)


@dataclass
class Plane:
    store: MemoryStore
    runs: RunStore
    conversations: Conversations
    http: httpx.AsyncClient
    agents: str
    people: str

    async def __call__(self, method: str, path: str, body: Any = None, token: str = "agent a", **headers: str) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        given = {"Authorization": f"Bearer {token}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        where = self.agents if token.startswith("agent") else self.people
        response = await self.http.request(method, where + path, content=content, headers=given)
        return response.status_code, response.json()


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    database = await Database.open(str(tmp_path / "server.db"))
    store, runs = MemoryStore(database), RunStore(database)
    await store.open()
    await runs.open()
    identity = cast(Identity, Tokens())

    def hosted(agent: str) -> bool:
        return agent != "ns/byo"

    conversations = Conversations(database, hosted)
    kagent = KagentApi(database, identity, (), conversations)
    agents = Server(kagent.router(MemoryApi(store, kagent.who, hosted).routes()).handle, name="kagent")
    people = Server(Router(MemoryPeople(store, identity).routes(), failure).handle, name="api")
    (_, port), (_, other) = await agents.listen("127.0.0.1", 0), await people.listen("127.0.0.1", 0)
    for user in ("alice", "bob"):
        await database.create_session("ns/a", user, f"s-{user}", None, None)
    async with httpx.AsyncClient(timeout=30) as http:
        yield Plane(store, runs, conversations, http, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{other}")
    await agents.stop(0)
    await people.stop(0)
    await database.close()


def item(content: str = TEAL, user: str = "alice", **more: Any) -> dict[str, Any]:
    return {"agent_name": "ns__NS__whatever", "user_id": user, "content": content, "vector": VECTOR} | more


async def test_kagents_contract(plane: Plane) -> None:
    status, saved = await plane("POST", "/api/memories/sessions", item(metadata={"a": 1}, ttl_days=2))
    assert status == 201 and set(saved) == {"id"}
    batch = {"items": [item("one thing"), item("another thing", vector=[1.0, 0.0, 0.0])]}
    assert await plane("POST", "/api/memories/sessions/batch", batch) == (201, {"count": 2})
    asked = {"agent_name": "x", "user_id": "alice", "vector": embed("favourite colour", 64), "limit": 5}
    status, found = await plane("POST", "/api/memories/search", asked | {"min_score": 0.3})
    assert status == 200 and [one["content"] for one in found] == [TEAL, "one thing"]
    assert set(found[0]) == {"id", "content", "score", "metadata", "created_at"}
    assert found[0]["metadata"] == {"a": 1} and 0.3 < found[0]["score"] <= 1.0
    assert (await plane("POST", "/api/memories/search", asked | {"vector": [0.1] * 100}))[1] == []
    status, listed = await plane("GET", "/api/memories?agent_name=x&user_id=alice")
    assert status == 200 and [one["access_count"] for one in listed] == [1, 1, 0]
    assert set(listed[0]) == {"id", "content", "access_count", "created_at", "expires_at"}
    assert await plane("DELETE", "/api/memories?agent_name=x&user_id=alice") == (200, {"status": "deleted"})
    assert (await plane("GET", "/api/memories?agent_name=x&user_id=alice"))[1] == []


async def test_an_agent_reaches_only_users_that_it_works_for(plane: Plane) -> None:
    await plane("POST", "/api/memories/sessions", item())
    asked = {"user_id": "alice", "vector": VECTOR}
    assert [one["content"] for one in (await plane("POST", "/api/memories/search", asked))[1]] == [TEAL]
    for other in ("bob", "agent:ns/b"):  # in the body, the header, the query; with and without a session
        for body, headers, query in (
            (asked | {"user_id": other}, {}, ""), (asked | {"user_id": ""}, {"X_User_ID": other}, ""),
            (asked | {"user_id": ""}, {}, f"?user_id={other}"),
        ):  # fmt: skip
            status, found = await plane("POST", f"/api/memories/search{query}", body, **headers)
            assert (status, found if status == 200 else "") == ((200, []) if other == "bob" else (403, ""))
    for body, headers in ((asked, {"X_User_ID": "bob"}), (asked | {"user_id": "bob"}, {"X_User_ID": "alice"})):
        status, problem = await plane("POST", "/api/memories/search", body, **headers)
        assert status == 403 and "several users" in problem["message"]
    status, problem = await plane("POST", "/api/memories/search", asked, "agent b")
    assert status == 403 and "no session of user 'alice'" in problem["message"]
    for token in ("agentx", "agent"):
        assert (await plane("POST", "/api/memories/search", asked, token))[0] in (401, 403)
    for path, body in (
        ("/v1/memories", {"user": "carol", "items": [{"content": "x"}]}), ("/v1/memories/search", {"user": "carol"}),
        ("/v1/memories/vectors", {"user": "carol", "model": "m", "vectors": {"1": [1.0]}}),
    ):  # fmt: skip
        assert (await plane("POST", path, body))[0] == 403
    assert (await plane("GET", "/v1/memories/progress?user=carol&session=s", None))[0] in (400, 403)
    assert (await plane("DELETE", "/api/memories?user_id=carol"))[0] == 403
    await plane.store._database.create_session("ns/a", "anonymous", "s-x", None, None)
    status, problem = await plane("POST", "/api/memories/search", asked | {"user_id": "anonymous"})
    assert status == 403 and "without a credential" in problem["message"]
    # a run that goes on opens what its end closes
    run, _ = await plane.runs.create(NewRun("ns/b", "alice", "s", "t", {"parts": []}, replica="r"))
    await plane.store._database.delete_session("ns/b", "alice", "s")
    assert await plane("POST", "/api/memories/search", asked, "agent b") == (200, [])
    await plane.runs.append("ns/b", run["id"], 1, "b", [Draft("final", 0, {"state": "completed", "text": "x"})])
    await plane.store._database.delete_session("ns/b", "alice", "s")
    assert (await plane("POST", "/api/memories/search", asked, "agent b"))[0] == 403


async def test_a_byo_agent_needs_a_conversation_that_a_gateway_opened(plane: Plane) -> None:
    assert (await plane("POST", "/api/memories/sessions", item(), "agent byo"))[0] == 403
    await plane.conversations.open("ns/byo", "alice", "c1")
    assert (await plane("POST", "/api/memories/sessions", item(), "agent byo"))[0] == 201
    assert (await plane("POST", "/api/memories/sessions", item(user="bob"), "agent byo"))[0] == 403
    asked = {"user_id": "alice", "vector": VECTOR}
    assert len((await plane("POST", "/api/memories/search", asked, "agent byo"))[1]) == 1
    assert (await plane("POST", "/api/memories/search", asked, "agent a"))[1] == []
    assert (await plane("POST", "/api/memories/search", asked, "agent byo", X_User_ID="bob"))[0] == 403


BAD: list[tuple[str, Any, str]] = [
    ("/api/memories/sessions", b"{", "not valid JSON"),
    ("/api/memories/sessions", [], "must be a JSON object"),
    ("/api/memories/sessions", item(content=5), "content"),
    ("/api/memories/sessions", item(content=" \0 "), "content: must have 1 to"),
    ("/api/memories/sessions", item(content="x" * 40_000), "it has 40000"),
    ("/api/memories/sessions", item(vector=[]), "vector: is missing"),
    ("/api/memories/sessions", item(vector=["a"]), "vector"),
    ("/api/memories/sessions", item(vector=[0.0, 0.0]), "no direction"),
    ("/api/memories/sessions", item(vector=[1.0] * 4097), "1 to 4096 numbers"),
    ("/api/memories/sessions", b'{"user_id":"alice","content":"x","vector":[NaN]}', "not valid JSON"),
    ("/api/memories/sessions", item(vector=[1e308, 1e308]), "no direction"),
    ("/api/memories/sessions", item(metadata=[1]), "metadata: must be an object"),
    ("/api/memories/sessions", item(metadata={"a": "x" * 9000}), "metadata: is longer"),
    ("/api/memories/sessions", item(user=""), "user_id: is missing"),
    ("/api/memories/sessions", item(user="x" * 256), "longer than 255"),
    ("/api/memories/sessions/batch", {"items": []}, "1 to 50 entries"),
    ("/api/memories/sessions/batch", {"items": [item()] * 51}, "there are 51"),
    ("/api/memories/sessions/batch", {"items": [item(), item(user="bob")]}, "all be of one user_id"),
    ("/api/memories/search", {"user_id": "alice"}, "vector: is missing"),
    ("/api/memories/search", {"user_id": "alice", "vector": VECTOR, "min_score": 2}, "from 0 to 1"),
    ("/v1/memories", {"user": "alice", "items": []}, "1 to 50 entries"),
    ("/v1/memories", {"user": "alice", "items": [{"content": "a"}], "session": "s"}, "turns from 1"),
    ("/v1/memories", {"user": "alice", "items": [{"content": "a"}], "model": "m" * 300}, "model: is longer"),
    ("/v1/memories/vectors", {"user": "alice", "model": "m", "vectors": {}}, "1 to 50 entries"),
    ("/v1/memories/vectors", {"user": "alice", "model": "m", "vectors": {"a": []}}, "vectors.a."),
    ("/v1/memories/search", {"text": "x"}, "user"),
]


async def test_bad_input_is_refused_and_says_why(plane: Plane) -> None:
    for path, body, said in BAD:
        status, problem = await plane("POST", path, body)
        assert status == 400 and said in problem["message"], (path, said, problem)
    assert await plane.store.list() == []


async def test_odd_texts_are_kept_as_far_as_databases_take_them(plane: Plane) -> None:
    body = b'{"user":"alice","items":[{"content":"a\\u0000b \\u00e9"}],"ttlDays":99999999,"source":"evil"}'
    assert (await plane("POST", "/v1/memories", body))[0] == 201
    (row,) = await plane.store.list()
    assert row["content"] == "a b é" and row["source"] == "tool"
    status, found = await plane("POST", "/v1/memories/search", {"user": "alice", "text": "b\0 é", "limit": 10**6})
    assert status == 200 and len(found["memories"]) == 1 and found["memories"][0]["expiresAt"].startswith("2")


async def test_people_see_and_delete_what_they_may(plane: Plane) -> None:
    ids = {}
    for user in ("alice", "bob"):
        _, saved = await plane("POST", "/v1/memories", {"user": user, "items": [{"content": f"of {user}"}]})
        (ids[user],) = saved["ids"]
    users = {
        token: [one["user"] for one in (await plane("GET", f"/v1/memories{query}", token=token))[1]["memories"]]
        for token, query in (("admin", ""), ("ns-admin", "?namespace=ns"), ("alice", ""), ("carol", ""))
    }
    assert users == {"admin": ["bob", "alice"], "ns-admin": ["bob", "alice"], "alice": ["alice"], "carol": []}
    assert (await plane("GET", "/v1/memories?user=bob", token="alice"))[0] == 403
    assert (await plane("GET", "/v1/memories?agent=nonsense", token="admin"))[0] == 400
    assert (await plane("GET", "/v1/memories?limit=-1", token="admin"))[0] == 400
    assert (await plane("GET", "/v1/memories", token="stranger"))[0] == 401
    assert (await plane("GET", f"/v1/memories/{ids['bob']}", token="ns-admin"))[1]["content"] == "of bob"
    for ident in (ids["bob"], "nothing"):  # the same answer whether it exists
        for method in ("GET", "DELETE"):
            status, problem = await plane(method, f"/v1/memories/{ident}", token="alice")
            assert status == 404 and ident in problem["error"]["message"]
    assert (await plane("DELETE", f"/v1/memories/{ids['alice']}", token="alice"))[0] == 200
    assert (await plane("DELETE", "/v1/memories", token="admin"))[0] == 400
    assert (await plane("DELETE", "/v1/memories?agent=ns/a&user=bob", token="alice"))[0] == 403
    assert await plane("DELETE", "/v1/memories?agent=ns/a", token="alice") == (200, {"deleted": 0})
    assert await plane("DELETE", "/v1/memories?agent=ns/a", token="ns-admin") == (200, {"deleted": 1})
    assert await plane.store.list() == []
