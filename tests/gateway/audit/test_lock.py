"""A gateway that serves a file: tools approved by ``qd tools approve -f``, kept beside the file, in use at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.cli import toolpins
from quarterdeck.errors import Conflict, NotFound, QuarterdeckError
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.config.standalone import FileOptions, load
from quarterdeck.gateway.options import Options
from quarterdeck.snapshot.pins import Approved, Lock, LockedServer, lock_path, read_lock, write_lock
from quarterdeck.wire.http import Server

from ..conftest import Rig
from .test_pins import ADD, POISONED, SUB, Changing

CONFIG = """
binds:
- port: {port}
  listeners:
  - routes:
    - matches: [{{path: {{pathPrefix: /mcp}}}}]
      backends:
      - mcp:
          targets:
          - name: calc
            mcp: {{host: http://127.0.0.1:{upstream}/mcp}}
"""


@pytest.fixture
async def changing() -> AsyncIterator[Changing]:
    made = Changing()
    server = Server(made.handle)
    _, made.port = await server.listen("127.0.0.1", 0)
    yield made
    await server.stop(0)


@pytest.fixture
async def served(tmp_path: Path, changing: Changing) -> AsyncIterator[tuple[Rig, Path]]:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(port=0, upstream=changing.port))
    zero = ("127.0.0.1", 0)
    options = Options(
        None, None, None, None, zero, data_dir=tmp_path / "data", audit_file=tmp_path / "audit.jsonl",
        file=FileOptions(path, compat="oct"),
    )  # fmt: skip
    gateway = Gateway(options)
    await gateway.start()
    rig = Rig(gateway, tmp_path / "audit.jsonl")
    yield rig, path
    rig.pool.close()
    await gateway.stop(0.2)


def listener(rig: Rig) -> str:
    return next(name for name in rig.gateway.endpoints if name != "admin")


async def listed(rig: Rig) -> list[str]:
    where = listener(rig)
    headers = {"host": "localhost"}
    session = await rig.initialize("/mcp", listener=where, headers=headers)
    answer = await rig.rpc("/mcp", "tools/list", listener=where, headers={**headers, "mcp-session-id": session})
    assert "result" in answer, answer
    return [tool["name"] for tool in answer["result"]["tools"]]


async def test_approve_serve_change_withdraw(
    served: tuple[Rig, Path], changing: Changing, capsys: pytest.CaptureFixture[str]
) -> None:
    rig, config = served
    where = toolpins.source("calc", "", config, rig.gateway.endpoints["admin"])
    assert await listed(rig) == ["add", "sub"]
    assert {record["route"] for record in rig.records()} == {"default/route0"}
    assert not await asyncio.to_thread(toolpins.diff, where, "")
    await asyncio.to_thread(toolpins.approve, where, ["add"], yes=True, accept_findings=False)
    shown = capsys.readouterr().out
    assert "add: was never approved" in shown and '+  "description": "Adds."' in shown
    [kept] = read_lock(lock_path(config)).servers
    assert (kept.name, kept.kind, [one.tool for one in kept.tools]) == ("calc", "Target", ["add"])
    assert kept.tools[0].definition == ADD and kept.tools[0].by
    assert rig.gateway.files is not None and rig.gateway.files.reload()
    assert await listed(rig) == ["add"]

    changing.tools = [POISONED, SUB]
    assert await listed(rig) == []
    assert not await asyncio.to_thread(toolpins.diff, where, "")
    shown = capsys.readouterr().out
    assert '-  "description": "Adds."' in shown and "! description: marks text as important to the model" in shown
    assert not await asyncio.to_thread(toolpins.scan, where)
    with pytest.raises(QuarterdeckError, match="look at what was found in add"):
        await asyncio.to_thread(toolpins.approve, where, [], yes=True, accept_findings=False)
    await asyncio.to_thread(toolpins.approve, where, ["sub"], yes=True, accept_findings=False)
    rig.gateway.files.reload()
    assert await listed(rig) == ["sub"]
    await asyncio.to_thread(toolpins.approve, where, [], yes=True, accept_findings=True)
    assert await asyncio.to_thread(toolpins.diff, where, "")
    with pytest.raises(NotFound, match="has no tool 'mul'"):
        await asyncio.to_thread(toolpins.approve, where, ["mul"], yes=True, accept_findings=True)

    assert await asyncio.to_thread(where.withdraw, "") == 2
    assert read_lock(lock_path(config)).servers == ()
    rig.gateway.files.reload()
    assert await listed(rig) == ["add", "sub"]


async def test_what_changed_while_somebody_looked_is_not_approved(served: tuple[Rig, Path], changing: Changing) -> None:
    rig, config = served
    where = toolpins.source("calc", "", config, rig.gateway.endpoints["admin"])
    digests = {entry["name"]: entry["digest"] for entry in (await asyncio.to_thread(where.look))["tools"]}
    changing.tools = [POISONED, SUB]
    with pytest.raises(Conflict, match="has changed since you looked"):
        await asyncio.to_thread(where.approve, digests)
    assert not lock_path(config).exists()


async def test_a_target_that_is_not_there_is_said_so(served: tuple[Rig, Path]) -> None:
    rig, config = served
    with pytest.raises(NotFound, match="names 0 servers"):
        await asyncio.to_thread(toolpins.source("nope", "", config, rig.gateway.endpoints["admin"]).look)


def test_a_mode_of_the_lock_file_holds(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(port=3000, upstream=1))
    tool = Approved("add", "0" * 64, ADD)
    write_lock(lock_path(config), Lock((LockedServer("calc", (tool,), pin="warn"),)))
    loaded = load(FileOptions(config, compat="oct"))
    assert [server.pin for server in loaded.snapshot.mcp] == ["warn"]
    assert loaded.snapshot.pins[0].tools[0].name == "add"
    assert lock_path(config) in loaded.files


def test_a_damaged_lock_file_is_told_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "x.tools.lock"
    path.write_text("{")
    with pytest.raises(QuarterdeckError, match="approve the tools again"):
        read_lock(path)
