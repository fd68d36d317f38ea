"""A whole agent whose tool waits for people, and whose model asks the user: paused, and taken up where it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from agents.conftest import answer_of, call, say, start, tools_url, user_message
from quarterdeck.wire.http import Exchange, Server

__all__ = ["start", "tools_url"]
DATA = {"approval": "kagent/delete-1", "argumentsHash": "sha256:00", "expiresAt": "2026-11-21T20:00:00Z"}
WAITS = {"code": 4001, "message": "delete needs approval", "data": DATA}


class Guarded:
    """An MCP server behind a gateway: what it answers to calls of its one tool."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.calls: list[dict[str, Any]] = []
        self.url = ""

    def handle(self, exchange: Exchange) -> None:
        request = msgspec.json.decode(exchange.body) if exchange.body else {}
        if "id" not in request:
            exchange.respond(202)
            return
        info = {"name": "g", "version": "1"}
        tool = {"name": "delete", "description": "Deletes.", "inputSchema": {"type": "object"}}
        results: dict[str, dict[str, Any]] = {
            "initialize": {"result": {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info}},
            "tools/list": {"result": {"tools": [tool]}},
        }
        if request["method"] == "tools/call":
            self.calls.append(request["params"])
            answer = self.answers.pop(0)
        else:
            answer = results[request["method"]]
        body = {"jsonrpc": "2.0", "id": request["id"], **answer}
        exchange.respond(200, msgspec.json.encode(body), [(b"content-type", b"application/json")])


DONE = {"result": {"content": [{"type": "text", "text": "deleted"}]}}


@pytest.fixture
async def guarded() -> AsyncIterator[Guarded]:
    made = Guarded()
    server = Server(made.handle)
    _, port = await server.listen("127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{port}/mcp/kagent/guarded"
    yield made
    await server.stop(0)


async def answered(agent: Any, task: Any, part: dict[str, Any]) -> Any:
    message = user_message("") | {
        "messageId": uuid4().hex,
        "taskId": task["id"],
        "contextId": task["contextId"],
        "parts": [part],
    }
    return (await agent.rpc("SendMessage", {"message": message}))["result"]["task"]


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (DONE, "deleted"),
        (
            {"error": {"code": 4003, "message": "denied by alice: not on a Friday"}},
            "Error: denied by alice: not on a Friday",
        ),
    ],
)
async def test_a_call_that_waits_pauses_the_run_and_is_made_again(
    start: Any, guarded: Guarded, last: dict[str, Any], told: str
) -> None:
    guarded.answers = [{"error": WAITS}, {"error": WAITS}, last]
    agent = await start(
        call("delete", {"path": "/x"}), say("done"), http_tools=[{"params": {"url": guarded.url, "timeout": 20}}]
    )
    task = await agent.ask("delete it")
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    text, part = task["status"]["message"]["parts"]
    assert "qd approvals show delete-1 -n kagent" in text["text"]
    assert part["data"]["args"]["toolConfirmation"]["payload"] == DATA
    assert part["data"]["args"]["originalFunctionCall"] == {"id": "c1", "name": "delete", "args": {"path": "/x"}}

    task = await answered(agent, task, {"data": {"decision_type": "approve"}})
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED", "the gateway knows of no approval yet"
    task = await answered(agent, task, {"data": {"decision_type": "approve"}})
    assert (task["status"]["state"], answer_of(task)) == ("TASK_STATE_COMPLETED", "done")
    first, *again = guarded.calls
    assert "dev.quarterdeck/approval" not in first["_meta"]
    for one in again:
        assert one["_meta"]["dev.quarterdeck/approval"] == "kagent/delete-1"
        assert one["arguments"] == first["arguments"]
        assert all(one["_meta"][f"dev.quarterdeck/{key}"] == first["_meta"][f"dev.quarterdeck/{key}"]
                   for key in ("run", "step", "idempotencyKey"))  # fmt: skip
    assert agent.model.requests[-1]["messages"][-1]["content"] == told
    assert len(agent.model.requests) == 2, "the model is not asked again for the same call"


@pytest.mark.parametrize(
    ("part", "answer"),
    [
        ({"text": "the blue one"}, "the blue one"),
        ({"data": {"decision_type": "approve", "ask_user_answers": [{"answer": ["blue"]}]}}, "blue"),
    ],
)
async def test_the_model_asks_the_user(start: Any, part: dict[str, Any], answer: str) -> None:
    questions = [{"question": "Which one?", "choices": ["blue", "red"]}]
    agent = await start(call("ask_user", {"questions": questions}), say("thanks"))
    task = await agent.ask("take one")
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert task["status"]["message"]["parts"][0]["text"] == "Which one?"
    task = await answered(agent, task, part)
    assert answer_of(task) == "thanks"
    told = msgspec.json.decode(agent.model.requests[-1]["messages"][-1]["content"])
    assert told == [{"question": "Which one?", "answer": [answer]}]
