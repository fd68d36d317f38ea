"""The conformance suite's server scenarios: on the fixture server itself, and on the gateway in front of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.virtual import Choice, ChosenServer, VirtualServer
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Exchange, Server

from . import suite

EVERYTHING = suite.ROOT / "tests" / "peers" / "everything.py"
KEY = b"conformance".ljust(32, b".")
SCORED = {"2025-11-25": 30, "2026-07-28": 37}
"""Scenarios that count, per revision; those that the suite only reports run too."""


@contextmanager
def _process(*command: str | Path, **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def over_http(era: str) -> Iterator[int]:
    """Port of the fixture server."""
    with _process(EVERYTHING, "--port", "0", "--era", era) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline().rsplit(":", 1)[1].partition("/")[0])


@contextmanager
def over_stdio(directory: Path) -> Iterator[int]:
    """Port of the bridge that runs the fixture server on standard input and output."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = {"listen": {"port": port}, "command": sys.executable, "args": [str(EVERYTHING), "--stdio"]}
    file = directory / "bridge.json"
    file.write_text(json.dumps(config))
    env = os.environ | {"QUARTERDECK_LISTEN_FDS": f"{port}={listener.fileno()}"}
    with _process("-m", "quarterdeck.bridge", "--config", file, env=env, pass_fds=(listener.fileno(),)):
        listener.close()
        yield port


@contextmanager
def small_server() -> Iterator[int]:
    """Port of another server, with tools, a prompt and a resource of its own."""
    with _process(suite.ROOT / "tests" / "gateway" / "mcp_peer.py") as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())


def one_server(port: int) -> s.Snapshot:
    server = s.McpServer("kagent", "everything", "MCPServer", "/mcp", endpoints=(s.Endpoint("127.0.0.1", port),))
    return s.Snapshot(version="v1", mcp=(server,), identities=s.Identities(anonymous_local=True))


def in_a_view(port: int) -> s.Snapshot:
    """The fixture server behind a virtual one that shows all of it."""
    all_of_it = ChosenServer("everything", "MCPServer/kagent/everything", Choice(), Choice(), Choice())
    view = VirtualServer("kagent", "view", (all_of_it,), prefixed=False)
    return msgspec.structs.replace(one_server(port), virtual=(view,))


def among_others(port: int, other: int, listen: int = 0) -> s.Snapshot:
    """The fixture server and another behind one route, their names as they are."""
    servers = tuple(
        s.McpServer("ns", name, "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", at),))
        for name, at in (("everything", port), ("small", other))
    )
    targets = tuple(r.McpTarget(server.name, f"Target/ns/{server.name}") for server in servers)
    backend = r.RouteBackend(mcp=r.McpBackend("all", targets, prefix="never"), policies=r.Policies(open=True))
    route = r.Route("ns/all", policies=r.Policies(open=True), backends=(backend,))
    listener = r.Listener("front", listen, address="127.0.0.1", hostname="localhost", routes=(route,))
    return s.Snapshot(version="v1", mcp=servers, listeners=(listener,))


@contextmanager
def gateway(snapshot: s.Snapshot, directory: Path, *more: str) -> Iterator[str]:
    """URL of a gateway process. All of one test session have one key, as replicas do."""
    config, endpoints = directory / "snapshot.json", directory / "endpoints.json"
    config.write_bytes(msgspec.json.encode(snapshot))
    (directory.parent / "key").write_bytes(KEY)
    zero = [word for flag in ("local", "workloads", "stats", "ready", "admin") for word in (f"--{flag}", "127.0.0.1:0")]
    with _process(
        "-m", "quarterdeck.gateway", *zero, "--config", config, "--data-dir", directory / "data",
        "--endpoints-file", endpoints, "--key-file", directory.parent / "key", *more,
    ):  # fmt: skip
        deadline = time.monotonic() + 60
        while not endpoints.exists():
            assert time.monotonic() < deadline, "the gateway does not start"
            time.sleep(0.02)
        found = json.loads(endpoints.read_text())
        yield (
            found["front"].replace("127.0.0.1", "localhost") + "/mcp"
            if snapshot.listeners
            else found["local"] + ("/mcp/kagent/virtualserver.view" if snapshot.virtual else "/mcp/kagent/everything")
        )


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """URL of a path to the fixture server, started when first asked for."""
    with ExitStack() as stack:
        known: dict[str, str] = {}

        def start(path: str) -> str:
            backend, _, through = path.partition("+")
            if path not in known and through:
                directory = tmp_path_factory.mktemp("gateway")
                backend, _, others = backend.partition("&")
                port = int(start(backend).rsplit(":", 1)[1].partition("/")[0])
                if others == "others":
                    snapshot = among_others(port, stack.enter_context(small_server()))
                else:
                    snapshot = in_a_view(port) if others == "view" else one_server(port)
                known[path] = stack.enter_context(gateway(snapshot, directory))
            elif path not in known:
                server = over_stdio(tmp_path_factory.mktemp("bridge")) if backend == "stdio" else over_http(backend)
                known[path] = f"http://127.0.0.1:{stack.enter_context(server)}/mcp"
            return known[path]

        yield start


