"""An agent that asks another agent, whose call waits for people: the user is asked where they talk, and both go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gateway.conftest import token
from quarterdeck.agents import remote
from quarterdeck.agents.approvals import confirmation
from quarterdeck.agents.config import RemoteAgent
from quarterdeck.agents.journal.pause import Pause
from quarterdeck.agents.model import ToolCall
from quarterdeck.agents.remote import RemoteAgentTool
from quarterdeck.agents.tool import Context
from quarterdeck.mcpclient import no_headers
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Server

from .conftest import Platform
from .test_conversation import ACTING, CALL, AgentDouble, agent, say

__all__ = ["agent"]
APPROVAL = "kagent/delete-1"


async def nested(platform: Platform, agent: AgentDouble) -> str:
    """The user asks a, a asks b in its run ra, b's call in its run r1 waits; a shows that in its task TA."""
    await say(platform, "delete it", to="a", task="")
    acting = {ACTING.decode(): agent.got[-1][0][ACTING].decode(), "x-quarterdeck-task": "ra"}
    await say(platform, "delete it", to="b", bearer=token("pod-a"), listener="workloads", headers=acting, task="")
    told = agent.got[-1][0][ACTING].decode()
    approval = await platform.ask(CALL, headers={ACTING.decode(): told})
    platform.runs.waits["r1"] = ("TB", 1, {"approval": approval, "call": {"id": "c1"}})
    platform.runs.waits["ra"] = ("TA", 4, {"approval": approval, "call": {"id": "c1"}, "task": "TB"})
    return approval


async def test_the_user_answers_where_they_asked(platform: Platform, agent: AgentDouble) -> None:
    approval = await nested(platform, agent)
    kept = await platform.service.store.get(*approval.split("/"))
    assert (kept.wanted.requester.id, kept.wanted.agent, kept.wanted.task) == ("user@local", "kagent/b", "kagent/a#ra")
    await say(platform, {"decision_type": "approve"}, to="b", task="TA")
    assert (await platform.service.store.get(*approval.split("/"))).state == "Pending", "that is no task of b's"
    platform.runs.waits["ra"] = ("TA", 4, {"approval": "kagent/other"})
    await say(platform, {"decision_type": "approve"}, to="a", task="TA")
    assert (await platform.service.store.get(*approval.split("/"))).state == "Pending", "a shows something else"
    platform.runs.waits["ra"] = ("TA", 4, {"approval": approval})
    await say(platform, {"decision_type": "approve"}, to="a", task="TA")
    assert (await platform.service.store.get(*approval.split("/"))).state == "Approved"


async def test_both_runs_go_on_when_it_is_decided_elsewhere(platform: Platform, agent: AgentDouble) -> None:
    approval = await nested(platform, agent)
    await platform.decide(approval)
    told = {run: (step, data.get("task")) for run, step, data, _ in platform.runs.answers}
    assert told == {"r1": (1, None), "ra": (4, "TB")}


class Other:
    """Another agent: its task's states, one for each question."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)
        self.asked: list[tuple[str, Any]] = []
        self.headers: dict[bytes, bytes] = {}

    def handle(self, exchange: Exchange) -> None:
        request = msgspec.json.decode(exchange.body)
        self.headers = dict(exchange.headers)
        self.asked.append((request["method"], request["params"]))
        state = self.states.pop(0)
        task: dict[str, Any] = {
            "id": "TB",
            "contextId": "s",
            "status": {"state": f"TASK_STATE_{state}"},
            "artifacts": [],
        }
        if state == "INPUT_REQUIRED":
            call = ToolCall("c1", "delete", {"path": "/tmp/x"})
            part = confirmation(APPROVAL, call, "delete needs approval", {"approval": APPROVAL})
            task["status"]["message"] = {"parts": [{"text": "delete needs approval"}, part]}
        elif state == "COMPLETED":
            task["artifacts"] = [{"parts": [{"text": "deleted"}]}]
        result = {"task": task} if request["method"] == "SendMessage" else task
        exchange.respond(200, msgspec.json.encode({"jsonrpc": "2.0", "id": request["id"], "result": result}))


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool()
    yield made
    made.close()


async def _tool(pool: Pool, other: Other) -> tuple[RemoteAgentTool, Server]:
    server = Server(other.handle)
    _, port = await server.listen("127.0.0.1", 0)
    entry = RemoteAgent(name="helper", url=f"http://127.0.0.1:{port}/a2a/kagent/b/")
    return RemoteAgentTool(pool, entry, no_headers), server


@pytest.mark.parametrize(
    ("states", "methods"),
    [
        (("COMPLETED",), ["GetTask"]),
        (("WORKING", "COMPLETED"), ["GetTask", "GetTask"]),
        (("INPUT_REQUIRED", "COMPLETED"), ["GetTask", "SendMessage"]),
    ],
)
async def test_the_asking_agent_pauses_and_takes_up_the_same_task(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], methods: list[str]
) -> None:
    monkeypatch.setattr(remote, "_POLL", 0.0)
    other = Other("INPUT_REQUIRED", *states)
    tool, server = await _tool(pool, other)
    context = Context("u", "s", run="ra", step=4)
    with pytest.raises(Pause) as found:
        await tool.call({"request": "delete it"}, context)
    assert other.headers[b"x-quarterdeck-task"] == b"ra"
    question, part = found.value.question, found.value.parts[1]["data"]
    assert (found.value.reason, question["task"], question["approval"]) == ("agent", "TB", APPROVAL)
    payload = part["args"]["toolConfirmation"]["payload"]
    assert (payload["task_id"], payload["subagent_name"]) == ("TB", "helper")
    assert payload["hitl_parts"][0]["args"]["originalFunctionCall"]["name"] == "delete"

    message = {"parts": [{"data": {"decision_type": "approve"}}]}
    answer = remote.answer_of(message, {"question": question})
    assert answer == {"task": "TB", "parts": []}, "a decision is no agent's to pass on"
    outcome = await tool.call({"request": "delete it"}, Context("u", "s", run="ra", step=4, answer=answer))
    assert (outcome.text, outcome.failed) == ("deleted", False)
    assert [method for method, _ in other.asked[1:]] == methods
    sent = [params["message"] for method, params in other.asked[1:] if method == "SendMessage"]
    assert all(m["taskId"] == "TB" and m["parts"] == [{"data": {"quarterdeck.dev/resume": True}}] for m in sent)
    await server.stop(0)


async def test_answers_to_questions_are_passed_on(pool: Pool) -> None:
    said = {"decision_type": "approve", "ask_user_answers": [{"answer": ["a"]}]}
    answer = remote.answer_of({"parts": [{"data": said}]}, {"question": {"task": "TB"}})
    assert answer == {"task": "TB", "parts": [{"data": said}]}
    other = Other("INPUT_REQUIRED", "INPUT_REQUIRED")
    tool, server = await _tool(pool, other)
    with pytest.raises(Pause):
        await tool.call({"request": "x"}, Context("u", "s", run="ra", step=4, answer=answer))
    assert other.asked[1][1]["message"]["parts"] == [{"data": said}]
    await server.stop(0)
