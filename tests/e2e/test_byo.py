"""Agents of others' images on the whole platform: whatever they are built on, and whatever they try."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import Message, Part, Role, SendMessageRequest

from support.byo_images import build
from support.platform import EXAMPLES, Platform, eventually

BYO = EXAMPLES / "agents" / "byo"
BARE = Path(__file__).parents[1] / "byo" / "bare"
AGENT = """
apiVersion: kagent.dev/v1alpha2
kind: Agent
metadata: {name: %s, namespace: kagent}
spec:
  type: BYO
  byo: {deployment: {image: "bare:1"}}
"""
MAY_ASK = """
  declarative: {tools: [{type: Agent, agent: {name: bare}}]}
"""


def say(platform: Platform, agent: str, text: str, context: str = "", method: str = "SendMessage") -> dict[str, Any]:
    """One message in A2A 1.0 (``message/send``: in 0.3); the task, or ``{error}``."""
    old = method == "message/send"
    part = {"kind": "text", "text": text} if old else {"text": text}
    message: dict[str, Any] = {"messageId": str(uuid4()), "role": "user" if old else "ROLE_USER", "parts": [part]}
    message |= {"contextId": context} if context else {}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"message": message}}
    headers = {} if old else {"A2A-Version": "1.0"}
    answer = httpx.post(
        f"{platform.gateway}/a2a/kagent/{agent}/", json=body, headers=headers, timeout=200, trust_env=False
    )
    found = answer.json()
    result = found.get("result")
    return found if result is None else result if old else result["task"]


def told(task: dict[str, Any]) -> str:
    return "".join(part["text"] for artifact in task["artifacts"] for part in artifact["parts"])


def has(platform: Platform, agent: str, url: str, context: str, **more: Any) -> tuple[int, str]:
    """What the bare agent gets when it asks for that."""
    found = json.loads(told(say(platform, agent, json.dumps({"url": url, **more}), context)))
    return found["status"], found["body"]


def placed(platform: Platform, folder: str, name: str, seconds: int = 200) -> None:
    """Build the example's image and apply its Agent; it is ready then."""
    build(platform, BYO / folder, f"{name}:1")
    platform.apply((BYO / folder / "agent.yaml").read_text())
    platform.wait(f"agent/{name}", seconds=seconds)


@pytest.fixture(scope="module")
def bare(seed: Platform) -> Platform:
    """Two agents of one image; the second may ask the first."""
    build(seed, BARE, "bare:1")
    seed.apply(AGENT % "bare")
    seed.apply(AGENT % "bare-too" + MAY_ASK)
    for name in ("bare", "bare-too"):
        seed.wait(f"agent/{name}", seconds=200)
    return seed


def test_an_image_that_speaks_0_3_is_an_agent_like_others(bare: Platform) -> None:
    assert "hello there" in bare.qd("agent", "invoke", "bare", "hello there").out
    card = httpx.get(f"{bare.gateway}/a2a/kagent/bare/.well-known/agent-card.json", timeout=60, trust_env=False).json()
    assert card["url"].rstrip("/").endswith("/a2a/kagent/bare")
    assert [each["protocolVersion"] for each in card["supportedInterfaces"]] == ["1.0"], "the gateway translates"
    new, old = say(bare, "bare", "one", "c-old"), say(bare, "bare", "two", "c-old", method="message/send")
    assert new["status"]["state"] == "TASK_STATE_COMPLETED" and old["status"]["state"] == "completed"
    assert new["contextId"] == old["contextId"] == "c-old"
    assert json.loads(told(new))["user"] == "admin@kagent.dev"
    assert len(say(bare, "bare", "three")["contextId"]) == 36, "the gateway names a conversation that has no name"
    pod = bare.kubectl("get", "pods", "-n", "kagent", "-l", "kagent=bare", "-o", "name").out.strip()
    log = bare.kubectl("logs", "-n", "kagent", pod).out
    assert "bare: [" in log and "'description', 'instruction', 'model'" in log


async def test_the_official_client_talks_to_an_image_of_0_3_by_its_card(bare: Platform) -> None:
    async with bare.http() as http:
        card = await A2ACardResolver(http, f"{bare.gateway}/a2a/kagent/bare").get_agent_card()
        client = ClientFactory(ClientConfig(httpx_client=http)).create(card)
        said = Message(message_id=str(uuid4()), role=Role.ROLE_USER, parts=[Part(text="hello official")])
        answers = [event async for event in client.send_message(SendMessageRequest(message=said))]
    texts = [part.text for answer in answers for artifact in answer.task.artifacts for part in artifact.parts]
    assert any("hello official" in text for text in texts), answers


def test_the_relay_says_who_it_is_and_the_control_plane_for_whom_it_may_act(bare: Platform) -> None:
    status, body = has(bare, "bare", "$KAGENT_URL/api/me", "c1")
    assert (status, json.loads(body)["data"]) == (200, {"user_id": "admin@kagent.dev", "agent": "kagent/bare"})
    forged = {"X-User-ID": "mallory@example.com"}
    for url in ("$KAGENT_URL/api/sessions", "$KAGENT_URL/api/langgraph/checkpoints?thread_id=c1"):
        assert has(bare, "bare", url, "c1", headers=forged)[0] == 403, url
    stolen = {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}
    assert has(bare, "bare", "$KAGENT_URL/api/me", "c1", headers=stolen)[0] == 200, "the Pod's own token is sent"
    say(bare, "bare-too", "hi", "c-too")
    assert has(bare, "bare", "$KAGENT_URL/api/sessions/c-too", "c1")[0] == 404, "another agent's session"
    assert has(bare, "bare-too", "$KAGENT_URL/api/sessions/c-too", "c-too")[0] == 200
    opened = {"agent": "kagent/bare", "user": "mallory@example.com"}
    api = "$KAGENT_URL/v1/conversations"
    assert has(bare, "bare", api, "c1", method="POST", body=opened)[0] == 404, "not on this listener"


