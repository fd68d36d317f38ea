"""What a Pod can and cannot reach, asked from inside."""

from __future__ import annotations

import asyncio
import http.server
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.errors import Denied, ServiceUnavailable
from quarterdeck.kube.client import ObjectList
from quarterdeck.kube.resource import POD, Object, Resource
from quarterdeck.node.egress import EgressProxy, is_ours, is_public
from quarterdeck.node.node import Node
from quarterdeck.node.process import launch, wait
from quarterdeck.node.runtime import NodeConfig, PodFiles
from quarterdeck.node.sandbox import landlock
from quarterdeck.node.sandbox.hidden import hidden, visible
from quarterdeck.node.sandbox.isolation import Request, Sandbox
from quarterdeck.node.services import DEFAULT_ALLOWED, ServiceNames, split_host
from quarterdeck.node.starter import conflict
from quarterdeck.node.volumes import VolumeError, VolumePolicy, sub_path, volume_path
from quarterdeck.resources.images import own_image

from .fake_api import FakeApi
from .test_node import log_of, pod, shell

LEVELS = ["bwrap", "landlock"]


@pytest.fixture(params=LEVELS)
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Node]:
    best = Sandbox.best()
    if request.param == "bwrap" and best.level != "bwrap":
        pytest.skip("no bubblewrap that works here")
    if not landlock.abi():
        pytest.skip("no Landlock")
    sandbox = best if request.param == "bwrap" else Sandbox("landlock", None, network=False)
    node = Node(NodeConfig(FakeApi(), "n1", tmp_path / "node", sandbox=sandbox, connect_ports=(1,)))  # type: ignore[arg-type]
    await node.start()
    yield node
    await node.stop(1)


async def finished(node: Node, name: str, *containers: dict[str, Any], **spec: Any) -> str:
    """Run to the end; the log of the first container."""
    api: FakeApi = node.config.client  # type: ignore[assignment]
    await api.create(POD, pod(name, *containers, restartPolicy="Never", **spec))
    await api.wait(name, lambda p: ((p or {}).get("status") or {}).get("phase") in ("Succeeded", "Failed"))
    return log_of(node, name)


async def test_secrets_of_the_machine_and_of_others_are_out_of_reach(node: Node, tmp_path: Path) -> None:
    secret = tmp_path / "data" / "secret"
    secret.parent.mkdir()
    secret.write_text("top")
    api: FakeApi = node.config.client  # type: ignore[assignment]
    await api.create(POD, pod("other", shell("echo mine > $HOME/own; echo ok; sleep 1000")))
    await api.wait("other", lambda p: p["status"]["containerStatuses"][0]["ready"] if p.get("status") else False)
    other = node.worker("default", "other")
    assert other is not None
    paths = [secret, other.files.home, other.files.root, node.config.data_dir, Path("~/.ssh").expanduser()]
    paths += [Path("/root/.profile"), *(Path(p) for p in hidden("/etc"))]
    script = "; ".join(f"cat {p} {p}/* 2>/dev/null; test -d {p} && ls {p} 2>/dev/null" for p in paths)
    assert await finished(node, "spy", shell(script)) == ""


async def test_no_privileges_inside(node: Node) -> None:
    text = await finished(node, "caps", shell("grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status"))
    values = dict(line.split(":\t") for line in text.splitlines())
    assert values == {"CapPrm": "0" * 16, "CapEff": "0" * 16, "NoNewPrivs": "1"}


async def test_security_context_as_the_pod_says(node: Node) -> None:
    script = "touch $HOME/a && echo home; touch /tmp/b 2>/dev/null && echo tmp; touch /x 2>/dev/null && echo root; true"
    read_only = shell(script, securityContext={"readOnlyRootFilesystem": True})
    text = await finished(node, "ro", read_only)
    assert not {"home", "root"} & set(text.split("\n"))
    assert node.runtime is not None
    if node.runtime.sandbox.level == "bwrap":
        text = await finished(node, "uid", shell("id -u; id -g", securityContext={"runAsUser": 1234, "runAsGroup": 99}))
        assert text == "1234\n99\n"
        assert await finished(node, "non", shell("id -u", securityContext={"runAsNonRoot": True})) == "65532\n"


