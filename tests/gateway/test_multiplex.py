"""The aggregated endpoint."""

from __future__ import annotations

from quarterdeck import snapshot as s

from .conftest import Rig, snapshot, token


async def test_lists_carry_the_servers_names_and_a_dead_server_is_noted(rig: Rig, peer: int) -> None:
    ready = s.Endpoint("127.0.0.1", peer)
    servers = (
        s.McpServer("kagent", "peer", "MCPServer", "/mcp", endpoints=(ready,)),
        s.McpServer("other", "peer", "RemoteMCPServer", "/mcp", endpoints=(ready,)),
        s.McpServer("kagent", "dead", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", 1),)),
    )
    rig.gateway.use(snapshot(peer, mcp=servers))
    headers = {"mcp-session-id": await rig.initialize("/mcp", listener="local")}
    answer = await rig.rpc("/mcp", "tools/list", listener="local", headers=headers)
    names = [tool["name"] for tool in answer["result"]["tools"]]
    assert answer["result"]["_meta"]["quarterdeck.dev/unavailable"][0]["server"] == "kagent/dead"
    assert len(answer["result"]["_meta"]["quarterdeck.dev/unavailable"]) == 1, answer
    assert names == [f"{p}_{t}" for p in ("other-peer", "peer") for t in ("add", "echo", "fail")]
    call = {"name": "other-peer_add", "arguments": {"a": 1, "b": 1}}
    answer = await rig.rpc("/mcp", "tools/call", call, listener="local", headers=headers)
    assert answer["result"]["content"][0]["text"] == "2"


async def test_an_agent_sees_and_calls_its_own_tools_only(rig: Rig) -> None:
    bearer = token("pod-a")
    headers = {"mcp-session-id": await rig.initialize("/mcp", bearer=bearer)}
    answer = await rig.rpc("/mcp", "tools/list", bearer=bearer, headers=headers)
    assert [tool["name"] for tool in answer["result"]["tools"]] == ["peer_add", "peer_echo"]
    denied = await rig.rpc("/mcp", "tools/call", {"name": "peer_fail"}, bearer=bearer, headers=headers)
    assert denied["error"]["code"] == 4003
    unknown = await rig.rpc("/mcp", "tools/call", {"name": "nobody_x"}, bearer=bearer, headers=headers)
    assert unknown["error"] == {"code": -32602, "message": "Unknown tool: nobody_x"}


async def test_a_session_token_of_another_principal_is_unknown(rig: Rig) -> None:
    session = await rig.initialize("/mcp", bearer=token("pod-a"))
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    response = await rig.request("/mcp", body, bearer=token("pod-b"), headers={"mcp-session-id": session})
    assert response.status == 404


async def test_prompts_and_resources_are_routed_by_name_and_uri(rig: Rig) -> None:
    headers = {"mcp-session-id": await rig.initialize("/mcp", listener="local")}
    prompts = await rig.rpc("/mcp", "prompts/list", listener="local", headers=headers)
    assert [p["name"] for p in prompts["result"]["prompts"]] == ["peer_greeting"]
    params = {"name": "peer_greeting", "arguments": {"name": "Ada"}}
    got = await rig.rpc("/mcp", "prompts/get", params, listener="local", headers=headers)
    assert got["result"]["messages"][0]["content"]["text"] == "Hello Ada"
    resources = await rig.rpc("/mcp", "resources/list", listener="local", headers=headers)
    assert [r["uri"] for r in resources["result"]["resources"]] == ["peer+memo://one"]
    read = await rig.rpc("/mcp", "resources/read", {"uri": "peer+memo://one"}, listener="local", headers=headers)
    assert read["result"]["contents"][0]["text"] == "remember"
