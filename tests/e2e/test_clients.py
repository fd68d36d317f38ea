"""Real clients: the official MCP SDK and the a2a-sdk, against servers from this repository, PyPI and npm."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types.a2a_pb2 import (
    AgentCard,
    AgentInterface,
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    Task,
    TaskState,
)
from google.protobuf.json_format import MessageToDict
from mcp import MCPError

from support.platform import Platform, eventually

AGENT = "/a2a/kagent/datetime-agent"
SLOW_AGENT = "/a2a/kagent/slow-agent"


def server(name: str, cmd: str, *args: str) -> dict[str, Any]:
    return {
        "apiVersion": "kagent.dev/v1alpha1",
        "kind": "MCPServer",
        "metadata": {"name": name, "namespace": "kagent"},
        "spec": {"transportType": "stdio", "deployment": {"port": 3000, "cmd": cmd, "args": list(args)}},
    }


def agent(name: str, tools: dict[str, list[str]], system: str = "You are helpful.") -> dict[str, Any]:
    references = [
        {"type": "McpServer", "mcpServer": {"apiGroup": "kagent.dev", "kind": "MCPServer", "name": s, "toolNames": t}}
        for s, t in tools.items()
    ]
    return {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "Agent",
        "metadata": {"name": name, "namespace": "kagent"},
        "spec": {"type": "Declarative", "description": name, "declarative": {
            "systemMessage": system, "modelConfig": "default-model-config", "tools": references}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def published(seed: Platform) -> Iterator[Platform]:
    """Servers from PyPI and npm, and an agent with a tool that takes long."""
    seed.apply(
        server("time", "uvx", "mcp-server-time", "--local-timezone", "UTC"),
        server("everything", "npx", "-y", "@modelcontextprotocol/server-everything"),
        agent("slow-agent", {"everything": ["trigger-long-running-operation"]}),
    )
    for target in ("mcpserver/time", "mcpserver/everything", "agent/slow-agent"):
        seed.wait(target, seconds=90)
    eventually(
        lambda: seed.condition("agent", "slow-agent", "ResolvedRefs").get("status") == "True", "its tools are found"
    )
    yield seed
    seed.kubectl("delete", "-n", "kagent", "agent/slow-agent", "mcpserver/time", "mcpserver/everything")


# -- MCP


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/kagent/datetime-agent-mcp"])
async def test_the_mcp_sdk_lists_and_calls(seed: Platform, path: str, mode: Any) -> None:
    prefix = "datetime-agent-mcp_" if path == "/mcp" else ""
    async with seed.mcp(path, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {f"{prefix}get_date", f"{prefix}get_time", f"{prefix}get_datetime"} <= set(tools)
        assert tools[f"{prefix}get_time"].description.startswith("Get the current time")
        result = await client.call_tool(f"{prefix}get_time", {})
        assert not result.is_error and re.fullmatch(r"\d\d:\d\d:\d\d", result.content[0].text)
        again = await client.call_tool(f"{prefix}get_datetime", {})
        assert re.match(r"\d{4}-\d\d-\d\dT", again.content[0].text)


async def test_the_mcp_sdk_gets_an_error_for_what_is_not_there(seed: Platform) -> None:
    async with seed.mcp("/mcp/kagent/datetime-agent-mcp") as client:
        try:
            result = await client.call_tool("no_such_tool", {})
        except MCPError as error:
            assert "no_such_tool" in str(error)
        else:
            assert result.is_error and "no_such_tool" in result.content[0].text
    async with seed.http() as http:
        answer = await http.post(seed.gateway + "/mcp/kagent/nobody", json={})
        assert answer.status_code == 404 and "nobody" in answer.text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_server_from_pypi(published: Platform, mode: Any) -> None:
    async with published.mcp("/mcp/kagent/time", mode) as client:
        assert {t.name for t in (await client.list_tools()).tools} == {"get_current_time", "convert_time"}
        result = await client.call_tool("get_current_time", {"timezone": "Asia/Tokyo"})
        assert json.loads(result.content[0].text)["timezone"] == "Asia/Tokyo"
        wrong = await client.call_tool("get_current_time", {"timezone": "Mars/Base"})
        assert wrong.is_error


async def test_a_server_from_npm(published: Platform) -> None:
    progress: list[float] = []

    async def seen(value: float, total: float | None, message: str | None) -> None:
        del total, message
        progress.append(value)

    async with published.mcp("/mcp/kagent/everything", "legacy") as client:
        names = {t.name for t in (await client.list_tools()).tools}
        assert {"echo", "get-sum", "trigger-long-running-operation"} <= names
        result = await client.call_tool("get-sum", {"a": 2, "b": 40})
        assert "42" in result.content[0].text
        slow = {"duration": 1, "steps": 3}
        await client.call_tool("trigger-long-running-operation", slow, progress_callback=seen)
        assert progress and progress == sorted(progress)
        assert (await client.list_resources()).resources and (await client.list_prompts()).prompts
    async with published.mcp("/mcp") as client:
        names = {t.name for t in (await client.list_tools()).tools}
        assert {"everything_echo", "time_get_current_time", "datetime-agent-mcp_get_time"} <= names
        result = await client.call_tool("everything_echo", {"message": "over the bridge"})
        assert "over the bridge" in result.content[0].text


async def test_many_clients_at_once(seed: Platform) -> None:
    async def one(number: int) -> str:
        mode: Any = "legacy" if number % 2 else "auto"
        async with seed.mcp("/mcp/kagent/datetime-agent-mcp", mode) as client:
            return (await client.call_tool("get_date", {})).content[0].text

    assert len(set(await asyncio.gather(*(one(n) for n in range(6))))) <= 2


# -- A2A


@asynccontextmanager
async def a2a(platform: Platform, path: str, version: str, *, streaming: bool = True) -> AsyncIterator[Any]:
    """An a2a-sdk client, speaking a version, by the card the gateway serves."""
    async with platform.http() as http:
        card = await A2ACardResolver(http, platform.gateway + path).get_agent_card()
        if version == "0.3":
            interface = AgentInterface(
                url=card.supported_interfaces[0].url, protocol_binding="JSONRPC", protocol_version="0.3"
            )
            only = AgentCard()
            only.CopyFrom(card)
            del only.supported_interfaces[:]
            only.supported_interfaces.append(interface)
            card = only
        async with ClientFactory(ClientConfig(streaming=streaming, httpx_client=http)).create(card) as client:
            yield client


def message(text: str, context: str = "") -> SendMessageRequest:
    return SendMessageRequest(
        message=Message(message_id=str(uuid.uuid4()), role=Role.ROLE_USER, parts=[Part(text=text)], context_id=context)
    )


async def ask(client: Any, text: str, context: str = "") -> tuple[Task, list[Any]]:
    """(the task as it ended, every event)"""
    events = [event async for event in client.send_message(message(text, context))]
    for event in events:
        if event.HasField("task"):
            return await client.get_task(GetTaskRequest(id=event.task.id)), events
    raise AssertionError(f"no task in {events}")


def answer(task: Task) -> str:
    return "".join(part.text for artifact in task.artifacts for part in artifact.parts)


def called(task: Task) -> list[str]:
    """Names of the tools a task called, from its history."""
    parts = [MessageToDict(part) for m in task.history for part in m.parts]
    return [p["data"]["name"] for p in parts if p.get("metadata", {}).get("kagent_type") == "function_call"]


@pytest.mark.parametrize("streaming", [True, False], ids=["stream", "send"])
@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_the_agent_answers_by_calling_a_tool(seed: Platform, version: str, streaming: bool) -> None:
    async with a2a(seed, AGENT, version, streaming=streaming) as client:
        task, events = await ask(client, "What time is it?")
        assert task.status.state == TaskState.TASK_STATE_COMPLETED, task
        assert re.search(r"\d\d:\d\d:\d\d", answer(task)), task
        assert called(task) == ["get_time"]
        if streaming:
            states = [e.status_update.status.state for e in events if e.HasField("status_update")]
            assert TaskState.TASK_STATE_WORKING in states and states[-1] == TaskState.TASK_STATE_COMPLETED
            assert any(e.HasField("artifact_update") for e in events)
        else:
            assert len(events) == 1 and answer(events[0].task) == answer(task)


async def test_the_card_names_the_gateway(seed: Platform) -> None:
    async with seed.http() as http:
        for name in ("agent-card.json", "agent.json"):
            card = (await http.get(f"{seed.gateway}{AGENT}/.well-known/{name}")).json()
            assert card["name"].replace("_", "-") == "datetime-agent"
            urls = [i["url"] for i in card.get("supportedInterfaces", [])] + [card["url"]] * ("url" in card)
            assert urls and all(url.startswith(seed.gateway + AGENT) for url in urls), urls


async def test_a_conversation_outlives_the_agents_pod(seed: Platform) -> None:
    async with a2a(seed, AGENT, "1.0") as client:
        first, _ = await ask(client, "What time is it?")
        before = seed.pod("kagent=datetime-agent")["metadata"]["name"]
        seed.kubectl("delete", "pod", before, "-n", "kagent", "--grace-period=1", "--wait=false")
        eventually(lambda: seed.pod("kagent=datetime-agent")["metadata"]["name"] != before, "a new Pod runs")
        seed.kubectl("rollout", "status", "deploy/datetime-agent", "-n", "kagent", "--timeout=60s")
        seed.wait("agent/datetime-agent")
        kept = await client.get_task(GetTaskRequest(id=first.id))
        assert MessageToDict(kept) == MessageToDict(first)
        second, _ = await ask(client, "And what is the date?", first.context_id)
        assert second.context_id == first.context_id and second.id != first.id
        assert re.search(r"\d{4}-\d\d-\d\d", answer(second)), second


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_a_task_is_cancelled(published: Platform, version: str) -> None:
    async with a2a(published, SLOW_AGENT, version) as client:
        question = message("Trigger a long running operation with a duration of 120 seconds and 5 steps")
        task_id, states = "", []
        async for event in client.send_message(question):
            if event.HasField("task"):
                task_id = event.task.id
            if event.HasField("status_update"):
                states.append(event.status_update.status.state)
                parts = [MessageToDict(p) for p in event.status_update.status.message.parts]
                if any(p.get("metadata", {}).get("kagent_type") == "function_call" for p in parts):
                    cancelled = await client.cancel_task(CancelTaskRequest(id=task_id))
                    assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
        assert states[-1] == TaskState.TASK_STATE_CANCELED
        task = await client.get_task(GetTaskRequest(id=task_id))
        assert task.status.state == TaskState.TASK_STATE_CANCELED
        with pytest.raises(Exception, match=r"cannot be canceled|not cancelable|TaskNotCancelable"):
            await client.cancel_task(CancelTaskRequest(id=task_id))


async def test_a_question_no_tool_fits_calls_nothing(seed: Platform) -> None:
    async with a2a(seed, AGENT, "1.0") as client:
        task, _ = await ask(client, "Please bake a chocolate cake")
        assert task.status.state == TaskState.TASK_STATE_COMPLETED
        assert called(task) == [] and answer(task)


async def test_unknown_tasks_and_agents(seed: Platform) -> None:
    async with a2a(seed, AGENT, "1.0") as client:
        with pytest.raises(Exception, match=r"not known|not found|TaskNotFound"):
            await client.get_task(GetTaskRequest(id="no-such-task"))
    async with seed.http() as http:
        found = await http.get(f"{seed.gateway}/a2a/kagent/nobody/.well-known/agent-card.json")
        assert found.status_code == 404 and "nobody" in found.text
