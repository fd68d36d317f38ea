"""Canaries, A/B tests and resting agents on the running platform: real Pods, real traffic, as their user sees them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from quarterdeck.snapshot.conversation import tag_of, track_tag
from support.platform import SYSTEM, Platform, eventually

NS = "kagent"
BROKEN = {"provider": "OpenAI", "model": "gone", "apiKeySecret": "canary-key", "apiKeySecretKey": "KEY",
          "openAI": {"baseUrl": "http://127.0.0.1:9/v1"}}  # fmt: skip
ANALYSIS = {"maxErrorRate": 0.2, "minRequests": 4, "progressDeadline": "60s"}
ROLLOUTS: dict[str, Any] = {
    "canary-breaks": {"strategy": "Canary", "steps": [{"weight": 50}], "analysis": ANALYSIS},
    "canary-image": {
        "strategy": "Canary", "steps": [{"weight": 50, "pause": "1s"}], "analysis": {"progressDeadline": "2s"},
    },
    "canary-passes": {
        "strategy": "Canary",
        "steps": [{"weight": 0}, {"weight": 50, "pause": "1s"}],
        "match": [{"headers": [{"name": "X-Beta", "regex": "yes|always"}]}],
    },
}  # fmt: skip


def agent(name: str, text: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "Agent",
        "metadata": {"name": name, "namespace": NS},
        "spec": {"type": "Declarative", "description": name, "declarative": {"systemMessage": text}} | spec,
    }


@pytest.fixture(scope="module")
def trials(platform: Platform) -> Iterator[Platform]:
    """An agent with a canary, Ready, and the ModelConfig that breaks it."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "canary-key", "namespace": NS}}
    model = {"apiVersion": "kagent.dev/v1alpha2", "kind": "ModelConfig", "spec": BROKEN}
    platform.apply(
        secret | {"stringData": {"KEY": "x"}},
        model | {"metadata": {"name": "canary-broken", "namespace": NS}},
        agent("canary-breaks", "version one", rollout=ROLLOUTS["canary-breaks"]),
    )
    platform.wait("agent/canary-breaks", seconds=90)
    yield platform
    platform.kubectl("delete", "agent/canary-breaks", "modelconfig/canary-broken", "secret/canary-key", "-n", NS)


@pytest.fixture(scope="module")
def more(trials: Platform) -> Iterator[Platform]:
    """Two further agents with canaries and one that rests."""
    names = [name for name in ROLLOUTS if name != "canary-breaks"]
    trials.apply(
        *(agent(name, "version one", rollout=ROLLOUTS[name]) for name in names),
        agent("sleeper", "I rest", scaleToZero={"after": "2s"}),
    )
    for name in names:
        trials.wait(f"agent/{name}", seconds=90)
    yield trials
    trials.kubectl("delete", "agent", *names, "sleeper", "-n", NS)


def ask(
    platform: Platform, name: str, context: str = "", headers: dict[str, str] | None = None, *, url: str = ""
) -> tuple[str, str]:
    """(conversation, state of the task) of one question; at the listener for people if no other ``url`` is given."""
    message: dict[str, Any] = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": [{"text": "hello"}]}
    if context:
        message["contextId"] = context
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    bearer = {"authorization": f"Bearer {platform.token}"} if platform.token else {}
    url = f"{url or platform.gateway}/a2a/{NS}/{name}"
    sent = {"a2a-version": "1.0"} | bearer | (headers or {})
    answer = httpx.post(url, json=body, headers=sent, timeout=90).json()
    assert "result" in answer, answer
    task = answer["result"]["task"]
    return task["contextId"], task["status"]["state"]


def status(platform: Platform, name: str) -> dict[str, Any]:
    return platform.get("agent", name)["status"].get("rollout") or {}


def reach(platform: Platform, name: str, phase: str, seconds: float = 60) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        found = status(platform, name)
        return found if found.get("phase") == phase else {}

    return eventually(look, f"{name} {phase}", seconds)


