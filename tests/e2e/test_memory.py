"""Memory on the whole platform, as examples/agents/memory has it: told in one conversation, known in another."""

from __future__ import annotations

import json
from uuid import uuid4

import httpx

from support.platform import EXAMPLES, Platform, eventually

AGENT = "notes-agent"


def _listed(platform: Platform) -> list[dict[str, str]]:
    return json.loads(platform.qd("memory", "list", "--agent", AGENT, "-o", "json").out)


def test_an_agent_remembers_for_its_user(platform: Platform) -> None:
    platform.apply((EXAMPLES / "agents" / "memory" / "agent.yaml").read_text())
    platform.wait(f"agent/{AGENT}")
    told = platform.qd("agent", "invoke", AGENT, "remember that my favourite colour is teal")
    assert "Noted: my favourite colour is teal" in told.out
    asked = platform.qd("agent", "invoke", AGENT, "which colour do I like?")
    assert "What I remember about that: my favourite colour is teal" in asked.out
    assert '"text": "my favourite colour is teal"' in platform.qd("agent", "invoke", AGENT, "look up colours").out

    (memory,) = _listed(platform)
    assert (memory["agent"], memory["source"], memory["model"]) == (f"kagent/{AGENT}", "tool", "hashed-features")
    assert memory["dimensions"] == 768 and memory["uses"] >= 2
    shown = platform.qd("memory", "show", memory["id"]).out
    assert "my favourite colour is teal" in shown
    assert memory["id"] in platform.qd("memory", "list").out

    _ask(platform, "another user's agent would not know the colour", forged="mallory@example.com")
    assert {one["user"] for one in _listed(platform)} == {memory["user"]}, "a user's header is believed of nobody"
    platform.kubectl("delete", "pod", "-n", "kagent", "-l", f"kagent={AGENT}")
    eventually(
        lambda: "favourite colour is teal" in platform.qd("agent", "invoke", AGENT, "which colour?", ok=False).out,
        "the agent's next process remembers, too",
    )
    assert platform.qd("memory", "delete", ok=False).code == 2
    assert platform.qd("memory", "delete", "--agent", AGENT, "--user", "nobody").out.startswith("0 memories")
    gone = platform.qd("memory", "delete", "--agent", AGENT, "--user", memory["user"])
    assert gone.out.startswith(f"2 memories of agent kagent/{AGENT} deleted")
    assert _listed(platform) == []
    assert "teal" not in platform.qd("agent", "invoke", AGENT, "which colour do I like?").out


def _ask(platform: Platform, text: str, *, forged: str) -> None:
    token = (platform.own_home() / "run" / "local-token").read_text().strip()
    message = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": f"remember that {text}"}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    headers = {"A2A-Version": "1.0", "Authorization": f"Bearer {token}", "X-User-Id": forged}
    answer = httpx.post(
        f"{platform.gateway}/a2a/kagent/{AGENT}/", json=body, headers=headers, timeout=60, trust_env=False
    )
    assert answer.json()["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED", answer.text
