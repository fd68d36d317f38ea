"""Skills in a real Pod of the node, at each level of isolation: what is fetched, and what confines a script."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from quarterdeck.kube.resource import CONFIG_MAP, POD, SECRET
from quarterdeck.node.node import Node
from quarterdeck.resources.agent import Skills
from quarterdeck.resources.base import parse
from quarterdeck.resources.images import own_image
from quarterdeck.skills.probe import unusable
from quarterdeck.translate.skills import SkillParts, skill_parts

from .fake_api import FakeApi
from .test_node import api, level, log_of, node

__all__ = ["api", "level", "node"]
pytestmark = pytest.mark.timeout(180)
SCRIPT = """
import os, sys
for path in sys.argv[1:]:
    try:
        print(open(path).read())
    except OSError as error:
        print(error.strerror)
print("AGENT_SECRET" in os.environ, sum([40, 2]))
"""
MAIN = """
import asyncio, os, sys
from quarterdeck.agents.skills import sandbox
from quarterdeck.agents.skills.library import library
from quarterdeck.skills.probe import unusable
found = library()
print(sorted(found.skills), unusable() or "confined")
skill = found.skills["sums"]
run = sandbox.ScriptSandbox().run(skill.folder / "scripts/add.py", skill.folder, sys.argv[1:], "", {})
done = asyncio.run(run)
print(done.out, done.err, done.code)
print(open(sys.argv[1]).read())
"""


def parts() -> SkillParts:
    items = [{"key": "SKILL.md", "path": "SKILL.md"}, {"key": "add.py", "path": "scripts/add.py"}]
    return skill_parts(parse(Skills, {"configMapRefs": [{"name": "m", "items": items}]}, "Skills"), own_image(), None)


async def start(api: FakeApi, skill: str) -> None:
    """A Pod as an agent's, whose main container is a test."""
    added = parts()
    await api.create(CONFIG_MAP, {"metadata": {"name": "m", "namespace": "default"},
                                  "data": {"SKILL.md": skill, "add.py": SCRIPT}})  # fmt: skip
    data = {"skills.json": added.config, "token": b"s3cret"}
    await api.create(SECRET, {"metadata": {"name": "config", "namespace": "default"}, "type": "Opaque",
                              "data": {k: base64.b64encode(v).decode() for k, v in data.items()}})  # fmt: skip
    main = {
        "name": "main", "image": own_image(), "command": ["python", "-c", MAIN],
        "args": ["/config/token", "/proc/1/environ"],
        "env": [*added.env, {"name": "AGENT_SECRET", "value": "s3cret"}],
        "volumeMounts": [{"name": "config", "mountPath": "/config"}, *added.mounts],
    }  # fmt: skip
    volumes = [{"name": "config", "secret": {"secretName": "config"}}, *added.volumes]
    spec: dict[str, Any] = {
        "nodeName": "n1", "initContainers": list(added.init), "containers": [main], "volumes": volumes,
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 2,
    }  # fmt: skip
    await api.create(POD, {"metadata": {"name": "agent", "namespace": "default"}, "spec": spec})


def ended(pod: Any) -> Any:
    statuses = ((pod or {}).get("status") or {}).get("initContainerStatuses") or [{}]
    return (statuses[0].get("state") or {}).get("terminated")


@pytest.mark.skipif(bool(unusable()), reason=unusable())
async def test_a_pod_fetches_its_skills_and_confines_their_scripts(api: FakeApi, node: Node) -> None:
    await start(api, "---\nname: sums\ndescription: Adds.\n---\nBody\n")
    pod = await api.wait("agent", lambda p: ((p or {}).get("status") or {}).get("phase") in ("Succeeded", "Failed"))
    report = json.loads(ended(pod)["message"])
    assert report == {
        "skills": [{"name": "sums", "source": "ConfigMap m", "revision": "", "scripts": 1}],
        "sandbox": "",
    }
    said = log_of(node, "agent")
    assert pod["status"]["phase"] == "Succeeded", said
    lines = [line for line in said.splitlines() if line.strip()]
    assert lines[0] == "['sums'] confined"
    assert lines[1:4] == ["Permission denied", "Permission denied", "False 42"]
    assert lines[-1] == "s3cret", "the agent itself reads what its script does not"


async def test_a_pod_says_what_is_wrong_with_its_skills(api: FakeApi, node: Node) -> None:
    await start(api, "nothing")
    pod = await api.wait("agent", lambda p: ((p or {}).get("status") or {}).get("phase") == "Failed")
    assert ended(pod)["exitCode"] == 1
    assert ended(pod)["message"].startswith("ConfigMap m/SKILL.md: line 1: begin the file with front matter")
