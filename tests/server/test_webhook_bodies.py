"""What the conversion webhook takes from whoever can reach it: bounded memory, bounded turns, clear refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from quarterdeck.server.conversion import answer
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Limits, Server

KIB = 1024


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, int]]:
    found = Server(answer, limits=Limits(body_bytes=2048 * KIB, bodies_bytes=2048 * KIB))
    _, port = await found.listen("127.0.0.1", 0)
    yield found, port
    await found.stop(0.1)


def review(objects: list[Any], wanted: str = "kagent.dev/v1alpha2") -> bytes:
    return json.dumps({"request": {"uid": "u", "desiredAPIVersion": wanted, "objects": objects}}).encode()


def agent(number: int, text: str = "Old.") -> dict[str, Any]:
    metadata = {"name": f"a-{number}", "namespace": "kagent"}
    spec = {"description": "d", "systemMessage": text, "modelConfig": "m"}
    return {"apiVersion": "kagent.dev/v1alpha1", "kind": "Agent", "metadata": metadata, "spec": spec}


async def post(port: int, body: bytes) -> tuple[int, Any]:
    pool = Pool()
    try:
        response = await pool.request("POST", ("127.0.0.1", port, False), "/convert", (), body)
        data = await response.read()
        return response.status, json.loads(data) if data.startswith(b"{") else data.decode()
    finally:
        pool.close()


async def test_a_list_is_converted_in_order_and_others_get_their_turn(server: tuple[Server, int]) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    busy = asyncio.create_task(others())
    objects = [agent(number, "x" * 100 + "\u2028\u00e9") for number in range(3000)]
    status, said = await post(server[1], review(objects))
    busy.cancel()
    assert status == 200 and said["response"]["result"] == {"status": "Success"}
    assert said["response"]["uid"] == "u"
    converted = said["response"]["convertedObjects"]
    assert [o["metadata"]["name"] for o in converted] == [o["metadata"]["name"] for o in objects]
    assert converted[7]["spec"]["declarative"]["systemMessage"] == objects[7]["spec"]["systemMessage"]
    assert turns > 10
    assert (await post(server[1], review([])))[1]["response"]["convertedObjects"] == []


async def test_all_bodies_together_are_bounded(server: tuple[Server, int]) -> None:
    found, port = server
    body = review([agent(0, "x" * 1500 * KIB)])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /convert HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:-1])
    async with asyncio.timeout(30):
        while found.held < len(body) - 1:
            await asyncio.sleep(0.01)
    status, text = await post(port, body)
    assert (status, "busy" in text) == (503, True)
    assert found.held == len(body) - 1, "what was refused is not kept"
    writer.write(body[-1:])
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    assert head.startswith(b"HTTP/1.1 200")
    assert found.held == 0
    assert (await post(port, body))[0] == 200
    writer.write(b"POST /convert HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n" + b"x" * 800)
    async with asyncio.timeout(30):
        while found.held != 800:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while found.held:
            await asyncio.sleep(0.01)
    assert (await post(port, b"x" * 2049 * KIB))[0] == 413


@pytest.mark.parametrize(("body", "status", "words"), [
    (b"", 400, "not a ConversionReview"),
    (b"{}", 400, "not a ConversionReview"),
    (review([7]), 400, "is no object"),
    (b'{"request":{"uid":"u","desiredAPIVersion":"v","objects":[' + b"[" * 5000 + b"]" * 5000 + b"]}}", 400, "not a"),
    (review([agent(1) | {"spec": {"tools": 7}}]), 200, "Agent kagent/a-1 cannot be converted"),
    (review([agent(1) | {"metadata": "none", "spec": {"tools": 7}}]), 200, "cannot be converted"),
])  # fmt: skip
async def test_what_is_no_review_is_refused(server: tuple[Server, int], body: bytes, status: int, words: str) -> None:
    code, said = await post(server[1], body)
    assert code == status and words in str(said), said
