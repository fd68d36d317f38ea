"""``kill -9`` of each process in the middle of a call: a clear error or the result, then everything as before."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.telemetry.audit import verify
from support.platform import (
    FREE_PORTS,
    Platform,
    assert_nothing_left,
    audit_files,
    eventually,
    own_route,
    processes_of,
)

from .conftest import A2A, said, state

NAMES = {
    "control plane": r"-m quarterdeck\.server ",
    "supervisor": r"-m quarterdeck\.cli(\.up| up)",
    "gateway": r"-m quarterdeck\.gateway",
    "agent": r"-m quarterdeck\.agents ",
    "bridge": r"-m quarterdeck\.bridge",
    "MCP server": r"/srv/server\.py",
}


pytestmark = pytest.mark.usefixtures("faulty")


def pids(platform: Platform, role: str) -> list[int]:
    """The processes of a role that do its work: launchers and sandboxes around them are left out."""
    assert platform.home is not None
    found = processes_of(platform.home)
    return sorted(pid for pid, command in found.items() if re.search(NAMES[role], command) and "bwrap" not in command)


def healthy(platform: Platform) -> bool:
    """An agent's tool call goes through, and each Pod runs each of its containers exactly once."""
    try:
        task = A2A(platform, "victim").send("call pid {}", timeout=15)
    except (OSError, AssertionError):
        return False
    roles = ("control plane", "supervisor", "gateway", "agent", "bridge")
    once = all(len(pids(platform, role)) == 1 for role in roles)
    return state(task) == "COMPLETED" and bool(re.fullmatch(r"result: \d+", said(task))) and once


def began(platform: Platform, note: str) -> int:
    """How often the tool has begun to work on a note, by the logs of all its Pods."""
    assert platform.home is not None
    logs = (platform.home / "node" / "pods").glob("*/containers/*/*.log*")
    return sum(path.read_text(errors="replace").count(f"began {note}") for path in logs)


