"""Skills of agents: what the controllers check, what rolls the Pods, and what the Pods' reports become."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quarterdeck.controllers.skills import verdicts
from quarterdeck.kube import resource as k
from quarterdeck.skills.report import Loaded, Report

from .test_controllers import Platform, platform

__all__ = ["platform"]
TEXT = "---\nname: {name}\ndescription: d\n---\nBody\n"


async def agent(platform: Platform, **skills: Any) -> None:
    await platform.model()
    body = {
        "metadata": {"name": "skilled", "namespace": "kagent"},
        "spec": {"type": "Declarative", "skills": skills, "declarative": {"systemMessage": "x"}},
    }
    await platform.client.create(k.AGENT, body)


async def config_map(platform: Platform, name: str, **data: str) -> None:
    await platform.client.create(k.CONFIG_MAP, {"metadata": {"name": name, "namespace": "kagent"}, "data": data})


async def test_a_skill_in_a_config_map(platform: Platform) -> None:
    """A missing one is named, an unsound one refused, a new text rolls the Pods."""
    await agent(platform, configMapRefs=[{"name": "runbook"}], gitAuthSecretRef={"name": "git"})
    resolved = await platform.eventually(
        lambda: (c := platform.condition(k.AGENT, "skilled", "ResolvedRefs")).get("status") == "False" and c
    )
    assert resolved["message"].startswith("not found: ConfigMap kagent/runbook, Secret kagent/git")
    await platform.client.create(k.SECRET, {"metadata": {"name": "git", "namespace": "kagent"}, "data": {}})
    await config_map(platform, "runbook", **{"SKILL.md": "no front matter"})
    accepted = await platform.eventually(
        lambda: (c := platform.condition(k.AGENT, "skilled", "Accepted")).get("status") == "False" and c
    )
    assert "ConfigMap runbook/SKILL.md: line 1: begin the file with front matter" in accepted["message"]

    async def write(text: str) -> None:
        await platform.client.patch(k.CONFIG_MAP, "runbook", {"data": {"SKILL.md": text}}, namespace="kagent")

    await write(TEXT.format(name="runbook"))
    await platform.eventually(lambda: platform.condition(k.AGENT, "skilled", "ResolvedRefs").get("status") == "True")
    template = platform.get(k.DEPLOYMENT, "skilled")["spec"]["template"]
    assert template["spec"]["initContainers"][0]["name"] == "skills-init"
    first = template["metadata"]["annotations"]["kagent.dev/config-hash"]
    await write(TEXT.format(name="runbook") + "More.\n")
    await platform.eventually(
        lambda: (
            platform.get(k.DEPLOYMENT, "skilled")["spec"]["template"]["metadata"]["annotations"][
                "kagent.dev/config-hash"
            ]
            != first
        )
    )
    pending = platform.condition(k.AGENT, "skilled", "SkillsLoaded")
    assert (pending["status"], pending["reason"]) == ("Unknown", "SkillsPending")


async def test_two_config_maps_with_one_skill(platform: Platform) -> None:
    for name in ("one", "two"):
        await config_map(platform, name, **{"SKILL.md": TEXT.format(name="same")})
    await agent(platform, configMapRefs=[{"name": "one"}, {"name": "two"}])
    accepted = await platform.eventually(
        lambda: (c := platform.condition(k.AGENT, "skilled", "Accepted")).get("status") == "False" and c
    )
    assert "ConfigMaps one and two both hold skill 'same'; rename one" in accepted["message"]


class Pods:
    """The controllers' context as far as reports are read: Pods."""

    def __init__(self, *pods: Any) -> None:
        self._pods = pods

    def pods(self, namespace: str, labels: dict[str, str]) -> Any:
        return self._pods


def pod(created: str, state: Any = None, last: Any = None, **metadata: Any) -> Any:
    status = {"name": "skills-init", "state": state or {}, "lastState": last or {}}
    return {
        "metadata": {"name": f"p-{created}", "namespace": "n", "creationTimestamp": created, **metadata},
        "status": {"initContainerStatuses": [status]},
    }


def ended(code: int, message: str) -> Any:
    return {"terminated": {"exitCode": code, "message": message}}


