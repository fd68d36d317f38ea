"""The node with a real podman; without one that can run containers these tests are skipped."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.kube.resource import CONFIG_MAP, NODE, POD
from quarterdeck.node.execute import run_in
from quarterdeck.node.node import Node
from quarterdeck.node.runtime import NodeConfig

from .fake_api import FakeApi

_CONF = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
"""
"""For machines whose root may not raise limits and whose cgroups are hybrid: both stop crun, podman's default."""


def podman(*args: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["podman", *args], input=data, capture_output=True, timeout=60, check=False)


def rootfs() -> bytes:
    """busybox and the links to it, as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "echo", "sleep", "cat", "id", "httpd", "touch", "grep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return out.getvalue()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    linked = subprocess.run(["ldd", "/bin/busybox"], capture_output=True, check=False)
    if linked.returncode == 0 or not Path("/bin/busybox").exists():
        pytest.skip("/bin/busybox is not there or not static (apt install busybox-static)")
    name = f"localhost/qd-test-{os.getpid()}:1"
    if (made := podman("import", "-", name, data=rootfs())).returncode:
        pytest.skip(f"podman cannot import an image here: {made.stderr.decode()[-200:]}")
    with pytest.MonkeyPatch.context() as patch:
        trial = podman("run", "--rm", "--network", "none", name, "/bin/echo", "ok")
        if trial.returncode:
            conf = tmp_path_factory.mktemp("podman") / "containers.conf"
            conf.write_text(_CONF)
            patch.setenv("CONTAINERS_CONF", str(conf))
            trial = podman("run", "--rm", "--network", "none", name, "/bin/echo", "ok")
        if trial.returncode:
            podman("image", "rm", "-f", name)
            pytest.skip(f"podman cannot run containers here: {trial.stderr.decode()[-200:]}")
        yield name
        podman("image", "rm", "-f", name)


@pytest.fixture
async def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
async def node(api: FakeApi, tmp_path: Path, image: str) -> AsyncIterator[Node]:
    node = Node(NodeConfig(api, "n1", tmp_path / "node", refresh=0.1))  # type: ignore[arg-type]
    await node.start()
    yield node
    await node.stop(1)


def pod(name: str, container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": "n1", "containers": [{"name": "main"} | container], "terminationGracePeriodSeconds": 1, **spec
        },
    }  # fmt: skip


def running(p: dict[str, Any] | None) -> bool:
    return ((p or {}).get("status") or {}).get("phase") == "Running"


def containers_of(uid: str) -> list[str]:
    return podman("ps", "-aq", "--filter", f"label=quarterdeck.dev/pod-uid={uid}").stdout.decode().split()


async def until(condition: Any, seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


def log_of(node: Node, name: str) -> str:
    worker = node.worker("default", name)
    path = worker.log_file("main", previous=False) if worker is not None else None
    return path.read_text() if path is not None and path.exists() else ""


async def test_a_foreign_image_runs_confined_to_its_end(api: FakeApi, node: Node, image: str) -> None:
    assert (await api.get(NODE, "n1"))["metadata"]["labels"]["quarterdeck.dev/engine"] == "podman"
    await api.create(
        CONFIG_MAP, {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "from a volume"}}, "default"
    )
    said = 'echo "$WHO"; cat /in/k; echo; id -u; touch /x || echo read-only; grep CapEff /proc/1/status; exit 3'
    container = {
        "image": image, "command": ["/bin/sh", "-c"], "args": [said],
        "env": [{"name": "WHO", "value": "me = 'you' $X"}],
        "volumeMounts": [{"name": "v", "mountPath": "/in"}],
        "securityContext": {"runAsUser": 1234, "readOnlyRootFilesystem": True},
        "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
    }  # fmt: skip
    await api.create(POD, pod("one", container, volumes=[{"name": "v", "configMap": {"name": "c"}}],
                              restartPolicy="Never"))  # fmt: skip
    done = await api.wait("one", lambda p: (p.get("status") or {}).get("phase") == "Failed")
    ended = done["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == 3, log_of(node, "one")
    lines = log_of(node, "one").splitlines()
    assert lines[:3] == ["me = 'you' $X", "from a volume", "1234"]
    assert "read-only" in lines
    assert lines[-1].split() == ["CapEff:", "0000000000000000"]
    assert not containers_of(done["metadata"]["uid"])


async def test_serving_exec_and_stop(api: FakeApi, node: Node, image: str) -> None:
    container = {
        "image": image, "command": ["/bin/httpd", "-f", "-p", "8099"], "ports": [{"containerPort": 8099}],
        "readinessProbe": {"tcpSocket": {"port": 8099}, "periodSeconds": 1},
    }  # fmt: skip
    await api.create(POD, pod("web", container))
    up = await api.wait("web", lambda p: running(p) and p["status"]["containerStatuses"][0]["ready"])
    isolated = next(c for c in up["status"]["conditions"] if c["type"] == "quarterdeck.dev/Isolated")
    assert isolated["status"] == "True"
    assert (isolated["reason"], isolated["message"].split(",")[0]) == ("Container", "main: podman container")
    worker = node.worker("default", "web")
    assert worker is not None
    code, output = await run_in(
        worker.processes["main"], worker.files.confinement("main"), ["/bin/sh", "-c", "cat /proc/1/cmdline; exit 4"], 10
    )
    assert (code, output.split(b"\0")[0]) == (4, b"/bin/httpd")
    await api.delete(POD, "web", "default")
    await api.wait("web", lambda p: p is None)
    assert not containers_of(up["metadata"]["uid"])


async def test_a_container_without_client_ends_with_the_next_node(api: FakeApi, tmp_path: Path, image: str) -> None:
    config = NodeConfig(api, "n1", tmp_path / "node", refresh=0.1)  # type: ignore[arg-type]
    first = Node(config)
    await first.start()
    await api.create(POD, pod("left", {"image": image, "command": ["/bin/sleep", "600"]}))
    up = await api.wait("left", running)
    uid = up["metadata"]["uid"]
    await until(lambda: containers_of(uid))
    worker = first.worker("default", "left")
    assert worker is not None
    client = worker.processes["main"]
    await first.stop(keep_pods=True)
    os.kill(client.pid, signal.SIGKILL)
    old = containers_of(uid)
    assert old, "the engine keeps a container whose client is gone"
    second = Node(config)
    await second.start()
    try:
        await until(lambda: not set(old) & set(containers_of(uid)))
        await api.wait("left", lambda p: p["status"]["containerStatuses"][0]["restartCount"] == 1)
    finally:
        await second.stop(1)
    assert not containers_of(uid)


async def test_a_bridge_runs_beside_and_its_server_in_the_image(api: FakeApi, node: Node, image: str) -> None:
    server = "while read line; do echo $line; done"
    config = json.dumps({"listen": {"port": 8098}, "command": "/bin/sh", "args": ["-c", server]})
    await api.create(
        CONFIG_MAP, {"metadata": {"name": "b", "namespace": "default"}, "data": {"bridge.json": config}}, "default"
    )
    container = {
        "image": image, "command": ["/adapterbin/quarterdeck-bridge"], "args": ["--config", "/config/bridge.json"],
        "ports": [{"containerPort": 8098}],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
        "startupProbe": {"httpGet": {"path": "/health", "port": 8098}, "periodSeconds": 1, "failureThreshold": 20},
    }  # fmt: skip
    await api.create(POD, pod("mcp", container, volumes=[{"name": "config", "configMap": {"name": "b"}}]))
    up = await api.wait("mcp", lambda p: running(p) and p["status"]["containerStatuses"][0]["started"])
    await until(lambda: containers_of(up["metadata"]["uid"]))
    await api.delete(POD, "mcp", "default")
    await api.wait("mcp", lambda p: p is None)
    assert not containers_of(up["metadata"]["uid"])