def tell(platform: Platform, name: str, spec: dict[str, Any]) -> None:
    platform.kubectl("patch", "agent", name, "-n", NS, "--type=merge", "-p", json.dumps({"spec": spec}))


def test_a_canary_that_fails_its_calls_is_given_up_under_traffic(trials: Platform) -> None:
    tell(trials, "canary-breaks", {"declarative": {"systemMessage": "version two", "modelConfig": "canary-broken"}})
    begun = reach(trials, "canary-breaks", "Paused")
    tag = track_tag(begun["canaryRevision"], begun["startedAt"])
    on_stable = ask(trials, "canary-breaks")[0]
    seen: list[tuple[str, str]] = []
    with ThreadPoolExecutor(4) as pool:
        while status(trials, "canary-breaks")["phase"] == "Paused":
            seen += pool.map(lambda _: ask(trials, "canary-breaks"), range(8))
            assert len(seen) < 400, "the canary is not given up"
    ended = status(trials, "canary-breaks")
    assert (ended["phase"], ended["stableRevision"]) == ("Aborted", begun["stableRevision"])
    for conversation, state in seen:
        where = tag_of(conversation, f"{NS}/canary-breaks")
        assert state == ("TASK_STATE_FAILED" if where == tag else "TASK_STATE_COMPLETED")
    assert {tag_of(c, f"{NS}/canary-breaks") for c, _ in seen} == {0, tag}
    assert ask(trials, "canary-breaks", on_stable) == (on_stable, "TASK_STATE_COMPLETED")
    lost = next(c for c, _ in seen if tag_of(c, f"{NS}/canary-breaks") == tag)
    eventually(lambda: ask(trials, "canary-breaks", lost)[1] == "TASK_STATE_COMPLETED", "its conversations go on")
    text = trials.kubectl("get", "events", "-n", NS, "--field-selector", "involvedObject.name=canary-breaks").out
    assert "CanaryStarted" in text and "ErrorRateExceeded" in text
    told = trials.qd("rollout", "status", "agent/canary-breaks", "-n", NS, ok=False)
    assert told.code != 0 and "requests failed" in told.err
    eventually(lambda: "canary-breaks-canary" not in trials.kubectl("get", "deploy", "-n", NS).out, "its Pods are gone")


@pytest.mark.slow
def test_a_canary_whose_image_cannot_run_is_given_up_without_a_call(more: Platform) -> None:
    image = {"image": "registry.invalid/nothing:1"}
    tell(more, "canary-image", {"type": "BYO", "byo": {"deployment": image}})
    ended = reach(more, "canary-image", "Aborted")
    assert "no Pod was ready for 2 s" in ended["message"] and "container kagent" in ended["message"]
    assert ask(more, "canary-image")[1] == "TASK_STATE_COMPLETED"


@pytest.mark.slow
def test_an_a_b_test_by_header_is_promoted_by_hand(more: Platform) -> None:
    name, label = "canary-passes", f"{NS}/canary-passes"
    tell(more, name, {"declarative": {"systemMessage": "version two"}})
    begun = reach(more, name, "Paused")
    tag = track_tag(begun["canaryRevision"], begun["startedAt"])

    def tried() -> list[str]:
        return [ask(more, name, headers={"X-Beta": "always"})[0] for _ in range(3)]

    eventually(lambda: {tag_of(c, label) for c in tried()} == {tag}, "the gateway has the canary")
    kept = tried()[0]
    assert {tag_of(ask(more, name)[0], label) for _ in range(3)} == {0}, "weight 0: only what matches"
    assert {tag_of(ask(more, name, headers={"X-Beta": "no"})[0], label)} == {0}
    assert ask(more, name, kept)[0] == kept, "the conversation goes on without the header"
    done = more.qd("rollout", "promote", f"agent/{name}", "-n", NS).out
    assert done.strip() == "agent.kagent.dev/canary-passes promoted past step 1 of 2"
    more.qd("rollout", "status", f"agent/{name}", "-n", NS, "--timeout", "60s")
    more.wait(f"agent/{name}", condition="RolledOut")
    assert status(more, name)["stableRevision"] == begun["canaryRevision"]
    assert ask(more, name, kept)[1] == "TASK_STATE_COMPLETED"
    denied = more.qd("rollout", "abort", f"agent/{name}", "-n", NS, ok=False)
    assert denied.code != 0 and "has no canary" in denied.err


