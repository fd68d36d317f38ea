"""A2A 1.0 and 0.3 on one endpoint, and the errors of specification 5.4."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import answer_of, say, user_message


async def test_a_client_that_names_no_version_speaks_0_3(start: Any) -> None:
    agent = await start(say("hello"))
    message = {"messageId": "m", "kind": "message", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    task = (await agent.rpc("message/send", {"message": message}, version=""))["result"]
    assert task["kind"] == "task" and task["status"]["state"] == "completed"
    assert task["artifacts"][0]["parts"] == [{"kind": "text", "text": "hello"}]
    assert task["history"][0]["role"] == "user" and task["history"][0]["parts"][0]["kind"] == "text"
    again = (await agent.rpc("tasks/get", {"id": task["id"], "historyLength": 0}, version="0.3"))["result"]
    assert again["history"] == [] and again["id"] == task["id"]


async def test_streams_of_0_3_end_with_a_final_event(start: Any) -> None:
    agent = await start(say("hello"))
    message = {"messageId": "m", "kind": "message", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    events = await agent.events("message/stream", {"message": message}, version="")
    assert events[0]["kind"] == "task"
    assert events[-1]["kind"] == "status-update" and events[-1]["final"] is True
    assert [e["final"] for e in events if e["kind"] == "status-update"].count(True) == 1


async def test_both_versions_see_the_same_task(start: Any) -> None:
    agent = await start(say("hello"))
    task = await agent.ask("hi")
    old = (await agent.rpc("tasks/get", {"id": task["id"]}, version="0.3"))["result"]
    new = (await agent.rpc("GetTask", {"id": task["id"]}))["result"]
    assert answer_of(new) == "hello" == old["artifacts"][0]["parts"][0]["text"]


BAD_MESSAGE = {"messageId": "m", "role": "ROLE_USER", "parts": []}


@pytest.mark.parametrize(
    ("method", "params", "version", "code", "words"),
    [
        ("SendMessage", {}, "1.0", -32602, "message"),
        ("SendMessage", {"message": BAD_MESSAGE}, "1.0", -32602, "parts"),
        ("SendMessage", {"message": user_message("x") | {"role": "ROLE_AGENT"}}, "1.0", -32602, "ROLE_USER"),
        ("SendMessage", {"message": user_message("x") | {"messageId": ""}}, "1.0", -32602, "messageId"),
        ("SendMessage", {"message": user_message("x") | {"parts": [{"url": "http://x"}]}}, "1.0", -32005, "at a URL"),
        ("SendMessage", {"message": user_message("x") | {"taskId": "gone"}}, "1.0", -32001, "gone"),
        ("GetTask", {"id": "gone"}, "1.0", -32001, "gone"),
        ("GetTask", {}, "1.0", -32602, "id"),
        ("GetTask", {"id": "x", "historyLength": -1}, "1.0", -32602, "historyLength"),
        ("CancelTask", {"id": "gone"}, "1.0", -32001, "gone"),
        ("SubscribeToTask", {"id": "gone"}, "1.0", -32001, "gone"),
        ("message/send", {}, "1.0", -32601, "SendMessage"),
        ("SendMessage", {}, "0.3", -32601, "message/send"),
        ("SendMessage", {}, "2.0", -32009, "2.0"),
        ("tasks/get", [], "0.3", -32602, "params"),
    ],
)
async def test_errors(start: Any, method: str, params: Any, version: str, code: int, words: str) -> None:
    agent = await start(say("x"))
    error = (await agent.rpc(method, params, version=version))["error"]
    assert error["code"] == code
    assert words in error["message"]


async def test_a_body_that_is_no_request(start: Any) -> None:
    agent = await start(say("x"))
    assert (await agent.http.post("/", content=b"{")).json()["error"]["code"] == -32700
    assert (await agent.http.post("/", content=b"[]")).json()["error"]["code"] == -32600
    assert (await agent.http.post("/", content=b"x" * 5_000_000)).status_code == 413


async def test_a_finished_task_takes_no_more_messages(start: Any) -> None:
    agent = await start(say("x"))
    task = await agent.ask("hi")
    error = (await agent.rpc("SendMessage", {"message": user_message("more") | {"taskId": task["id"]}}))["error"]
    assert error["code"] == -32004 and "finished" in error["message"]


@pytest.mark.parametrize("path", ["/.well-known/agent-card.json", "/.well-known/agent.json"])
async def test_the_card_serves_both_versions_and_is_cacheable(start: Any, path: str) -> None:
    agent = await start(say("x"))
    response = await agent.http.get(path)
    card = response.json()
    assert card["protocolVersion"] == "0.3.0" and card["preferredTransport"] == "JSONRPC"
    assert {i["protocolVersion"] for i in card["supportedInterfaces"]} == {"1.0", "0.3"}
    assert "max-age" in response.headers["cache-control"]
    cached = await agent.http.get(path, headers={"if-none-match": response.headers["etag"]})
    assert cached.status_code == 304


async def test_health(start: Any) -> None:
    agent = await start(say("x"))
    assert (await agent.http.get("/health")).status_code == 200
    assert (await agent.http.get("/ready")).status_code == 200
