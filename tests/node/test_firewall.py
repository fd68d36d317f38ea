"""NetworkPolicies on the node, by connecting: out through the egress proxy, in through the relay, as which uid."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.errors import Denied
from quarterdeck.kube.resource import NAMESPACE, NETWORK_POLICY, POD, Object
from quarterdeck.node.egress import EgressProxy
from quarterdeck.node.firewall import Firewall, socket_uid
from quarterdeck.node.node import Node
from quarterdeck.node.process import launch, wait
from quarterdeck.node.proxy import ServiceProxy
from quarterdeck.node.runtime import NodeConfig
from quarterdeck.node.sandbox.isolation import Sandbox
from quarterdeck.node.uids import Uids
from quarterdeck.resources.images import own_image

from .fake_api import FakeApi
from .test_node import log_of, pod, shell, until


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    sandbox = Sandbox.best()
    if not sandbox.network:
        pytest.skip("needs network namespaces")
    api = FakeApi()
    await api.create(NAMESPACE, {"metadata": {"name": "default", "labels": {"env": "test"}}})
    config = NodeConfig(api, "n1", tmp_path / "node", sandbox=sandbox, network_client=api, engines=())  # type: ignore[arg-type]
    node = Node(config)
    await node.start()
    yield node
    await node.stop(1)


def api_of(node: Node) -> FakeApi:
    return node.config.client  # type: ignore[return-value]


async def policy(api: FakeApi, name: str, spec: dict[str, Any]) -> None:
    await api.create(NETWORK_POLICY, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})


def labelled(name: str, container: dict[str, Any], **spec: Any) -> Object:
    found = pod(name, container, **spec)
    found["metadata"]["labels"] = {"app": name}
    return found


def server(port: int) -> dict[str, Any]:
    serve = f"echo hello > index.html; exec python3 -m http.server --bind 0.0.0.0 {port}"
    probe = {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1}
    return shell(f"cd $HOME; {serve}", ports=[{"containerPort": port}], readinessProbe=probe)


def ready(found: Object | None) -> bool:
    conditions = ((found or {}).get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def as_uid(node: Node, uid: int | None, host: str, port: int) -> int | None:
    """Exit code of a client in the machine's network that asks host:port for one byte: 0 when it got an answer."""
    code = (
        "import socket, sys\n"
        f"s = socket.create_connection(({host!r}, {port}), 5); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n"
        "sys.exit(0 if s.recv(1) else 3)\n"
    )
    spec: dict[str, Any] = {"argv": ["/usr/bin/python3", "-c", code], "env": {}, "cwd": "/"}
    with open("/dev/null", "r+b") as null:
        started = launch(null.fileno(), null.fileno(), null.fileno())
        started.release(spec | ({"uid": uid, "gid": uid} if uid is not None else {}))
        return (await asyncio.wait_for(wait(started.process), 30)).code


async def test_the_relay_lets_in_whom_policies_allow(node: Node) -> None:
    api = api_of(node)
    assert node.runtime is not None
    await policy(api, "only-friend", {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": 8080}]}],
    })  # fmt: skip
    await api.create(POD, labelled("web", server(8080)))
    for name in ("friend", "stranger"):
        await api.create(POD, labelled(name, shell("echo ok; sleep 1000")))
    web = await api.wait("web", ready)  # the node's own probe is never stopped
    ip = web["status"]["podIP"]
    await until(lambda: node.worker("default", "stranger") is not None and "ok" in log_of(node, "stranger"))
    assert await as_uid(node, None, ip, 8080) == 0, "a process of the machine is the node"
    if node.runtime.uids is None:
        pytest.skip("senders cannot be told apart: Pods have no uids of their own here")
    uids = {name: node.runtime.uids.assign(api.objects["pods", "default", name]["metadata"]["uid"])
            for name in ("friend", "stranger")}  # fmt: skip
    assert await as_uid(node, uids["friend"], ip, 8080) == 0
    assert await as_uid(node, uids["stranger"], ip, 8080) != 0
    await api.delete(NETWORK_POLICY, "only-friend", "default")
    worker = node.worker("default", "web")
    assert worker is not None
    await until(lambda: not (worker.files.net / "policed").exists())
    assert await as_uid(node, uids["stranger"], ip, 8080) == 0, "without a policy everybody may"


