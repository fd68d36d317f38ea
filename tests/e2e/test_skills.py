"""Skills on the whole platform, as examples/agents/skills has them: fetched, used, changed, and spoilt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quarterdeck.skills.probe import unusable
from support.platform import EXAMPLES, Platform, eventually

AGENT = "release-agent"
MAP = "release-notes-skill"


def condition(platform: Platform, kind: str) -> dict[str, Any]:
    agent = json.loads(platform.kubectl("get", "agent", AGENT, "-n", "kagent", "-o", "json").out)
    found = [each for each in agent["status"].get("conditions", ()) if each["type"] == kind]
    return found[0] if found else {}


def said(platform: Platform, words: str) -> str:
    return platform.qd("agent", "invoke", AGENT, words, ok=False).out


def write(platform: Platform, **data: str) -> None:
    platform.kubectl("patch", "configmap", MAP, "-n", "kagent", "--type=merge", "-p", json.dumps({"data": data}))


def test_an_agent_uses_its_skill(platform: Platform) -> None:
    platform.apply((EXAMPLES / "agents" / "skills" / "agent.yaml").read_text())
    platform.wait(f"agent/{AGENT}")
    assert "Added before fixed." in said(platform, "read release-notes/references/style.md")
    if not unusable():
        notes = said(platform, "release notes for fix: the clock, feat: a calendar")
        assert "Added: a calendar\nFixed: the clock" in notes
        eventually(lambda: condition(platform, "SkillScripts").get("reason") == "Sandboxed", "scripts are confined")
    loaded = eventually(
        lambda: (c := condition(platform, "SkillsLoaded")).get("status") == "True" and c, "the report reaches the Agent"
    )
    assert loaded["message"] == f"release-notes (ConfigMap {MAP})"
    for path in ("/var/run/secrets/tokens/quarterdeck-token", "../config/config.json", "/proc/self/environ"):
        assert "is not in the folder of skills" in said(platform, f"read {path}")

    write(platform, **{"style.md": "Fixed before added.\n"})
    eventually(
        lambda: "Fixed before added." in said(platform, "read release-notes/references/style.md"),
        "a change rolls the Pods",
    )
    write(platform, **{"SKILL.md": "no front matter"})
    refused = eventually(
        lambda: (c := condition(platform, "Accepted")).get("status") == "False" and c, "an unsound skill is refused"
    )
    assert f"ConfigMap {MAP}/SKILL.md: line 1: begin the file with front matter" in refused["message"]
    assert "Fixed before added." in said(platform, "read release-notes/references/style.md"), "the Pods of before serve"


@pytest.mark.slow
def test_a_source_that_cannot_be_fetched_is_said(platform: Platform) -> None:
    body = {
        "apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "metadata": {"name": "unskilled", "namespace": "kagent"},
        "spec": {"type": "Declarative", "skills": {"gitRefs": [{"url": "https://127.0.0.1:9/skills.git"}]},
                 "declarative": {"systemMessage": "x"}},
    }  # fmt: skip
    platform.apply(json.dumps(body))
    try:

        def reason() -> Any:
            agent = json.loads(platform.kubectl("get", "agent", "unskilled", "-n", "kagent", "-o", "json").out)
            conditions = (agent.get("status") or {}).get("conditions") or ()
            found = [c for c in conditions if c["type"] == "SkillsLoaded" and c["status"] == "False"]
            return found[0] if found else None

        failed = eventually(reason, "the init container's words reach the Agent")
        assert failed["reason"] == "SkillsNotLoaded"
        assert "https://127.0.0.1:9/skills.git: git fetch" in failed["message"]
    finally:
        platform.kubectl("delete", "agent", "unskilled", "-n", "kagent")
