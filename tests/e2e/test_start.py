"""Starting and ending: twice on one home, after everything was killed, and nothing left at the end."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from support.platform import FREE_PORTS, Platform, embedded, eventually, processes_of

from .test_quiet import changes, pids, pods, quiet, settings

PORTS = {
    "kubernetes": "kubernetes",
    "api": "api",
    "kagent": "kagent",
    "gateway": "gateway",
    "workloads": "gatewayWorkloads",
}
"""Flag of qd up → key of endpoints.json."""


def test_a_second_start_on_one_home_is_refused(seed: Platform) -> None:
    eventually(lambda: not quiet(seed, 1), "the platform settles", 60)
    before, address = settings(seed), seed.endpoints()
    ran = seed.qd("up", *FREE_PORTS, ok=False)
    assert ran.code == 1 and "already runs" in ran.text and str(seed.home) in ran.text, ran.text
    assert "qd down" in ran.text
    server = (sys.executable, "-m", "quarterdeck.server", f"--home={seed.home}", *FREE_PORTS)
    ran = seed.run(*server, stdin="", ok=False)  # without the supervisor, which asks first
    assert ran.code == 1 and f"in use by process {address['pid']}" in ran.err, ran.err
    assert seed.endpoints() == address
    assert seed.qd("status").code == 0
    assert changes(before, settings(seed)) == []


def test_status_and_kubeconfig(seed: Platform) -> None:
    assert seed.qd("kubeconfig").out.strip() == str(seed.kubeconfig)
    status = seed.qd("status", ok=False).out
    assert seed.gateway in status and "ready" in status


def kill_both(platform: Platform) -> None:
    """The supervisor and its control plane, at once."""
    assert platform.home is not None
    for pid in (int((platform.home / "run" / "up.lock").read_text()), int(platform.endpoints()["pid"])):
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: not _runs(pid), f"process {pid} is gone")


def _runs(pid: int) -> bool:
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


def test_everything_killed_is_adopted_by_the_next_start_or_ended_by_down() -> None:
    with embedded(build=False) as platform:
        assert platform.home is not None
        eventually(lambda: len(pods(platform)) == 2, "gateway and model run")
        before, ran, gateway = pods(platform), pids(platform), platform.gateway
        same = [f"--{flag}-port={platform.endpoints()[key].rpartition(':')[2]}" for flag, key in PORTS.items()]
        kill_both(platform)
        began = time.monotonic()
        platform.qd("up", "--detach", *same)
        platform.figures["start over running Pods"] = time.monotonic() - began
        assert platform.endpoints()["gateway"] == gateway, "the gateway goes on where it is"
        eventually(lambda: pods(platform) == before, "the same Pods run")
        assert set(ran) <= set(processes_of(platform.home)), "a process was started again"
        kill_both(platform)
        platform.qd("down")
        assert processes_of(platform.home) == {}
