"""``qd rollout`` of an Agent beside ``kubectl rollout`` of a Deployment: the same words, the same numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from support.platform import BIN, Platform, Ran, eventually

NAMESPACE = ("-n", "kagent")
AGENT = {
    "apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "metadata": {"name": "story", "namespace": "kagent"},
    "spec": {"type": "Declarative", "description": "d", "declarative": {"systemMessage": "You tell stories."}},
}  # fmt: skip
# no Pods: only what kubectl says is of interest
PLAIN: dict[str, Any] = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "plain", "namespace": "kagent"},
    "spec": {
        "replicas": 0, "selector": {"matchLabels": {"app": "plain"}},
        "template": {"metadata": {"labels": {"app": "plain"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def story(platform: Platform) -> Iterator[Platform]:
    platform.apply(AGENT, PLAIN)
    platform.kubectl("set", "image", "deploy/plain", "c=other", *NAMESPACE)  # one revision to go back to
    platform.wait("agent/story")
    yield platform
    platform.kubectl("delete", "agent/story", "deploy/plain", *NAMESPACE, ok=False)


def both(platform: Platform, command: str, *more: str) -> tuple[Ran, Ran]:
    """What qd says of the Agent, and kubectl of the plain Deployment."""
    ours = platform.qd("rollout", command, "agent/story", *more, *NAMESPACE, ok=False)
    theirs = platform.kubectl("rollout", command, "deploy/plain", *more, *NAMESPACE, ok=False)
    return ours, theirs


def alike(text: str) -> str:
    """kubectl's words about the Deployment as they are about the Agent."""
    for theirs, ours in (
        ("deployment.apps", "agent.kagent.dev"), ("deployments.apps", "agents.kagent.dev"), ("deployment", "agent"),
        ("plain", "story"), ("template", "spec"), ("kubectl rollout resume", "qd rollout resume agent/story"),
    ):  # fmt: skip
        text = text.replace(theirs, ours)
    return text


def change(platform: Platform, text: str) -> None:
    cause = {"metadata": {"annotations": {"kubernetes.io/change-cause": text}}}
    platform.kubectl(
        "patch", "agent/story", "--type=merge", "-p", json.dumps(cause | {"spec": {"description": text}}), *NAMESPACE
    )


def finished(platform: Platform) -> None:
    said = platform.qd("rollout", "status", "agent/story", "--timeout=90s", *NAMESPACE).out.splitlines()
    assert said[-1] == 'agent "story" successfully rolled out'
    for line in said[:-1]:
        assert re.fullmatch(r'Waiting for agent ("story" rollout to finish: .*|spec update to be observed)\.\.\.', line)


def test_the_history_is_that_of_the_deployment(story: Platform) -> None:
    change(story, "first")
    finished(story)
    change(story, "second")
    finished(story)
    theirs = story.kubectl("rollout", "history", "deploy/story", *NAMESPACE).out
    ours = story.qd("rollout", "history", "agent/story", *NAMESPACE).out
    assert ours == theirs.replace("deployment.apps", "agent.kagent.dev")
    assert [line.split()[0] for line in ours.splitlines()[2:5]] == ["1", "2", "3"]

    undone = story.run(str(BIN / "kubectl"), "qd", "rollout", "undo", "agent", "story", *NAMESPACE)
    assert undone.out == "agent.kagent.dev/story rolled back\n"
    finished(story)
    assert story.get("agent", "story")["spec"]["description"] == "first"
    theirs = story.kubectl("rollout", "history", "deploy/story", *NAMESPACE).out
    ours = story.qd("rollout", "history", "agent/story", *NAMESPACE).out
    assert ours == theirs.replace("deployment.apps", "agent.kagent.dev")
    assert [line.split() for line in ours.splitlines()[2:5]] == [["1", "<none>"], ["3", "second"], ["4", "first"]]

    assert "description: second" in story.qd("rollout", "history", "agent/story", "--revision=3", *NAMESPACE).out
    shown = story.qd("rollout", "history", "agent/story", "--revision=3", "-o", "json", *NAMESPACE).out
    assert json.loads(shown)["spec"]["description"] == "second"
    dry = story.qd("rollout", "undo", "agent/story", "--to-revision=1", "--dry-run=server", *NAMESPACE)
    assert dry.out == "agent.kagent.dev/story rolled back (server dry run)\n"
    assert story.get("agent", "story")["spec"]["description"] == "first", "a dry run changes nothing"
    story.qd("rollout", "undo", "agent/story", "--to-revision=1", *NAMESPACE)
    finished(story)
    found = story.get("agent", "story")
    assert found["spec"]["description"] == "d"
    assert "kubernetes.io/change-cause" not in found["metadata"].get("annotations", {}), "the cause goes with the spec"


def test_refusals_are_kubectls(story: Platform) -> None:
    revision = story.qd("rollout", "history", "agent/story", *NAMESPACE).out.split()[-2]
    for command, *more in (
        ("undo", "--to-revision=99"), ("history", "--revision=99"), ("resume",),
        ("pause",), ("pause",), ("undo",), ("restart",), ("resume",), ("resume",),
    ):  # fmt: skip
        ours, theirs = both(story, command, *more)
        assert ours.code == theirs.code, (command, ours, theirs)
        assert ours.text == alike(theirs.text), command
    again = story.qd("rollout", "undo", "agent/story", f"--to-revision={revision}", *NAMESPACE)
    assert again.out == f"agent.kagent.dev/story skipped rollback (current spec already matches revision {revision})\n"
    refused = story.qd("rollout", "status", "deploy/plain", *NAMESPACE, ok=False)
    assert (refused.code, "use kubectl rollout" in refused.err) == (2, True)


def test_a_restart_replaces_the_pod_once(story: Platform) -> None:
    before = story.pod("kagent=story")["metadata"]["uid"]
    ours, theirs = both(story, "restart")
    assert ours.text == alike(theirs.text)
    finished(story)
    assert eventually(lambda: story.pod("kagent=story")["metadata"]["uid"] != before, "another Pod")
    sets = story.get("rs", selector="kagent=story")["items"]
    assert sum(item["spec"]["replicas"] for item in sets) == 1
