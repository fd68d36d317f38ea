"""Turns: the loop of model and tools, and everything a model or a tool can do wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from quarterdeck.wire.http import Exchange, Server

from .conftest import answer_of, call, say, user_message


async def test_a_tool_is_called_and_its_result_answered_from(start: Any) -> None:
    agent = await start(call("count", {"steps": 2}), say("done"))
    task = await agent.ask("count to two")
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert answer_of(task) == "done"
    asked = agent.model.requests[1]["messages"]
    assert [m["role"] for m in asked] == ["system", "user", "assistant", "tool"]
    assert asked[-1]["content"] == "counted to 2"
    assert task["metadata"]["usage"] == {"prompt_tokens": 6, "completion_tokens": 4}
    kinds = [part["metadata"]["kagent_type"] for m in task["history"][1:] for part in m["parts"]]
    assert kinds == ["function_call", "function_response"]


async def test_the_log_tells_of_tasks_but_not_of_what_was_said(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "quarterdeck.agents")
    agent = await start(call("count", {"steps": 2}), say("a private answer"))
    task = await agent.ask("a private question")
    assert f"task {task['id']} of context {task['contextId']}: completed, tools called: count" in caplog.text
    assert "private" not in caplog.text


async def test_only_granted_tools_are_offered(start: Any, tools_url: str) -> None:
    agent = await start(say("hi"), http_tools=[{"params": {"url": tools_url}, "tools": ["pid", "env"]}])
    await agent.ask("hello")
    assert {t["function"]["name"] for t in agent.model.requests[0]["tools"]} == {"pid", "env", "ask_user"}


async def test_the_conversation_goes_on(start: Any) -> None:
    agent = await start(say("one"), say("two"))
    first = await agent.ask("first")
    await agent.ask("second", contextId=first["contextId"])
    assert [m["content"] for m in agent.model.requests[1]["messages"]] == ["Be brief.", "first", "one", "second"]
    fresh = await agent.ask("third")
    assert fresh["contextId"] != first["contextId"]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (call("no_such_tool"), "there is no tool 'no_such_tool'"),
        (call("count", "{not json"), "not valid JSON"),
        (call("count", "[1]"), "must be a JSON object"),
        (call("count", {"steps": "many"}), "Error"),
    ],
)
async def test_a_call_that_cannot_be_carried_out_is_told_to_the_model(start: Any, broken: Any, told: str) -> None:
    agent = await start(broken, say("sorry"))
    task = await agent.ask("go")
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert told in agent.model.requests[1]["messages"][-1]["content"]


async def test_a_model_that_never_stops_is_ended_with_an_answer(start: Any) -> None:
    agent = await start(*(call("count", {"steps": n}) for n in range(4)), max_steps=4)
    task = await agent.ask("loop")
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert "4 steps" in answer_of(task)
    assert len(agent.model.requests) == 4
    assert "tools" not in agent.model.requests[-1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (500, "told to fail"),
        (401, "told to fail"),
        (b"<html>", "not a chat completion"),
        (b'{"choices":[]}', "not a chat completion"),
    ],
)
async def test_a_model_that_fails_fails_the_task_with_its_words(start: Any, answer: Any, words: str) -> None:
    agent = await start(answer)
    task = await agent.ask("go")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert words in task["status"]["message"]["parts"][0]["text"]


async def test_a_turn_that_takes_too_long_fails(start: Any) -> None:
    agent = await start(call("hang"), turn_timeout=0.5)
    task = await agent.ask("go")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert "0.5 s" in task["status"]["message"]["parts"][0]["text"]


async def test_a_server_that_is_down_costs_its_tools_only(start: Any, tools_url: str) -> None:
    down = {"params": {"url": "http://127.0.0.1:9/mcp", "timeout": 2}}
    agent = await start(say("ok"), http_tools=[down, {"params": {"url": tools_url}}])
    task = await agent.ask("go")
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert "pid" in {t["function"]["name"] for t in agent.model.requests[0]["tools"]}
    assert "http://127.0.0.1:9/mcp" in task["metadata"]["unavailable"]
    told = agent.model.requests[0]["messages"][0]
    assert told["role"] == "system"
    assert "The tools of server http://127.0.0.1:9/mcp are not available now: " in told["content"]
    assert tools_url not in told["content"], "the one that answers is not named"


async def test_a_server_that_hangs_is_waited_for_once_by_all(start: Any) -> None:
    asked, gate = list[Exchange](), asyncio.Event()

    async def hang(exchange: Exchange) -> None:
        asked.append(exchange)
        await gate.wait()
        exchange.respond(503)

    server = Server(hang)
    _, port = await server.listen("127.0.0.1", 0)
    agent = await start(say("ok"), http_tools=[{"params": {"url": f"http://127.0.0.1:{port}/mcp"}}])
    turns = [asyncio.create_task(agent.ask("go", messageId=f"m{n}", contextId=f"c{n}")) for n in range(4)]
    async with asyncio.timeout(60):
        while not asked or len(agent.runs._active) < 4:
            await asyncio.sleep(0.01)
        while len(agent.toolbox._servers[0]._lock._waiters or ()) < 3:
            await asyncio.sleep(0.01)
        gate.set()
        assert [answer_of(task) for task in await asyncio.gather(*turns)] == ["ok"] * 4
    assert len(asked) == 1
    await server.stop(0)


async def test_two_servers_with_the_same_tools_get_names_of_their_own(start: Any, tools_url: str) -> None:
    entry = {"params": {"url": tools_url}, "tools": ["pid"]}
    agent = await start(say("ok"), http_tools=[entry, entry])
    await agent.ask("go")
    assert [t["function"]["name"] for t in agent.model.requests[0]["tools"]] == ["pid", "mcp_pid", "ask_user"]


async def test_calls_of_one_answer_run_side_by_side_and_keep_their_order(start: Any) -> None:
    both = {
        "role": "assistant",
        "tool_calls": [*call("count", {"steps": 1}, "a")["tool_calls"], *call("pid", {}, "b")["tool_calls"]],
    }
    agent = await start(both, say("ok"))
    await agent.ask("go")
    assert [m.get("tool_call_id") for m in agent.model.requests[1]["messages"][-2:]] == ["a", "b"]


async def test_streaming_gives_the_text_as_it_comes(start: Any) -> None:
    agent = await start(call("count", {"steps": 1}), say("a b c"), stream=True)
    events = await agent.events("SendStreamingMessage", {"message": user_message("go")})
    assert "task" in events[0]
    partial = [
        part["text"]
        for e in events
        if "statusUpdate" in e
        for part in e["statusUpdate"]["status"].get("message", {}).get("parts", [])
        if "text" in part
    ]
    assert partial == ["a ", "b ", "c "]
    assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert json.loads(agent.model.requests[1]["messages"][2]["tool_calls"][0]["function"]["arguments"]) == {"steps": 1}


async def test_cancelling_ends_the_tool_call(start: Any) -> None:
    agent = await start(call("hang"), say("never"))
    sent = await agent.rpc("SendMessage", {"message": user_message("go"), "configuration": {"returnImmediately": True}})
    task_id = sent["result"]["task"]["id"]
    async with asyncio.timeout(30):
        while len((await agent.rpc("GetTask", {"id": task_id}))["result"]["history"]) < 2:
            await asyncio.sleep(0.02)
    canceled = await agent.rpc("CancelTask", {"id": task_id})
    assert canceled["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    assert (await agent.rpc("GetTask", {"id": task_id}))["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    again = await agent.rpc("CancelTask", {"id": task_id})
    assert again["error"]["code"] == -32002


async def test_a_call_whose_result_was_lost_is_repaired_in_the_next_turn(start: Any) -> None:
    agent = await start(call("hang"), say("on we go"))
    sent = await agent.rpc("SendMessage", {"message": user_message("go"), "configuration": {"returnImmediately": True}})
    task = sent["result"]["task"]
    async with asyncio.timeout(30):
        while len((await agent.rpc("GetTask", {"id": task["id"]}))["result"]["history"]) < 2:
            await asyncio.sleep(0.02)
    await agent.rpc("CancelTask", {"id": task["id"]})
    agent.model.answers = [say("fine")]
    await agent.ask("and now?", contextId=task["contextId"])
    messages = agent.model.requests[-1]["messages"]
    lost = next(m for m in messages if m["role"] == "tool")
    assert "not known" in lost["content"]