async def test_own_programs_dial_only_the_ports_they_are_given(node: Node) -> None:
    """``python -m quarterdeck…`` shares the machine's network; Landlock says which TCP ports it may dial."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        argv = [sys.executable, "-c", code]
        assert node.runtime is not None
        instructions = node.runtime.sandbox.instructions
        codes: list[int | None] = []
        for allowed in ((port,), (1,)):
            home, tmp = node.config.data_dir / "h", node.config.data_dir / "t"
            for folder in (home, tmp):
                folder.mkdir(exist_ok=True)
            request = Request(argv, {"PATH": "/usr/bin"}, "/", home, tmp, "h", connect=allowed)
            with open("/dev/null", "r+b") as null:
                started = launch(null.fileno(), null.fileno(), null.fileno())
            started.release(instructions(request))
            codes.append((await wait(started.process)).code)
        assert codes[0] == 0
        assert codes[1] != 0


async def test_condition_states_the_level(node: Node) -> None:
    api: FakeApi = node.config.client  # type: ignore[assignment]
    await api.create(POD, pod("lvl", shell("sleep 1000")))

    def found(p: Object) -> bool:
        conditions = {c["type"]: c for c in (p.get("status") or {}).get("conditions") or ()}
        return "quarterdeck.dev/Isolated" in conditions

    done = await api.wait("lvl", found)
    condition = next(c for c in done["status"]["conditions"] if c["type"] == "quarterdeck.dev/Isolated")
    assert node.runtime is not None
    assert condition["reason"] == {"bwrap": "Namespaces", "landlock": "Landlock"}[node.runtime.sandbox.level]
    network = f"main: {'own' if node.runtime.sandbox.network else 'host'} network, uid "
    assert condition["message"].startswith(network)
    assert "system-call filter" in condition["message"]


async def test_port_conflict_names_the_other_pod(node: Node) -> None:
    assert node.runtime is not None
    if node.runtime.sandbox.network:
        pytest.skip("network namespaces keep Pods apart")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ports = [{"containerPort": port}]
    api: FakeApi = node.config.client  # type: ignore[assignment]
    serve = f"exec python3 -m http.server --bind 0.0.0.0 {port}"
    probe = {"tcpSocket": {"port": port}, "periodSeconds": 1}
    await api.create(POD, pod("first", shell(serve, ports=ports, readinessProbe=probe)))
    await api.wait("first", lambda p: p["status"]["containerStatuses"][0]["ready"] if p.get("status") else False)
    await api.create(POD, pod("second", shell(serve, ports=ports)))

    def conflicting(p: Object) -> bool:
        return any(c["type"] == "PortConflict" for c in (p.get("status") or {}).get("conditions") or ())

    second = await api.wait("second", conflicting)
    message = next(c["message"] for c in second["status"]["conditions"] if c["type"] == "PortConflict")
    assert "Pod default/first" in message
    assert "bubblewrap" in message


def test_conflict_with_a_foreign_process_says_so() -> None:
    assert "another process of this machine" in conflict(
        "10.244.0.2", 80, {"me": ("default/me", frozenset({80}))}, "me"
    )


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True), ("127.0.0.1", False), ("10.244.3.4", False), ("192.168.1.1", False), ("172.16.0.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False),
        ("fd00:ec2::254", False), ("fe80::1", False), ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),  ("2002:7f00:1::", False), ("2606:4700::1111", True), ("255.255.255.255", False),
        ("fec0::1", False), ("::7f00:1", False), ("64:ff9b:1::7f00:1", False),
    ],
)  # fmt: skip
def test_only_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


class Api:
    """Services and EndpointSlices as KubeClient gives them."""

    def __init__(self, services: dict[tuple[str, str], list[Object]], *, broken: str = "") -> None:
        self._services = services
        self._broken = broken

    async def list(
        self, res: Resource, namespace: str, *, label_selector: str = "", field_selector: str = ""
    ) -> ObjectList:
        if self._broken == ("services" if field_selector else "slices"):
            raise ServiceUnavailable("down")
        if label_selector:
            ports = [{"name": "local", "port": 40001}, {"name": "workloads", "port": 40002}]
            return ObjectList([{"ports": ports, "endpoints": [{"addresses": ["127.0.0.1"]}]}], "1")
        name = field_selector.removeprefix("metadata.name=")
        if (namespace, name) not in self._services:
            return ObjectList([], "1")
        spec = {"ports": self._services[namespace, name]}
        return ObjectList([{"metadata": {"namespace": namespace, "name": name}, "spec": spec}], "1")


GATEWAY_PORTS = [{"name": "local", "port": 8701}, {"name": "workloads", "port": 8702}]
GATEWAY = {("quarterdeck-system", "quarterdeck-gateway"): GATEWAY_PORTS}
OTHERS = {("default", "db"): [{"name": "sql", "port": 5432}]}


def names(**options: Any) -> ServiceNames:
    return ServiceNames(Api(GATEWAY | OTHERS, **options), DEFAULT_ALLOWED)  # type: ignore[arg-type]


async def test_services_lead_to_the_gateways_workload_port_only() -> None:
    resolve = names().resolve
    for host in ("quarterdeck-gateway.quarterdeck-system", "quarterdeck-gateway.quarterdeck-system.svc.cluster.local"):
        assert await resolve(host, 8702) == [("127.0.0.1", 40002)]
    assert await resolve("github.com", 443) is None
    assert await resolve("a.b.example.org", 443) is None
    for host, port, rule in (
        ("quarterdeck-gateway.quarterdeck-system", 8701, "service-port"),
        ("quarterdeck-gateway.quarterdeck-system.svc", 40001, "service-port"),
        ("db.default", 5432, "service-not-gateway"),
        ("nothing.default.svc", 80, "no-such-service"),
        ("kagent-controller.quarterdeck-system", 8083, "no-such-service"),
    ):
        with pytest.raises(Denied) as denied:
            await resolve(host, port)
        assert denied.value.rule == rule


@pytest.mark.parametrize("broken", ["services", "slices"])
async def test_unreadable_services_are_no_way_out(broken: str) -> None:
    with pytest.raises(Denied) as denied:
        await names(broken=broken).resolve("quarterdeck-gateway.quarterdeck-system", 8702)
    assert denied.value.rule == "services-unreadable"


@pytest.mark.parametrize(
    ("host", "split"),
    [
        ("a.b", ("a", "b", False)), ("a.b.svc", ("a", "b", True)), ("a.b.svc.cluster.local", ("a", "b", True)),
        ("localhost", None), ("a.b.c", None), ("", None), ("a..svc", None), ("10.0.0.1", None),
    ],
)  # fmt: skip
def test_split_host(host: str, split: tuple[str, str, bool] | None) -> None:
    assert split_host(host) == split


async def test_egress_none_still_reaches_the_gateway() -> None:
    proxy = EgressProxy(names().resolve)
    assert await proxy.targets("quarterdeck-gateway.quarterdeck-system", 8702, "none") == [("127.0.0.1", 40002)]
    with pytest.raises(Denied, match="egress: none"):
        await proxy.targets("1.1.1.1", 443, "none")
    with pytest.raises(Denied) as denied:
        await proxy.targets("localhost", 80, "")
    assert denied.value.rule == "private-address"
    assert await proxy.targets("1.1.1.1", 443, "") == [("1.1.1.1", 443)]


async def test_no_pod_can_use_up_the_connections_of_the_others(tmp_path: Path) -> None:
    proxy = EgressProxy(names().resolve, limit=3)
    doors = [tmp_path / name for name in ("a", "b")]
    for door in doors:
        await proxy.open(door, f"default/{door.name}", "")
    held = [await asyncio.open_unix_connection(str(doors[0])) for _ in range(3)]
    refused, _ = await asyncio.open_unix_connection(str(doors[1]))
    assert await asyncio.wait_for(refused.read(), 30) == b""
    held[0][1].write(b"nonsense\r\n\r\n")
    assert b"400" in await asyncio.wait_for(held[0][0].read(), 30)
    reader, writer = await asyncio.open_unix_connection(str(doors[1]))
    writer.write(b"nonsense\r\n\r\n")
    assert b"400" in await asyncio.wait_for(reader.read(), 30), "a place that was left is free again"
    for _, open_one in held:
        open_one.close()
    for door in doors:
        await proxy.close(door)


@pytest.fixture
def web() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


async def test_isolated_pod_has_no_way_to_loopback(node: Node, web: int) -> None:
    """Neither directly, since its loopback is its own, nor through the proxy."""
    assert node.runtime is not None
    if not node.runtime.sandbox.network:
        pytest.skip("needs network namespaces")
    code = (
        "import os, socket, urllib.request, urllib.error\n"
        "del os.environ['NO_PROXY'], os.environ['no_proxy']\n"
        f"try: socket.create_connection(('127.0.0.1', {web}), 2); print('direct')\n"
        "except OSError as e: print('refused')\n"
        "opener = urllib.request.build_opener(urllib.request.ProxyHandler({'http': os.environ['HTTP_PROXY']}))\n"
        f"try: opener.open('http://127.0.0.1:{web}/', timeout=5); print('proxied')\n"
        "except urllib.error.HTTPError as e: print(e.code, e.read().decode())\n"
    )
    text = await finished(node, "net", {"name": "main", "image": "", "command": ["python3", "-c", code]})
    assert text.startswith("refused\n403 quarterdeck egress: 127.0.0.1")
    foreign = {"name": "main", "image": own_image(), "command": ["python", "-c", code]}
    assert (await finished(node, "net2", foreign)).startswith("refused\n403"), "our image with another command"


def test_hidden_and_visible(tmp_path: Path) -> None:
    for path, mode in (("a/open", 0o644), ("a/private", 0o600), ("b/open", 0o644)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
        (tmp_path / path).chmod(mode)
    (tmp_path / "c").mkdir(mode=0o700)
    for folder in ("a", "b"):
        (tmp_path / folder).chmod(0o755)
    assert hidden(str(tmp_path)) == (f"{tmp_path}/a/private", f"{tmp_path}/c")
    assert visible(str(tmp_path), hidden(str(tmp_path))) == [f"{tmp_path}/a/open", f"{tmp_path}/b"]
    (tmp_path / "c").rmdir()
    assert hidden(str(tmp_path)) == (f"{tmp_path}/a/private",), "a Pod must not fail for what is no longer there"


def test_exit_code_out_of_the_record_of_bubblewrap(tmp_path: Path) -> None:
    files = PodFiles(tmp_path, "u")
    assert files.exit_code("c") is None
    files.exit_record("c").write_text('{"child-pid": 3}\n{"exit-code": 7}\n')
    assert files.exit_code("c") == 7
    files.exit_record("c").write_text('{"child-pid": 3}\n{"exit')
    assert files.exit_code("c") is None


async def test_the_machines_kernel_settings_are_read_only(node: Node) -> None:
    # opened, never written: a node that runs as root would otherwise let a Pod name a program for core_pattern
    script = "; ".join(
        f"(exec 3>>{path}) 2>/dev/null && echo open {path}"
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger")
    )
    assert await finished(node, "kernel", shell(f"{script}; true")) == ""


async def test_host_network_only_where_allowed(node: Node) -> None:
    node.config.host_network = frozenset({"quarterdeck-system"})
    api: FakeApi = node.config.client  # type: ignore[assignment]
    await api.create(POD, pod("near", shell("true"), hostNetwork=True))

    def waiting(p: Object | None) -> bool:
        statuses = ((p or {}).get("status") or {}).get("containerStatuses") or [{}]
        return "hostNetwork is not allowed" in str((statuses[0].get("state") or {}).get("waiting", {}).get("message"))

    await api.wait("near", waiting)


async def test_subpath_makes_nothing_outside_its_volume(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "out").symlink_to(tmp_path)
    with pytest.raises(VolumeError, match="leads out"):
        sub_path(volume, "out/made")
    assert not (tmp_path / "made").exists()
    assert sub_path(volume, "a/b").is_dir()


async def test_claims_stay_in_their_folder(tmp_path: Path) -> None:
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "../../pki"}}
    with pytest.raises(VolumeError):
        await volume_path(pod("p"), volume, tmp_path, VolumePolicy(tmp_path / "claims"))


def test_own_addresses_are_known() -> None:
    assert is_ours("127.0.0.1")
    assert not is_ours("192.0.2.1")


async def test_other_users_of_the_machine_cannot_list_the_nodes_data(node: Node) -> None:
    assert node.config.data_dir.stat().st_mode & 0o066 == 0
