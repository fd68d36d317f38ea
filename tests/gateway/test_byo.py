"""Agents of others' images at the gateway: the verified user, a conversation opened for them, versions translated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck import snapshot as s
from quarterdeck.a2atypes import operations
from quarterdeck.a2atypes.errors import A2AError
from quarterdeck.errors import Denied, UpstreamError
from quarterdeck.gateway.a2a.byo import DEFAULT_USER, named
from quarterdeck.gateway.a2a.translated import Up, down
from quarterdeck.gateway.call import Call
from quarterdeck.snapshot.revocations import Revocation
from quarterdeck.wire.http import Exchange, Server

from .conftest import Rig, snapshot, token

OLD_CARD = {"name": "old", "url": "http://old:8080/", "protocolVersion": "0.3.0", "preferredTransport": "JSONRPC"}
NEW_CARD = {
    "name": "new",
    "supportedInterfaces": [{"url": "http://x", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
}
TASK: dict[str, Any] = {
    "kind": "task", "id": "t1", "contextId": "c1", "metadata": None,
    "status": {"state": "completed", "timestamp": "2026-01-01T00:00:00Z"},
    "artifacts": [{"artifactId": "a", "parts": [{"kind": "text", "text": "done"}]}],
    "history": [{"kind": "message", "role": "user", "messageId": "m", "parts": [{"kind": "text", "text": "hi"}]}],
}  # fmt: skip


class Image:
    """An agent of A2A 0.3, or of 1.0."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []
        self.card: Any = OLD_CARD
        self.answer = b""
        self.port = 0

    def handle(self, exchange: Exchange) -> Any:
        if exchange.method == "GET" and exchange.path.endswith(".json"):
            exchange.respond(200, msgspec.json.encode(self.card), [(b"content-type", b"application/json")])
            return None
        self.seen.append(exchange)
        if b"stream" in exchange.body.lower():
            return self.stream(exchange)
        if self.answer:
            exchange.respond(200, self.answer, [(b"content-type", b"text/html")])
            return None
        body = {"jsonrpc": "2.0", "id": 1, "result": TASK}
        exchange.respond(200, msgspec.json.encode(body), [(b"content-type", b"application/json")])
        return None

    async def stream(self, exchange: Exchange) -> None:
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        message = {"kind": "message", "role": "agent", "messageId": "n", "parts": [{"kind": "text", "text": "…"}]}
        status = {"state": "working", "message": message}
        update = {"kind": "status-update", "taskId": "t1", "contextId": "c1", "status": status, "final": False}
        chunk = {"kind": "artifact-update", "taskId": "t1", "contextId": "c1", "artifact": TASK["artifacts"][0]}
        for result in (TASK, update, chunk):
            line = b"data: " + msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "result": result}) + b"\r\n\r\n"
            await exchange.send(line[:20])
            await exchange.send(line[20:])
        exchange.finish()

    def header(self, name: bytes) -> bytes | None:
        return self.seen[-1].header(name)

    def said(self) -> dict[str, Any]:
        return msgspec.json.decode(self.seen[-1].body)