BEFORE, NOW = SCORED
ROLES: list[Any] = [
    *(("both+gateway", revision) for revision in SCORED), ("stdio+gateway", BEFORE),
    ("legacy+gateway", NOW), ("modern+gateway", BEFORE),
    *(("both&others+gateway", revision) for revision in SCORED),
    ("legacy&others+gateway", NOW), ("modern&others+gateway", BEFORE),
    *(
        pytest.param(*pairing, marks=pytest.mark.slow)
        for pairing in (
            ("both", BEFORE), ("both", NOW), ("stdio+gateway", NOW), ("legacy+gateway", BEFORE),
            ("modern+gateway", NOW), ("legacy&others+gateway", BEFORE), ("modern&others+gateway", NOW),
            *((f"{era}&view+gateway", revision) for era in ("legacy", "modern") for revision in SCORED),
        )
    ),
]  # fmt: skip
"""Server and revision of the client; where both are of one era, a server of both eras proves it in the fast tier."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("path", "revision"), ROLES)
async def test_every_scenario_passes(url: Callable[[str], str], path: str, revision: str, tmp_path: Path) -> None:
    result = await suite.run_server(url(path), tmp_path, revision)
    assert "\n".join(result.failed) == ""
    assert len(result.scenarios) >= SCORED[revision]


@asynccontextmanager
async def balanced(urls: list[str]) -> AsyncIterator[str]:
    """URL of a balancer that gives each request to the next of several gateways."""
    turns = cycle(urlsplit(url) for url in urls)
    pool = Pool()

    async def serve(exchange: Exchange) -> None:
        gateway = next(turns)
        origin = ("127.0.0.1", gateway.port or 80, False)
        hop = (b"connection", b"transfer-encoding", b"content-length")
        headers = [(k, v) for k, v in exchange.headers if k not in hop]
        response = await pool.request(exchange.method, origin, gateway.path, headers, exchange.body, timeout=60)
        exchange.on_disconnect(response.close)
        exchange.start(response.status, [(k, v) for k, v in response.headers if k not in hop])
        async for chunk in response:
            await exchange.send(chunk)
        if not exchange.disconnected:
            exchange.finish()

    server = Server(serve, name="balancer")
    _, port = await server.listen("127.0.0.1", 0)
    yield f"http://localhost:{port}/mcp"
    await server.stop(0)
    pool.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("backend", "revision"),
    [
        ("legacy", BEFORE), ("modern", BEFORE),
        pytest.param("legacy", NOW, marks=pytest.mark.slow), pytest.param("modern", NOW, marks=pytest.mark.slow),
    ],
)  # fmt: skip
async def test_every_scenario_passes_over_two_replicas(
    url: Callable[[str], str], backend: str, revision: str, tmp_path: Path
) -> None:
    port = int(url(backend).rsplit(":", 1)[1].partition("/")[0])
    with ExitStack() as stack:
        snapshot = among_others(port, stack.enter_context(small_server()))
        urls: list[str] = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            urls.append(stack.enter_context(gateway(snapshot, tmp_path / name, "--peers=127.0.0.1:0")))
        async with balanced(urls) as both:
            result = await suite.run_server(both, tmp_path, revision)
    if backend == "legacy":  # each replica has a session with it, and it tells of changes in the session they came from
        result.failed = [text for text in result.failed if "list-changed-on-subscription" not in text]
    assert "\n".join(result.failed) == ""
    assert len(result.scenarios) >= SCORED[revision]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("revision", list(SCORED))
async def test_every_scenario_passes_over_two_workers(url: Callable[[str], str], revision: str, tmp_path: Path) -> None:
    port = int(url("legacy").rsplit(":", 1)[1].partition("/")[0])
    (tmp_path / "gateway").mkdir()
    with gateway(one_server(port), tmp_path / "gateway", "--workers=2") as both:
        result = await suite.run_server(both, tmp_path, revision)
    assert "\n".join(result.failed) == ""
    assert len(result.scenarios) >= SCORED[revision]
