"""kagent's REST contract as BYO agents see it: whose conversation is whose, and what frameworks keep."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from sqlalchemy import delete

from quarterdeck.errors import Unauthorized
from quarterdeck.server import kagent_frameworks, kagent_sessions
from quarterdeck.server.database import Database, events, sessions, tasks
from quarterdeck.server.identity import Caller, Identity
from quarterdeck.server.kagent import KagentApi
from quarterdeck.server.kagent_open import ConversationsApi
from quarterdeck.server.kagent_sessions import DEFAULT_USER, OPEN_FOR, Conversations
from quarterdeck.server.kagent_tables import kagent_tables
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Header, Server
from support import postgresql

AGENT, OTHER, HOSTED = "kagent/graph", "kagent/other", "kagent/ours"
GATEWAY = "system:serviceaccount:quarterdeck-system:quarterdeck"


class Tokens:
    """``Bearer`` and the name of an agent, or ``gateway``."""

    async def workload(self, authorization: str) -> Caller:
        name = authorization.removeprefix("Bearer ")
        if not authorization:
            raise Unauthorized("a bearer token is needed")
        return Caller(GATEWAY, (), None) if name == "gateway" else Caller("system:serviceaccount:kagent:x", (), name)

    async def agent(self, authorization: str) -> str:
        return str((await self.workload(authorization)).agent)


class Configuration:
    def serves(self, gateway: str) -> bool:
        return gateway == "quarterdeck-system/quarterdeck"

    def has_agent(self, agent: str) -> bool:
        return agent in (AGENT, OTHER, HOSTED)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    def __init__(self, pool: Pool, port: int, clock: Clock) -> None:
        self._pool = pool
        self._port = port
        self.clock = clock

    async def ask(
        self, method: str, path: str, body: Any = None, *, agent: str = AGENT, user: str = "", name: str = "x-user-id"
    ) -> tuple[int, Any]:
        headers: list[Header] = [(b"authorization", f"Bearer {agent}".encode())] if agent else []
        headers += [(name.encode(), user.encode())] if user else []
        data = b"" if body is None else json.dumps(body).encode()
        answer = await self._pool.request(method, ("127.0.0.1", self._port, False), path, headers, data, timeout=30)
        content = await answer.read()
        return answer.status, json.loads(content) if content else None

    async def open(self, user: str, session: str = "", agent: str = AGENT, **more: Any) -> tuple[int, Any]:
        body = {"agent": agent, "user": user, "session": session, **more}
        status, found = await self.ask("POST", "/v1/conversations", body, agent="gateway")
        return (404, found) if status == 200 and "missing" in found else (status, found)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    pytest.importorskip("asyncpg")
    if postgresql.commands() is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    with postgresql.running() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    url = str(tmp_path / "server.db") if request.param == "sqlite" else request.getfixturevalue("postgres")
    database = await Database.open(url)
    async with database.write() as connection:
        for table in (*kagent_tables.sorted_tables, sessions, events, tasks):
            await connection.execute(delete(table))
    identity = cast(Identity, Tokens())
    clock = Clock()
    conversations = Conversations(database, lambda agent: agent == HOSTED, clock)
    opening = ConversationsApi(conversations, identity, Configuration()).routes()
    server = Server(KagentApi(database, identity, opening, conversations).router().handle, name="kagent")
    _, port = await server.listen("127.0.0.1", 0)
    pool = Pool()
    yield Rig(pool, port, clock)
    pool.close()
    await server.stop(0)
    await database.close()


def checkpoint(number: int, thread: str = "c1", **more: Any) -> dict[str, Any]:
    return {
        "thread_id": thread, "checkpoint_ns": "", "checkpoint_id": f"1ef-{number:04}", "parent_checkpoint_id": None,
        "checkpoint": f"Y{number}", "metadata": "e30=", "type_": "msgpack", "version": 4,
    } | more  # fmt: skip


def task(ident: str, session: str) -> dict[str, Any]:
    return {"id": ident, "contextId": session, "kind": "task", "status": {"state": "working"}}


async def test_only_a_gateway_opens_a_conversation_and_it_has_one_user(rig: Rig) -> None:
    assert (await rig.ask("POST", "/v1/conversations", {"agent": AGENT, "user": "alice"}))[0] == 403
    assert (await rig.ask("POST", "/v1/conversations", {"agent": AGENT, "user": "alice"}, agent=""))[0] == 401
    assert (await rig.open("alice", agent="kagent/none"))[0] == 400
    status, made = await rig.open("alice")
    assert status == 200 and len(made["session"]) == 36
    assert await rig.open("alice", "c1") == (200, {"session": "c1"})
    assert await rig.open("alice", "c1") == (200, {"session": "c1"})
    assert (await rig.open("bob", "c1"))[0] == 404, "a conversation is of the user who began it"
    assert (await rig.open("bob", "c1", reads=True))[0] == 404
    assert (await rig.open("bob", "c1", OTHER))[0] == 200, "of another agent it is another one"
    assert (await rig.open("bob", "x" * 256))[0] == 400
    assert (await rig.open("bob", "", reads=True)) == (200, {"session": ""})


async def test_an_agent_is_believed_no_user_without_an_open_session(rig: Rig) -> None:
    await rig.open("alice", "c1")
    await rig.open("carol", "c3", OTHER)
    for name, path in (("x-user-id", "/api/sessions"), ("X-User-ID", "/api/sessions/c1"), ("x-user-id", "/api/me")):
        status, said = await rig.ask("GET", path, user="mallory", name=name)
        assert status == 403 and "no open session of user 'mallory'" in said["message"], path
    assert (await rig.ask("GET", "/api/sessions?user_id=carol"))[0] == 403, "open with another agent"
    assert (await rig.ask("POST", "/api/sessions", {"id": "n", "user_id": "carol"}))[0] == 403
    assert (await rig.ask("POST", "/api/langgraph/checkpoints", checkpoint(1), user="bob"))[0] == 403
    assert (await rig.ask("POST", "/api/crewai/memory", {"thread_id": "c1", "user_id": "bob"}))[0] == 403
    assert (await rig.ask("GET", "/api/sessions?user_id=carol", user="alice"))[0] == 403, "two users in one request"
    assert (await rig.ask("GET", "/api/sessions"))[0] == 403, "the placeholder is nobody either"
    assert (await rig.ask("GET", "/api/me", agent=""))[0] == 401
    assert (await rig.ask("GET", "/api/me", user="alice"))[1]["data"] == {"user_id": "alice", "agent": AGENT}
    assert (await rig.ask("GET", "/api/me", agent=HOSTED, user="x"))[1]["data"]["user_id"] == "x"


async def test_a_session_closes_a_day_after_its_users_last_message(rig: Rig) -> None:
    await rig.open("alice", "c1")
    rig.clock.now += OPEN_FOR - 1
    assert (await rig.ask("GET", "/api/sessions/c1", user="alice"))[0] == 200
    rig.clock.now += 2
    assert (await rig.ask("GET", "/api/sessions/c1", user="alice"))[0] == 403
    assert (await rig.ask("POST", "/api/langgraph/checkpoints", checkpoint(1), user=DEFAULT_USER))[0] == 403
    await rig.open("alice", "c1")
    assert (await rig.ask("GET", "/api/sessions/c1", user="alice"))[0] == 200


async def test_anothers_session_is_not_there(rig: Rig) -> None:
    await rig.open("alice", "c1")
    await rig.open("bob", "c2")
    await rig.open("alice", "c9", OTHER)
    for path in ("/api/sessions/c2", "/api/sessions/c2/tasks", "/api/langgraph/checkpoints?thread_id=c2"):
        assert (await rig.ask("GET", path, user="alice"))[0] == 404, path
    assert (await rig.ask("POST", "/api/sessions/c2/events", {"id": "e", "data": "x"}, user="alice"))[0] == 404
    assert (await rig.ask("POST", "/api/sessions", {"id": "c2"}, user="alice"))[0] == 404
    assert (await rig.ask("POST", "/api/langgraph/checkpoints", checkpoint(1, "c2"), user="alice"))[0] == 404
    assert (await rig.ask("GET", "/api/sessions/c9", user="alice"))[0] == 404, "another agent's"
    assert (await rig.ask("GET", "/api/langgraph/checkpoints?thread_id=c9", user=DEFAULT_USER))[0] == 404
    assert (await rig.ask("DELETE", "/api/langgraph/checkpoints/c9", user=DEFAULT_USER))[0] == 404


async def test_sessions_and_events_as_kagents_adk_uses_them(rig: Rig) -> None:
    await rig.open("alice", "c1")
    path = "/api/sessions/c1?user_id=alice&order=asc&limit=-1"
    status, found = await rig.ask("GET", path, user="alice")
    assert status == 200 and found["data"]["events"] == [] and found["data"]["session"]["user_id"] == "alice"
    for number in range(3):
        body = {"id": f"e{number}", "data": json.dumps({"n": number})}
        assert (await rig.ask("POST", "/api/sessions/c1/events?user_id=alice", body))[0] == 201
    events = (await rig.ask("GET", path))[1]["data"]["events"]
    assert [json.loads(each["data"])["n"] for each in events] == [0, 1, 2]
    after = events[1]["created_at"].replace("+", "%2B")
    assert [e["id"] for e in (await rig.ask("GET", f"{path}&after={after}"))[1]["data"]["events"]] == ["e2"]
    assert (await rig.ask("GET", f"{path}&after=noon"))[0] == 400
    made = {"user_id": "alice", "agent_ref": "kagent__NS__graph", "id": "own", "name": "a side session"}
    assert (await rig.ask("POST", "/api/sessions?user_id=alice", made))[0] == 201
    assert (await rig.open("bob", "own"))[0] == 404, "what the agent made for alice stays hers"
    listed = (await rig.ask("GET", "/api/sessions?user_id=alice"))[1]["data"]
    assert {each["id"] for each in listed} == {"c1", "own"}
    assert (await rig.ask("DELETE", "/api/sessions/own?user_id=alice"))[0] == 200
    assert (await rig.ask("GET", "/api/sessions/own?user_id=alice"))[0] == 404


async def test_a_user_with_a_plus_in_their_name_is_found_though_the_sdk_does_not_quote_it(rig: Rig) -> None:
    await rig.open("alice+k8s@example.com", "c1")
    await rig.open("Bob Smith", "c2")
    for query in ("alice+k8s@example.com", "alice%2Bk8s@example.com"):
        status, found = await rig.ask("GET", f"/api/sessions?user_id={query}", user="alice+k8s@example.com")
        assert status == 200 and [each["id"] for each in found["data"]] == ["c1"], query
    for query in ("Bob+Smith", "Bob%20Smith"):
        assert [e["id"] for e in (await rig.ask("GET", f"/api/sessions?user_id={query}"))[1]["data"]] == ["c2"], query
    assert (await rig.ask("GET", "/api/sessions?user_id=Carol+Smith"))[0] == 403


async def test_an_id_may_hold_anything_that_a_path_must_quote(rig: Rig) -> None:
    ident = "slack/C1/ü 50%?"
    path = f"/api/sessions/{quote(ident, safe='')}"
    assert (await rig.open("alice", ident))[0] == 200
    assert (await rig.ask("POST", f"{path}/events", {"data": "x"}))[0] == 201
    found = (await rig.ask("GET", path))[1]["data"]
    assert found["session"]["id"] == ident and [event["data"] for event in found["events"]] == ["x"]
    assert (await rig.ask("GET", "/api/sessions/slack/C1"))[0] == 404


async def test_sessions_that_an_agent_makes_are_bounded_and_those_of_its_users_are_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kagent_sessions, "_PER_USER", 2)
    for number in range(3):
        assert (await rig.open("alice", f"c{number}"))[0] == 200
        status, _ = await rig.ask("POST", f"/api/sessions/c{number}/events", {"data": "x"}, user="alice")
        assert status == 201
    made = [(await rig.ask("POST", "/api/sessions", {"id": f"own{n}"}, user="alice"))[0] for n in range(3)]
    assert made == [201, 201, 403]
    assert (await rig.ask("POST", "/api/sessions/own0/events", {"data": "x"}, user="alice"))[0] == 201
    assert (await rig.ask("DELETE", "/api/sessions/own0", user="alice"))[0] == 200
    assert (await rig.ask("POST", "/api/sessions", {"id": "own2"}, user="alice"))[0] == 201


async def test_tasks_belong_to_the_user_of_their_conversation(rig: Rig) -> None:
    await rig.open("alice", "c1")
    await rig.open("bob", "c2")
    assert (await rig.ask("POST", "/api/tasks", task("t1", "c1")))[0] == 201, "kagent-langgraph sends no user"
    assert (await rig.ask("GET", "/api/tasks/t1"))[1]["data"]["id"] == "t1"
    assert (await rig.ask("GET", "/api/tasks/t1", user="bob"))[0] == 404
    assert (await rig.ask("POST", "/api/tasks", task("t1", "c2")))[0] == 404, "bob does not take over alice's task"
    assert (await rig.ask("POST", "/api/tasks", task("t2", "none")))[0] == 403
    assert (await rig.open("bob", "", tasks=["t1"]))[0] == 404
    assert await rig.open("alice", "", tasks=["t1"]) == (200, {"session": "c1"}), "a task knows its conversation"
    assert [t["id"] for t in (await rig.ask("GET", "/api/sessions/c1/tasks"))[1]["data"]] == ["t1"]
    await rig.open(DEFAULT_USER, "c0")
    assert (await rig.ask("POST", "/api/tasks", task("t3", ""), user="alice"))[0] == 201, "of no conversation"
    for method in ("GET", "DELETE"):
        for user in ("", "bob"):
            assert (await rig.ask(method, "/api/tasks/t3", user=user))[0] == 404, "it stays alice's"
        assert (await rig.ask(method, "/api/tasks/t3?user_id=bob"))[0] == 404
    assert (await rig.ask("GET", "/api/tasks/t3?user_id=alice"))[0] == 200
    assert (await rig.ask("DELETE", "/api/tasks/t1", agent=OTHER))[0] == 404
    assert await rig.ask("DELETE", "/api/tasks/t1") == (204, None)
    assert (await rig.ask("GET", "/api/tasks/t1"))[0] == 404


async def test_an_agent_asks_another_for_its_own_users_only(rig: Rig) -> None:
    await rig.open("alice", "c1")
    assert (await rig.open("alice", "c5", OTHER, via=AGENT))[0] == 200
    status, said = await rig.open("bob", "c6", OTHER, via=AGENT)
    assert status == 403 and "no open session of user 'bob'" in said["message"]
    assert (await rig.open("bob", "c6", OTHER, via=HOSTED))[0] == 200


async def test_checkpoints_come_back_newest_first_with_the_writes_of_one_task(rig: Rig) -> None:
    await rig.open("alice", "c1")
    for number in range(3):
        parent = f"1ef-{number - 1:04}" if number else None
        given = checkpoint(number, parent_checkpoint_id=parent)
        status, said = await rig.ask("POST", "/api/langgraph/checkpoints", given, user=DEFAULT_USER)
        assert (status, said["data"], said["error"]) == (201, {}, False)
    again = checkpoint(2, checkpoint="Wg==", parent_checkpoint_id="1ef-0001")
    assert (await rig.ask("POST", "/api/langgraph/checkpoints", again))[0] == 201, "the same once more"
    of = {"thread_id": "c1", "checkpoint_ns": "", "checkpoint_id": "1ef-0002"}

    def write(idx: int, value: str) -> dict[str, Any]:
        return {"idx": idx, "channel": "messages", "type_": "msgpack", "value": value}

    for name, items in (("t1", [write(0, "a"), write(-3, "b")]), ("t2", [write(0, "c")])):
        body = of | {"task_id": name, "writes": items}
        assert (await rig.ask("POST", "/api/langgraph/checkpoints/writes", body, user=DEFAULT_USER))[0] == 201
    path = "/api/langgraph/checkpoints?thread_id=c1&checkpoint_ns="
    status, found = await rig.ask("GET", path + "&limit=1", user=DEFAULT_USER)
    (newest,) = found["data"]
    assert status == 200 and (newest["checkpoint"], newest["parent_checkpoint_id"]) == ("Wg==", "1ef-0001")
    assert newest["writes"]["task_id"] == "t1" and [w["value"] for w in newest["writes"]["writes"]] == ["b", "a"]
    every = (await rig.ask("GET", path + "&limit=-1"))[1]["data"]
    assert [each["checkpoint_id"] for each in every] == ["1ef-0002", "1ef-0001", "1ef-0000"]
    one = (await rig.ask("GET", path + "&checkpoint_id=1ef-0001"))[1]["data"]
    assert [each["checkpoint_id"] for each in one] == ["1ef-0001"] and one[0]["writes"]["writes"] == []
    assert (await rig.ask("GET", path + "x"))[1]["data"] == []
    assert (await rig.ask("DELETE", "/api/langgraph/checkpoints/c1"))[0] == 200
    assert (await rig.ask("GET", path))[1]["data"] == []


async def test_what_is_kept_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.open("alice", "c1")
    monkeypatch.setattr(kagent_frameworks, "KEPT", 3)
    monkeypatch.setattr(kagent_frameworks, "MEMORIES", 3)
    for number in range(5):
        assert (await rig.ask("POST", "/api/langgraph/checkpoints", checkpoint(number)))[0] == 201
        memory = {"thread_id": "c1", "user_id": "alice", "memory_data": {"task_description": "t", "score": number}}
        assert (await rig.ask("POST", "/api/crewai/memory", memory))[0] == 201
    found = (await rig.ask("GET", "/api/langgraph/checkpoints?thread_id=c1"))[1]["data"]
    assert [each["checkpoint_id"] for each in found] == ["1ef-0004", "1ef-0003", "1ef-0002"]
    kept = (await rig.ask("GET", "/api/crewai/memory?thread_id=c1&q=t&limit=0"))[1]["data"]
    assert [each["memory_data"]["score"] for each in kept] == [4, 3, 2]
    post = "/api/langgraph/checkpoints"
    monkeypatch.setattr(kagent_frameworks, "KEPT_BYTES", 500_000)
    for number in range(5, 8):
        large = checkpoint(number, checkpoint="x" * (200_000 if number < 7 else 400_000))
        assert (await rig.ask("POST", post, large))[0] == 201
    found = (await rig.ask("GET", "/api/langgraph/checkpoints?thread_id=c1"))[1]["data"]
    assert [each["checkpoint_id"] for each in found] == ["1ef-0007"], "large ones are fewer"
    monkeypatch.setattr(kagent_frameworks, "MEMORIES", 10)
    for number in range(5, 8):
        data = {"task_description": "t", "score": number, "x": "x" * (200_000 if number < 7 else 400_000)}
        assert (await rig.ask("POST", "/api/crewai/memory", {"thread_id": "c1", "memory_data": data}))[0] == 201
    kept = (await rig.ask("GET", "/api/crewai/memory?thread_id=c1&q=t&limit=0"))[1]["data"]
    assert [each["memory_data"]["score"] for each in kept] == [7], "of these, too"
    assert (await rig.ask("POST", post, checkpoint(9, checkpoint="x" * (3 * 1024 * 1024 + 1))))[0] == 413
    assert (await rig.ask("POST", post, checkpoint(9, thread_id="x" * 256)))[0] == 400
    assert (await rig.ask("POST", post, checkpoint(9, checkpoint="")))[0] == 400
    assert (await rig.ask("POST", post, checkpoint(9, version="v")))[0] == 400
    assert (await rig.ask("POST", post, checkpoint(9, version=2**40)))[0] == 400
    assert (await rig.ask("POST", post + "/writes", checkpoint(9, writes=[{}] * 1001)))[0] == 413
    assert (await rig.ask("POST", post + "/writes", checkpoint(9, writes=["x"])))[0] == 400
    assert (await rig.ask("GET", post))[0] == 400
    assert (await rig.ask("POST", "/api/crewai/memory", {"thread_id": "c1", "memory_data": ["x"]}))[0] == 400


async def test_state_and_memory_as_kagents_crewai_uses_them(rig: Rig) -> None:
    await rig.open("alice", "c1")
    await rig.open("bob", "c2")
    states = "/api/crewai/flows/state"
    assert (await rig.ask("GET", f"{states}?thread_id=c1&flow_uuid=f", user=DEFAULT_USER))[0] == 404
    for number in range(2):
        state = {"thread_id": "c1", "flow_uuid": "f", "method_name": f"m{number}", "state_data": {"n": number}}
        assert (await rig.ask("POST", states, state, user=DEFAULT_USER))[0] == 201
    found = (await rig.ask("GET", f"{states}?thread_id=c1&flow_uuid=f", user=DEFAULT_USER))[1]["data"]
    assert found == {"thread_id": "c1", "flow_uuid": "f", "method_name": "m1", "state_data": {"n": 1}}
    assert (await rig.ask("GET", f"{states}?thread_id=c2", user=DEFAULT_USER))[0] == 404
    path = "/api/crewai/memory"
    for task_, score in (("find 100%_of ships", 0.2), ("find ships", 0.9), ("cook", 0.5)):
        data = {"task_description": task_, "score": score, "metadata": {"a": 1}, "datetime": "now"}
        body = {"thread_id": "c1", "user_id": DEFAULT_USER, "memory_data": data}
        assert (await rig.ask("POST", path, body, user=DEFAULT_USER))[0] == 201
    hits = (await rig.ask("GET", f"{path}?thread_id=c1&q=FIND&limit=3"))[1]["data"]
    assert [each["memory_data"]["score"] for each in hits] == [0.9, 0.2] and hits[0]["user_id"] == "alice"
    assert len((await rig.ask("GET", f"{path}?thread_id=c1&q=0%25_of&limit=3"))[1]["data"]) == 1
    assert (await rig.ask("GET", f"{path}?thread_id=c1"))[0] == 400
    assert (await rig.ask("DELETE", f"{path}?thread_id=c1"))[0] == 200
    assert (await rig.ask("GET", f"{path}?thread_id=c1&q=find"))[1]["data"] == []
