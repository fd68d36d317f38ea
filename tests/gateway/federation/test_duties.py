"""What a gateway in the middle must do (protocols.md §1.3), duty by duty, with several servers behind one path."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from quarterdeck.gateway.policy.authorizer import Decision
from quarterdeck.mcptypes import protocol

from ..conftest import Rig
from .servers import QUESTION, Client, Upstream, ask, behind, messages, modern

ELICITATION: dict[str, Any] = {"elicitation": {}}


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_era_is_chosen_per_request_on_one_path(mixed: Rig) -> None:
    client = Client(mixed)
    assert (await client.initialize())["result"]["protocolVersion"] == "2025-11-25"
    legacy = await client.call("tools/call", name="one_echo", arguments={"a": 1})
    assert legacy["result"]["content"][0]["text"] == 'one: {"a":1}'
    answer = await ask(mixed, "tools/call", name="one_echo", arguments={"a": 2})
    assert answer["result"]["resultType"] == "complete"
    assert answer["result"]["content"][0]["text"] == 'one: {"a":2}'
    for name in ("new_echo", "one_echo"):
        assert "error" not in await client.call("tools/call", name=name, arguments={})
        assert "error" not in await ask(mixed, "tools/call", name=name, arguments={})


async def test_state_of_a_session_is_bound_to_its_caller_and_deleted(both: Rig, one: Upstream, two: Upstream) -> None:
    client = Client(both)
    await client.initialize()
    other = Client(both)
    other.session = client.session[:-4] + ("AAAA" if client.session[-4:] != "AAAA" else "BBBB")
    assert (await other.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).status == 404
    assert (await client.post(None, "DELETE")).status == 204
    await until(lambda: one.requests("DELETE") and two.requests("DELETE"))
    assert (await client.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).status == 404


async def test_server_requests_are_relayed_with_ids_that_lead_back(both: Rig, one: Upstream) -> None:
    client = Client(both)
    await client.initialize(elicitation={})
    response = await client.post(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "one_ask", "arguments": {}}}
    )
    stream = messages(response)
    question = await anext(stream)
    assert question["method"] == "elicitation/create" and question["id"] != 5
    token = question["params"]["_meta"]["progressToken"]
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
    assert (await client.post(note)).status == 202
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
    assert (await client.post(answer)).status == 202
    assert (await anext(stream))["result"]["content"][0]["text"] == "5 accept"
    assert one.requests("notifications/progress")[0]["params"]["progressToken"] == "up"
    assert (await client.post(answer | {"id": "qd!7"})).status == 400, "an answer to no question"


async def test_modern_backend_input_required_is_passed_through_for_modern_clients(mixed: Rig) -> None:
    asked = (await ask(mixed, "tools/call", ELICITATION, name="new_ask", arguments={}))["result"]
    assert asked["resultType"] == "input_required" and asked["requestState"] != "s1", "it is sealed"
    again = {"inputResponses": {"sure": {"action": "accept"}}, "requestState": asked["requestState"]}
    forged = await ask(mixed, "tools/call", ELICITATION, name="new_ask", arguments={}, **again | {"requestState": "s1"})
    assert forged["error"]["code"] == protocol.INVALID_PARAMS
    answer = await ask(mixed, "tools/call", ELICITATION, name="new_ask", arguments={}, **again)
    assert answer["result"]["content"][0]["text"] == "accept s1"


async def test_legacy_backend_questions_become_input_required_for_modern_clients(both: Rig) -> None:
    asked = (await ask(both, "tools/call", ELICITATION, name="one_ask", arguments={}))["result"]
    assert asked["resultType"] == "input_required"
    (key,) = asked["inputRequests"]
    again = {"inputResponses": {key: {"action": "decline"}}, "requestState": asked["requestState"]}
    refused = await ask(both, "tools/call", ELICITATION, name="two_ask", arguments={}, **again)
    assert refused["error"]["code"] == protocol.INVALID_PARAMS, "the state is another server's"
    answer = await ask(both, "tools/call", ELICITATION, name="one_ask", arguments={}, **again)
    assert answer["result"]["content"][0]["text"] == "5 decline"


async def test_legacy_client_modern_backend_the_gateway_runs_the_rounds(mixed: Rig, new: Upstream) -> None:
    client = Client(mixed)
    await client.initialize(elicitation={})
    response = await client.post(
        {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "new_ask", "arguments": {}}}
    )
    stream = messages(response)
    question = await anext(stream)
    assert question["method"] == "elicitation/create" and question["params"] == QUESTION
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
    assert (await client.post(answer)).status == 202
    done = await anext(stream)
    assert done["id"] == 9 and done["result"] == {"content": [{"type": "text", "text": "accept s1"}]}
    retried = new.requests("tools/call")[1]["params"]
    assert retried["requestState"] == "s1" and retried["_meta"][protocol.META_CLIENT_CAPABILITIES] == ELICITATION


async def test_capabilities_of_the_client_are_what_servers_are_told(mixed: Rig, one: Upstream, new: Upstream) -> None:
    client = Client(mixed)
    await client.initialize()
    assert one.requests("initialize")[0]["params"]["capabilities"] == {}
    refused = await client.call("tools/call", name="new_ask", arguments={})
    assert refused["error"]["code"] == protocol.MISSING_CAPABILITY, "what was not declared is not asked"


async def test_list_changed_and_resource_updates_fan_out_on_the_get_stream(
    mixed: Rig, one: Upstream, new: Upstream
) -> None:
    client = Client(mixed)
    await client.initialize()
    for name in ("one", "new"):
        assert (await client.call("resources/subscribe", uri=f"{name}+memo://one"))["result"] == {}
    stream = messages(await client.post(None, "GET"))
    await until(lambda: one.streams and new.streams)
    await one.push({"method": "notifications/tools/list_changed"})
    assert (await anext(stream))["method"] == "notifications/tools/list_changed"
    await one.push({"method": "notifications/resources/updated", "params": {"uri": "memo://one"}})
    assert (await anext(stream))["params"] == {"uri": "one+memo://one"}
    tag = {"_meta": {protocol.META_SUBSCRIPTION: "its"}}
    await new.push({"method": "notifications/resources/updated", "params": {"uri": "memo://one", **tag}})
    updated = await anext(stream)
    assert updated["params"] == {"uri": "new+memo://one"}, "modern servers' updates come from a subscription"
    assert new.requests("subscriptions/listen")[-1]["params"]["notifications"]["resourceSubscriptions"] == [
        "memo://one"
    ]


async def test_a_server_without_get_stream_is_skipped(both: Rig, one: Upstream, two: Upstream) -> None:
    one.has_stream = False
    client = Client(both)
    await client.initialize()
    stream = messages(await client.post(None, "GET"))
    await until(lambda: two.streams)
    await two.push({"method": "notifications/tools/list_changed"})
    assert (await anext(stream))["method"] == "notifications/tools/list_changed"


async def test_subscriptions_fan_out_with_the_clients_subscription_id(mixed: Rig, one: Upstream, new: Upstream) -> None:
    filters = {"toolsListChanged": True, "resourceSubscriptions": ["one+memo://one", "new+memo://one", "no+such"]}
    body, headers = modern("subscriptions/listen", ident="mine", notifications=filters)
    stream = messages(await mixed.request("/mcp", body, headers=headers, listener="front"))
    first = await anext(stream)
    assert first["method"] == "notifications/subscriptions/acknowledged"
    assert first["params"]["notifications"]["resourceSubscriptions"] == ["new+memo://one", "one+memo://one"]
    await until(lambda: one.streams and new.streams)
    for upstream in (one, new):
        await upstream.push({"method": "notifications/resources/updated", "params": {"uri": "memo://one"}})
        told = await anext(stream)
        assert told["params"]["uri"] == f"{upstream.name}+memo://one"
        assert told["params"]["_meta"] == {protocol.META_SUBSCRIPTION: "mine"}


async def test_ping_is_answered_here_and_log_level_is_mapped(mixed: Rig, one: Upstream, new: Upstream) -> None:
    client = Client(mixed)
    await client.initialize()
    assert (await client.call("ping"))["result"] == {}
    assert not one.requests("ping")
    assert (await client.call("logging/setLevel", level="warning"))["result"] == {}
    assert one.requests("logging/setLevel")[0]["params"] == {"level": "warning"}
    await client.call("tools/call", name="new_echo", arguments={})
    assert new.requests("tools/call")[0]["params"]["_meta"][protocol.META_LOG_LEVEL] == "warning"


async def test_progress_tokens_of_callers_who_share_a_session_are_told_apart(both: Rig, one: Upstream) -> None:
    body, headers = modern("tools/call", name="one_progress", arguments={}, _meta={"progressToken": "p"})
    response = await both.request("/mcp", body, headers=headers, listener="front")
    said = [message async for message in messages(response)]
    assert said[0]["params"]["progressToken"] == "p"
    assert one.requests("tools/call")[0]["params"]["_meta"]["progressToken"] != "p"


async def test_names_are_prefixed_and_so_is_mcp_name(mixed: Rig, new: Upstream) -> None:
    answer = await ask(mixed, "tools/call", name="new_echo", arguments={})
    assert answer["result"]["content"][0]["text"] == "new: {}"
    assert new.heads[-1][b"mcp-name"] == b"echo" and new.requests("tools/call")[0]["params"]["name"] == "echo"
    body, headers = modern("tools/call", name="new_echo", arguments={})
    response = await mixed.request("/mcp", body, headers=headers | {"mcp-name": "one_echo"}, listener="front")
    assert response.status == 400
    assert msgspec.json.decode(await response.read())["error"]["code"] == protocol.HEADER_MISMATCH


async def test_param_headers_are_made_for_modern_backends_of_legacy_clients(mixed: Rig, new: Upstream) -> None:
    new.tools[0]["inputSchema"]["properties"] = {"region": {"type": "string", "x-mcp-header": "Region"}}
    client = Client(mixed)
    await client.initialize()
    await client.call("tools/call", name="new_echo", arguments={"region": "eu"})
    assert new.heads[-1][b"mcp-param-region"] == b"eu" and new.heads[-1][b"mcp-method"] == b"tools/call"


async def test_lists_of_several_servers_are_private_and_in_one_order(mixed: Rig) -> None:
    found = (await ask(mixed, "tools/list"))["result"]
    assert [tool["name"] for tool in found["tools"]] == ["new_echo", "one_echo"]
    assert (found["cacheScope"], found["ttlMs"]) == ("private", 0)
    client = Client(mixed)
    await client.initialize()
    assert [t["name"] for t in (await client.call("tools/list"))["result"]["tools"]] == ["new_echo", "one_echo"]
    templates = (await client.call("resources/templates/list"))["result"]["resourceTemplates"]
    assert [t["uriTemplate"] for t in templates] == ["new+memo://{x}", "one+memo://{x}"]


async def test_pagination_cursors_over_many_backends_are_opaque(both: Rig, one: Upstream, two: Upstream) -> None:
    for upstream in (one, two):
        upstream.tools = [{"name": f"t{n:03}", "inputSchema": {}} for n in range(600)]
    client = Client(both)
    await client.initialize()
    first = (await client.call("tools/list"))["result"]
    rest = (await client.call("tools/list", cursor=first["nextCursor"]))["result"]
    names = [tool["name"] for tool in first["tools"] + rest["tools"]]
    assert names == [f"{u}_t{n:03}" for u in ("one", "two") for n in range(600)] and "nextCursor" not in rest
    assert (await client.call("tools/list", cursor="%%"))["error"]["code"] == protocol.INVALID_PARAMS


async def test_cancellation_goes_both_ways(mixed: Rig, one: Upstream, new: Upstream) -> None:
    client = Client(mixed)
    await client.initialize()
    for upstream in (one, new):
        params = {"name": f"{upstream.name}_hang", "arguments": {}}
        body = {"jsonrpc": "2.0", "id": upstream.name, "method": "tools/call", "params": params}
        waiting = asyncio.ensure_future(client.post(body))
        await until(lambda upstream=upstream: upstream.holding)
        told = {"method": "notifications/cancelled", "params": {"requestId": upstream.name}}
        assert (await client.post({"jsonrpc": "2.0", **told})).status == 202
        async with asyncio.timeout(30):
            await upstream.cancelled.wait()
        waiting.cancel()
    assert one.requests("notifications/cancelled")[0]["params"]["requestId"] == "one"


async def test_a_client_that_leaves_cancels_its_call(mixed: Rig, new: Upstream) -> None:
    body, headers = modern("tools/call", name="new_hang", arguments={})
    response = await mixed.request("/mcp", body, headers=headers, listener="front")
    await until(lambda: new.holding)
    response.close()
    async with asyncio.timeout(30):
        await new.cancelled.wait()


async def test_sse_is_not_buffered_and_says_so(both: Rig) -> None:
    client = Client(both)
    await client.initialize()
    response = await client.post(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "one_hang", "arguments": {}}}
    )
    assert response.header(b"x-accel-buffering") == b"no"
    async for chunk in response:
        assert chunk == b": working\n\n", "a comment comes at once"
        break
    response.close()


async def test_unknown_meta_and_fields_are_untouched(mixed: Rig, one: Upstream, new: Upstream) -> None:
    client = Client(mixed)
    await client.initialize()
    for upstream in (one, new):
        await client.call(
            "tools/call", name=f"{upstream.name}_echo", arguments={}, _meta={"x.y/z": [1]}, odd={"a": None}
        )
        params = upstream.requests("tools/call")[-1]["params"]
        assert params["_meta"]["x.y/z"] == [1] and params["odd"] == {"a": None}
    one.tools[0]["x-odd"] = {"deep": [True]}
    listed = (await client.call("tools/list"))["result"]["tools"]
    assert listed[1]["x-odd"] == {"deep": [True]}


async def test_trace_context_is_continued(both: Rig, one: Upstream) -> None:
    client = Client(both)
    await client.initialize()
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "one_echo", "arguments": {}}}
    await (await client.post(body, traceparent=trace)).read()
    assert one.heads[-1][b"traceparent"].startswith(b"00-" + b"a" * 32)


async def test_resources_tasks_ui_and_completion_go_to_their_owner(mixed: Rig, one: Upstream, new: Upstream) -> None:
    client = Client(mixed)
    await client.initialize()
    one.tools.append({"name": "v", "inputSchema": {}, "_meta": {"ui": {"resourceUri": "ui://view/1"}}})
    listed = {t["name"]: t for t in (await client.call("tools/list"))["result"]["tools"]}
    assert listed["one_v"]["_meta"]["ui"]["resourceUri"] == "ui://one+view/1"
    for uri, own in (("one+memo://one", "memo://one"), ("ui://new+view/1", "ui://view/1")):
        read = (await client.call("resources/read", uri=uri))["result"]["contents"][0]
        upstream = one if uri.startswith("one") else new
        assert (read["uri"], read["text"]) == (uri, upstream.name)
        assert upstream.requests("resources/read")[-1]["params"]["uri"] == own
    reference = {"ref": {"type": "ref/prompt", "name": "new_hello"}, "argument": {"name": "a", "value": "b"}}
    assert (await client.call("completion/complete", **reference))["result"]["completion"]["values"] == ["hello"]
    task = (await ask(mixed, "tools/call", name="one_task", arguments={}))["result"]
    assert task["taskId"] == "one+t1"
    assert (await ask(mixed, "tasks/get", taskId="one+t1"))["result"]["taskId"] == "one+t1"
    assert one.requests("tasks/get")[0]["params"]["taskId"] == "t1"
    link = (await client.call("tools/call", name="new_link", arguments={}))["result"]["content"][0]
    assert link["uri"] == "new+memo://one"


@pytest.mark.parametrize("fail_open", [True, False])
async def test_partial_failure(bare: Rig, one: Upstream, two: Upstream, fail_open: bool) -> None:
    bare.gateway.use(behind(one, two, fail_open=fail_open))
    await bare.gateway.listeners.settled()
    client = Client(bare)
    await client.initialize()
    two.broken = True
    answer = await client.call("tools/list")
    if fail_open:
        assert [t["name"] for t in answer["result"]["tools"]] == ["one_echo"]
        assert answer["result"]["_meta"]["quarterdeck.dev/unavailable"][0]["server"] == "ns/two"
        one.broken = True
        assert "ns/one" in (await client.call("tools/list"))["error"]["message"], "all have failed"
    else:
        assert "ns/two" in answer["error"]["message"]
        assert "ns/two" in (await Client(bare).initialize())["error"]["message"]
        assert (await client.call("tools/call", name="one_echo", arguments={}))["result"], "other calls are unaffected"


async def test_initialize_and_discover_are_merged(bare: Rig, one: Upstream, two: Upstream) -> None:
    one.version, one.capabilities = "2025-06-18", {"tools": {}, "experimental": {"a": {}}}
    two.capabilities = {"prompts": {"listChanged": True}, "experimental": {"b": {}}}
    bare.gateway.use(behind(one, two))
    await bare.gateway.listeners.settled()
    said = (await Client(bare).initialize())["result"]
    merged = {"tools": {}, "prompts": {"listChanged": True}, "experimental": {"a": {}, "b": {}}}
    assert (said["protocolVersion"], said["capabilities"]) == ("2025-06-18", merged)
    assert said["instructions"].endswith("[one]\nI am one.\n\n[two]\nI am two.")
    found = (await ask(bare, "server/discover"))["result"]
    assert (found["supportedVersions"], found["capabilities"]) == (["2026-07-28"], merged)


async def test_methods_that_no_backend_has(both: Rig) -> None:
    client = Client(both)
    await client.initialize()
    assert (await client.call("made/up"))["error"]["code"] == protocol.METHOD_NOT_FOUND
    body, headers = modern("made/up")
    response = await both.request("/mcp", body, headers=headers, listener="front")
    assert response.status == 404
    assert msgspec.json.decode(await response.read())["error"]["code"] == protocol.METHOD_NOT_FOUND
    for name in ("nobody_echo", "echo", "", "_"):
        unknown = await client.call("tools/call", name=name, arguments={})
        assert unknown["error"] == {"code": -32602, "message": f"Unknown tool: {name}"}


async def test_one_upstreams_expired_session_is_initialised_alone(both: Rig, one: Upstream, two: Upstream) -> None:
    client = Client(both)
    await client.initialize()
    one.sessions.clear()
    assert "error" not in await client.call("tools/call", name="one_echo", arguments={})
    assert (one.opened, two.opened) == (2, 1)
    one.sessions.clear()
    assert [t["name"] for t in (await client.call("tools/list"))["result"]["tools"]] == ["one_echo", "two_echo"]
    assert (one.opened, two.opened) == (3, 1)


async def test_a_stream_is_resumed_with_last_event_id(both: Rig, one: Upstream, two: Upstream) -> None:
    client = Client(both)
    await client.initialize()
    stream = await client.post(None, "GET")
    await until(lambda: one.streams and two.streams)
    await one.push({"method": "notifications/tools/list_changed"})
    first = await anext(messages(stream))
    stream.close()
    await two.push({"method": "notifications/prompts/list_changed"})
    again = messages(await client.post(None, "GET", last_event_id=first["_id"]))
    assert (await anext(again))["method"] == "notifications/prompts/list_changed"
    said = await client.events("tools/call", name="one_progress", arguments={}, _meta={"progressToken": 1})
    assert said[0]["_id"] == "one~e7"
    resumed = await client.post(None, "GET", last_event_id="one~e7")
    await until(lambda: one.heads[-1].get(b"last-event-id") == b"e7")
    resumed.close()


async def test_stateless_groups_give_no_session(bare: Rig, one: Upstream, two: Upstream) -> None:
    bare.gateway.use(behind(one, two, stateful=False))
    await bare.gateway.listeners.settled()
    client = Client(bare)
    await client.initialize()
    assert client.session == ""
    assert "error" not in await client.call("tools/call", name="two_echo", arguments={})
    assert [t["name"] for t in (await client.call("tools/list"))["result"]["tools"]] == ["one_echo", "two_echo"]
    assert (await client.post(None, "GET")).status == 405
    await until(lambda: len(one.sessions) == len(two.sessions) == 0)


async def test_names_without_prefixes_belong_to_one_server_only(bare: Rig, one: Upstream, two: Upstream) -> None:
    one.tools.append({"name": "mine", "inputSchema": {}})
    two.tools.append({"name": "link", "inputSchema": {}})
    bare.gateway.use(behind(one, two, prefix="never"))
    await bare.gateway.listeners.settled()
    client = Client(bare)
    await client.initialize()
    assert [t["name"] for t in (await client.call("tools/list"))["result"]["tools"]] == ["mine", "link"]
    assert (await client.call("tools/call", name="echo", arguments={}))["error"]["message"] == "Unknown tool: echo"
    assert (await client.call("tools/call", name="link", arguments={}))["result"]["content"]
    assert not one.requests("tools/call") and len(two.requests("tools/call")) == 1


@pytest.mark.parametrize(("prefix", "name"), [("always", "one_echo"), ("conditional", "echo")])
async def test_prefix_mode_of_one_target(bare: Rig, one: Upstream, prefix: str, name: str) -> None:
    bare.gateway.use(behind(one, prefix=prefix))
    await bare.gateway.listeners.settled()
    client = Client(bare)
    await client.initialize()
    assert [t["name"] for t in (await client.call("tools/list"))["result"]["tools"]] == [name]
    assert (await client.call("tools/call", name=name, arguments={}))["result"]


async def test_the_gateway_can_end_what_is_open(mixed: Rig, one: Upstream, new: Upstream) -> None:
    client = Client(mixed)
    await client.initialize()
    stream = messages(await client.post(None, "GET"))
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "new_hang", "arguments": {}}}
    waiting = asyncio.ensure_future(client.post(body))
    listen, headers = modern("subscriptions/listen", notifications={"toolsListChanged": True})
    subscription = messages(await mixed.request("/mcp", listen, headers=headers, listener="front"))
    await anext(subscription)
    await until(lambda: new.holding and one.streams)
    ended: Any = Decision("deny", "revoked/user/x", "revoked")
    mixed.gateway.upstreams.end(lambda opened: ended)
    async with asyncio.timeout(30):
        assert b'"error"' in await (await waiting).read()
        assert [message async for message in stream] == []
        assert [message async for message in subscription] == []
        await new.cancelled.wait()