def token_of(platform: Platform, agent: str) -> str:
    """A token that Kubernetes has signed for the agent's Pod, as its volume has it."""
    pod = platform.pod(f"kagent={agent}")
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    return platform.kubectl(
        "create", "token", pod["spec"]["serviceAccountName"], "-n", NS, "--audience=quarterdeck",
        "--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}",
    ).out.strip()  # fmt: skip


def for_workloads(platform: Platform) -> str:
    """URL of the listener where every caller needs a token of its own."""
    if platform.home is not None:
        return str(platform.endpoints()["gatewayWorkloads"])
    address = platform.get("service", "quarterdeck-gateway", SYSTEM)["spec"]["clusterIP"]
    return f"http://{address}:8702"


@pytest.mark.slow
def test_an_a_b_test_by_claims_of_the_callers_token(platform: Platform) -> None:
    name, label, callers = "canary-claims", f"{NS}/canary-claims", ("beta-caller", "plain-caller")
    match = [{"claims": [{"name": "sub", "regex": f"system:serviceaccount:{NS}:beta-.*"}]}]
    rollout = {"strategy": "Canary", "steps": [{"weight": 0}], "match": match}
    calls = {"declarative": {"systemMessage": "I call", "tools": [{"type": "Agent", "agent": {"name": name}}]}}
    platform.apply(agent(name, "version one", rollout=rollout), *(agent(each, "", **calls) for each in callers))
    try:
        for each in (name, *callers):
            platform.wait(f"agent/{each}", seconds=90)
        tokens = [{"authorization": f"Bearer {token_of(platform, each)}"} for each in callers]
        url = for_workloads(platform)
        assert ask(platform, name, headers=tokens[0], url=url)[1] == "TASK_STATE_COMPLETED"
        tell(platform, name, {"declarative": {"systemMessage": "version two"}})
        begun = reach(platform, name, "Paused")
        tag = track_tag(begun["canaryRevision"], begun["startedAt"])

        def on_trial(headers: dict[str, str]) -> set[int]:
            return {tag_of(ask(platform, name, headers=headers, url=url)[0], label) for _ in range(3)}

        eventually(lambda: on_trial(tokens[0]) == {tag}, "the gateway has the canary")
        assert on_trial(tokens[1]) == {0}, "another caller's claims do not match"
        assert tag_of(ask(platform, name)[0], label) == 0, "who has no claims at all is not on trial"
        forged = tokens[1] | {"sub": f"system:serviceaccount:{NS}:beta-caller"}
        assert on_trial(forged) == {0}, "a claim is what the token says, no header"
    finally:
        platform.kubectl("delete", "agent", name, *callers, "-n", NS)


@pytest.mark.slow
def test_an_agent_that_rests_answers_a_burst_of_calls_after_one_start(more: Platform) -> None:
    def replicas() -> int:
        return int(more.get("deployment", "sleeper")["spec"]["replicas"])

    eventually(lambda: replicas() == 0, "nobody calls: no Pods", 60)
    ready = eventually(lambda: more.condition("agent", "sleeper", "Ready"), "a condition")
    assert ready["status"] == "True"
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask(more, "sleeper")[1], range(6)))
    assert answers == ["TASK_STATE_COMPLETED"] * 6
    text = more.kubectl("get", "events", "-n", NS, "--field-selector", "involvedObject.name=sleeper").out
    assert "ScaledToZero" in text and "Woken" in text
    assert more.get("agent", "sleeper")["spec"]["replicas"] == 1
