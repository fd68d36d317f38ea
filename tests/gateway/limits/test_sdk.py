"""What the official Python SDK's client makes of a tool that is not called for now: a result, for its model to read."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import Client

from quarterdeck.snapshot.policies import Breaker

from ..conftest import Rig


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("path", ["/mcp/kagent/peer", "/mcp"])
async def test_an_unavailable_tool_is_a_result_of_the_call(rig: Rig, mode: Any, path: str) -> None:
    prefix = "" if path != "/mcp" else "peer_"
    breakers = rig.gateway.limits.breakers
    async with Client(rig.gateway.endpoints["local"] + path, mode=mode) as client:
        await client.list_tools()
        for _ in range(3):
            breakers.report("kagent/peer", "add", "failed", Breaker())
        result = await client.call_tool(f"{prefix}add", {"a": 2, "b": 3})
        assert result.is_error and result.content[0].text.startswith("tool unavailable")
        breakers.reset("kagent/peer", "add")
        result = await client.call_tool(f"{prefix}add", {"a": 2, "b": 3})
        assert not result.is_error
