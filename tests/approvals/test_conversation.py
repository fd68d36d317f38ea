"""Approved in the conversation: the gateway takes the word of the user who asked, and of nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from gateway.conftest import token
from quarterdeck import snapshot as s
from quarterdeck.errors import Denied
from quarterdeck.gateway.a2a.deciding import record, said
from quarterdeck.gateway.policy.principal import Principal
from quarterdeck.mcptypes.canonical import arguments_hash
from quarterdeck.server.runs_store import Draft, NewRun
from quarterdeck.wire.http import Exchange, Server

from .conftest import POLICY, Platform

ACTING = b"x-quarterdeck-acting-for"
CALL = {"path": "/tmp/x"}
MINE = msgspec.structs.replace(POLICY, users=(), requester=True)


class AgentDouble:
    """Answers every message; keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[bytes, bytes], dict[str, Any]]] = []

    def handle(self, exchange: Exchange) -> None:
        self.got.append((dict(exchange.headers), msgspec.json.decode(exchange.body)))
        exchange.respond(200, b'{"jsonrpc":"2.0","id":1,"result":{}}', [(b"content-type", b"application/json")])


@pytest.fixture
async def agent(platform: Platform) -> AsyncIterator[AgentDouble]:
    """Agents a and b; a may ask b."""
    double = AgentDouble()
    server = Server(double.handle)
    _, port = await server.listen("127.0.0.1", 0)
    endpoints = (s.Endpoint("127.0.0.1", port),)
    platform.agents = (s.Agent("kagent", "a", endpoints), s.Agent("kagent", "b", endpoints))
    platform.policies(MINE)
    yield double
    await server.stop(0)


async def say(
    platform: Platform, data: Any, *, bearer: str | None = "secret", to: str = "b", task: str = "T", **options: Any
) -> dict[str, Any]:
    part = {"text": data} if isinstance(data, str) else {"data": data}
    message = {"messageId": options.pop("message", None) or uuid4().hex, "role": "ROLE_USER", "parts": [part]} | (
        {"taskId": task} if task else {}
    )
    options = {"listener": "local", "bearer": bearer} | options
    return await platform.rig.rpc(f"/a2a/kagent/{to}/", "SendMessage", {"message": message}, **options)


async def asked(platform: Platform, agent: AgentDouble, **options: Any) -> str:
    """The user speaks to the agent, which calls a tool for them in run r1, step 1, and waits."""
    await say(platform, "delete it", task="")
    acting = agent.got[-1][0][ACTING].decode()
    approval = await platform.ask(CALL, headers={ACTING.decode(): acting}, **options)
    question = {"approval": approval, "call": {"id": "c1"}}
    platform.runs.waits["r1"] = ("T", 1, question)
    return approval


async def call_again(platform: Platform, agent: AgentDouble, approval: str) -> dict[str, Any]:
    acting = agent.got[0][0][ACTING].decode()
    return await platform.call(arguments=CALL, approval=approval, headers={ACTING.decode(): acting})


@pytest.mark.parametrize(
    "data", [{"decision_type": "approve"}, {"decision_type": "batch", "decisions": {"c1": "approve"}}]
)
async def test_the_user_who_asked_approves(platform: Platform, agent: AgentDouble, data: Any) -> None:
    approval = await asked(platform, agent)
    answer = await say(platform, data)
    assert "result" in answer and agent.got[-1][1]["params"]["message"]["parts"] == [{"data": data}]
    _, shown = await platform.rest("GET", f"/v1/approvals/{approval}")
    assert (shown["state"], shown["requester"]["id"]) == ("Approved", "user@local")
    assert [(d["by"], d["via"]) for d in shown["decisions"]] == [("user@local", "conversation")]
    assert "result" in await call_again(platform, agent, approval)
    assert len(platform.tools.calls) == 1
    said_so, used = platform.records()[-2:]
    assert (said_so["principal"], said_so["method"]) == ("user@local", "approvals/approve")
    assert (used["principal"], used["method"]) == ("agent:kagent/b", "approvals/consumed")


async def test_a_rejection_carries_its_reason_to_the_model(platform: Platform, agent: AgentDouble) -> None:
    approval = await asked(platform, agent)
    await say(
        platform, {"decision_type": "batch", "decisions": {"c1": "reject"}, "rejection_reasons": {"c1": "too old"}}
    )
    error = (await call_again(platform, agent, approval))["error"]
    assert (error["code"], error["message"]) == (4003, "denied by user@local: too old")


async def test_agents_and_unknown_callers_cannot_say_it(platform: Platform, agent: AgentDouble) -> None:
    approval = await asked(platform, agent)
    before = len(agent.got)
    anonymous = await say(platform, {"decision_type": "approve"}, bearer=None)
    assert anonymous["error"]["code"] == 4003 and "use a token" in anonymous["error"]["message"]
    platform.policies(MINE)
    as_agent = await say(platform, {"decision_type": "approve"}, bearer=token("pod-b"), listener="workloads")
    assert "error" in as_agent
    last = platform.rig.records()[-1]
    assert (last["agent"], last["outcome"]) == ("kagent/b", "denied")
    assert len(agent.got) == before, "nothing of it reaches the agent"
    assert (await platform.service.store.get(*approval.split("/"))).state == "Pending"


