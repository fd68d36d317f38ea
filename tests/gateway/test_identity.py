"""Who may call: tokens, listeners, origins."""

from __future__ import annotations

import hashlib
import time

import msgspec
import pytest

from quarterdeck import snapshot as s

from .conftest import Rig, snapshot, token

PATH = "/mcp/kagent/peer"
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


@pytest.mark.parametrize(
    ("bearer", "says"),
    [
        (None, "a bearer token is required"),
        ("nonsense", "cannot be verified"),
        (token(exp=int(time.time()) - 60), "expired"),
        (token(aud=["api"]), "not for audience quarterdeck"),
        (token(iss="https://elsewhere"), "issuer"),
        (token("pod-unknown"), "belongs to no Agent"),
        (token(**{"kubernetes.io": {"namespace": "kagent"}}), "not bound to a Pod"),
        (token()[:-8] + "AAAAAAAA", "cannot be verified"),
    ],
)
async def test_the_workload_listener_refuses_what_is_no_valid_workload_token(
    rig: Rig, bearer: str | None, says: str
) -> None:
    response = await rig.request(PATH, LIST, bearer=bearer)
    assert response.status == 401
    assert says in (await response.read()).decode()
    challenge = response.header(b"www-authenticate") or b""
    assert challenge.startswith(b"Bearer ")
    assert (b'error="invalid_token"' in challenge) == (bearer is not None)
    assert rig.records()[-1]["decision"] == "deny"


async def test_local_tokens_count_on_the_local_listener_only(rig: Rig, peer: int) -> None:
    base = snapshot(peer).identities
    hashed = hashlib.sha256(b"secret").hexdigest()
    identities = msgspec.structs.replace(base, anonymous_local=False, local_token_hashes=(hashed,))
    rig.gateway.use(snapshot(peer, identities=identities))
    assert (await rig.request(PATH, LIST, listener="local")).status == 401
    for listener, status in (("local", 404), ("workloads", 401)):
        response = await rig.request(
            PATH, LIST, bearer="secret", listener=listener, headers={"mcp-session-id": "bogus"}
        )
        assert response.status == status
    assert (await rig.request(PATH, LIST, bearer="secret")).status == 401


async def test_two_agents_on_one_service_account_have_their_own_tools(rig: Rig) -> None:
    for pod, expected in (("pod-a", ["add", "echo"]), ("pod-b", ["add", "echo", "fail"])):
        bearer = token(pod)
        headers = {"mcp-session-id": await rig.initialize(PATH, bearer=bearer)}
        answer = await rig.rpc(PATH, "tools/list", bearer=bearer, headers=headers)
        assert [tool["name"] for tool in answer["result"]["tools"]] == expected
    nothing = await rig.rpc(PATH, "initialize", bearer=token("pod-c"))
    assert nothing["error"]["code"] == 4003
    assert "not granted to agent kagent/c" in nothing["error"]["message"]


async def test_a_call_outside_toolnames_is_denied_and_audited(rig: Rig) -> None:
    bearer = token("pod-a")
    headers = {"mcp-session-id": await rig.initialize(PATH, bearer=bearer)}
    denied = await rig.rpc(PATH, "tools/call", {"name": "fail", "arguments": {}}, bearer=bearer, headers=headers)
    assert denied["error"]["code"] == 4003
    assert denied["error"]["message"].startswith('tool "fail" of kagent/peer is not allowed for agent kagent/a (rule ')
    held = await rig.rpc(PATH, "tools/call", {"name": "echo"}, bearer=bearer, headers=headers)
    assert held["error"]["code"] == 4003 and "kept by a control plane" in held["error"]["message"]
    allowed = await rig.rpc(
        PATH, "tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}, bearer=bearer, headers=headers
    )
    assert allowed["result"]["content"][0]["text"] == "3"
    records = [r for r in rig.records() if r["method"] == "tools/call"]
    assert [(r["tool"], r["decision"], r["outcome"], r["agent"]) for r in records] == [
        ("fail", "deny", "denied", "kagent/a"),
        ("echo", "deny", "denied", "kagent/a"),
        ("add", "allow", "ok", "kagent/a"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","Name":"fail"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"},"paramſ":{"name":"fail"}}'.encode(),
        b'{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"fail"}}',
    ],
)
async def test_a_name_that_other_parsers_read_differently_is_refused(rig: Rig, body: bytes) -> None:
    bearer = token("pod-a")
    headers = {"mcp-session-id": await rig.initialize(PATH, bearer=bearer)}
    response = await rig.request(PATH, body, bearer=bearer, headers=headers)
    assert b"ambiguous member" in await response.read()


async def test_a_duplicate_name_is_decided_and_sent_as_one(rig: Rig) -> None:
    bearer = token("pod-a")
    headers = {"mcp-session-id": await rig.initialize(PATH, bearer=bearer)}
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","name":"fail","arguments":{}}}'
    response = await rig.request(PATH, body, bearer=bearer, headers=headers)
    assert b'"code":4003' in await response.read()


async def test_sessions_are_bound_to_principal_and_route(rig: Rig) -> None:
    headers = {"mcp-session-id": await rig.initialize(PATH, bearer=token("pod-b"))}
    assert (await rig.request(PATH, LIST, bearer=token("pod-b"), headers=headers)).status == 200
    assert (await rig.request(PATH, LIST, bearer=token("pod-a"), headers=headers)).status == 404
    assert (await rig.request("/mcp", LIST, bearer=token("pod-b"), headers=headers)).status == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"host": "evil.example"}, 403),
        ({"origin": "http://localhost:5173", "mcp-session-id": "x"}, 404),
    ],
)
async def test_web_pages_of_elsewhere_are_refused(rig: Rig, headers: dict[str, str], status: int) -> None:
    assert (await rig.request(PATH, LIST, listener="local", headers=headers)).status == status


async def test_a_new_snapshot_takes_rights_away_at_once(rig: Rig, peer: int) -> None:
    bearer = token("pod-a")
    headers = {"mcp-session-id": await rig.initialize(PATH, bearer=bearer)}
    rig.gateway.use(snapshot(peer, policies=(s.AgentPolicy("kagent", "a"),)))
    answer = await rig.rpc(PATH, "tools/call", {"name": "add"}, bearer=bearer, headers=headers)
    assert answer["error"]["code"] == 4003
