"""An approval cannot be had but from people, and is good for one call: this one."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from quarterdeck.mcptypes.canonical import arguments_hash
from quarterdeck.snapshot.consent import ApprovalRule, ServerPattern

from .conftest import ACTING, PATH, POLICY, Platform

CALL = {"path": "/tmp/x", "force": True}


async def test_a_call_waits_is_approved_and_is_sent_once(platform: Platform) -> None:
    answer = await platform.call(arguments=CALL)
    error = answer["error"]
    assert (error["code"], error["data"]["reason"]) == (4001, "approval_required")
    assert error["data"]["argumentsHash"] == arguments_hash(CALL)
    assert error["data"]["expiresAt"].endswith("Z") and platform.tools.calls == []
    approval = error["data"]["approval"]
    assert await platform.ask(CALL) == approval, "asking again is the same request"
    assert await platform.ask(CALL, approval=approval) == approval, "nobody has approved"

    status, shown = await platform.decide(approval, reason="looks fine")
    assert (status, shown["state"], shown.get("arguments")) == (200, "Approved", None)
    answer = await platform.call(arguments=CALL, approval=approval, idempotencyKey="k")
    assert answer["result"]["content"][0]["text"] == "done"
    (sent,) = platform.tools.calls
    assert sent["arguments"] == CALL
    assert set(sent["_meta"]) == {f"dev.quarterdeck/{name}" for name in ("run", "step", "idempotencyKey")}
    record = platform.rig.records()[-1]
    assert record["rule"] == f"approval/{approval}" and record["decision"] == "allow"
    assert record["argumentsHash"] == arguments_hash(CALL).removeprefix("sha256:")

    replay = await platform.call(arguments=CALL, approval=approval)
    assert replay["error"]["code"] == 4003 and "used already" in replay["error"]["message"]
    assert await platform.ask(CALL) != approval, "the same call again needs another approval"
    assert len(platform.tools.calls) == 1
    status, shown = await platform.rest("GET", f"/v1/approvals/{approval}")
    assert (shown["state"], shown["decisions"][0]["by"], shown["arguments"]) == ("Consumed", "alice", CALL)


async def test_other_tools_and_servers_without_a_policy_are_not_asked_about(platform: Platform) -> None:
    assert "result" in await platform.call("add", {"a": 1})
    platform.policies(msgspec.structs.replace(POLICY, servers=(ServerPattern("other", "kagent"),)))
    assert "result" in await platform.call(arguments=CALL)
    assert platform.rig.gateway.snapshot.approvals and platform.service.store is not None


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({"arguments": {**CALL, "path": "/tmp/y"}}, "arguments_hash"),
        ({"arguments": {**CALL, "path": chr(ord("/") ^ 1) + "tmp/x"}}, "arguments_hash"),
        ({"arguments": {**CALL, "force": 1}}, "arguments_hash"),
        ({"run": "r2"}, "run"),
        ({"step": 2}, "step"),
        ({"run": ""}, "run"),
        ({"tool": "delete_all"}, "tool"),
        ({"user": "eve@idp"}, "requester"),
        ({"user": ""}, "requester"),
    ],
)
async def test_an_approval_is_void_for_any_other_call(platform: Platform, changed: dict, differs: str) -> None:
    approval = await platform.ask(CALL)
    await platform.decide(approval)
    answer = await platform.call(**{"arguments": CALL, "approval": approval, **changed})
    assert answer["error"]["code"] == 4003 and differs in answer["error"]["message"]
    assert platform.tools.calls == []
    assert platform.rig.records()[-1]["outcome"] == "denied"


async def test_another_agent_cannot_use_it(platform: Platform) -> None:
    approval = await platform.ask(CALL, bearer="pod-b")
    await platform.decide(approval)
    answer = await platform.call("echo", CALL, bearer="pod-a", approval=approval)
    assert answer["error"]["code"] == 4003 and platform.tools.calls == []


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("pod-a", "agent"),
        (ACTING, "act"),
        ("sa", "workload"),
        ("mallory", "cannot approve"),
        ("carol", "does not name"),
    ],
)
async def test_who_may_not_approve_gets_403_and_a_record(platform: Platform, who: str, why: str) -> None:
    approval = await platform.ask(CALL)
    for verdict in ("approve", "deny"):
        status, answer = await platform.decide(approval, verdict, who)
        assert status == 403 and why in answer["error"]["message"]
        record = platform.records()[-1]
        assert (record["decision"], record["outcome"], record["status"]) == ("deny", "denied", 403)
        assert approval in record["rule"]
    assert await platform.ask(CALL, approval=approval) == approval
    assert platform.tools.calls == []


async def test_the_requester_does_not_approve_unless_the_policy_lets_them(platform: Platform) -> None:
    approval = await platform.ask(CALL, user="alice")
    status, answer = await platform.decide(approval)
    assert status == 403 and "who asked for the call" in answer["error"]["message"]
    assert (await platform.decide(approval, who="bob"))[1]["state"] == "Approved"
    platform.policies(msgspec.structs.replace(POLICY, requester=True))
    approval = await platform.ask({"other": 1}, user="alice")
    assert (await platform.decide(approval))[1]["state"] == "Approved"


async def test_two_different_people_are_needed(platform: Platform) -> None:
    platform.policies(msgspec.structs.replace(POLICY, required=2))
    approval = await platform.ask(CALL)
    for _ in range(2):
        status, shown = await platform.decide(approval)
        assert (status, shown["state"]) == (200, "Pending") and "1 of 2" in shown["message"]
    assert await platform.ask(CALL, approval=approval) == approval
    assert (await platform.decide(approval, who="bob"))[1]["state"] == "Approved"
    assert "result" in await platform.call(arguments=CALL, approval=approval)


async def test_an_approver_who_is_none_any_more_counts_no_more(platform: Platform) -> None:
    approval = await platform.ask(CALL)
    await platform.decide(approval)
    platform.policies(msgspec.structs.replace(POLICY, users=("bob",)))
    answer = await platform.call(arguments=CALL, approval=approval)
    assert answer["error"]["code"] == 4003 and "have changed" in answer["error"]["message"]
    assert (await platform.decide(approval, who="bob"))[0] == 409, "what is void stays void"
    assert platform.tools.calls == []


async def test_a_denial_is_told_with_its_reason_and_lasts(platform: Platform) -> None:
    approval = await platform.ask(CALL)
    assert (await platform.decide(approval, "deny", reason="not on a Friday"))[1]["state"] == "Denied"
    for given in (approval, ""):
        error = (await platform.call(arguments=CALL, approval=given))["error"]
        assert (error["code"], error["message"]) == (4003, "denied by alice: not on a Friday")
    assert (await platform.decide(approval, who="bob"))[0] == 409
    assert [r["method"] for r in platform.records()] == ["approvals/deny", "approvals/approve"]
    assert platform.tools.calls == []


async def test_time_runs_out_before_and_after_the_approval(platform: Platform) -> None:
    approved, waiting = await platform.ask(CALL), await platform.ask({"other": 1})
    await platform.decide(approved)
    platform.clock.now += 3601
    for arguments, approval in ((CALL, approved), ({"other": 1}, waiting)):
        error = (await platform.call(arguments=arguments, approval=approval))["error"]
        assert error["code"] == 4003 and "expired" in error["message"]
    assert (await platform.decide(waiting))[0] == 409
    assert await platform.ask({"other": 1}) != waiting
    platform.clock.now += 3601
    expired = await platform.service.store.sweep()
    assert [one.state for one in expired] == ["Expired"] and platform.tools.calls == []


async def test_two_gateways_use_it_at_once_and_one_sends(platform: Platform) -> None:
    approval = await platform.ask(CALL)
    await platform.decide(approval)
    answers = await asyncio.gather(
        *(platform.call(arguments=CALL, approval=approval, rig=rig) for rig in platform.rigs * 5)
    )
    assert sum("result" in answer for answer in answers) == 1
    assert len(platform.tools.calls) == 1


async def test_without_the_control_plane_nothing_is_sent(platform: Platform) -> None:
    approval = await platform.ask(CALL)
    await platform.decide(approval)
    await platform.server.stop(0)
    error = (await platform.call(arguments=CALL, approval=approval))["error"]
    assert error["code"] == 4003 and "none can be had now" in error["message"]
    platform.rig.gateway.approvals.ask = None
    error = (await platform.call(arguments=CALL, approval=approval))["error"]
    assert "configured by a file" in error["message"] and platform.tools.calls == []


async def test_what_is_sent_is_what_was_approved_whatever_the_parser(platform: Platform) -> None:
    raw = b'{"path":"/etc","path":"/tmp/x","n":{"a":1,"a":2},"big":12345678901234567890,"f":1.0}'
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete","arguments":%b}}' % raw

    async def send(bearer: str | None = "secret") -> dict[str, Any]:
        response = await platform.rig.request("/mcp/kagent/peer", body, listener="local", bearer=bearer)
        return msgspec.json.decode(await response.read())

    refused = (await send(bearer=None))["error"]
    assert refused["code"] == 4003 and "use a token" in refused["message"], "nobody unknown is waited for"
    approval = (await send())["error"]["data"]["approval"]
    _, shown = await platform.rest("GET", f"/v1/approvals/{approval}")
    assert shown["arguments"] == {"path": "/tmp/x", "n": {"a": 2}, "big": 12345678901234567890, "f": 1.0}
    await platform.decide(approval)
    assert "result" in await send(), "a client that can say nothing of approvals calls again"
    assert b'"arguments":{"big":12345678901234567890,"f":1,"n":{"a":2},"path":"/tmp/x"}' in platform.tools.raw[0]


async def test_a_gateway_of_somebody_else_can_neither_use_nor_answer(platform: Platform) -> None:
    approval = await platform.ask(CALL)
    await platform.decide(approval)
    kept = (await platform.service.store.get(*approval.split("/"))).wanted
    body = msgspec.to_builtins(kept)
    status, answer = await platform.rest("POST", f"/v1/approvals/{approval}/consume", body, "other-gw")
    assert status == 403 and "gateway differs" in answer["error"]["message"]
    for who in ("pod-a", "nobody"):
        status, _ = await platform.rest("POST", f"/v1/approvals/{approval}/consume", body, who)
        assert status in (401, 403)
    said = {"person": {"name": "carol@idp"}, "agent": "kagent/b", "task": "t", "verdict": "Approve"}
    status, answer = await platform.rest("POST", "/v1/approvals/said", said, "other-gw")
    assert (status, answer["approvals"]) == (200, [])


async def test_required_approval_of_an_agent_and_a_policy_both_have_to_be_met(platform: Platform) -> None:
    platform.policies(ApprovalRule("ApprovalPolicy/kagent/echo", (ServerPattern("peer"),), ("echo",), users=("bob",)))
    answer = await platform.call("echo", {"text": "hi"}, bearer="pod-a")
    approval = answer["error"]["data"]["approval"]
    assert (await platform.decide(approval))[1]["state"] == "Pending", "alice is enough for requireApproval only"
    assert (await platform.decide(approval, who="bob"))[1]["state"] == "Approved"
    assert "result" in await platform.call("echo", {"text": "hi"}, bearer="pod-a", approval=approval)


async def test_conditions_over_arguments_and_what_cannot_be_evaluated(platform: Platform) -> None:
    platform.policies(msgspec.structs.replace(POLICY, when='arguments.env == "prod" && agent == "kagent/b"'))
    assert "result" in await platform.call(arguments={"env": "test"})
    await platform.ask({"env": "prod"})
    await platform.ask({"nothing": 1})


async def test_a_modern_client_that_shows_urls_is_given_one(platform: Platform) -> None:
    platform.rig.gateway.approvals.page = f"http://127.0.0.1:{platform.port}"
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}},
    }
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "delete"}

    async def call(**more: Any) -> dict[str, Any]:
        params = {"name": "delete", "arguments": CALL, "_meta": meta, **more}
        return await platform.rig.rpc(PATH, "tools/call", params, bearer="secret", listener="local", headers=headers)

    result = (await call())["result"]
    ((key, asked),) = result["inputRequests"].items()
    assert (result["resultType"], asked["method"], asked["params"]["mode"]) == (
        "input_required", "elicitation/create", "url",
    )  # fmt: skip
    path = asked["params"]["url"].removeprefix(platform.rig.gateway.approvals.page)
    response = await platform.pool.request("GET", ("127.0.0.1", platform.port, False), path, [])
    page = (await response.read()).decode()
    approval = path.removeprefix("/approvals/")
    assert f"qd approvals approve {approval.partition('/')[2]} -n kagent" in page and "/tmp/x" not in page
    answered = {"inputResponses": {key: {"action": "accept"}}}
    assert (await call(**answered))["result"]["resultType"] == "input_required", "a click approves nothing"
    await platform.decide(approval)
    assert (await call(**answered))["result"]["content"][0]["text"] == "done"
    assert platform.tools.calls[-1]["arguments"] == CALL and len(platform.tools.calls) == 1
