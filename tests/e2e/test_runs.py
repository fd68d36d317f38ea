"""Runs on a whole platform outlive what works on them, and are worked on by one replica at a time."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from quarterdeck.cli.supervise import RESTARTS, WINDOW
from support.boundaries import POINTS, Boundaries, boundaries
from support.platform import SYSTEM, Platform, eventually

AGENT, PAIR = "keeper", "keepers"
ROLES = {
    "agent": r"-m quarterdeck\.agents ",
    "gateway": r"-m quarterdeck\.gateway",
    "control plane": r"-m quarterdeck\.server",
}
CASES = [(role, what, when) for role in (*ROLES, "MCP server") for what, when in POINTS]
SAMPLE = set(random.Random(20261122).sample(CASES, 1))
"""What the fast tier kills, and where; the slow tier has all."""
_SECONDS = 150.0
_deaths: list[float] = []
"""When control planes were killed (monotonic)."""


class Conversation:
    """An A2A client that asks again while there is nobody to answer: the same message is the same task."""

    def __init__(self, platform: Platform, agent: str) -> None:
        headers = platform.headers | {"A2A-Version": "1.0"}
        self._http = httpx.Client(headers=headers, timeout=20, trust_env=False)
        self._url = f"{platform.gateway}/a2a/kagent/{agent}"

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result, as soon as there is one."""

        def answered() -> dict[str, Any] | None:
            try:
                body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
                return self._http.post(self._url, json=body).json().get("result")
            except (httpx.HTTPError, ValueError):
                return None

        return eventually(answered, f"an answer to {method}", _SECONDS)

    def begin(self, text: str) -> dict[str, Any]:
        message = {"messageId": uuid4().hex, "role": "ROLE_USER", "parts": [{"text": text}]}
        return self.ask("SendMessage", {"message": message, "configuration": {"returnImmediately": True}})["task"]

    def ended(self, task: str) -> dict[str, Any]:
        """The task at its end; calls of which nobody knows whether they were made are left out."""

        def settled() -> dict[str, Any] | None:
            found = self.ask("GetTask", {"id": task})
            state = found["status"]["state"]
            if state == "TASK_STATE_INPUT_REQUIRED":
                asked = found["status"]["message"]["messageId"]
                skip = {"messageId": f"skip {asked}", "role": "ROLE_USER", "parts": [{"text": "skip"}], "taskId": task}
                body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": skip}}
                try:
                    self._http.post(self._url, json=body)
                except httpx.HTTPError:
                    return None
            return found if state in ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED") else None

        return eventually(settled, f"the end of task {task}", _SECONDS)


def kill(platform: Platform, role: str, around: Boundaries) -> None:
    """``kill -9`` of all that have the role. Their Pods are made anew: restarts in place are slower each time."""
    if role == "MCP server":
        around.restart_tools()
        return
    found = platform.processes(ROLES[role])
    assert found, f"no process of the {role}"
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    if role == "control plane":
        _deaths.append(time.monotonic())
    namespace, selector = {
        "agent": ("kagent", f"kagent={AGENT}"),
        "gateway": (SYSTEM, f"app.kubernetes.io/{'name=quarterdeck-' if platform.home else 'component='}gateway"),
        "control plane": (SYSTEM, "app.kubernetes.io/component=controller"),
    }[role]
    if platform.home is None or role != "control plane":
        delete = ("delete", "pods", "-n", namespace, "-l", selector, "--force", "--grace-period=0", "--wait=false")
        platform.kubectl(*delete, ok=False)


def bearable(platform: Platform, role: str) -> bool:
    """Whether ``qd up`` goes on when one more dies: it gives up where they die too often."""
    lately = sum(time.monotonic() - death < WINDOW for death in _deaths)
    return platform.home is None or role != "control plane" or lately < RESTARTS