class Plane:
    """The control plane's ``conversations``: records what is asked, and answers as told."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: dict[str, Any] | Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def ask(self, path: str, body: bytes) -> bytes:
        assert path == "conversations"
        self.asked.append(msgspec.json.decode(body))
        await self.go_on.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return msgspec.json.encode(self.answer or {"session": self.asked[-1]["session"] or "c1"})


@pytest.fixture
async def image() -> AsyncIterator[Image]:
    image = Image()
    server = Server(image.handle)
    _, image.port = await server.listen("127.0.0.1", 0)
    yield image
    await server.stop(0.1)


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
async def byo(bare: Rig, image: Image, plane: Plane) -> Rig:
    endpoint = s.Endpoint("127.0.0.1", image.port)
    policies = (s.AgentPolicy("kagent", "a", agents=("kagent/b",), hosted=True), s.AgentPolicy("kagent", "b"))
    bare.gateway.use(snapshot(1, agents=(s.Agent("kagent", "b", (endpoint,), byo=True),), policies=policies))
    bare.gateway.approvals.ask = plane.ask
    return bare


def message(**more: Any) -> dict[str, Any]:
    return {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hi"}], **more}}


NEW = {"headers": {"a2a-version": "1.0"}}


async def test_the_user_is_the_verified_one_and_the_message_gets_its_conversation(
    byo: Rig, image: Image, plane: Plane
) -> None:
    old = {"message": {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "x"}]}}
    forged = {"headers": {"x-user-id": "mallory"}, "listener": "local"}
    assert (await byo.rpc("/a2a/kagent/b", "message/send", old, **forged))["result"] == TASK
    assert plane.asked == [
        {"agent": "kagent/b", "user": DEFAULT_USER, "via": "", "session": "", "tasks": [], "reads": False}
    ]
    assert [v for k, v in image.seen[-1].headers if k == b"x-user-id"] == [DEFAULT_USER.encode()]
    assert image.said()["params"]["message"]["contextId"] == "c1"
    old["message"]["contextId"] = "mine"
    await byo.rpc("/a2a/kagent/b", "message/send", old, bearer=token("pod-a"), headers={"x-user-id": "alice"})
    assert plane.asked[-1]["user"] == "alice" and plane.asked[-1]["via"] == "kagent/a"
    assert plane.asked[-1]["session"] == "mine" == image.said()["params"]["message"]["contextId"]
    assert image.header(b"x-user-id") == b"alice"


async def test_what_the_control_plane_refuses_does_not_reach_the_image(byo: Rig, image: Image, plane: Plane) -> None:
    plane.answer = {"missing": "session 'c9' of agent kagent/b does not exist"}
    found = await byo.rpc("/a2a/kagent/b", "message/send", message(contextId="c9"), listener="local")
    assert found["error"]["code"] == -32001 and "does not exist" in found["error"]["message"]
    plane.answer = Denied("agent kagent/a has no open session of user 'bob'")
    found = await byo.rpc("/a2a/kagent/b", "message/send", message(), bearer=token("pod-a"))
    assert found["error"]["code"] == 4003
    assert byo.records()[-1]["outcome"] == "denied"
    plane.answer = UpstreamError("no control plane")
    assert "error" in await byo.rpc("/a2a/kagent/b", "tasks/get", {"id": "t1"}, listener="local")
    assert plane.asked[-1] | {"user": ""} == {
        "agent": "kagent/b", "user": "", "via": "", "session": "", "tasks": ["t1"], "reads": True
    }  # fmt: skip
    byo.gateway.approvals.ask = None
    assert "error" in await byo.rpc("/a2a/kagent/b", "message/send", message(), listener="local")
    listed = await byo.rpc("/a2a/kagent/b", "ListTasks", {}, listener="local", **NEW)
    assert "contextId" in listed["error"]["message"]
    assert image.seen == []


async def test_what_breaks_on_the_way_is_answered(byo: Rig, image: Image, plane: Plane) -> None:
    plane.answer = {"session": 5}
    answer = await byo.request("/a2a/kagent/b", {"method": "message/send", "params": message()}, listener="local")
    assert answer.status == 500
    record = byo.records()[-1]
    assert (record["outcome"], record["status"]) == ("error", 500) and "ValidationError" in record["detail"]
    assert image.seen == []
    assert not byo.gateway.upstreams.held


async def test_who_is_revoked_while_the_control_plane_is_asked_gets_no_further(
    byo: Rig, image: Image, plane: Plane
) -> None:
    plane.go_on.clear()
    asked = asyncio.create_task(byo.request("/a2a/kagent/b", {"params": message()}, bearer=token("pod-a")))
    while not plane.asked:
        await asyncio.sleep(0)
    byo.gateway.revocations.use((Revocation("r1", "agent", "kagent/a"),))
    assert (await asked).status == 403
    plane.go_on.set()
    record = byo.records()[-1]
    assert (record["outcome"], record["status"]) == ("denied", 403) and record["rule"]
    assert image.seen == [] and not byo.gateway.upstreams.held


async def test_an_agent_of_0_3_is_spoken_to_in_1_0(byo: Rig, image: Image) -> None:
    params = message() | {"configuration": {"returnImmediately": True, "historyLength": 3}}
    found = (await byo.rpc("/a2a/kagent/b", "SendMessage", params, listener="local", **NEW))["result"]["task"]
    sent = image.said()
    assert sent["method"] == "message/send" and sent["params"]["configuration"] == {
        "blocking": False,
        "historyLength": 3,
    }
    assert sent["params"]["message"]["role"] == "user" and sent["params"]["message"]["contextId"] == "c1"
    assert sent["params"]["message"]["parts"] == [{"kind": "text", "text": "hi"}]
    assert found["status"]["state"] == "TASK_STATE_COMPLETED" and "kind" not in found and "metadata" not in found
    assert found["artifacts"][0]["parts"] == [{"text": "done"}]
    assert found["history"][0]["role"] == "ROLE_USER"
    got = (await byo.rpc("/a2a/kagent/b", "GetTask", {"id": "t1"}, listener="local", **NEW))["result"]
    assert image.said()["method"] == "tasks/get" and got["id"] == "t1"
    answer = await byo.request(
        "/a2a/kagent/b", {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": message()},
        listener="local", headers=NEW["headers"],
    )  # fmt: skip
    lines = [line[6:] for line in (await answer.read()).splitlines() if line.startswith(b"data: ")]
    first, second, third = (msgspec.json.decode(line)["result"] for line in lines)
    assert image.said()["method"] == "message/stream" and first["task"]["id"] == "t1"
    assert second["statusUpdate"]["status"]["state"] == "TASK_STATE_WORKING"
    assert second["statusUpdate"]["status"]["message"]["role"] == "ROLE_AGENT"
    assert third["artifactUpdate"]["artifact"]["parts"] == [{"text": "done"}]
    odd = await byo.rpc("/a2a/kagent/b", "SendMessage", {"message": {"parts": 1}}, listener="local", **NEW)
    assert odd["error"]["code"] == -32602


async def test_an_answer_that_is_none_is_an_error_of_the_requests(byo: Rig, image: Image) -> None:
    image.answer = b"<html>busy</html>"
    body = {"jsonrpc": "2.0", "id": "r7", "method": "GetTask", "params": {"id": "t1"}}
    answer = await byo.request("/a2a/kagent/b", body, listener="local", headers=NEW["headers"])
    assert answer.header(b"content-type") == b"application/json"
    found = msgspec.json.decode(await answer.read())
    assert (found["id"], found["error"]["message"]) == ("r7", "the agent's answer is not one of A2A 0.3")


async def test_an_agent_of_1_0_is_left_alone(byo: Rig, image: Image) -> None:
    image.card = NEW_CARD
    await byo.rpc("/a2a/kagent/b", "SendMessage", message(), listener="local", **NEW)
    assert image.said()["method"] == "SendMessage" and image.said()["params"]["message"]["contextId"] == "c1"


async def test_its_card_needs_no_control_plane(byo: Rig, plane: Plane) -> None:
    answers = await asyncio.gather(
        *(byo.request("/a2a/kagent/b/.well-known/agent-card.json", method="GET", listener="local") for _ in range(2))
    )
    for answer in answers:
        card = msgspec.json.decode(await answer.read())
        assert answer.status == 200 and card["url"].endswith("/a2a/kagent/b")
        (interface,) = card["supportedInterfaces"]
        assert (interface["url"], interface["protocolVersion"]) == (card["url"], "1.0")
    assert plane.asked == []


RPC = b'{"jsonrpc":"2.0","id":"t9","method":"m","params":%b}'
BARE_RPC = b'{"id":"t9","method":"message/send","params":%b}'


@pytest.mark.parametrize(
    ("body", "target", "session", "tasks", "sends"),
    [
        (RPC % b'{"message":{"contextId":"c","taskId":"t"}}', "/", "c", ("t",), True),
        (BARE_RPC % b'{"message":{"contextId":"c"}}', "/", "c", (), True),
        (RPC % b'{"message":{"context_id":"c","task_id":"t"}}', "/", "c", ("t",), True),
        (RPC % b'{"message":{"contextId":"a","contextId":"c"}}', "/", "c", (), True),
        (b'{"request":{"contextId":"c"}}', "/v1/message:send", "c", (), True),
        (b'{"message":{"taskId":"t"}}', "/message:send", "", ("t",), True),
        (RPC % b'{"id":"t"}', "/", "", ("t",), False),
        (RPC % b'{"taskId":"t","id":"config"}', "/", "", ("t", "config"), False),
        (b"", "/v1/tasks/t%2D1:cancel", "", ("t-1",), False),
        (b"", "/tasks?contextId=c", "c", (), False),
        (b"", "/tasks?context_id=c", "c", (), False),
        (RPC % b"[1]", "/", "", (), False),
        (b"", "/v1/t%61sks/t:cancel", "", ("t",), False),
        (b"", "/tasks/t?taskId=u&taskId=v", "", ("u", "v", "t"), False),
        (
            RPC % b'{"message":{"referenceTaskIds":["t","u"],"reference_task_ids":["v"]}}',
            "/",
            "",
            ("t", "u", "v"),
            True,
        ),
    ],
)
def test_what_a_request_names(body: bytes, target: str, session: str, tasks: tuple[str, ...], sends: bool) -> None:
    found = named(body, target)
    assert (found.session, found.tasks, bool(found.messages)) == (session, tasks, sends)


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"[]",
        '{"params":{"message":{"contextId":"victim"}}}'.encode("utf-16"),
        b'{"x":NaN,"params":{"message":{"contextId":"victim"}}}',
        b'{"message":{"contextId":5}}',
        b'{"params":{"taskId":["t"]}}',
        b'{"params":{"message":{"contextId":"mine","context_id":"victim"}}}',
        b'{"message":{"contextId":"mine"},"params":{"message":{"contextId":"victim"}}}',
        b'{"params":{"message":{"referenceTaskIds":"t"}}}',
    ],
)
async def test_what_an_image_might_read_otherwise_does_not_reach_it(
    byo: Rig, image: Image, plane: Plane, body: bytes
) -> None:
    answer = await byo.request("/a2a/kagent/b", body, listener="local")
    assert b'"error"' in await answer.read() and answer.status in (200, 400)
    assert image.seen == plane.asked == []


LISTS = b'{"jsonrpc":"2.0","id":1,"method":"ListTasks","params":%b}'


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", LISTS % b"{}"),
        ("POST", "/rpc", LISTS % b"{}"),
        ("POST", "/rpc", LISTS.replace(b"ListTasks", b"tasks/list") % b'{"contextId":""}'),
        ("POST", "/rpc?contextId=mine", LISTS % b"{}"),
        ("POST", "", LISTS % b'{"message":{"contextId":"mine"}}'),
        ("GET", "/tasks", None),
        ("GET", "/v1/t%61sks/?pageSize=9", None),
    ],
)
async def test_a_list_of_everybodys_tasks_is_asked_of_no_image(
    byo: Rig, image: Image, plane: Plane, method: str, path: str, body: bytes | None
) -> None:
    """Wherever the image has its endpoint, and however the request is dressed up."""
    answer = await byo.request(f"/a2a/kagent/b{path}", body, method=method, listener="local")
    assert b"name the contextId" in await answer.read()
    assert image.seen == plane.asked == []
    assert byo.records()[-1]["outcome"] == "denied"


async def test_every_message_of_a_request_gets_the_one_conversation(byo: Rig, image: Image) -> None:
    body = b'{"message":{"messageId":"m","context_id":"c1"},"params":{"message":{"messageId":"n"}},"method":"x"}'
    await byo.request("/a2a/kagent/b/", body, listener="local")
    sent = image.said()
    assert sent["message"] == {"messageId": "m", "contextId": "c1"}
    assert sent["params"]["message"] == {"messageId": "n", "contextId": "c1"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "task", "message", "status-update", "user"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["kind", "parts", "status", "message", "artifact", "artifacts", "history", "state", "role", "x",
                         "configuration", "text", "data", "file", "pushNotificationConfig"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(operation=st.sampled_from(operations.OPERATIONS), value=JSON)
def test_translation_survives_whatever_the_other_side_says(operation: str, value: Any) -> None:
    for up in (Up(operation, stream=False), Up(operation, stream=True)):
        line = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "result": value})
        found = up.feed(line) + up.end() if up.whole else up.feed(b"data: " + line + b"\n\n")
        msgspec.json.decode(found.removeprefix(b"data: "))
    exchange = SimpleNamespace(body=msgspec.json.encode({"jsonrpc": "2.0", "method": operation, "params": value}))
    try:
        down(cast(Call, SimpleNamespace(exchange=exchange)))
    except A2AError:
        return
    msgspec.json.decode(exchange.body)
