"""``qd rollout promote`` and ``abort`` as processes: which annotation decides what, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quarterdeck.translate.objects import ABORT, PROMOTE

from .conftest import Run

pytestmark = [pytest.mark.usefixtures("kagent_kinds"), pytest.mark.timeout(120)]
ATTEMPT = "trial-7f@2026-01-01T00:00:00Z"
RUNNING = {"phase": "Paused", "step": 1, "steps": 3, "canaryRevision": "trial-7f", "startedAt": "2026-01-01T00:00:00Z",
           "stableRevision": "trial-1a", "message": "step 2 of 3: 40%, waits for a person"}  # fmt: skip


@pytest.fixture
def trial(kubectl: Run) -> Any:
    """An agent, and how its canary stands: there are no controllers here."""
    spec = {
        "type": "Declarative",
        "declarative": {"systemMessage": "x"},
        "rollout": {"strategy": "Canary", "steps": [{"weight": 40}]},
    }
    kubectl("delete", "agent", "trial", "-n", "default", "--ignore-not-found")
    body = {"apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "metadata": {"name": "trial"}, "spec": spec}
    kubectl("create", "-f", "-", "-n", "default", input=json.dumps(body))

    def stands(status: dict[str, Any]) -> None:
        patch = json.dumps({"status": {"rollout": status or None}})
        kubectl("patch", "agent", "trial", "-n", "default", "--subresource=status", "--type=merge", "-p", patch)

    return stands


def decided(kubectl: Run) -> dict[str, str]:
    """Annotations of the agent that are decisions."""
    obj = json.loads(kubectl("get", "agent", "trial", "-n", "default", "-o", "json").stdout)
    return {k: v for k, v in (obj["metadata"].get("annotations") or {}).items() if k in (PROMOTE, ABORT)}


@pytest.mark.parametrize(("words", "said", "annotations"), [
    (("promote",), "promoted past step 2 of 3", {PROMOTE: f"{ATTEMPT}/1"}),
    (("promote", "--full"), "promoted", {PROMOTE: f"{ATTEMPT}/full"}),
    (("abort",), "aborted", {ABORT: ATTEMPT}),
])  # fmt: skip
def test_a_decision_is_for_this_attempt_and_step(
    trial: Any, qd: Run, kubectl: Run, words: tuple[str, ...], said: str, annotations: dict[str, str]
) -> None:
    trial(RUNNING)
    dry = qd("rollout", *words, "agent/trial", "-n", "default", "--dry-run=server")
    assert dry.stdout == f"agent.kagent.dev/trial {said} (server dry run)\n"
    assert decided(kubectl) == {}
    done = qd("rollout", words[0], "agent", "trial", *words[1:], "-n", "default")
    assert done.stdout == f"agent.kagent.dev/trial {said}\n"
    assert decided(kubectl) == annotations


@pytest.mark.parametrize(("status", "said"), [
    ({}, "has no canary; set spec.rollout.strategy: Canary"),
    ({"phase": "Stable", "stableRevision": "trial-1a"}, "has no canary"),
    ({"phase": "Aborted", "message": "5 of 8 requests failed"}, "5 of 8 requests failed; change the spec to try again"),
    ({"phase": "Promoting", "message": "step 3 of 3"}, "is being promoted already: step 3 of 3"),
])  # fmt: skip
@pytest.mark.parametrize("word", ["promote", "abort"])
def test_without_a_canary_on_trial_nothing_is_decided(
    trial: Any, qd: Run, kubectl: Run, word: str, status: dict[str, str], said: str
) -> None:
    trial(status)
    done = qd("rollout", word, "agent/trial", "-n", "default", ok=False)
    assert done.returncode == 1 and said in done.stderr and "trial" in done.stderr
    assert decided(kubectl) == {}


def test_each_name_is_decided_and_a_missing_one_is_told(trial: Any, qd: Run, kubectl: Run) -> None:
    trial(RUNNING)
    done = qd("rollout", "abort", "agent", "trial", "nobody", "-n", "default", ok=False)
    assert done.returncode == 1 and 'agents.kagent.dev "nobody" not found' in done.stderr
    assert decided(kubectl) == {ABORT: ATTEMPT}
