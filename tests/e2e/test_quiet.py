"""A platform at rest writes nothing, and a control plane that is killed comes back to what it left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import Any

import pytest

from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.config import load_config
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.resource import CONFIG_MAP
from support.platform import SEED, Platform, eventually, processes_of

SECONDS = 10.0
_NOT_LISTED = ("pods.metrics.k8s.io", "nodes.metrics.k8s.io", "componentstatuses")

Versions = dict[tuple[str, str, str], str]


def everything(platform: Platform) -> list[dict[str, Any]]:
    names = platform.kubectl("api-resources", "--verbs=list", "-o", "name").out.split()
    listed = platform.kubectl("get", ",".join(n for n in names if n not in _NOT_LISTED), "-A", "-o", "json", timeout=90)
    return json.loads(listed.out)["items"]


def settings(platform: Platform) -> Versions:
    """(kind, namespace, name) → what was asked for, of everything but what follows the state of Pods.

    A busy machine may miss a probe at any time, which changes statuses and EndpointSlices and is no command's doing.
    """
    found: Versions = {}
    for item in everything(platform):
        kind, meta = item["kind"], item["metadata"]
        if kind in ("Lease", "Node", "Event", "Pod", "EndpointSlice", "Endpoints"):
            continue
        asked = {k: v for k, v in item.items() if k not in ("status", "metadata")}
        about = {k: meta.get(k) for k in ("uid", "generation", "labels", "deletionTimestamp", "ownerReferences")}
        found[kind, meta.get("namespace", ""), meta["name"]] = json.dumps([asked, about], sort_keys=True)
    return found


def versions(platform: Platform) -> Versions:
    """(kind, namespace, name) → resourceVersion of everything there is."""
    found: Versions = {}
    for item in everything(platform):
        kind, meta = item["kind"], item["metadata"]
        if kind == "Event":
            about = item.get("involvedObject") or item.get("regarding") or {}
            meta = meta | {"name": f"{meta['name']} ({item.get('reason')} of {about.get('kind')} {about.get('name')})"}
        found[kind, meta.get("namespace", ""), meta["name"]] = meta["resourceVersion"]
    return found


def changes(before: Versions, after: Versions) -> list[tuple[str, str, str]]:
    return [k for k in before.keys() | after.keys() if before.get(k) != after.get(k)]


def quiet(platform: Platform, seconds: float) -> list[tuple[str, str, str]]:
    """What was written in so many seconds, but for heartbeats and the retries of a Pod that cannot run here."""
    before = versions(platform)
    time.sleep(seconds)  # the absence of writes has no event to wait for
    return [
        key
        for key in changes(before, versions(platform))
        if key[0] not in ("Lease", "Node") and not (key[0] == "Event" and "github-mcp-server" in key[2])
    ]


def pids(platform: Platform) -> dict[int, str]:
    """Processes of Pods: not the control plane's, nor commands running now."""
    own = ("quarterdeck.server", "quarterdeck.cli", "kubectl", "/qd ")
    return {pid: line for pid, line in processes_of(platform.own_home()).items() if not any(o in line for o in own)}


def pods(platform: Platform) -> dict[str, tuple[str, int]]:
    """Pod name → (uid, restarts)."""
    items = (
        platform.get("pods", namespace="kagent")["items"]
        + platform.get("pods", namespace="quarterdeck-system")["items"]
    )
    return {
        p["metadata"]["name"]: (p["metadata"]["uid"], sum(c["restartCount"] for c in p["status"]["containerStatuses"]))
        for p in items
    }


def test_a_quiet_platform_writes_nothing(seed: Platform) -> None:
    """One span of several has no write: a probe that a busy machine missed is written, and is no noise."""
    eventually(lambda: not quiet(seed, 4), "the platform settles", 60)
    for _ in range(6):
        before = writes(seed) if seed.home is not None else 0
        written = quiet(seed, SECONDS)
        # Each heartbeat is one write: a lease every ten seconds; and the retries of what cannot run.
        # On a real API server, which counts no writes, tests/cluster reads the audit log.
        if not written and (seed.home is None or writes(seed) - before <= 6):
            return
    raise AssertionError(f"written within {SECONDS:g} s: {written}")


def writes(platform: Platform) -> int:
    for line in platform.kubectl("get", "--raw", "/metrics").out.splitlines():
        if line.startswith("apiserver_storage_writes_total"):
            return int(float(line.split()[-1]))
    raise AssertionError("the API server does not count its writes")


