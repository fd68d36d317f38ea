"""The person of a laptop signs in at a remote server: resource, gateway, and the control plane that keeps the grant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from gateway.oauth.servers import Browser, Issuer, Protected
from support.platform import Platform

PATH = "/mcp/kagent/notes"


@pytest.fixture
async def notes(platform: Platform) -> AsyncIterator[Platform]:
    async with Issuer() as issuer, Protected(issuer) as server:
        spec = {"description": "Notes", "url": f"{server.url}/mcp", "auth": "oauth"}
        document = {
            "apiVersion": "kagent.dev/v1alpha2", "kind": "RemoteMCPServer",
            "metadata": {"name": "notes", "namespace": "kagent"}, "spec": spec,
        }  # fmt: skip
        await asyncio.to_thread(platform.apply, document)
        await asyncio.to_thread(platform.wait, "remotemcpserver/notes")
        await asyncio.to_thread(platform.served, PATH)
        yield platform
        await asyncio.to_thread(platform.kubectl, "delete", "remotemcpserver/notes", "-n", "kagent")


async def test_a_sign_in_is_kept_by_the_control_plane_and_ends_when_it_is_revoked(notes: Platform) -> None:
    ready = notes.condition("remotemcpserver", "notes", "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "UsersSignIn")

    token = (notes.own_home() / "run" / "local-token").read_text()  # without it nobody knows whose sign-in it would be
    http = httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=60)

    def mcp() -> Client:
        return Client(streamable_http_client(notes.gateway + PATH, http_client=http), mode="legacy")

    async def call(tool: str, **arguments: Any) -> str:
        async with mcp() as client:
            result = await client.call_tool(tool, arguments)
            return result.content[0].text

    async with notes.mcp(PATH, "legacy") as client:
        with pytest.raises(MCPError, match="authenticate at the gateway first"):
            await client.call_tool("whoami", {})
    async with mcp() as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["sign_in"]
        text = (await client.call_tool("whoami", {})).content[0].text
        code = await Browser("alice").sign_in(text.partition("Open ")[2].partition(" ")[0])
        said = (await client.call_tool("sign_in", {"code": code})).content[0].text
        assert "signed in" in said
        assert (await client.call_tool("whoami", {})).content[0].text == "alice"
    assert await call("whoami") == "alice"
    listed = await asyncio.to_thread(notes.qd, "gateway", "tokens", "list", "-o", "json")
    [kept] = json.loads(listed.out)
    assert kept["server"] == "RemoteMCPServer/kagent/notes"
    gone = await asyncio.to_thread(notes.qd, "gateway", "tokens", "revoke", "--server", "kagent/notes")
    assert "is no longer signed in at kagent/notes" in gone.out
    assert "Sign in at notes" in await call("whoami")
    methods = {record["method"] for record in notes.audit() if record["server"] == "kagent/notes"}
    assert {"oauth/grant", "oauth/revoke"} <= methods
