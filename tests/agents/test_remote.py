"""Agents that other agents use as tools: whose session, what ends with what, and what a restart finds again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from quarterdeck.wire.http import Exchange, Server

from .conftest import Agent, answer_of, call, say, user_message

pytestmark = pytest.mark.timeout(150)
USER = "admin@kagent.dev"
Asked = list[dict[str, str]]


@pytest.fixture
async def served() -> AsyncIterator[Callable[[Agent, Asked], Awaitable[str]]]:
    """``await served(agent, asked)``: a URL of the agent; ``asked`` gets the headers of what it is asked."""
    servers: list[Server] = []

    async def serve(agent: Agent, asked: Asked) -> str:
        async def handle(exchange: Exchange) -> None:
            headers = {name.decode(): value.decode() for name, value in exchange.headers}
            asked.append(headers)
            sent = {name: headers[name] for name in headers if name not in ("host", "content-length", "connection")}
            response = await agent.http.request(
                exchange.method, exchange.target.decode(), content=bytes(exchange.body), headers=sent, timeout=60
            )
            if not exchange.disconnected:
                kind = response.headers.get("content-type", "application/json").encode()
                exchange.respond(response.status_code, response.content, [(b"content-type", kind)])

        server = Server(handle)
        servers.append(server)
        _, port = await server.listen("127.0.0.1", 0)
        return f"http://127.0.0.1:{port}/"

    yield serve
    for server in servers:
        await server.stop(0)


def using(url: str, **more: Any) -> dict[str, Any]:
    return {"http_tools": [], "remote_agents": [{"name": "helper", "url": url, "hosted": True} | more]}


async def tasks_of(agent: Agent, session: str) -> list[dict[str, Any]]:
    return await agent.runs._state.tasks(USER, session)  # pyright: ignore[reportPrivateUsage]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


HELP = call("helper", {"request": "help me"})


async def test_sessions_are_shared_or_each_calls_own(start: Any, served: Any) -> None:
    helper, asked = await start(say("H1"), say("H2"), say("H3"), say("H4"), plane="helper", http_tools=[]), Asked()
    url = await served(helper, asked)
    shared = await start(HELP, HELP | {"tool_calls": [HELP["tool_calls"][0] | {"id": "c2"}]}, say("A"), **using(url))
    task = await shared.ask("go")
    assert answer_of(task) == "A"
    contents = [m["content"] for m in shared.model.requests[-1]["messages"] if m["role"] == "tool"]
    assert contents == ["H1", "H2"]
    assert [m["content"] for m in helper.model.requests[1]["messages"]] == ["Be brief.", "help me", "H1", "help me"]
    assert {headers["x-user-id"] for headers in asked} == {USER}, "for whom it works"

    isolated = await start(HELP, HELP, say("B"), **using(url, isolate_sessions=True))
    await isolated.ask("go")
    assert all([m["content"] for m in r["messages"]] == ["Be brief.", "help me"] for r in helper.model.requests[2:])


async def test_parallel_calls_of_one_agent_in_one_session_are_both_answered(start: Any, served: Any) -> None:
    helper = await start(say("H1"), say("H2"), plane="helper", http_tools=[])
    beat = asyncio.create_task(helper.runs.heartbeat.run())
    both = {"role": "assistant", "tool_calls": [HELP["tool_calls"][0], HELP["tool_calls"][0] | {"id": "c2"}]}
    agent = await start(both, say("A"), **using(await served(helper, [])))
    await agent.ask("go")
    beat.cancel()
    assert sorted(m["content"] for m in agent.model.requests[-1]["messages"] if m["role"] == "tool") == ["H1", "H2"]


async def test_what_is_cancelled_ends_at_the_other_agent_too(start: Any, served: Any) -> None:
    helper = await start(say("never"), plane="helper", http_tools=[])
    helper.model.gate = asyncio.Event()
    agent = await start(HELP, say("never"), **using(await served(helper, [])))
    sent = await agent.rpc("SendMessage", {"message": user_message("go"), "configuration": {"returnImmediately": True}})
    task = sent["result"]["task"]
    await until(lambda: bool(helper.model.requests))
    canceled = await agent.rpc("CancelTask", {"id": task["id"]})
    assert canceled["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    (theirs,) = await tasks_of(helper, task["contextId"])
    assert theirs["status"]["state"] == "TASK_STATE_CANCELED"


async def test_an_agent_that_takes_longer_than_it_may_is_told_to_stop(start: Any, served: Any) -> None:
    helper = await start(say("never"), plane="helper", http_tools=[])
    helper.model.gate = asyncio.Event()
    agent = await start(HELP, say("too slow"), **using(await served(helper, []), timeout=1.0))
    task = await agent.ask("go")
    assert answer_of(task) == "too slow"
    told = agent.model.requests[1]["messages"][-1]["content"]
    assert "helper gave no answer within 1 s" in told
    (theirs,) = await tasks_of(helper, task["contextId"])
    assert theirs["status"]["state"] == "TASK_STATE_CANCELED"


async def test_a_host_that_goes_on_finds_the_task_it_began(start: Any, served: Any) -> None:
    helper = await start(say("H1"), plane="helper", http_tools=[])
    helper.model.gate = asyncio.Event()
    url = await served(helper, [])
    first = await start(HELP, **using(url))
    sent = await first.rpc("SendMessage", {"message": user_message("go"), "configuration": {"returnImmediately": True}})
    task = sent["result"]["task"]
    await until(lambda: bool(helper.model.requests))
    await first.runs.stop()
    second = await start(say("A"), **using(url))
    beat = asyncio.create_task(second.runs.heartbeat.run())
    helper.model.gate.set()
    await until(lambda: bool(second.model.requests))
    beat.cancel()
    assert second.model.requests[0]["messages"][-1]["content"] == "H1"
    assert len(helper.model.requests) == 1 and len(await tasks_of(helper, task["contextId"])) == 1, "it was asked once"


async def test_a_question_of_another_agent_ends_with_the_run_that_passes_it_on(start: Any, served: Any) -> None:
    ask = call("ask_user", {"questions": [{"question": "Which?"}]})
    helper = await start(ask, say("never"), plane="helper", http_tools=[])
    agent = await start(HELP, say("never"), **using(await served(helper, [])))
    beat = asyncio.create_task(agent.runs.heartbeat.run())
    task = await agent.ask("go")
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    helping = asyncio.create_task(helper.runs.heartbeat.run())
    canceled = await agent.rpc("CancelTask", {"id": task["id"]})
    assert canceled["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    (theirs,) = await tasks_of(helper, task["contextId"])
    assert theirs["status"]["state"] == "TASK_STATE_CANCELED"
    for each in (beat, helping):
        each.cancel()


async def test_what_another_agent_fails_with_is_an_error_with_its_reason(start: Any, served: Any) -> None:
    helper = await start(b"no completion", plane="helper", http_tools=[])
    agent = await start(HELP, say("A"), **using(await served(helper, [])))
    assert answer_of(await agent.ask("go")) == "A"
    told = agent.model.requests[1]["messages"][-1]["content"]
    assert told.startswith("Error: agent helper: ") and "not a chat completion" in told
