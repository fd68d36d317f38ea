"""A record is in the file when its response arrives; without a record there is no response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.audit.options import AuditOptions
from quarterdeck.gateway.options import Options
from quarterdeck.telemetry.audit import verify
from quarterdeck.telemetry.audit.checkpoint import read

from ..conftest import Rig, snapshot, token

PATH = "/mcp/kagent/peer"
Make = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def gateway(tmp_path: Path) -> Make:
    """Gateways with audit options, on an audit file of their own."""

    @asynccontextmanager
    async def make(file: Path | None = None, **options: Any) -> AsyncIterator[Rig]:
        zero = ("127.0.0.1", 0)
        config = tmp_path / "snapshot.json"
        config.write_bytes(msgspec.json.encode(s.Snapshot(version="v0")))
        audit = file or tmp_path / "audit.jsonl"
        made = Gateway(
            Options(
                zero, zero, zero, zero, zero, data_dir=tmp_path / "data", config=config, audit_file=audit,
                audit=AuditOptions(**options),
            )
        )  # fmt: skip
        await made.start()
        rig = Rig(made, audit)
        try:
            yield rig
        finally:
            rig.pool.close()
            await made.stop(0.2)

    return make


def written(rig: Rig) -> list[dict[str, Any]]:
    """What is in the file right now: nothing is flushed for us."""
    return [msgspec.json.decode(line) for line in rig.audit_file.read_bytes().splitlines()]


async def test_every_kind_of_answer_has_its_record_in_the_file(rig: Rig, peer: int) -> None:
    add = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    session = await rig.initialize(PATH, bearer=token("pod-b"))
    headers = {"mcp-session-id": session, "accept": "application/json, text/event-stream"}
    before = len(written(rig))
    for body, options, outcome in (
        (add, {"bearer": token("pod-b"), "headers": headers}, "ok"),
        (add, {"bearer": token("pod-c")}, "denied"),
        (add, {}, "denied"),
        ({"x": 1}, {"bearer": token("pod-b")}, "error"),
    ):
        response = await rig.request(PATH, body, **options)
        await response.read()
        before += 1
        lines = written(rig)
        assert len(lines) == before
        assert lines[-1]["outcome"] == outcome


async def test_the_record_of_a_streamed_answer_goes_before_the_answer(rig: Rig) -> None:
    """The server answers and leaves its stream open: the call's end is not what is waited for."""
    release = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        event = b'data: {"jsonrpc":"2.0","id":7,"result":{"content":[]}}\n\n'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + event)
        await release.wait()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    rig.gateway.use(snapshot(server.sockets[0].getsockname()[1]))
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}
    response = await rig.request(PATH, body, listener="local")
    chunk = await anext(aiter(response))
    assert b'"id":7' in chunk
    assert [(line["tool"], line["outcome"]) for line in written(rig)] == [("echo", "ok")]
    response.close()
    release.set()
    server.close()


async def test_without_a_record_there_is_no_answer(gateway: Make, peer: int) -> None:
    async with gateway(Path("/dev/full")) as rig:
        rig.gateway.use(snapshot(peer))
        first = await rig.request(PATH, b"{}", listener="local")
        assert first.status == 503 and b"recorded" in await first.read()
        second = await rig.request(PATH, b"{}", listener="local")
        assert second.status == 503 and b"cannot write its audit log" in await second.read()
        stats = rig.gateway.endpoints["stats"].removeprefix("http://").split(":")
        metrics = await (await rig.pool.request("GET", (stats[0], int(stats[1]), False), "/metrics")).read()
        assert b"quarterdeck_audit_blocked 1" in metrics
        assert b"quarterdeck_audit_refused_calls_total 1" in metrics
        ready = rig.gateway.endpoints["ready"].removeprefix("http://").split(":")
        response = await rig.pool.request("GET", (ready[0], int(ready[1]), False), "/healthz/ready")
        assert response.status == 503 and b"audit" in await response.read()


async def test_on_request_calls_go_on_unrecorded(gateway: Make, peer: int) -> None:
    async with gateway(Path("/dev/full"), on_failure="drop") as rig:
        rig.gateway.use(snapshot(peer))
        for _ in range(2):
            response = await rig.request(PATH, b"{}", listener="local")
            assert response.status == 400
            await response.read()


async def test_checkpoints_reach_the_anchor_and_show_what_was_cut_off(gateway: Make, tmp_path: Path, peer: int) -> None:
    anchor = tmp_path / "anchor.jsonl"
    async with gateway(anchor=str(anchor)) as rig:
        rig.gateway.use(snapshot(peer))
        for _ in range(3):
            await (await rig.request(PATH, b"{}", listener="local")).read()
    points = read(anchor.read_bytes(), str(anchor))
    assert points[-1].seq == 2 and points[-1].final
    audit = tmp_path / "audit.jsonl"
    assert verify(audit, points).anchored == 3
    lines = audit.read_bytes().splitlines(keepends=True)
    audit.write_bytes(b"".join(lines[:2]))
    assert verify(audit).ok, "the file alone does not tell"
    found = verify(audit, points)
    assert not found.ok and "the end is missing" in found.problem


async def test_arguments_are_recorded_on_request_without_secrets(gateway: Make, peer: int) -> None:
    async with gateway(arguments=True, redact=("/text", "*pin*")) as rig:
        rig.gateway.use(snapshot(peer))
        arguments = {"text": "hush", "a": 1, "apiKey": "k", "card_pin": 3, "deep": [{"password": "p", "ok": True}]}
        await rig.rpc(PATH, "tools/call", {"name": "echo", "arguments": arguments}, listener="local")
        record = written(rig)[-1]
        hidden = "<redacted>"
        assert record["arguments"] == {
            "text": hidden, "a": 1, "apiKey": hidden, "card_pin": hidden, "deep": [{"password": hidden, "ok": True}],
        }  # fmt: skip
        assert len(record["argumentsHash"]) == 64