ASK = """
import os, sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": os.environ["HTTP_PROXY"]}))
try: print(opener.open(sys.argv[1], timeout=10).status)
except urllib.error.HTTPError as error: print(error.code, error.read().decode())
"""


async def test_the_egress_proxy_names_the_policy_that_refuses(node: Node) -> None:
    api = api_of(node)
    await policy(api, "nothing-out", {"policyTypes": ["Egress"], "podSelector": {"matchLabels": {"app": "shut"}}})
    ask = {"name": "main", "image": "", "command": ["python3", "-c", ASK, "http://1.1.1.1:9/"]}
    await api.create(POD, labelled("shut", ask, restartPolicy="Never"))
    await api.wait("shut", lambda p: ((p or {}).get("status") or {}).get("phase") == "Succeeded")
    text = log_of(node, "shut")
    assert text.startswith("403 quarterdeck egress: 1.1.1.1 (1.1.1.1:9): egress not allowed by NetworkPolicy")
    assert "default/nothing-out" in text


async def test_a_restarted_node_still_answers_its_pods(node: Node, tmp_path: Path) -> None:
    """Proxy and relay find the new node's socket, which is another one."""
    api = api_of(node)
    await policy(api, "nobody", {"podSelector": {"matchLabels": {"app": "web"}}})
    await api.create(POD, labelled("web", server(8080)))
    loop = "while :; do python3 -c '" + ASK.replace("'", '"') + "' http://10.1.2.3:1/; sleep 0.2; done"
    await api.create(POD, labelled("asks", shell(loop)))
    web = await api.wait("web", ready)
    await until(lambda: "403" in log_of(node, "asks"))
    await node.stop(keep_pods=True)
    config = NodeConfig(api, "n1", tmp_path / "node", sandbox=node.config.sandbox, network_client=api, engines=())  # type: ignore[arg-type]
    second = Node(config)
    await second.start()
    try:
        before = log_of(second, "asks").count("403") if second.worker("default", "asks") is not None else 0
        await until(lambda: second.worker("default", "asks") is not None)
        await until(lambda: log_of(second, "asks").count("403") > before)
        assert second.runtime is not None
        if second.runtime.uids is not None:
            uid = second.runtime.uids.assign(api.objects["pods", "default", "asks"]["metadata"]["uid"])
            assert await as_uid(second, uid, web["status"]["podIP"], 8080) != 0
        assert await as_uid(second, None, web["status"]["podIP"], 8080) == 0
    finally:
        await second.stop(1)


async def test_programs_of_ours_dial_the_ports_of_their_policies(node: Node) -> None:
    api = api_of(node)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [each.getsockname()[1] for each in (one, two)]
        await policy(api, "one", {
            "podSelector": {"matchLabels": {"app": "ours"}}, "policyTypes": ["Egress"],
            "egress": [{"ports": [{"port": ports[0]}]}],
        })  # fmt: skip
        await api.create(POD, labelled("ours", {"name": "main", "image": own_image()} | {
            "command": ["python", "-m", "quarterdeck.agents"], "args": ["--help"]}, restartPolicy="Never"))  # fmt: skip
        await until(lambda: (node.worker("default", "ours") or node) is not node)
        worker = node.worker("default", "ours")
        assert worker is not None
        await until(lambda: (worker.files.root / "containers" / "main" / "confinement.json").exists())
        assert worker.files.confinement("main")["landlock"] == {"read": None, "connect": [ports[0]]}


