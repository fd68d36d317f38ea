"""exec, attach and port-forward as a kube-apiserver sends them: SPDY/3.1 frames on the kubelet's port."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from quarterdeck.kube.resource import POD
from quarterdeck.node.kubelet import spdy
from quarterdeck.node.kubelet.server import KubeletApi
from quarterdeck.node.node import Node
from quarterdeck.node.runtime import NodeConfig
from quarterdeck.wire.http import Exchange, Server

from .fake_api import FakeApi
from .test_node import pod, shell, state


class OpenKubelet(KubeletApi):
    """The same routes without TLS: who may call is tested with the whole platform."""

    async def handle(self, exchange: Exchange) -> None:
        await self.serve_trusted(exchange)


class SpdyClient:
    """A client's side of SPDY/3.1, enough to open streams and collect what comes back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._framer = spdy.Framer()
        self._deflate = zlib.compressobj(zdict=spdy.DICTIONARY)
        self._next = 1
        self.received: dict[int, bytearray] = {}
        self.ended: set[int] = set()

    @classmethod
    async def connect(cls, port: int, path: str, protocol: str) -> SpdyClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            f"X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        assert f"X-Stream-Protocol-Version: {protocol}".encode() in head
        return cls(reader, writer)

    def open(self, **headers: str) -> int:
        stream, self._next = self._next, self._next + 2
        raw = struct.pack(">I", len(headers))
        for text in (t for pair in headers.items() for t in pair):
            raw += struct.pack(">I", len(text)) + text.encode()
        body = struct.pack(">IIH", stream, 0, 0) + self._deflate.compress(raw) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self.writer.write(struct.pack(">II", 0x80030000 | spdy.SYN_STREAM, len(body)) + body)
        self.received[stream] = bytearray()
        return stream

    def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        self.writer.write(spdy.data_frame(stream, data, fin=fin))

    async def until_ended(self, *streams: int) -> None:
        async with asyncio.timeout(15):
            while not set(streams) <= self.ended:
                data = await self.reader.read(65536)
                if not data:
                    return
                for frame in self._framer.feed(data):
                    if frame.kind == spdy.DATA:
                        self.received[frame.stream] += frame.data
                        if frame.flags & spdy.FIN:
                            self.ended.add(frame.stream)


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[tuple[FakeApi, Node, int]]:
    api = FakeApi()
    node = Node(NodeConfig(api, "n1", tmp_path / "node"))  # type: ignore[arg-type]
    await node.start()
    server = Server(OpenKubelet(node).handle, name="kubelet")
    _, port = await server.listen("127.0.0.1", 0)
    yield api, node, port
    await server.stop(0)
    await node.stop(1)


async def running(api: FakeApi, *containers: dict[str, object], name: str = "p") -> None:
    await api.create(POD, pod(name, *containers))
    await api.wait(name, lambda p: "running" in state(p))


async def execute(port: int, command: list[str], data: bytes | None = None) -> tuple[bytes, bytes, dict[str, object]]:
    query = [("output", "1"), ("error", "1"), *([("input", "1")] if data is not None else [])]
    path = f"/exec/default/p/main?{urlencode([*query, *(('command', c) for c in command)])}"
    client = await SpdyClient.connect(port, path, "v4.channel.k8s.io")
    error = client.open(streamtype="error")
    if data is not None:
        stdin = client.open(streamtype="stdin")
        client.send(stdin, data, fin=True)
    out, err = client.open(streamtype="stdout"), client.open(streamtype="stderr")
    await client.until_ended(error, out, err)
    client.writer.close()
    return bytes(client.received[out]), bytes(client.received[err]), json.loads(client.received[error])


async def test_exec_over_spdy(kubelet: tuple[FakeApi, Node, int]) -> None:
    api, _, port = kubelet
    await running(api, shell("sleep 1000"))
    out, err, status = await execute(port, ["sh", "-c", "cat; echo oops >&2; exit 4"], b"given")
    assert (out, err) == (b"given", b"oops\n")
    assert status["details"] == {"causes": [{"reason": "ExitCode", "message": "4"}]}
    assert (await execute(port, ["true"]))[2]["status"] == "Success"


async def test_exec_is_confined_like_the_container(kubelet: tuple[FakeApi, Node, int]) -> None:
    api, node, port = kubelet
    await running(api, shell("sleep 1000"))
    script = "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; echo $HOME; ls /proc/self/fd | wc -l"
    out, _, _ = await execute(port, ["sh", "-c", script])
    lines = out.decode().split("\n")
    assert lines[0].split()[1].strip("0") == "", "no capability in effect"
    assert lines[1].split()[1].strip("0") == "", "none can be had"
    assert lines[2].split()[1] == "1"
    assert node.runtime is not None
    if node.runtime.sandbox.level == "bwrap":
        assert lines[3] == "/home/app"
        seen, _, _ = await execute(port, ["readlink", "/proc/self/ns/mnt"])
        worker = node.worker("default", "p")
        assert worker is not None
        assert seen.strip() != Path("/proc/self/ns/mnt").readlink().name.encode()
        groups, _, _ = await execute(port, ["cat", "/proc/self/cgroup"])
        if node.runtime.cgroups.version:
            assert worker.uid.encode() in groups