def call_in_background(platform: Platform, note: str) -> Callable[[], Any]:
    """Start an agent's slow tool call; the function waits for what its caller gets: a task or an error."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(A2A(platform, "victim").send(f'call slow {{"note": "{note}", "seconds": 3}}', timeout=60))
        except (OSError, AssertionError) as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: began(platform, note) == 1, f"the tool works on {note}")

    def finish() -> Any:
        thread.join(70)
        assert outcome, "the caller still waits"
        return outcome[0]

    return finish


def kill(platform: Platform, role: str) -> list[int]:
    killed = pids(platform, role)
    assert killed, f"no process of {role}: {processes_of(platform.home)}"  # type: ignore[arg-type]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    return killed


def unfinished(platform: Platform) -> list[str]:
    """Ids of tasks that are neither done nor waiting for somebody."""
    import sqlite3

    with sqlite3.connect(f"file:{platform.home}/server.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT id FROM tasks WHERE state IN ('submitted', 'working')").fetchall()
    return [row[0] for row in rows]


@pytest.mark.parametrize("role", ["MCP server", "bridge", "agent", "gateway", "control plane"])
def test_killed_in_the_middle_of_a_call(platform: Platform, role: str) -> None:
    eventually(lambda: healthy(platform), "the platform is healthy before")
    note = role.replace(" ", "-")
    finish = call_in_background(platform, note)
    began_at = time.monotonic()
    killed = kill(platform, role)
    outcome = finish()
    if isinstance(outcome, dict):
        text = said(outcome)
        assert state(outcome) in ("COMPLETED", "FAILED", "INPUT_REQUIRED")
        words = (f"done {note}", "faulty", "gateway", "control plane", "Whether the call was carried out is not known")
        assert any(word in text for word in words), text
    else:
        assert role in ("agent", "gateway"), f"the caller of the agent got {outcome!r}"
    eventually(lambda: healthy(platform), f"recovery from the death of {role}")
    platform.figures[f"recovery of {role}"] = time.monotonic() - began_at
    assert not set(killed) & set(pids(platform, role))
    assert began(platform, note) == 1, "the tool call was made twice"
    eventually(lambda: not unfinished(platform), "no task left working")
    for kind, name in (("mcpserver", "faulty"), ("agent", "victim")):
        eventually(lambda: platform.condition(kind, name, "Ready").get("status") == "True", f"{name} is Ready")


def test_a_run_of_a_killed_agent_asks_about_the_call_under_way_and_goes_on(platform: Platform) -> None:
    eventually(lambda: healthy(platform), "the platform is healthy before")
    victim = A2A(platform, "victim")
    task = victim.send('call slow {"note": "interrupted", "seconds": 4}', wait=False)
    eventually(lambda: began(platform, "interrupted") == 1, "the tool works")
    kill(platform, "agent")

    def asks() -> bool:
        try:
            return state(victim.task(task["id"])) == "INPUT_REQUIRED"
        except OSError:
            return False

    eventually(asks, "the next process asks what to do about the call")
    assert "Whether the call was carried out is not known" in said(victim.task(task["id"]))
    shown = platform.qd("run", "show", task["id"]).out
    assert "waits: unknown_outcome" in shown and "slow of kagent/faulty" in shown, shown
    assert "goes on" in platform.qd("run", "resume", task["id"], "--skip").out
    eventually(lambda: state(victim.task(task["id"])) == "COMPLETED", "the run is finished")
    again = victim.send("call pid {}", task["contextId"])
    assert state(again) == "COMPLETED"
    assert began(platform, "interrupted") == 1


def test_writes_acknowledged_before_a_kill_are_there_after_it(platform: Platform) -> None:
    written: list[str] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            name = f"kept-{len(written)}"
            if platform.kubectl("create", "configmap", name, "-n", "default", ok=False, timeout=20).code == 0:
                written.append(name)

    writer = threading.Thread(target=write)
    writer.start()
    eventually(lambda: len(written) >= 3, "some writes")
    kill(platform, "control plane")
    stop.set()
    writer.join()
    names = eventually(
        lambda: platform.kubectl("get", "cm", "-n", "default", "-o", "name", ok=False).out, "the API", 30
    )
    assert {f"configmap/{n}" for n in written} <= set(names.split())


def test_the_audit_chain_is_whole(platform: Platform) -> None:
    assert platform.home is not None
    path = audit_files(platform.home)[0]
    found = eventually(lambda: verify(path), "the audit file can be read")
    assert found.problem == "" and found.records > 10, found


@pytest.mark.slow
def test_a_killed_supervisor_takes_the_platform_with_it_or_leaves_it_to_the_next(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "home" / "kubeconfig", "", tmp_path, tmp_path / "home")
    home = tmp_path / "home"
    platform.qd("up", "--detach", *FREE_PORTS)
    route = own_route(home)
    try:
        kill(platform, "supervisor")
        eventually(lambda: not pids(platform, "control plane"), "the control plane ends without its supervisor", 60)
        platform.qd("up", "--detach", *FREE_PORTS)
        assert len(pids(platform, "gateway")) == 1
    finally:
        platform.qd("down")
    assert_nothing_left(home, route)


def test_both_killed_at_once_leave_no_orphan_behind_the_next_start(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "home" / "kubeconfig", "", tmp_path, tmp_path / "home")
    home = tmp_path / "home"
    platform.qd("up", "--detach", *FREE_PORTS)
    route = own_route(home)
    try:
        kill(platform, "supervisor")
        kill(platform, "control plane")
        assert platform.qd("status", ok=False).code == 1
        platform.qd("up", "--detach", *FREE_PORTS)
        assert len(pids(platform, "gateway")) == 1
        assert json.loads(platform.kubectl("get", "pods", "-A", "-o", "json").out)["items"]
    finally:
        platform.qd("down")
    assert_nothing_left(home, route)