def report(sandbox: str = "", **skills: int) -> str:
    loaded = [Loaded(name, "https://x@main", "0123456789abcdef0123", scripts) for name, scripts in skills.items()]
    return json.dumps({"skills": [{"name": s.name, "source": s.source, "revision": s.revision, "scripts": s.scripts}
                                  for s in loaded], "sandbox": sandbox})  # fmt: skip


AGENT = {"metadata": {"name": "a", "namespace": "n"}, "spec": {"skills": {"refs": ["x"]}}}


@pytest.mark.parametrize(
    ("pods", "wanted"),
    [
        ([], [("SkillsLoaded", None, "SkillsPending", "no Pod has fetched")]),
        ([pod("1", {"running": {}})], [("SkillsLoaded", None, "SkillsPending", "no Pod")]),
        ([pod("1", ended(0, report(pdf=0)))],
         [("SkillsLoaded", True, "SkillsLoaded", "pdf (https://x@main 0123456789abcdef012)")]),
        ([pod("1", ended(0, report(pdf=2, csv=0)))],
         [("SkillsLoaded", True, "SkillsLoaded", "pdf"), ("SkillScripts", True, "Sandboxed", "scripts of pdf run")]),
        ([pod("1", ended(0, report("no Landlock", pdf=2)))],
         [("SkillsLoaded", True, "SkillsLoaded", "pdf"),
          ("SkillScripts", False, "SandboxUnavailable", "not offered to the model: no Landlock")]),
        ([pod("1", {"waiting": {"reason": "CrashLoopBackOff"}}, ended(1, "ConfigMap a/SKILL.md: line 1"))],
         [("SkillsLoaded", False, "SkillsNotLoaded", "ConfigMap a/SKILL.md: line 1")]),
        ([pod("1", ended(137, ""))],
         [("SkillsLoaded", False, "SkillsNotLoaded", "exit code 137; see `kubectl logs -n n")]),
        ([pod("1", ended(0, "not json"))], [("SkillsLoaded", True, "SkillsLoaded", "the skills are there")]),
        ([pod("1", ended(0, report(old=0))), pod("2", ended(1, "broken"))],
         [("SkillsLoaded", False, "SkillsNotLoaded", "broken")]),
        ([pod("1", ended(0, report(old=0))), pod("2", {"running": {}})],
         [("SkillsLoaded", True, "SkillsLoaded", "old")]),
        ([pod("2", ended(1, "broken"), deletionTimestamp="now")], [("SkillsLoaded", None, "SkillsPending", "no Pod")]),
    ],
)  # fmt: skip
def test_reports_become_conditions(pods: list[Any], wanted: list[tuple[str, bool | None, str, str]]) -> None:
    found = verdicts(Pods(*pods), AGENT)  # type: ignore[arg-type]
    assert [(v.type, v.status, v.reason) for v in found] == [each[:3] for each in wanted]
    for verdict, each in zip(found, wanted, strict=True):
        assert each[3] in verdict.message


def test_conditions_of_skills_that_are_gone() -> None:
    bare = {"metadata": {"name": "a", "namespace": "n"}, "spec": {}}
    assert verdicts(Pods(), bare) == []  # type: ignore[arg-type]
    had = bare | {"status": {"conditions": [{"type": "SkillsLoaded"}]}}
    assert [(v.type, v.reason) for v in verdicts(Pods(), had)] == [("SkillsLoaded", "NoSkills")]  # type: ignore[arg-type]


def test_an_agent_that_sleeps_keeps_what_is_known() -> None:
    known = {"type": "SkillsLoaded", "status": "True", "observedGeneration": 3}
    asleep = {"metadata": {"name": "a", "namespace": "n", "generation": 3}, "spec": AGENT["spec"]}
    assert verdicts(Pods(), asleep | {"status": {"conditions": [known]}}) == []  # type: ignore[arg-type]
    changed = asleep | {"status": {"conditions": [known | {"observedGeneration": 2}]}}
    assert [v.reason for v in verdicts(Pods(), changed)] == ["SkillsPending"]  # type: ignore[arg-type]


def test_the_report_is_what_the_init_container_writes() -> None:
    import msgspec

    assert msgspec.json.decode(report("why", pdf=1), type=Report).skills[0].scripts == 1
