"""Examples context, prompts, output and agents-as-tools of examples/agents on the whole platform."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx

from support.platform import EXAMPLES, Platform, eventually

AGENTS = EXAMPLES / "agents"


def _ask(platform: Platform, agent: str, text: str, **more: Any) -> Any:
    body = {"message": {"messageId": f"{text}-{agent}", "role": "ROLE_USER", "parts": [{"text": text}], **more}}
    headers = {"A2A-Version": "1.0", "Content-Type": "application/a2a+json"}
    token = (platform.own_home() / "run" / "local-token").read_text().strip()
    answer = httpx.post(
        f"{platform.gateway}/a2a/kagent/{agent}/message:send", json=body, timeout=60, trust_env=False,
        headers=headers | {"Authorization": f"Bearer {token}"},
    )  # fmt: skip
    task = answer.json()["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED", task
    return task


def _prompt(platform: Platform) -> str:
    secret = platform.get("secret", "house-agent")
    return json.loads(base64.b64decode(secret["data"]["config.json"]))["instruction"]


def test_context_prompts_output_and_agents_as_tools(platform: Platform) -> None:
    for name in ("scripted-model.yaml", "context/agent.yaml", "prompts/agent.yaml", "output/agent.yaml"):
        platform.apply((AGENTS / name).read_text())
    platform.apply((AGENTS / "agents-as-tools" / "agent.yaml").read_text())
    for agent in ("travel-agent", "house-agent", "weather-agent", "front-desk"):
        platform.wait(f"agent/{agent}", seconds=120)

    # context: the third turn of a conversation begins with a summary of the first, which is in its run's journal
    task = _ask(platform, "travel-agent", "my name is Ada")
    _ask(platform, "travel-agent", "I want to see Kiel", contextId=task["contextId"])
    third = _ask(platform, "travel-agent", "when does the train leave?", contextId=task["contextId"])
    journal = json.loads(platform.qd("run", "show", third["id"], "-o", "json").out)
    (compaction,) = [event["data"] for event in journal["events"] if event["kind"] == "compaction"]
    assert compaction["summary"] == "The user is called Ada and plans a trip to Kiel." and compaction["messages"] == 2

    # prompts: rendered from ConfigMaps, rendered anew when one changes, and errors are conditions
    assert "You are house-agent in kagent. Knows the house rules." in _prompt(platform)
    assert "Never delete anything without asking first.\nAnswer in at most three sentences." in _prompt(platform)
    platform.kubectl("patch", "configmap", "house-prompts", "-n", "kagent", "-p", '{"data": {"tone": "Be brief."}}')
    eventually(lambda: "asking first.\nBe brief." in _prompt(platform), "the agent has the new prompt")
    platform.kubectl(
        "patch", "configmap", "house-prompts", "-n", "kagent", "--type=json",
        "-p", '[{"op": "remove", "path": "/data/tone"}]',
    )  # fmt: skip
    eventually(
        lambda: (
            'include "house/tone" not found; available: house/safety'
            in platform.condition("agent", "house-agent", "Accepted")["message"]
        ),
        "the condition says what is missing, and what there is",
    )

    # output: a document, also where the first answer was none
    kiel = _ask(platform, "weather-agent", "weather in Kiel")
    assert kiel["artifacts"][0]["parts"][1]["data"] == {"town": "Kiel", "degrees": 7}
    bonn = _ask(platform, "weather-agent", "weather in Bonn")
    assert bonn["artifacts"][0]["parts"][1]["data"] == {"town": "Bonn", "degrees": 21}

    # agents as tools: through the gateway, each call in a session of its own
    asked = _ask(platform, "front-desk", "is it warm in Kiel?")
    said = asked["artifacts"][0]["parts"][0]["text"]
    assert said == 'The weather agent says: {"town": "Kiel", "degrees": 7}', said
