"""kill -9 of a real node process at random moments, against the real API server."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.kube.client import KubeClient, load_config
from quarterdeck.kube.resource import CONFIG_MAP, POD, SERVICE_ACCOUNT
from quarterdeck.node.sandbox.isolation import Sandbox
from quarterdeck.resources.images import own_image

_MARK = 700_000 + os.getpid() % 90_000 * 10
"""``sleep`` arguments nobody else uses: how the test finds the containers' processes."""


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[KubeClient]:
    server = ApiServer(ApiServerConfig(tmp_path / "api", port=0))
    await server.start()
    client = KubeClient(load_config(str(server.kubeconfig)))
    client.kubeconfig = str(server.kubeconfig)  # type: ignore[attr-defined]
    await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": "default"}}, "default")
    yield client
    await client.close()
    await server.stop()


def sleepers(mark: int) -> list[int]:
    """Live processes ``sleep MARK``."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cmdline").read_bytes() == b"sleep\0%d\0" % mark:
                found.append(int(path.name))
        except OSError:
            continue
    return found


async def until(condition: Callable[[], Any], seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def start_node(client: KubeClient, data: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "tests.node.node_process", client.kubeconfig, str(data)]  # type: ignore[attr-defined]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


async def phase(client: KubeClient, name: str) -> str:
    pod = await client.get(POD, name, "default")
    return (pod.get("status") or {}).get("phase", "")


def running_pod(name: str, mark: int) -> dict[str, Any]:
    volume = {"name": "v", "configMap": {"name": "c"}}
    container = {
        "name": "main", "image": own_image(), "command": ["/bin/sh", "-c", f"echo began; exec sleep {mark}"],
        "volumeMounts": [{"name": "v", "mountPath": "/config"}],
    }  # fmt: skip
    spec: dict[str, Any] = {
        "nodeName": "killed",
        "containers": [container],
        "volumes": [volume],
        "terminationGracePeriodSeconds": 1,
    }
    spec["automountServiceAccountToken"] = False
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def test_kill_9_starts_nothing_twice_and_leaves_no_orphan(client: KubeClient, tmp_path: Path) -> None:
    chance = random.Random(7)
    data = tmp_path / "node"
    await client.create(
        CONFIG_MAP, {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "one"}}, "default"
    )
    marks = {f"p{i}": _MARK + i for i in range(4)}
    process: subprocess.Popen[bytes] | None = None
    try:
        for round_, name in enumerate(marks):
            process = start_node(client, data)
            await client.create(POD, running_pod(name, marks[name]), "default")
            await asyncio.sleep(0.6 + chance.random() * 0.8)
            process.kill()
            process.wait()
            for mark in marks.values():
                assert len(sleepers(mark)) <= 1, f"after {round_ + 1} kills"
        process = start_node(client, data)
        await until(lambda: all(len(sleepers(m)) == 1 for m in marks.values()))
        for name in marks:
            async with asyncio.timeout(15):
                while await phase(client, name) != "Running":
                    await asyncio.sleep(0.1)
            pod = await client.get(POD, name, "default")
            # A start that the kill cut off before the program ran is made again, and may count as one restart.
            assert pod["status"]["containerStatuses"][0]["restartCount"] <= 1
            assert len(sleepers(marks[name])) == 1
        await client.patch(CONFIG_MAP, "c", {"data": {"k": "two"}}, "default")
        await until(lambda: {p.read_text() for p in data.glob("pods/*/volumes/v/k")} == {"two"})
        process.kill()
        process.wait()
        await client.delete(POD, "p0", "default", grace_seconds=0)
        process = start_node(client, data)
        await until(lambda: not sleepers(marks["p0"]))
        for name in ("p1", "p2", "p3"):
            await client.delete(POD, name, "default")
        await until(lambda: not any(sleepers(m) for m in marks.values()))
        async with asyncio.timeout(30):
            while (await client.list(POD, "default")).items:
                await asyncio.sleep(0.1)
        await until(lambda: not list(data.glob("pods/*")))
    finally:
        if process is not None:
            process.kill()
            process.wait()
        for mark in marks.values():
            for pid in sleepers(mark):
                os.kill(pid, 9)


async def test_exit_code_of_an_adopted_container_is_known(client: KubeClient, tmp_path: Path) -> None:
    """A container that ends while the node is dead, or after it was adopted, keeps its exit code (with bubblewrap)."""
    if Sandbox.best().level != "bwrap":
        pytest.skip("only bubblewrap records exit codes")
    data = tmp_path / "node"
    pods = {"during": 3, "after": 4}
    process = start_node(client, data)
    try:
        for name, code in pods.items():
            script = f"echo began; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit {code}"
            pod = running_pod(name, 1)
            pod["spec"]["containers"][0] = {"name": "main", "image": own_image(), "command": ["/bin/sh", "-c", script]}
            pod["spec"] |= {"restartPolicy": "Never", "volumes": []}
            await client.create(POD, pod, "default")
        uids = {name: (await client.get(POD, name, "default"))["metadata"]["uid"] for name in pods}

        def said(name: str) -> bool:
            path = data / "pods" / uids[name] / "containers" / "main" / "1.log"
            return path.exists() and "began" in path.read_text()

        await until(lambda: said("during") and said("after"))
        process.kill()
        process.wait()
        (data / "pods" / uids["during"] / "tmp" / "go").touch()
        await until(lambda: b"exit-code" in (data / "pods" / uids["during"] / "containers/main/exit.json").read_bytes())
        process = start_node(client, data)
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        (data / "pods" / uids["after"] / "tmp" / "go").touch()
        for name, code in pods.items():
            async with asyncio.timeout(15):
                while await phase(client, name) != "Failed":
                    await asyncio.sleep(0.1)
            status = (await client.get(POD, name, "default"))["status"]
            assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code
            await client.delete(POD, name, "default", grace_seconds=0)
    finally:
        process.kill()
        process.wait()