def test_a_second_apply_changes_nothing(seed: Platform) -> None:
    seed.kubectl(
        "apply", "-f", str(SEED)
    )  # other tests apply on the server side, after which kubectl writes its note anew
    eventually(lambda: not quiet(seed, 1), "the platform settles", 60)
    before = settings(seed)
    for name in (
        "datetime-agent",
        "k8s-agent",
        "github-mcp-server",
        "agw-mcp-servers",
        "kagent-tool-server",
        "aire-agent",
    ):
        lines = seed.kubectl("apply", "-f", str(SEED / f"{name}.yaml")).out.splitlines()
        assert lines and all(line.endswith(" unchanged") for line in lines), lines
    assert changes(before, settings(seed)) == []


@pytest.mark.timeout(200)
async def test_a_killed_control_plane_comes_back_to_the_same_pods(seed: Platform) -> None:
    seed.own_home("kills the one process that is the embedded control plane")
    eventually(lambda: not quiet(seed, 1), "the platform settles", 30)
    seen: list[str] = []
    client = KubeClient(load_config(str(seed.kubeconfig)))
    informer = Informer(client, CONFIG_MAP, "kagent")
    informer.on_change(lambda kind, old, new: seen.append((new or old or {})["metadata"]["name"]))
    informer.start()
    try:
        await asyncio.wait_for(informer.synced.wait(), 30)
        before = await asyncio.to_thread(lambda: (pods(seed), pids(seed), seed.endpoints()["pid"]))
        async with seed.mcp("/mcp/kagent/datetime-agent-mcp") as tools:
            os.kill(before[2], signal.SIGKILL)
            killed = time.monotonic()
            # The data plane does not notice.
            result = await tools.call_tool("get_time", {})
            assert not result.is_error
            await asyncio.to_thread(_returned, seed, before[2])
            seed.figures["control plane back after kill -9"] = time.monotonic() - killed
            assert not (await tools.call_tool("get_date", {})).is_error
        await asyncio.to_thread(_same, seed, before[0], before[1])
        await asyncio.to_thread(seed.kubectl, "create", "configmap", "after-the-kill", "-n", "kagent")
        deadline = time.monotonic() + 60
        while "after-the-kill" not in seen:
            assert time.monotonic() < deadline, f"the watch did not come back: {seen}"
            await asyncio.sleep(0.05)
        assert len(seen) == len(set(seen)) or seen.count("after-the-kill") == 1
    finally:
        await informer.stop()
        await client.close()
    await asyncio.to_thread(seed.kubectl, "delete", "configmap", "after-the-kill", "-n", "kagent")


def _returned(platform: Platform, pid: int) -> None:
    def again() -> bool:
        try:
            return platform.endpoints()["pid"] != pid
        except FileNotFoundError:
            return False

    eventually(again, "the supervisor starts another control plane")
    eventually(lambda: platform.kubectl("get", "--raw", "/readyz", ok=False).out == "ok", "it answers")
    platform.wait("agent/datetime-agent")


def _same(platform: Platform, were: dict[str, tuple[str, int]], ran: dict[int, str]) -> None:
    """The same Pods, restarts and processes, and it stays so."""
    for _ in range(3):
        assert pods(platform) == were
        now = pids(platform)
        gone = {p: c for p, c in ran.items() if p not in now and (_host(c) or not _server(c))}
        assert gone == {}, "processes of Pods ended with the control plane"
        hosts = [host for host in map(_host, now.values()) if host]
        assert all(hosts.count(h) <= 2 for h in hosts), "a container runs twice"
        time.sleep(0.5)


def _host(command: str) -> str:
    """The Pod of a sandbox's own process; of anything else, nothing."""
    words = command.split()
    return words[words.index("--hostname") + 1] if "--hostname" in words and "bwrap" in words[0] else ""


def _server(command: str) -> bool:
    """A stdio MCP server: it ends with the session that started it."""
    return "mcp-server" in command or "src/main.py" in command


def test_a_change_after_the_restart_reaches_the_gateway(seed: Platform) -> None:
    """The gateway has found its way back to the new control plane's configuration stream."""
    patch: dict[str, Any] = {"metadata": {"name": "echo-after", "namespace": "kagent"}}
    document = patch | {
        "apiVersion": "kagent.dev/v1alpha2", "kind": "RemoteMCPServer",
        "spec": {"description": "x", "protocol": "STREAMABLE_HTTP", "url": "http://127.0.0.1:9/mcp"},
    }  # fmt: skip
    seed.apply(document)
    seed.served("/mcp/kagent/echo-after")
    seed.kubectl("delete", "remotemcpserver", "echo-after", "-n", "kagent")


def test_settled_again(seed: Platform) -> None:
    eventually(lambda: not quiet(seed, 3), "the restarted platform settles", 60)
