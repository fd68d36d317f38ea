"""Approvals on the whole platform: asked for in a conversation, decided by ``qd``, executed once, not to be forged."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import httpx

from support.platform import EXAMPLES, SYSTEM, Platform, eventually

from .test_identity import Caller, token_of, workloads

AGENT = "careful-agent"
QUESTION = "what is the date and time?"


def _calls(platform: Platform, tool: str) -> int:
    """How often the tool was really called by the agent."""
    return sum(
        1
        for record in platform.audit()
        if (record["agent"], record["tool"], record["outcome"]) == (f"kagent/{AGENT}", tool, "ok")
    )


def _chain(platform: Platform) -> list[dict[str, Any]]:
    """The control plane's own audit records: a file, or the standard output of its replicas."""
    if platform.home is not None:
        lines = (platform.home / "audit" / "control-plane.jsonl").read_text().splitlines()
    else:
        selector = ("-l", "app.kubernetes.io/component=controller", "--tail=-1")
        lines = platform.kubectl("logs", "-n", SYSTEM, *selector).out.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and '"approvals/' in line]


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
    admin = "kubernetes-admin" if seed.person is None else "admin"
    assert f"approved by {admin}" in seed.qd("approvals", "approve", name, "--reason", "go on").out
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


def test_forged_approvals_are_refused(seed: Platform) -> None:
    """By the agent itself, by who has no right to, by an object that says so, and by a claim that it was approved."""
    seed.apply((EXAMPLES / "approvals" / "agent.yaml").read_text())
    seed.wait(f"agent/{AGENT}")
    before = _calls(seed, "get_datetime")
    name = _asked(seed)
    own = token_of(seed, AGENT)
    stranger = seed.kubectl("create", "token", "default", "-n", "default").out.strip()
    api = seed.api or seed.endpoints()["api"]
    for token, status in ((own, 403), (stranger, 403), ("", 401), (own[:-5] + "AAAAA", 401)):
        for verdict in ("approve", "deny"):
            answer = httpx.post(
                f"{api}/v1/approvals/kagent/{name}/{verdict}", json={"reason": "it is fine"}, trust_env=False,
                headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=20,
            )  # fmt: skip
            assert answer.status_code in (status, 401), (token[-5:], answer.status_code, answer.text)

    copy = seed.get("approval", name)
    forged = {"apiVersion": copy["apiVersion"], "kind": copy["kind"], "spec": copy["spec"],
              "metadata": {"name": "get-datetime-forged", "namespace": "kagent"}}  # fmt: skip
    seed.apply(forged)
    approved = ("--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Approved"}}')
    seed.kubectl("patch", "approval", "get-datetime-forged", "-n", "kagent", *approved, ok=False)
    caller = Caller(workloads(seed), own)
    for claim in (name, "get-datetime-forged"):
        meta = {"dev.quarterdeck/approval": f"kagent/{claim}", "dev.quarterdeck/run": copy["spec"].get("run", "")}
        answer = caller.ask("tools/call", {"name": "get_datetime", "arguments": {}, "_meta": meta})
        assert "error" in answer, answer
    assert _calls(seed, "get_datetime") == before, "nothing of that approves anything"
    shown = json.loads(seed.qd("approvals", "show", name, "-o", "json").out)
    assert shown["state"] == "Pending" and not shown.get("decisions"), shown
    eventually(
        lambda: seed.kubectl("get", "approval", "get-datetime-forged", "-n", "kagent", ok=False).code != 0,
        "the object that nobody asked for is gone", 60,
    )  # fmt: skip
    seed.qd("approvals", "approve", name)
    eventually(lambda: _calls(seed, "get_datetime") == before + 1, "the call is made")


def test_a_denied_call_is_told_to_the_model(seed: Platform) -> None:
    seed.apply((EXAMPLES / "approvals" / "agent.yaml").read_text())
    seed.wait(f"agent/{AGENT}")
    before = _calls(seed, "get_datetime")
    name = _asked(seed)
    seed.qd("approvals", "deny", name, "--reason", "not today")
    assert seed.qd("approvals", "wait", name, ok=False).code == 3
    assert any(r["method"] == "approvals/deny" and "not today" in r["detail"] for r in _chain(seed))
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
    token = seed.token or (seed.own_home() / "run" / "local-token").read_text().strip()

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