async def test_service_addresses_are_no_way_around(tmp_path: Path) -> None:
    """The relay of ClusterIPs asks as which Pod a connection comes, and for whom it is."""
    if os.getuid() != 0 or not Sandbox.best().gives_uids(tmp_path):
        pytest.skip("senders cannot be told apart: Pods have no uids of their own here")
    api, uids = FakeApi(), Uids(tmp_path)
    await api.create(NAMESPACE, {"metadata": {"name": "default"}})
    for name, ip in (("web", "127.9.8.7"), ("client", "127.9.8.6")):
        found = labelled(name, {"name": "main"}) | {"status": {"podIP": ip, "phase": "Running"}}
        await api.create(POD, found)
    await policy(api, "shut", {"podSelector": {"matchLabels": {"app": "web"}}})
    firewall = Firewall(api, uids)  # type: ignore[arg-type]
    await firewall.start()
    uid = uids.assign(api.objects["pods", "default", "client"]["metadata"]["uid"])
    proxy = ServiceProxy(api, "127.9.9.0/24", lambda: None, firewall)  # type: ignore[arg-type]
    accepted: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append("once")
        writer.write(b"hello")
        writer.close()

    backend = await asyncio.start_server(serve, "127.9.8.7", 0)
    port = backend.sockets[0].getsockname()[1]
    meta = {"name": "web", "namespace": "default"}
    from quarterdeck.kube.resource import ENDPOINT_SLICE, SERVICE

    await api.create(SERVICE, {"metadata": meta, "spec": {"clusterIP": "127.9.9.1", "ports": [{"port": port}]}})
    labels = {"kubernetes.io/service-name": "web"}
    await api.create(ENDPOINT_SLICE, {
        "metadata": meta | {"labels": labels}, "ports": [{"port": port}], "endpoints": [{"addresses": ["127.9.8.7"]}],
    })  # fmt: skip
    await proxy.start()
    try:
        assert await as_uid(None, None, "127.9.9.1", port) == 0  # type: ignore[arg-type]
        assert await as_uid(None, uid, "127.9.9.1", port) != 0  # type: ignore[arg-type]
        assert accepted == ["once"]
    finally:
        await proxy.stop()
        await firewall.stop()
        backend.close()


async def test_a_pod_nobody_knows_gets_nowhere_and_is_reached_by_nobody() -> None:
    api = FakeApi()
    firewall = Firewall(api, None)  # type: ignore[arg-type]
    await firewall.start()

    async def resolve(host: str, port: int) -> None:
        del host, port

    proxy = EgressProxy(resolve, firewall)
    with pytest.raises(Denied, match="not known"):
        proxy.permitted("default/none", "example.org", [("1.2.3.4", 80)])
    assert not (await firewall.inbound("default/none", ("127.0.0.1", 1), ("127.0.0.1", 2))).allowed
    await firewall.stop()


async def test_senders_without_uids_of_their_own_are_the_node() -> None:
    api = FakeApi()
    found = labelled("web", {"name": "main"}) | {"status": {"podIP": "127.9.8.5"}}
    await api.create(POD, found)
    await policy(api, "shut", {"podSelector": {}})
    firewall = Firewall(api, None)  # type: ignore[arg-type]
    await firewall.start()
    assert (await firewall.inbound("default/web", ("127.0.0.1", 1), ("127.9.8.5", 2))).allowed
    await firewall.stop()


async def test_who_hung_up_or_is_not_known_yet_does_not_pass_for_the_node(tmp_path: Path) -> None:
    api, uids = FakeApi(), Uids(tmp_path)
    await api.create(POD, labelled("web", {"name": "main"}) | {"status": {"podIP": "127.0.0.1"}})
    await policy(api, "shut", {"podSelector": {}})
    firewall = Firewall(api, uids)  # type: ignore[arg-type]
    await firewall.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        local = listener.getsockname()
        client = socket.create_connection(local)
        accepted, sender = listener.accept()
        with accepted, client:
            assert (await firewall.inbound("default/web", sender, local)).allowed, "the machine's own"
            uids.first = os.getuid() - 1
            uids.assign("a Pod that is not in the list")
            assert not (await firewall.inbound("default/web", sender, local)).allowed
            uids.release("a Pod that is not in the list")
            client.sendall(b"delete everything")
            client.close()
            assert not (await firewall.inbound("default/web", sender, local)).allowed
            assert not (await firewall.relayed(sender, local, local)).allowed
    await firewall.stop()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_whose_socket_it_is(family: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = "::ffff:127.0.0.1" if family == socket.AF_INET6 else "127.0.0.1"
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.connect((host, listener.getsockname()[1]))
            accepted, sender = listener.accept()
            with accepted:
                assert socket_uid(sender, listener.getsockname()) == os.getuid()
                assert socket_uid(("127.0.0.1", 1), listener.getsockname()) is None
                client.sendall(b"and gone")
                client.close()
                assert socket_uid(sender, listener.getsockname()) is None, "root's uid is not its"
