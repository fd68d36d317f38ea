"""A VirtualServer on a laptop: applied with kubectl, read back, called by a real client and by an agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from mcp import MCPError

from support.platform import EXAMPLES, Platform, eventually

FILE = EXAMPLES / "virtual-server/clock.yaml"
PATH = "/mcp/kagent/virtualserver.clock"


@pytest.fixture(scope="module")
def clock(platform: Platform) -> Iterator[Platform]:
    platform.kubectl("apply", "-f", str(FILE))
    for target in ("mcpserver/time", "virtualserver/clock", "agent/clock-agent"):
        platform.wait(target, seconds=90)
    yield platform
    platform.kubectl("delete", "-f", str(FILE))


def test_kubectl_tells_what_it_is(clock: Platform) -> None:
    shown = clock.kubectl("get", "vmcp", "-n", "kagent").out.splitlines()
    assert shown[0].split() == ["NAME", "READY", "SERVERS", "TOOLS", "AGE"]
    assert shown[1].split()[:4] == ["clock", "True", "1", "3"]
    status = json.loads(clock.kubectl("get", "vmcp/clock", "-n", "kagent", "-o", "json").out)["status"]
    assert [tool["name"] for tool in status["discoveredTools"]] == ["from_zurich", "now", "time_elsewhere"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Accepted": "True", "ResolvedRefs": "True", "Programmed": "True", "Ready": "True", "Conflicted": "False",
    }  # fmt: skip
    for tool in ("kubectl", "qd"):
        explained = getattr(clock, tool)("explain", "virtualserver.spec.tools.hidden").out
        assert "callers neither see nor send" in explained
    wrong = clock.kubectl(
        "patch", "vmcp/clock", "-n", "kagent", "--type=merge", "-p", '{"spec":{"servers":[]}}', ok=False
    )
    assert wrong.code != 0 and "spec.servers" in wrong.text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_sees_the_view_only(clock: Platform, mode: Any) -> None:
    async with clock.mcp(PATH, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"now", "time_elsewhere", "from_zurich"}
        assert "timezone" not in tools["now"].input_schema["properties"] and tools["now"].annotations.read_only_hint
        assert "source_timezone" not in tools["from_zurich"].input_schema["properties"]
        for name, arguments, zone in (
            ("now", {}, "Europe/Zurich"),
            ("time_elsewhere", {}, "UTC"),
            ("time_elsewhere", {"timezone": "Asia/Tokyo"}, "Asia/Tokyo"),
            ("from_zurich", {"time": "12:00", "target_timezone": "UTC"}, "Europe/Zurich"),
        ):
            result = await client.call_tool(name, arguments)
            assert not result.is_error and zone in result.content[0].text, result
        with pytest.raises(MCPError, match="there is no parameter timezone"):
            await client.call_tool("now", {"timezone": "UTC"})
        with pytest.raises(MCPError, match="Unknown tool: get_current_time"):
            await client.call_tool("get_current_time", {"timezone": "UTC"})


def test_an_agent_goes_by_exposed_names(clock: Platform) -> None:
    said = clock.qd("agent", "invoke", "clock-agent", "Use now to tell me the time in Zurich")
    assert "Zurich" in said.out
    record = eventually(
        lambda: next(
            (r for r in clock.audit() if (r["agent"], r["method"]) == ("kagent/clock-agent", "tools/call")), None
        ),
        "a record",
    )
    assert (record["server"], record["tool"], record["exposed"]) == ("kagent/time", "get_current_time", "now")
    assert record["decision"] == "allow" and record["route"] == "virtualserver/kagent/clock"


def test_a_name_that_clashes_is_told(clock: Platform) -> None:
    body = json.loads(clock.kubectl("get", "vmcp/clock", "-n", "kagent", "-o", "json").out)["spec"]["tools"]
    twice = json.dumps({"spec": {"tools": [*body, {"server": "time", "tool": "convert_time", "name": "now"}]}})
    clock.kubectl("patch", "vmcp/clock", "-n", "kagent", "--type=merge", "-p", twice)
    try:
        eventually(lambda: clock.condition("vmcp", "clock", "Accepted").get("status") == "False", "not accepted")
        assert "both exposed as now" in clock.condition("vmcp", "clock", "Ready")["message"]
    finally:
        clock.kubectl(
            "patch", "vmcp/clock", "-n", "kagent", "--type=merge", "-p", json.dumps({"spec": {"tools": body}})
        )
    clock.wait("virtualserver/clock")