async def test_only_what_the_task_shows_is_approved(platform: Platform, agent: AgentDouble) -> None:
    shown = await asked(platform, agent)
    acting = {ACTING.decode(): agent.got[0][0][ACTING].decode()}
    hidden = await platform.ask({"path": "/"}, step=2, headers=acting)
    await say(platform, {"decision_type": "approve"})
    states = [(await platform.service.store.get(*one.split("/"))).state for one in (shown, hidden)]
    assert states == ["Approved", "Pending"]
    await say(platform, {"decision_type": "approve"}, task="other")
    assert (await platform.service.store.get(*hidden.split("/"))).state == "Pending"


async def test_a_policy_that_names_others_is_not_met_in_the_conversation(
    platform: Platform, agent: AgentDouble
) -> None:
    platform.policies(POLICY)
    approval = await asked(platform, agent)
    answer = await say(platform, {"decision_type": "approve"})
    assert answer["error"]["code"] == 4003 and "may not decide" in answer["error"]["message"]
    assert (await platform.decide(approval))[1]["state"] == "Approved"
    assert platform.runs.answers == [
        ("r1", 1, {"approval": approval, "state": "Approved", "text": "approved by alice",
                   "argumentsHash": platform.runs.answers[0][2]["argumentsHash"]}, "alice")
    ]  # fmt: skip


async def test_an_agent_cannot_say_for_whom_it_acts(platform: Platform, agent: AgentDouble) -> None:
    await say(platform, "hello", task="")
    acting = agent.got[-1][0][ACTING].decode()
    flipped = acting[:-2] + chr(ord(acting[-2]) ^ 1) + acting[-1]
    for headers, bearer in (
        ({ACTING.decode(): acting}, "pod-a"),  # it was told to agent b
        ({ACTING.decode(): flipped}, "pod-b"),
        ({ACTING.decode(): "alice"}, "pod-b"),
    ):
        tool = "echo" if bearer == "pod-a" else "delete"
        answer = await platform.call(tool, CALL, headers=headers, bearer=bearer)
        approval = answer["error"]["data"]["approval"]
        wanted = (await platform.service.store.get(*approval.split("/"))).wanted
        assert wanted.requester.id == ""
    client = {"x-quarterdeck-acting-for": acting, "x-user-id": "alice"}
    await say(platform, "hi", task="", headers=client)
    assert agent.got[-1][0][ACTING] != acting.encode(), "what a client sends is not passed on"


async def test_a_word_that_is_sent_again_decides_about_nothing_else(platform: Platform, agent: AgentDouble) -> None:
    first = await asked(platform, agent)
    await say(platform, {"decision_type": "approve"}, message="m1")
    assert (await platform.service.store.get(*first.split("/"))).state == "Approved"
    acting = agent.got[0][0][ACTING].decode()
    second = await platform.ask({"path": "/etc"}, headers={ACTING.decode(): acting}, step=2)
    platform.runs.waits["r1"] = ("T", 2, {"approval": second, "call": {"id": "c2"}})
    await say(platform, {"decision_type": "approve"}, message="m1")
    assert (await platform.service.store.get(*second.split("/"))).state == "Pending", "replayed"
    await say(platform, {"decision_type": "approve"}, message="m2")
    assert (await platform.service.store.get(*second.split("/"))).state == "Approved"


async def test_forged_user_headers_are_taken_from_nobody(platform: Platform, agent: AgentDouble) -> None:
    """``X-User-Id``: of a person, of an agent that says for whom it acts, and of one that proves it."""

    async def user(**options: Any) -> bytes:
        await say(platform, "hi", task="", **options)
        return agent.got[-1][0].get(b"x-user-id", b"")

    me = await user(to="a")
    assert await user(to="a", headers={"x-user-id": "root"}) == me
    told = agent.got[-1][0][ACTING].decode()
    workload = {"bearer": token("pod-a"), "to": "b", "listener": "workloads"}
    assert await user(**workload, headers={"x-user-id": "root"}) == b"agent:kagent/a", "its word alone is no proof"
    assert await user(**workload) == b"agent:kagent/a"
    proof = {ACTING.decode(): told}
    assert await user(**workload, headers=proof) == me
    assert await user(**workload, headers=proof | {"x-user-id": "root"}) == me
    flipped = told[:-2] + chr(ord(told[-2]) ^ 1) + told[-1]
    assert await user(**workload, headers={ACTING.decode(): flipped, "x-user-id": "root"}) == b"agent:kagent/a"