async def test_attach_gives_output_and_takes_input(kubelet: tuple[FakeApi, Node, int]) -> None:
    api, _, port = kubelet
    script = "read line; echo got $line; while read line; do :; done; echo eof; sleep 0.2"
    await running(api, shell(script, stdin=True, stdinOnce=True))
    client = await SpdyClient.connect(port, "/attach/default/p/main?input=1&output=1&error=1", "v4.channel.k8s.io")
    error, stdin = client.open(streamtype="error"), client.open(streamtype="stdin")
    out, err = client.open(streamtype="stdout"), client.open(streamtype="stderr")
    client.send(stdin, b"hello\n", fin=True)
    await client.until_ended(error, out, err)
    client.writer.close()
    assert client.received[out] == b"got hello\neof\n"
    assert json.loads(client.received[error])["status"] == "Success"


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        ("SPDY/3.1+portforward.k8s.io", b"HTTP/1.1 101"),
        ("base64url.bearer.x, SPDY/3.1+portforward.k8s.io", b"HTTP/1.1 101"),
        ("portforward.k8s.io", b"HTTP/1.1 400"),
        ("", b"HTTP/1.1 400"),
    ],
)
async def test_port_forward_tunnels_in_a_web_socket(
    kubelet: tuple[FakeApi, Node, int], offered: str, answer: bytes
) -> None:
    """The name of the tunnel's protocol has a slash, which RFC 6455 does not allow and kubectl sends all the same."""
    api, _, port = kubelet
    await running(api, shell("sleep 1000"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    protocol = f"Sec-WebSocket-Protocol: {offered}\r\n" if offered else ""
    writer.write(
        "GET /portForward/default/p HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(answer), head
    chosen = b"\r\nsec-websocket-protocol: spdy/3.1+portforward.k8s.io\r\n"
    assert (chosen in head.lower()) is (answer == b"HTTP/1.1 101")
    writer.close()


async def test_port_forward_carries_connections_and_half_close(kubelet: tuple[FakeApi, Node, int]) -> None:
    api, node, port = kubelet
    code = (
        "import os, socketserver\n"
        "class H(socketserver.StreamRequestHandler):\n"
        "    def handle(self):\n"
        "        self.wfile.write(b'all: ' + self.rfile.read())\n"
        "socketserver.ThreadingTCPServer.allow_reuse_address = True\n"
        "s = socketserver.ThreadingTCPServer(('0.0.0.0' if os.path.exists('/run/quarterdeck') else os.environ['IP'],"
        " 9000), H)\nprint('up', flush=True)\ns.serve_forever()\n"
    )
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    web = {"name": "main", "image": "", "command": ["python3", "-c", code], "env": env}
    web |= {"ports": [{"containerPort": 9000}], "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1}}
    await running(api, web)
    await api.wait("p", lambda p: p["status"]["containerStatuses"][0]["ready"])
    client = await SpdyClient.connect(port, "/portForward/default/p", "portforward.k8s.io")
    pairs: list[tuple[int, int]] = []
    for request in ("0", "1", "2"):
        error = client.open(streamtype="error", port="9000", requestid=request)
        pairs.append((error, client.open(streamtype="data", port="9000", requestid=request)))
    refused = client.open(streamtype="error", port="9", requestid="3")
    nothing = client.open(streamtype="data", port="9", requestid="3")
    for number, (_, data) in enumerate(pairs):
        client.send(data, b"x" * (number * 50_000 + 1), fin=True)
    await client.until_ended(*(s for pair in pairs for s in pair), refused, nothing)
    client.writer.close()
    for number, (error, data) in enumerate(pairs):
        assert client.received[data] == b"all: " + b"x" * (number * 50_000 + 1)
        assert not client.received[error]
    assert b"error forwarding port 9 to pod p" in client.received[refused]
    assert node.worker("default", "p") is not None


def test_headers_survive_both_compressors() -> None:
    client, server = spdy.Framer(), spdy.Framer()
    pairs = (("streamtype", "data"), ("port", "80"), ("requestid", "0"))
    first = client.feed(server.reply(1, pairs))
    second = client.feed(server.reply(3, pairs))
    assert [f.headers for f in (*first, *second)] == [pairs, pairs]
    with pytest.raises(ValueError, match="not a SPDY/3 frame"):
        client.feed(b"\x80\x02\0\x01\0\0\0\0")
