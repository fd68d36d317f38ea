"""The node against a fake API and real processes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.routes import version_info
from quarterdeck.kube.resource import CONFIG_MAP, LEASE, NODE, POD
from quarterdeck.node.node import Node
from quarterdeck.node.process import start_ticks
from quarterdeck.node.runtime import NodeConfig
from quarterdeck.node.sandbox.isolation import Sandbox

from .fake_api import FakeApi

LEVELS = {"bwrap": None, "landlock": Sandbox("landlock", None, network=False)}


@pytest.fixture(params=list(LEVELS))
def level(request: pytest.FixtureRequest) -> str:
    if request.param == "bwrap" and Sandbox.best().level != "bwrap":
        pytest.skip("no bubblewrap that works here")
    return request.param


@pytest.fixture
async def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
async def node(api: FakeApi, tmp_path: Path, level: str):
    node = Node(NodeConfig(api, "n1", tmp_path / "node", sandbox=LEVELS[level], refresh=0.1, engines=()))  # type: ignore[arg-type]
    await node.start()
    yield node
    await node.stop(2)
    deadline = time.monotonic() + 5  # a process that was killed may still be dying
    while left := [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in read(p)]:
        assert time.monotonic() < deadline, f"processes survive the node's stop: {left}"
        await asyncio.sleep(0.05)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": list(containers), "terminationGracePeriodSeconds": 2, **spec},
    }


def shell(script: str, name: str = "main", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "", "command": ["/bin/sh", "-c", script], **more}


def log_of(node: Node, name: str, container: str = "main") -> str:
    worker = node.worker("default", name)
    assert worker is not None
    path = worker.log_file(container, previous=False)
    return path.read_text() if path is not None and path.exists() else ""


def state(p: dict[str, Any] | None, index: int = 0) -> dict[str, Any]:
    statuses = ((p or {}).get("status") or {}).get("containerStatuses") or [{}]
    return statuses[index].get("state") or {}


def restarted(p: dict[str, Any] | None) -> bool:
    return bool(p and p.get("status") and p["status"]["containerStatuses"][0]["restartCount"])


async def test_the_node_is_as_old_as_its_api_server(api: FakeApi, node: Node) -> None:
    shown = (await api.get(NODE, "n1"))["status"]["nodeInfo"]["kubeletVersion"]
    assert shown == version_info()["gitVersion"]


async def test_job_like_pod_succeeds(api: FakeApi, node: Node) -> None:
    await api.create(
        POD, pod("job", shell("echo hello $WHO; exit 0", env=[{"name": "WHO", "value": "you"}]), restartPolicy="Never")
    )
    done = await api.wait("job", lambda p: (p.get("status") or {}).get("phase") == "Succeeded")
    assert state(done)["terminated"]["exitCode"] == 0
    assert log_of(node, "job") == "hello you\n"


async def test_config_volume_appears_and_updates(api: FakeApi, node: Node) -> None:
    await api.create(CONFIG_MAP, {"metadata": {"name": "c", "namespace": "default"}, "data": {"a.txt": "one"}})
    script = "while :; do cat /config/a.txt; echo; sleep 0.1; done"
    await api.create(POD, pod("vol", shell(script, volumeMounts=[{"name": "v", "mountPath": "/config"}]),
                              volumes=[{"name": "v", "configMap": {"name": "c"}}]))  # fmt: skip
    await api.wait("vol", lambda p: "running" in state(p))
    if node.runtime is not None and node.runtime.sandbox.level == "bwrap":
        await until(lambda: "one" in log_of(node, "vol"))
        await api.patch(CONFIG_MAP, "c", {"data": {"a.txt": "two"}}, "default")
        await until(lambda: "two" in log_of(node, "vol"))


async def test_missing_config_map_is_named(api: FakeApi, node: Node) -> None:
    ref = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}]
    await api.create(POD, pod("miss", shell("true", env=ref)))
    waiting = await api.wait(
        "miss", lambda p: state(p).get("waiting", {}).get("reason") == "CreateContainerConfigError"
    )
    assert state(waiting)["waiting"]["message"] == 'configmap "none" not found'


async def test_an_image_that_cannot_run_is_said_before_missing_configuration(api: FakeApi, node: Node) -> None:
    ref = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]
    await api.create(POD, pod("both", shell("true", env=ref) | {"image": "example.com/nothing:1"}))
    waiting = await api.wait("both", lambda p: state(p).get("waiting", {}).get("reason") == "ImageNotRunnable")
    assert "example.com/nothing:1" in state(waiting)["waiting"]["message"]


async def test_crash_restarts_and_delete_ends_everything(api: FakeApi, node: Node) -> None:
    await api.create(POD, pod("crash", shell("exit 3"), shell("sleep 1000 & sleep 1000", "other")))
    crashed = await api.wait("crash", lambda p: restarted(p) and "waiting" in state(p))
    assert crashed["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3
    assert state(crashed)["waiting"]["reason"] == "CrashLoopBackOff"
    worker = node.worker("default", "crash")
    assert worker is not None
    pid = worker.processes["other"].pid
    await api.delete(POD, "crash", "default")
    await api.wait("crash", lambda p: p is None)
    assert start_ticks(pid) is None
    assert not worker.files.root.exists()


async def test_unknown_image_names_the_remedy(api: FakeApi, node: Node) -> None:
    await api.create(POD, pod("img", {"name": "main", "image": "nginx:1.27"}))
    waiting = await api.wait("img", lambda p: state(p).get("waiting", {}).get("reason") == "ImageNotRunnable")
    assert "qd mcp build" in state(waiting)["waiting"]["message"]


async def test_restarted_node_adopts_and_starts_nothing_twice(api: FakeApi, tmp_path: Path, level: str) -> None:
    config = NodeConfig(api, "n1", tmp_path / "node", sandbox=LEVELS[level])  # type: ignore[arg-type]
    first = Node(config)
    await first.start()
    await api.create(POD, pod("keep", shell("echo started; sleep 1000")))
    await api.wait("keep", lambda p: "running" in state(p))
    worker = first.worker("default", "keep")
    assert worker is not None
    await until(lambda: "started" in log_of(first, "keep"))
    pid, ip = worker.processes["main"].pid, worker.ip
    await first.stop(keep_pods=True)
    assert start_ticks(pid) is not None
    second = Node(config)
    await second.start()
    again = second.worker("default", "keep")
    assert again is not None
    await until(lambda: "main" in again.processes)
    assert (again.processes["main"].pid, again.ip) == (pid, ip)
    assert log_of(second, "keep").count("started") == 1
    del api.objects[("pods", "default", "keep")]
    await second.stop(keep_pods=True)
    third = Node(config)
    await third.start()
    await until(lambda: start_ticks(pid) is None)
    await third.stop()


async def test_memory_limit_ends_the_container_as_oom_killed(api: FakeApi, node: Node) -> None:
    if node.runtime is None or not node.runtime.cgroups.version:
        pytest.skip("no writable cgroup")
    hungry = {"name": "main", "image": "", "command": ["python3", "-c", "x = b'x' * (200 << 20); print('alive')"]}
    await api.create(POD, pod("oom", {**hungry, "resources": {"limits": {"memory": "40Mi"}}}, restartPolicy="Never"))
    ended = await api.wait("oom", lambda p: ((p or {}).get("status") or {}).get("phase") == "Failed")
    assert state(ended)["terminated"]["reason"] == "OOMKilled"
    assert state(ended)["terminated"]["exitCode"] == 137


async def test_two_servers_on_one_port(api: FakeApi, node: Node) -> None:
    if node.runtime is None or not node.runtime.sandbox.network:
        pytest.skip("needs network namespaces")
    serve = "exec python3 -m http.server --bind 0.0.0.0 3000"
    probe = {"httpGet": {"path": "/", "port": 3000}, "periodSeconds": 1}
    for name in ("a", "b"):
        await api.create(POD, pod(name, shell(serve, ports=[{"containerPort": 3000}], readinessProbe=probe)))
    for name in ("a", "b"):
        await api.wait(name, lambda p: any(c["type"] == "Ready" and c["status"] == "True"
                                           for c in (p.get("status") or {}).get("conditions") or ()))  # fmt: skip


async def until(condition: Any, seconds: float = 90) -> None:
    import asyncio

    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def test_a_heartbeat_that_fails_of_a_bug_goes_on(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, beats = api.patch, 0

    async def patch(res: Any, *words: Any, **options: Any) -> Any:
        nonlocal beats
        if res == LEASE:
            beats += 1
            if beats == 1:
                raise KeyError("unexpected shape")
        return await real(res, *words, **options)

    monkeypatch.setattr(api, "patch", patch)
    node = Node(NodeConfig(api, "n1", tmp_path / "node", sandbox=LEVELS["landlock"], refresh=0.1, engines=()))  # type: ignore[arg-type]
    await node.start()
    try:
        await until(lambda: beats > 1)
        assert "heartbeat ended of a bug" in caplog.text
    finally:
        await node.stop(1)