def test_its_model_and_tool_calls_are_the_gateways_to_allow_and_to_record(bare: Platform) -> None:
    before = len(bare.audit())
    asked = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}
    key = {"Authorization": "Bearer sk-of-nobody"}
    url = "$OPENAI_BASE_URL/chat/completions"
    status, body = has(bare, "bare", url, "c1", method="POST", headers=key, body=asked)
    assert status == 200, body
    listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    tools = "$QUARTERDECK_GATEWAY_URL/mcp/kagent/datetime-agent-mcp"
    accept = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    refused = has(bare, "bare", tools, "c1", method="POST", headers=accept, body=listed)[1]
    assert '"code":4003' in refused, "no tools are granted to it"

    def recorded() -> bool:
        found = [r for r in bare.audit()[before:] if r["agent"] == "kagent/bare"]
        return {("llm", "ok"), ("mcp", "denied")} <= {(r["kind"], r["outcome"]) for r in found}

    eventually(recorded, "its calls are in the audit log")


def test_a_conversation_of_somebody_else_is_none(bare: Platform) -> None:
    say(bare, "bare", "mine", "c-mine")
    say(bare, "bare-too", "mine", "c-too")

    def asks(context: str, **headers: str) -> dict[str, Any]:
        message = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": "x"}], "contextId": context}
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
        url, more = "$QUARTERDECK_GATEWAY_URL/a2a/kagent/bare/", {"headers": {"A2A-Version": "1.0", **headers}}
        return json.loads(has(bare, "bare-too", url, "c-too", method="POST", body=body, **more)[1])

    own = asks("c-agents-own")
    assert json.loads(told(own["result"]["task"]))["user"] == "agent:kagent/bare-too"
    assert asks("c-mine")["error"]["code"] == -32001, "of another user"
    assert "no open session of user 'bob'" in asks("c-bob", **{"X-User-ID": "bob"})["error"]["message"]
    for_me = asks("c-mine", **{"X-User-ID": "admin@kagent.dev"})
    assert json.loads(told(for_me["result"]["task"]))["user"] == "admin@kagent.dev", "who has an open session with it"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_image_on_kagents_langgraph_keeps_its_state_over_a_restart(bare: Platform) -> None:
    placed(bare, "langgraph", "counting-agent")
    context = str(uuid4())
    assert told(say(bare, "counting-agent", "one", context)).endswith("(turn 1)")
    bare.kubectl("delete", "pods", "-n", "kagent", "-l", "kagent=counting-agent")

    def again() -> str:
        answer = say(bare, "counting-agent", "two", context)
        return told(answer) if answer.get("artifacts") else ""

    assert eventually(again, "the next Pod answers").endswith("(turn 2)")
    assert "(turn 1)" in bare.qd("agent", "invoke", "counting-agent", "another conversation").out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_image_on_kagents_adk_uses_its_tools_and_waits_for_approvals(bare: Platform) -> None:
    placed(bare, "adk", "adk-agent", seconds=400)
    context = str(uuid4())
    first = say(bare, "adk-agent", "what is the date and time?", context)
    assert "20" in told(first), first
    second = say(bare, "adk-agent", "and now, what is the date and time?", context)
    assert second["contextId"] == context and "20" in told(second)
    calls = [r for r in bare.audit() if r["agent"] == "kagent/adk-agent"]
    assert {("llm", "ok"), ("mcp", "ok")} <= {(r["kind"], r["outcome"]) for r in calls}
    assert any(r["tool"] == "get_datetime" for r in calls)

    server = {"name": "datetime-agent-mcp", "kind": "MCPServer", "apiGroup": "kagent.dev"}
    server |= {"toolNames": ["get_datetime"], "requireApproval": ["get_datetime"]}
    tools = {"spec": {"declarative": {"tools": [{"type": "McpServer", "mcpServer": server}]}}}
    bare.kubectl("patch", "agent", "adk-agent", "-n", "kagent", "--type=merge", "-p", json.dumps(tools))

    def waits() -> str:
        say(bare, "adk-agent", "what is the date and time?", context)
        items = json.loads(bare.kubectl("get", "approvals", "-n", "kagent", "-o", "json").out)["items"]
        mine = [item for item in items if "kagent/adk-agent" in json.dumps(item["spec"])]
        return next((item["metadata"]["name"] for item in mine if item["status"]["phase"] == "Pending"), "")

    def made() -> int:
        return sum(
            (r["agent"], r["tool"], r["outcome"]) == ("kagent/adk-agent", "get_datetime", "ok") for r in bare.audit()
        )

    name = eventually(waits, "its call waits for an approval")
    before = made()
    bare.qd("approvals", "approve", name)
    say(bare, "adk-agent", "what is the date and time?", context)
    eventually(lambda: made() == before + 1, "what was approved is called in the next message, once")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_plain_agent_of_the_official_sdk(bare: Platform) -> None:
    placed(bare, "plain", "parrot")
    say(bare, "parrot", "one", "c-parrot")
    assert told(say(bare, "parrot", "two", "c-parrot")) == "admin@kagent.dev said: one, two"
    url = f"{bare.gateway}/a2a/kagent/parrot/message:send"
    message = {"messageId": "m", "role": "ROLE_USER", "contextId": "c-parrot", "parts": [{"text": "three"}]}
    rest = httpx.post(url, json={"message": message}, headers={"A2A-Version": "1.0"}, timeout=60, trust_env=False)
    assert told(rest.json()["task"]).endswith("one, two, three")
    assert "parrot" in bare.qd("agent", "invoke", "parrot", "I am a parrot").out
