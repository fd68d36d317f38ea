"""The whole platform as a person starts it: time to Ready, memory and CPU at rest, `qd --help`."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import time

from tests.support.platform import BIN, EXAMPLES, SEED, Platform, embedded, processes_of

from .measure import Row, cpu, rss

OBJECTS = ("mcpserver/datetime-agent-mcp", "agent/datetime-agent")
_ROLES = (
    ("control plane", "quarterdeck.server"),
    ("gateway", "quarterdeck.gateway"),
    ("bridge", "quarterdeck.bridge"),
    ("scripted model", "quarterdeck.agents.scripted"),
    ("agent", "quarterdeck.agents "),
)


def _help() -> list[Row]:
    """CPU of `qd --help`, the best of five."""
    found: list[float] = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([str(BIN / "qd"), "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(BIN / "python"), "-c", "pass"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    bare = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [
        Row("qd --help: CPU", min(found), "s", 0.3, f"python -c pass: {bare:.2f} s; worst of 5: {max(found):.2f} s")
    ]


def _wait_ready(platform: Platform) -> None:
    for name in OBJECTS:
        platform.wait(name, seconds=60)


def _memory(platform: Platform) -> list[Row]:
    """Resident memory by role. Shared pages are counted in each process, so the sums are upper bounds."""
    assert platform.home is not None
    found: dict[str, float] = {}
    for pid, command in processes_of(platform.home).items():
        role = next((role for role, mark in _ROLES if f"-m {mark}" in command or f"{mark} " in f"{command} "), "")
        if role:
            found[role] = max(found.get(role, 0.0), rss(pid))
    both = found.get("control plane", 0.0) + found.get("gateway", 0.0)
    parts = ", ".join(f"{role} {value:.0f}" for role, value in sorted(found.items()))
    rows = [Row("memory at rest: control plane + gateway", both, "MB", 220.0, parts)]
    for role, target in (("agent", 150.0), ("bridge", 40.0)):
        if role in found:
            rows.append(Row(f"memory at rest: {role}", found[role], "MB", target))
    return rows


def _spent(platform: Platform) -> Row:
    """CPU of all processes up to now: what start-up costs however busy the machine is."""
    assert platform.home is not None
    found = [(command, cpu(pid)) for pid, command in processes_of(platform.home).items()]
    parts = {role: sum(used for command, used in found if f"-m {mark}" in f"{command} ") for role, mark in _ROLES}
    detail = ", ".join(f"{role} {value:.1f}" for role, value in parts.items())
    return Row("the same: CPU of all processes until then", sum(used for _, used in found), "s", None, detail)


def _idle(platform: Platform, seconds: float) -> Row:
    assert platform.home is not None
    before = {pid: cpu(pid) for pid in processes_of(platform.home)}
    time.sleep(seconds)
    used = sum(cpu(pid) - start for pid, start in before.items() if pid in processes_of(platform.home))
    return Row(
        f"CPU at rest, all {len(before)} processes", used / seconds * 100, "% of a core", None, f"over {seconds:g} s"
    )


def _run(quick: bool) -> list[Row]:
    rows = _help()
    with embedded(build=False) as platform:
        up = platform.figures["start"]
        platform.qd("mcp", "build", "-d", str(EXAMPLES / "datetime-server"), "-t", "datetime-server:latest")
        began = time.monotonic()
        platform.kubectl("apply", "-f", str(SEED / "datetime-agent.yaml"))
        _wait_ready(platform)
        ready = time.monotonic() - began
        detail = f"qd up {up:.1f} s, apply to Ready {ready:.1f} s; load average now {os.getloadavg()[0]:.1f}"
        rows.append(Row("qd up to both Ready (agent and MCP server)", up + ready, "s", 8.0, detail))
        rows.append(_spent(platform))
        time.sleep(10.0 if quick else 20.0)
        rows += _memory(platform)
        rows.append(_idle(platform, 10.0 if quick else 30.0))
    return rows


async def bench(quick: bool) -> list[Row]:
    """In a home of its own, ended and checked for leftovers."""
    return await asyncio.to_thread(_run, quick)
