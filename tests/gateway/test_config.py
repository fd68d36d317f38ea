"""The control plane's stream: taken, acknowledged, refused, and done without."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.errors import ConfigError, StorageError, UsageError
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.config.lastgood import LastGood, load_key
from quarterdeck.gateway.config.stream import ControlPlane, read_file
from quarterdeck.gateway.options import Options, parse
from quarterdeck.wire.http import Disconnected, Exchange, Server

ZERO = ("127.0.0.1", 0)


class Plane:
    """The control plane's side, for one gateway."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.acks: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.tokens: list[bytes | None] = []

    def handle(self, exchange: Exchange) -> Any:
        self.tokens.append(exchange.header(b"authorization"))
        if exchange.path.endswith("/ack"):
            self.acks.put_nowait((exchange.path, msgspec.json.decode(exchange.body)))
            exchange.respond(204)
            return None
        assert exchange.target == b"/v1/gateways/quarterdeck-system/quarterdeck/config?watch"
        return self.stream(exchange)

    async def stream(self, exchange: Exchange) -> None:
        exchange.start(200, [(b"content-type", b"application/x-ndjson")])
        while True:
            line = await self.lines.get()
            try:
                await exchange.send(line + b"\n")
            except Disconnected:
                return


def options(folder: Path, port: int) -> Options:
    token = folder / "token"
    token.write_text("gateway-token\n")
    return Options(
        ZERO, None, None, ZERO, None, control_plane=f"http://127.0.0.1:{port}", token_file=token,
        data_dir=folder / "data", audit_file=folder / "audit.jsonl",
    )  # fmt: skip


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_snapshots_are_taken_acknowledged_or_refused_and_survive_the_control_plane(tmp_path: Path) -> None:
    plane = Plane()
    server = Server(plane.handle)
    _, port = await server.listen("127.0.0.1", 0)
    gateway = Gateway(options(tmp_path, port))
    await gateway.start()
    good = s.encode(s.Snapshot(default_namespace="one"))
    version = s.decode(good).version
    plane.lines.put_nowait(good)
    path, ack = await asyncio.wait_for(plane.acks.get(), 30)
    assert path == f"/v1/gateways/quarterdeck-system/quarterdeck/config/{version}/ack"
    assert ack == {"accepted": True, "errors": []}
    assert plane.tokens[0] == b"Bearer gateway-token"

    bad = s.encode(s.Snapshot(mcp=(s.McpServer("n", "m", "RemoteMCPServer", "/mcp", tls=True, tls_ca="no PEM"),)))
    plane.lines.put_nowait(bad)
    _, nack = await asyncio.wait_for(plane.acks.get(), 30)
    assert nack["accepted"] is False and "n/m" in nack["errors"][0]
    assert gateway.version == version

    await server.stop(0.1)
    await gateway.stop(0.1)
    again = Gateway(options(tmp_path, port))  # nobody listens there now
    await again.start()
    assert again.version == version
    await again.stop(0.1)
    kept = (tmp_path / "data" / "snapshot.bin").read_bytes()
    assert b"one" not in kept
    assert (tmp_path / "data" / "gateway.key").stat().st_mode & 0o777 == 0o600


async def test_it_reconnects(tmp_path: Path) -> None:
    plane = Plane()
    server = Server(plane.handle)
    _, port = await server.listen("127.0.0.1", 0)
    gateway = Gateway(options(tmp_path, port))
    await gateway.start()
    plane.lines.put_nowait(s.encode(s.Snapshot(default_namespace="one")))
    await asyncio.wait_for(plane.acks.get(), 30)
    await server.stop(0.0)
    second = Server(plane.handle)
    await second.listen("127.0.0.1", port)
    fresh = s.encode(s.Snapshot(default_namespace="two"))
    for _ in range(3):  # the stream that was cut may have taken one
        plane.lines.put_nowait(fresh)
    await until(lambda: gateway.version == s.decode(fresh).version)
    await gateway.stop(0.1)
    await second.stop(0.1)


def test_a_kept_snapshot_opens_with_its_key_only(tmp_path: Path) -> None:
    key = load_key(tmp_path / "key")
    assert load_key(tmp_path / "key") == key
    LastGood(tmp_path / "s", key).save(b"line")
    assert LastGood(tmp_path / "s", key).load() == b"line"
    assert LastGood(tmp_path / "s", bytes(32)).load() is None
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(StorageError, match="not a key of 32 bytes"):
        load_key(tmp_path / "short")


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "snapshot.json"
    file.write_text('{"mcp":[{"namespace":1}]}')
    with pytest.raises(ConfigError, match=r"snapshot\.json.*\$\.mcp\[0\]\.namespace"):
        read_file(file)


@pytest.mark.parametrize("arguments", [[], ["--config=x", "--control-plane=y"], ["--config=x", "--local=8701"]])
def test_wrong_flags_are_usage_errors(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(arguments)


async def test_following_ends_when_told_even_as_the_stream_ends() -> None:
    """A cancellation that comes together with the end of the stream, at every step of the event loop around it."""
    ending = asyncio.Event()

    async def stream(exchange: Exchange) -> None:
        exchange.start(200, [(b"content-type", b"application/x-ndjson")])
        await exchange.send(b"\n")
        await ending.wait()
        exchange.finish()

    server = Server(stream)
    _, port = await server.listen("127.0.0.1", 0)
    for steps in range(20):
        ending.clear()
        plane = ControlPlane(f"http://127.0.0.1:{port}", "a/b", None, lambda snapshot, line: None, lambda line: None)
        following = asyncio.get_running_loop().create_task(plane.run())
        await until(lambda plane=plane: plane.connected)
        ending.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        following.cancel()
        done, _ = await asyncio.wait({following}, timeout=60)
        assert done, f"still following when cancelled {steps} steps after the end"
    await server.stop(0.1)
