"""Rows of the table against the real servers: the planned calls are made, and their results answer the question."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from quarterdeck.agents.scripted.plan import Call
from quarterdeck.wire.http import Exchange, Server

from .peers import Peer, Unavailable, peer
from .table import Row, definitions, functions, play, rows

REAL = [row for row in rows() if row.real]


def serve_page(exchange: Exchange) -> None:
    if exchange.path == "/":
        page = b"<html><head><title>Port</title></head><body><p>Welcome to the harbour.</p></body></html>"
        exchange.respond(200, page, [(b"content-type", b"text/html")])
    else:
        exchange.respond(404)


def fill(folder: Path) -> None:
    (folder / "a.txt").write_text("alpha\n")
    (folder / "notes.txt").write_text("first line\nsecond line\nthird line\n")
    (folder / "readme.md").write_text("# Read me\n")


@pytest.mark.e2e
@pytest.mark.parametrize("number", [row.number for row in REAL], ids=[str(row) for row in REAL])
async def test_row(number: int, tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    fill(folder)
    web = Server(serve_page)
    _, port = await web.listen("127.0.0.1", 0)
    row = next(r for r in rows(str(folder), port) if r.number == number)
    try:
        async with AsyncExitStack() as stack:
            made, text = await asyncio.wait_for(converse(row, folder, stack), 50)
    except Unavailable as reason:
        pytest.skip(str(reason))
    finally:
        await web.stop(grace=0)
    assert row.real in text
    assert "reported an error" not in text
    assert [[c.name for c in stage] for stage in made] == [[c[0] for c in stage] for stage in row.calls]


async def converse(row: Row, folder: Path, stack: AsyncExitStack) -> tuple[list[list[Call]], str]:
    """Play the row; servers start when first called."""
    peers: dict[str, Peer] = {}
    original = {new: old for old, new in row.rename.items()}

    async def run(stage: int, call: Call) -> str:
        name = original.get(call.name, call.name)
        server = next(s for s in row.offered if any(t["name"] == name for t in definitions(s)))
        if server not in peers:
            peers[server] = await stack.enter_async_context(peer(server, folder))
        text, failed = await peers[server].call(name, call.arguments)
        assert not failed, f"stage {stage}: {call.name} {call.arguments}: {text}"
        return text

    return await play(row.ask, functions(row), run)
