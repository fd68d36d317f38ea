"""CPU per `tools/call` in the gateway process, latency and memory: `python bench/gateway_mcp.py [seconds]`.

Everything runs here: a trivial upstream (this file with `upstream`), the gateway as its own process, closed-loop load
from this process at 1 and 16 connections. Governed = workload token, allow list, sealed session, audit to a file,
metrics. CPU is read from /proc/PID/stat.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from joserfc import jwt
from joserfc.jwk import ECKey

from quarterdeck import snapshot as s
from quarterdeck.wire.http import Exchange, Server

TICKS = os.sysconf("SC_CLK_TCK")
CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}'
ANSWER = b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"hello"}],"isError":false}}'
INIT = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}'


async def upstream() -> None:
    """Answers everything at once."""

    def handle(exchange: Exchange) -> None:
        headers = [(b"content-type", b"application/json")]
        if b"initialize" in exchange.body:
            headers.append((b"mcp-session-id", b"0123456789abcdef0123456789abcdef"))
        exchange.respond(200, ANSWER, headers)

    _, port = await Server(handle).listen("127.0.0.1", 0)
    print(port, flush=True)
    await asyncio.Event().wait()


class Client(asyncio.Protocol):
    """One closed-loop connection that sends the same request again and again."""

    def __init__(self, request: bytes, latencies: list[float]) -> None:
        self.request = request
        self.latencies = latencies
        self.running = True
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.fire()

    def fire(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self.buffer.find(b"content-length: ")
        length = int(self.buffer[at + 16 : self.buffer.find(b"\r", at)])
        if len(self.buffer) < head + 4 + length:
            return
        assert self.buffer.startswith(b"HTTP/1.1 200") and b'"hello"' in self.buffer, self.buffer
        self.latencies.append(time.perf_counter() - self.sent)
        self.buffer = b""
        if self.running:
            self.fire()


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def measure(pid: int, port: int, request: bytes, connections: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(request, latencies), "127.0.0.1", port)
        clients.append(client)
    await asyncio.sleep(0.5)
    latencies.clear()
    before, start = cpu(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    used, elapsed, count = cpu(pid) - before, time.perf_counter() - start, len(latencies)
    for client in clients:
        client.running = False
    ordered = sorted(latencies[:count])
    await asyncio.sleep(0.1)
    for client in clients:
        client.transport.close()
    return {
        "calls/s": round(count / elapsed),
        "p50 ms": round(ordered[count // 2] * 1e3, 3),
        "p99 ms": round(ordered[int(count * 0.99)] * 1e3, 3),
        "CPU µs/call": round(used / count * 1e6, 1),
        "RSS MB": round(rss(pid), 1),
    }


async def session(port: int, path: str, headers: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_bytes(path, headers, INIT))
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return next(line[16:] for line in head.split(b"\r\n") if line.startswith(b"mcp-session-id: "))


def request_bytes(path: str, headers: bytes, body: bytes) -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json, text/event-stream\r\n"
        b"content-type: application/json\r\nmcp-protocol-version: 2025-11-25\r\n%bcontent-length: %d\r\n\r\n%b"
        % (path.encode(), headers, len(body), body)
    )


def configuration(port: int, key: ECKey) -> s.Snapshot:
    grant = s.ToolGrant("kagent", "peer", "MCPServer", ("echo", "add"))
    return s.Snapshot(
        version="bench",
        mcp=(s.McpServer("kagent", "peer", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", port),)),),
        policies=(s.AgentPolicy("kagent", "a", (grant,)),),
        identities=s.Identities(
            issuer="bench",
            jwks={"keys": [key.as_dict(private=False)]},
            pods={"pod-a": "kagent/a"},
            anonymous_local=True,
        ),
    )


async def main(seconds: float) -> None:
    key = ECKey.generate_key("P-256", {"kid": "k", "alg": "ES256"})
    claims = {"iss": "bench", "aud": "quarterdeck", "exp": int(time.time()) + 3600,
              "kubernetes.io": {"pod": {"uid": "pod-a"}}}  # fmt: skip
    bearer = jwt.encode({"alg": "ES256", "kid": "k"}, claims, key).encode()
    with tempfile.TemporaryDirectory() as folder:
        peer = subprocess.Popen([sys.executable, __file__, "upstream"], stdout=subprocess.PIPE, text=True)
        assert peer.stdout is not None
        peer_port = int(peer.stdout.readline())
        config = Path(folder, "snapshot.json")
        config.write_bytes(s.encode(configuration(peer_port, key)))
        endpoints = Path(folder, "endpoints.json")
        flags = [f"--{name}=127.0.0.1:0" for name in ("local", "workloads", "stats", "ready", "admin")]
        flags += [f"--config={config}", f"--data-dir={folder}/data", f"--endpoints-file={endpoints}"]
        gateway = subprocess.Popen([sys.executable, "-m", "quarterdeck.gateway", *flags], stderr=subprocess.DEVNULL)
        try:
            while not endpoints.exists():
                await asyncio.sleep(0.05)
            ports = {k: int(str(v).rpartition(":")[2]) for k, v in json.loads(endpoints.read_text()).items()}
            print(f"idle RSS {rss(gateway.pid):.1f} MB")
            authorization = b"authorization: Bearer %b\r\n" % bearer
            modes = [
                ("anonymous, per server", "local", "/mcp/kagent/peer", b"", CALL),
                ("governed, per server", "workloads", "/mcp/kagent/peer", authorization, CALL),
                ("governed, /mcp", "workloads", "/mcp", authorization, CALL.replace(b"echo", b"peer_echo")),
            ]
            for name, listener, path, headers, body in modes:
                token = await session(ports[listener], path, headers)
                request = request_bytes(path, headers + b"mcp-session-id: %b\r\n" % token, body)
                for connections in (1, 16):
                    figures = await measure(gateway.pid, ports[listener], request, connections, seconds)
                    print(f"{name:24} c={connections:<3}", figures)
            for connections in (1, 16):
                direct = request_bytes("/mcp", b"", CALL)
                print(f"{'direct':24} c={connections:<3}", await measure(peer.pid, peer_port, direct, connections, 2))
        finally:
            gateway.terminate()
            peer.terminate()
            gateway.wait()
            peer.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["upstream"]:
        uvloop.run(upstream())
    else:
        uvloop.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0))
