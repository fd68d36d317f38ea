"""Approvals on the whole platform: asked for in a conversation, decided by ``qd``, executed once, not to be forged."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import httpx

from support.platform import EXAMPLES, Platform, eventually

AGENT = "careful-agent"
QUESTION = "what is the date and time?"


def _calls(platform: Platform, tool: str) -> int:
    """How often the tool was really called by the agent."""
    return sum(
        1
        for record in platform.audit()
        if (record["agent"], record["tool"], record["outcome"]) == (f"kagent/{AGENT}", tool, "ok")
    )


def _asked(platform: Platform) -> str:
    """The name of the approval that the agent waits for."""
    ran = platform.qd("agent", "invoke", AGENT, QUESTION, ok=False)
    assert ran.code == 4, ran.text
    found = re.search(r"kagent/(get-datetime-[0-9a-f]+)", ran.text)
    assert found is not None, ran.text
    return found[1]


def test_a_call_is_approved_by_cli_and_made_once(seed: Platform) -> None:
    seed.apply((EXAMPLES / "approvals" / "agent.yaml").read_text())
    seed.wait(f"agent/{AGENT}")
    name = _asked(seed)
    assert _calls(seed, "get_datetime") == 0
    eventually(lambda: "Pending" in seed.kubectl("get", "approvals", "-n", "kagent").out, "a copy as object")

    forged = {"status": {"phase": "Approved", "message": "approved by root"}}
    seed.kubectl(
        "patch", "approval", name, "-n", "kagent", "--subresource=status", "--type=merge", "-p", json.dumps(forged)
    )
    seed.kubectl(
        "patch", "approval", name, "-n", "kagent", "--type=merge", "-p", '{"spec":{"argumentsHash":"sha256:0"}}'
    )
    shown = json.loads(seed.qd("approvals", "show", name, "-o", "json").out)
    assert (shown["state"], shown["agent"], shown["requester"]["id"]) == ("Pending", f"kagent/{AGENT}", "user@local")
    assert _calls(seed, "get_datetime") == 0, "what an object says approves nothing"

    assert name in seed.qd("approvals", "list").out
    assert "approved by kubernetes-admin" in seed.qd("approvals", "approve", name, "--reason", "go on").out
    eventually(lambda: _calls(seed, "get_datetime") == 1, "the call is made")
    eventually(
        lambda: (
            seed.get("approval", name)["status"]["phase"] == "Consumed"
            and seed.get("approval", name)["spec"]["argumentsHash"] == shown["argumentsHash"]
        ),
        "the copy is put right",
        60,
    )
    assert seed.qd("approvals", "approve", name, ok=False).code != 0
    assert _calls(seed, "get_datetime") == 1


def test_a_denied_call_is_told_to_the_model(seed: Platform) -> None:
    seed.apply((EXAMPLES / "approvals" / "agent.yaml").read_text())
    seed.wait(f"agent/{AGENT}")
    before = _calls(seed, "get_datetime")
    name = _asked(seed)
    seed.qd("approvals", "deny", name, "--reason", "not today")
    assert seed.qd("approvals", "wait", name, ok=False).code == 3
    home = seed.own_home()
    chain = home / "audit" / "control-plane.jsonl"
    assert any(r["method"] == "approvals/deny" and "not today" in r["detail"]
               for r in map(json.loads, chain.read_text().splitlines()))  # fmt: skip
    assert _calls(seed, "get_datetime") == before


def test_a_policy_holds_people_to_it_too(seed: Platform) -> None:
    seed.apply((EXAMPLES / "approvals" / "policy.yaml").read_text())
    try:
        seed.wait("approvalpolicy/time-is-sensitive")
        call = ("tools", "call", "datetime-agent-mcp", "get_time")
        ran = eventually(
            lambda: (done := seed.qd(*call, ok=False)).code == 4 and done, "the policy reaches the gateway"
        )
        found = re.search(r"kagent/(get-time-[0-9a-f]+)", ran.text)
        assert found is not None, ran.text
        seed.qd("approvals", "approve", found[1])
        assert seed.qd(*call, "--approval", f"kagent/{found[1]}").out.strip()
        again = seed.qd(*call, "--approval", f"kagent/{found[1]}", ok=False)
        assert again.code == 3 and "used already" in again.text
    finally:
        seed.kubectl("delete", "approvalpolicy", "time-is-sensitive", "-n", "kagent")


def test_the_user_answers_in_the_conversation(seed: Platform) -> None:
    seed.apply((EXAMPLES / "approvals" / "agent.yaml").read_text())
    seed.wait(f"agent/{AGENT}")
    token = (seed.own_home() / "run" / "local-token").read_text().strip()

    def say(part: dict[str, Any], bearer: str = token, **message: str) -> dict[str, Any]:
        body = {
            "jsonrpc": "2.0", "id": 1, "method": "SendMessage",
            "params": {"message": {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [part], **message}},
        }  # fmt: skip
        headers = {"A2A-Version": "1.0"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        answer = httpx.post(
            f"{seed.gateway}/a2a/kagent/{AGENT}/", json=body, headers=headers, timeout=60, trust_env=False
        )
        return answer.json()

    before = _calls(seed, "get_datetime")
    task = say({"text": QUESTION})["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    (asked,) = [part["data"] for part in task["status"]["message"]["parts"] if "data" in part]
    assert asked["name"] == "adk_request_confirmation"
    assert asked["args"]["originalFunctionCall"]["name"] == "get_datetime"
    decision = {"data": {"decision_type": "approve"}}
    refused = say(decision, bearer="", taskId=task["id"])
    assert "error" in refused, "nobody knows who that is"
    assert _calls(seed, "get_datetime") == before
    answer = say(decision, taskId=task["id"], contextId=task["contextId"])
    assert "result" in answer, answer
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED", answer
    assert _calls(seed, "get_datetime") == before + 1
