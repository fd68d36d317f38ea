"""A connection that has left HTTP: its record is there before the switch, and the kill switch ends it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.config.standalone import FileOptions
from quarterdeck.gateway.options import Options
from quarterdeck.snapshot.revocations import wanted

from ..conftest import Rig

CONFIG = """
binds:
- port: 0
  listeners:
  - routes:
    - backends:
      - host: 127.0.0.1:{port}
"""
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
ASK = (
    b"GET /chat HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)


async def test_recorded_before_the_switch_and_cut_when_revoked(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    backend = await asyncio.start_server(echo, "127.0.0.1", 0)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(port=backend.sockets[0].getsockname()[1]))
    options = Options(
        None, None, None, None, None, data_dir=tmp_path / "data", audit_file=tmp_path / "audit.jsonl",
        file=FileOptions(path, compat="oct"),
    )  # fmt: skip
    gateway = Gateway(options)
    await gateway.start()
    rig = Rig(gateway, tmp_path / "audit.jsonl")
    [name] = gateway.endpoints
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.origin(name)[1])
    writer.write(ASK)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    assert b'"status":101' in rig.audit_file.read_bytes()
    writer.write(b"ping")
    assert await reader.readexactly(4) == b"ping"

    caller = rig.records()[-1]["principal"]
    gateway.revocations.add(wanted({"user": caller}, by="me", now=1.0))
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    rig.pool.close()
    backend.close()
    await gateway.stop(0.1)