async def test_the_run_is_told_when_it_waits_though_it_was_decided_before(
    platform: Platform, agent: AgentDouble
) -> None:
    approval = await asked(platform, agent)
    question = platform.runs.waits.pop("r1")
    await platform.decide(approval, who="bob")
    assert platform.runs.answers == []
    platform.runs.waits["r1"] = question
    await platform.service.tell_runs()
    assert [entry[0] for entry in platform.runs.answers] == ["r1"]
    await platform.service.tell_runs()
    assert len(platform.runs.answers) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"params":{"message":{"taskId":"t","parts":[{"kind":"data","data":{"decision_type":"approve"}}]}}}',
            "Approve",
        ),
        (b'{"message":{"taskId":"t","parts":[{"data":{"decision_type":"reject","rejection_reason":"no"}}]}}', "Deny"),
        (b'{"params":{"message":{"taskId":"t","parts":[{"text":"\\"decision_type\\": approve"}]}}}', None),
        (b'{"params":{"message":{"parts":[{"data":{"decision_type":"approve","ask_user_answers":[]}}]}}}', None),
        (b'{"decision_type"', None),
    ],
)
def test_what_a_message_says(body: bytes, expected: str | None) -> None:
    found = said(body)
    assert (found.verdict if found is not None else None) == expected


@pytest.mark.parametrize(
    ("principal", "why"),
    [
        (Principal("agent:kagent/a", agent="kagent/a"), "no person"),
        (Principal("alice@idp", claims={"sub": "alice", "act": {"sub": "agent:kagent/a"}}), "no person"),
        (Principal("anonymous", anonymous=True), "use a token"),
    ],
)
async def test_no_agent_and_nobody_unknown_is_taken_at_their_word(principal: Principal, why: str) -> None:
    async def ask(path: str, body: bytes) -> bytes:
        raise AssertionError(f"nothing is to be told: {path} {body!r}")

    word = said(b'{"message":{"taskId":"t","parts":[{"data":{"decision_type":"approve"}}]}}')
    assert word is not None
    with pytest.raises(Denied, match=why):
        await record(ask, principal, "kagent/b", word)


@pytest.mark.parametrize("platform", ["journal"], indirect=True)
@pytest.mark.parametrize("where", ["conversation", "api"])
async def test_the_run_of_the_journal_goes_on(platform: Platform, agent: AgentDouble, where: str) -> None:
    await say(platform, "delete it", task="")
    acting = {ACTING.decode(): agent.got[-1][0][ACTING].decode()}
    journal, message = platform.journal, {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "delete it"}]}
    row, leased = await journal.create(NewRun("kagent/b", "u", "s", "T", message, replica="pod/boot"))
    assert leased
    run, fence = row["id"], (await journal.run(row["id"]))["fence"]
    call = {"id": "c1", "name": "delete", "tool": "delete", "server": "kagent/peer", "arguments": CALL, "attempt": 1}
    await journal.append("kagent/b", run, fence, "1", [Draft("tool.intent", 2, call | {"hash": arguments_hash(CALL)})])
    approval = await platform.ask(CALL, run=run, step=2, headers=acting)
    question = {"approval": approval, "call": {"id": "c1"}}
    waiting = {"reason": "approval", "question": question, "parts": []}
    await journal.append("kagent/b", run, fence, "2", [Draft("waiting", 2, waiting)])
    assert (await journal.run(run))["state"] == "waiting"
    if where == "conversation":
        await say(platform, {"decision_type": "batch", "decisions": {"c1": "approve"}})
        await platform.service.tell_runs()
        assert (await journal.run(run))["state"] == "waiting", "the message itself makes it go on"
        await platform.service.tell_runs()
    else:
        await platform.decide(approval)
    row = await journal.run(run)
    assert row["state"] == "pending"
    answer = (await journal.events(row))[-1]
    assert (answer.kind, answer.step, answer.data["approval"]) == ("answer", 2, approval)
    assert "result" in await platform.call(arguments=CALL, run=run, step=2, headers=acting, approval=approval)


@pytest.mark.parametrize("platform", ["journal"], indirect=True)
@pytest.mark.parametrize(("source", "requester"), [("background", "alice"), ("chat", "")])
async def test_who_started_a_run_here_is_its_requester(
    platform: Platform, agent: AgentDouble, source: str, requester: str
) -> None:
    platform.policies(POLICY)
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "delete it"}]}
    row, _ = await platform.journal.create(NewRun("kagent/b", "alice", "s", "T", message, source, replica="pod/boot"))
    approval = await platform.ask(CALL, run=row["id"], step=2, user="")
    kept = await platform.service.store.get(*approval.split("/"))
    assert kept.wanted.requester.id == requester, "what an agent says of a conversation's user is not believed"
    assert (await platform.decide(approval))[0] == (403 if requester else 200)
    await platform.decide(approval, who="bob")
    assert "result" in await platform.call(arguments=CALL, run=row["id"], step=2, user="", approval=approval)