def journal(platform: Platform, task: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The run of a task, and its events."""
    shown = eventually(
        lambda: (ran := platform.qd("run", "show", task, "-o", "json", ok=False)).code == 0 and ran, "qd run show", 60
    )
    document = json.loads(shown.out)
    return document.get("run", document), document["events"]


def _delete(platform: Platform, name: str) -> None:
    objects = (f"agent/{name}", f"rmcps/{name}", f"modelconfig/{name}", f"secret/{name}-key")
    platform.kubectl("delete", *objects, "-n", "kagent", ok=False)


@pytest.fixture(scope="module")
def around(platform: Platform) -> Iterator[Boundaries]:
    with boundaries() as made:
        platform.apply(*made.manifests(AGENT))
        platform.wait(f"agent/{AGENT}", condition="ResolvedRefs", seconds=90)
        platform.wait(f"agent/{AGENT}", seconds=90)
        yield made
        _delete(platform, AGENT)


@pytest.mark.parametrize(
    ("role", "what", "when"),
    [case if case in SAMPLE else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_killed_at_a_boundary_of_the_journal(
    platform: Platform, around: Boundaries, role: str, what: str, when: str
) -> None:
    killed = threading.Event()

    def at(point: str, moment: str, run: str) -> None:
        if (point, moment) == (what, when) and not killed.is_set():
            killed.set()
            kill(platform, role, around)

    eventually(lambda: bearable(platform, role), "fewer deaths in the last minute", 2 * WINDOW)
    around.calls.clear()
    around.at = at
    talk = Conversation(platform, AGENT)
    task = talk.begin(f"{role} {what} {when}")
    assert killed.wait(_SECONDS), f"the run did not come to {what}"
    ended = talk.ended(task["id"])
    around.at = lambda point, moment, run: None
    assert ended["status"]["state"] == "TASK_STATE_COMPLETED", ended["status"]
    made = {call: count for (_, call), count in around.calls.items()}
    assert made.get("note 1", 0) <= 1 and made.get("note 2", 0) <= 1, f"a note was made twice: {made}"
    assert len({run for run, _ in around.calls}) == 1, "one message, one run"
    _, events = journal(platform, task["id"])
    results = sorted(event["step"] for event in events if event["kind"] == "tool.result")
    assert results == [2, 3, 5], "each call has one result"
    assert [event["kind"] for event in events].count("final") == 1


@pytest.fixture(scope="module")
def keepers(platform: Platform, around: Boundaries) -> Iterator[Boundaries]:
    """The same agent with two replicas."""
    platform.apply(*around.manifests(PAIR, replicas=2))
    both = ("--for=jsonpath={.status.readyReplicas}=2", f"deploy/{PAIR}")
    eventually(
        lambda: platform.kubectl("wait", *both, "-n", "kagent", "--timeout=30s", ok=False).code == 0, "two Pods", 90
    )
    platform.wait(f"agent/{PAIR}", condition="ResolvedRefs", seconds=90)
    yield around
    _delete(platform, PAIR)


def _pods(platform: Platform) -> list[str]:
    pods = platform.get("pods", selector=f"kagent={PAIR}")["items"]
    return [p["metadata"]["name"] for p in pods if not p["metadata"].get("deletionTimestamp")]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "asleep"])
def test_two_replicas_never_execute_the_same_run(platform: Platform, keepers: Boundaries, how: str) -> None:
    """Of eight runs at work, those of one replica go to the other, and nothing is done twice; nor by who wakes up."""
    held, all_here = threading.Event(), threading.Event()

    def at(point: str, moment: str, run: str) -> None:
        if (point, moment) == ("note 1", "before"):
            if sum(n for (_, call), n in keepers.calls.items() if call == "note 1") >= 8:
                all_here.set()
            held.wait(_SECONDS)

    keepers.calls.clear()
    keepers.at = at
    talk = Conversation(platform, PAIR)
    tasks = [talk.begin(f"{how} {n}")["id"] for n in range(8)]
    assert all_here.wait(_SECONDS), keepers.calls
    first = _pods(platform)[0]
    inside = _process_of(platform, first)
    os.kill(inside, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    if how == "killed":
        platform.kubectl("delete", "pod", first, "-n", "kagent", "--force", "--grace-period=0", "--wait=false")
    held.set()
    for task in tasks:
        assert talk.ended(task)["status"]["state"] == "TASK_STATE_COMPLETED"
    before = dict(keepers.calls)
    if how == "asleep":
        os.kill(inside, signal.SIGCONT)
        again = talk.begin("who is awake?")
        assert talk.ended(again["id"])["status"]["state"] == "TASK_STATE_COMPLETED"
        mine = {key: count for key, count in keepers.calls.items() if key in before}
        assert mine == before, "the one that slept has called a tool"
    notes = {key: count for key, count in before.items() if key[1].startswith("note")}
    assert set(notes.values()) == {1}, f"a note was made twice: {notes}"
    assert len({run for run, _ in before}) == 8
    holders: set[str] = set()
    for task in tasks:
        _, events = journal(platform, task)
        fences = [event["fence"] for event in events]
        assert fences == sorted(fences), "who had lost the run has written"
        leases = [(event["fence"], event["data"]["replica"]) for event in events if event["kind"] == "leased"]
        assert len({fence for fence, _ in leases}) == len(leases)
        holders |= {replica.partition("/")[0] for _, replica in leases}
        assert [event["kind"] for event in events].count("final") == 1
    assert len(holders) >= 2, "both replicas worked"


def _process_of(platform: Platform, pod: str) -> int:
    """The agent's process in a Pod."""
    uid = platform.get("pod", pod)["metadata"]["uid"]
    found = [
        pid for pid in platform.processes(ROLES["agent"])
        if uid.encode() in _bytes(pid, "mountinfo") + _bytes(pid, "environ") + _bytes(pid, "cgroup")
        or pod.encode() in _bytes(pid, "environ")
    ]  # fmt: skip
    assert len(found) == 1, found
    return found[0]


def _bytes(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""
