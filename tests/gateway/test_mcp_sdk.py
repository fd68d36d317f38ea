"""The official Python SDK's client, unmodified, through the gateway to the SDK's server."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import Client

from .conftest import Rig


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("path", ["/mcp/kagent/peer", "/mcp"])
async def test_the_sdk_client_lists_and_calls(rig: Rig, mode: Any, path: str) -> None:
    prefix = "" if path != "/mcp" else "peer_"
    async with Client(rig.gateway.endpoints["local"] + path, mode=mode) as client:
        tools = await client.list_tools()
        assert [t.name for t in tools.tools] == [f"{prefix}{n}" for n in ("add", "echo", "fail")]
        result = await client.call_tool(f"{prefix}add", {"a": 2, "b": 3})
        assert result.content[0].text == "5"
        failed = await client.call_tool(f"{prefix}fail", {})
        assert failed.is_error
    calls = [r for r in rig.records() if r["method"] == "tools/call"]
    assert [(r["tool"], r["outcome"], r["principal"]) for r in calls] == [
        ("add", "ok", "anonymous@local"),
        ("fail", "tool_error", "anonymous@local"),
    ]
