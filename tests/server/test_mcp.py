"""The control plane's MCP server, asked by the official SDK's client in both eras."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from quarterdeck.errors import Forbidden, Unauthorized
from quarterdeck.server.database import Database
from quarterdeck.server.http import Router
from quarterdeck.server.identity import Caller, Identity
from quarterdeck.server.management import failure
from quarterdeck.server.mcp import Listed, McpApi
from quarterdeck.server.runs_store import Draft, RunStore
from quarterdeck.wire.http import Server

AGENT = "kagent/helper"


class People:
    """``root`` may do everything, ``reader`` may list, ``local`` all in kagent, nobody else is known."""

    async def somebody(self, authorization: str) -> Caller:
        token = authorization.removeprefix("Bearer ")
        if token not in ("root", "reader", "local"):
            raise Unauthorized("a bearer token is needed")
        return Caller(token, (), None)

    async def person(self, authorization: str, verb: str, resource: str, namespace: str = "") -> Caller:
        caller = await self.somebody(authorization)
        if (caller.name == "reader" and verb != "list") or (caller.name == "local" and namespace != "kagent"):
            raise Forbidden(f'User "{caller.name}" cannot {verb} resource "{resource}" in {namespace or "all"}')
        return caller


@dataclass
class Rig:
    url: str
    store: RunStore
    agents: list[Listed]

    async def work(self, text: str, state: str = "completed") -> None:
        """Do the next run's work, as an agent's host would."""
        while not (taken := await self.store.claim(AGENT, "pod/boot", 1, "")):
            await asyncio.sleep(0.01)
        row, events = taken[0]
        asked = events[0].data["message"]["parts"][0]["text"]
        final = Draft("final", 0, {"state": state, "reason": "", "text": f"{text} to: {asked}", "usage": {}})
        await self.store.append(AGENT, row["id"], row["fence"], "b1", [final])


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    database = await Database.open(str(tmp_path / "server.db"))
    store = RunStore(database)
    await store.open()
    rig = Rig("", store, [Listed(AGENT, "Helps.")])
    api = McpApi(store, cast(Identity, People()), lambda: rig.agents)
    server = Server(Router(api.routes(), failure).handle, name="api")
    _, port = await server.listen("127.0.0.1", 0)
    rig.url = f"http://127.0.0.1:{port}/mcp"
    yield rig
    await server.stop(0)
    await database.close()


def client(rig: Rig, mode: Any, token: str = "root") -> Any:
    http = httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, trust_env=False)
    return Client(streamable_http_client(rig.url, http_client=http), mode=mode)


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_agents_are_listed_and_invoked(rig: Rig, mode: str) -> None:
    async with client(rig, mode) as session:
        assert [tool.name for tool in (await session.list_tools()).tools] == ["list_agents", "invoke_agent"]
        listed = await session.call_tool("list_agents", {})
        assert listed.structured_content == {"agents": [{"name": AGENT, "description": "Helps."}]}
        working = asyncio.create_task(rig.work("an answer"))
        answer = await session.call_tool("invoke_agent", {"agent": AGENT, "task": "two and two"})
        await working
        assert not answer.is_error and answer.content[0].text == "an answer to: two and two"
        context = answer.structured_content["context_id"]
        working = asyncio.create_task(rig.work("sorry", "failed"))
        again = await session.call_tool("invoke_agent", {"agent": AGENT, "task": "more", "context_id": context})
        await working
        assert again.is_error and again.structured_content["context_id"] == context
        unknown = await session.call_tool("invoke_agent", {"agent": "kagent/nobody", "task": "x"})
        assert unknown.is_error and "does not exist" in unknown.content[0].text
        assert "kagent/helper" in (await session.read_resource("kagent://agents")).contents[0].text


async def test_rights_in_one_namespace_are_enough_for_its_agents(rig: Rig) -> None:
    rig.agents.append(Listed("other/secret", "Is somebody else's."))
    async with client(rig, "legacy", "local") as session:
        listed = await session.call_tool("list_agents", {})
        assert [agent["name"] for agent in listed.structured_content["agents"]] == [AGENT]
        assert "other/secret" not in (await session.read_resource("kagent://agents")).contents[0].text
        working = asyncio.create_task(rig.work("an answer"))
        answer = await session.call_tool("invoke_agent", {"agent": AGENT, "task": "go"})
        await working
        assert not answer.is_error
        refused = await session.call_tool("invoke_agent", {"agent": "other/secret", "task": "go"})
        assert refused.is_error and "cannot create" in refused.content[0].text
    async with client(rig, "legacy") as session:
        assert len((await session.call_tool("list_agents", {})).structured_content["agents"]) == 2


async def test_who_may_not_start_runs_may_not_invoke(rig: Rig) -> None:
    async with client(rig, "legacy", "reader") as session:
        assert (await session.call_tool("list_agents", {})).structured_content
        refused = await session.call_tool("invoke_agent", {"agent": AGENT, "task": "x"})
        assert refused.is_error and "cannot create" in refused.content[0].text
    async with httpx2.AsyncClient(trust_env=False) as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert (await http.post(rig.url, json=body)).status_code == 401
        assert (await http.get(rig.url, headers={"authorization": "Bearer root"})).status_code == 405
