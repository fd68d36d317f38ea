"""Time limits and second attempts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quarterdeck.snapshot import policies as p
from quarterdeck.snapshot.policies import Policies
from quarterdeck.wire.http import Exchange

from .conftest import Front, Service, route


def failing(times: int, status: int = 503) -> Any:
    """Answers that many times with an error, then well."""
    left = [times]

    def reply(exchange: Exchange) -> None:
        left[0] -= 1
        exchange.respond(status if left[0] >= 0 else 200, b"answer")

    return reply


async def hang(exchange: Exchange) -> None:
    await asyncio.Event().wait()


async def serve(front: Front, svc: Service, **rules: Any) -> None:
    policies = Policies(**rules)
    await front.serve(front.listener(route(svc.to(policies=policies), policies=policies)))


RETRY = p.Retry(attempts=2, codes=(503,), backoff=0.001)


@pytest.mark.parametrize(
    ("method", "failures", "status", "asked"),
    [("GET", 2, 200, 3), ("GET", 3, 503, 3), ("PUT", 1, 200, 2), ("HEAD", 1, 200, 2), ("POST", 1, 503, 1)],
)
async def test_codes_are_tried_again_where_it_is_safe(
    front: Front, start: Any, method: str, failures: int, status: int, asked: int
) -> None:
    svc = await start(failing(failures))
    await serve(front, svc, retry=RETRY)
    assert ((await front.ask(method=method)).status, len(svc.seen)) == (status, asked)
    metrics = front.gateway.registry.render().decode()
    count = f'route="default/r",route_rule=""}} {asked - 1}'
    assert count in metrics


async def test_other_codes_are_not_tried_again(front: Front, start: Any) -> None:
    svc = await start(failing(1, 500))
    await serve(front, svc, retry=RETRY)
    assert ((await front.ask()).status, len(svc.seen)) == (500, 1)


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        ({"condition": "response.code == 500"}, 2),
        ({"condition": 'response.headers["x-again"] == "yes"'}, 2),
        ({"condition": "response.code == 501"}, 1),
        ({"condition": "response.code == 500", "precondition": 'request.path == "/"'}, 2),
        ({"condition": "response.code == 500", "precondition": 'request.path == "/other"'}, 1),
        ({"codes": (500,), "precondition": "jwt.sub == 'x'"}, 1),
    ],
)
async def test_expressions_say_what_is_tried_again(front: Front, start: Any, rule: dict[str, Any], asked: int) -> None:
    def reply(exchange: Exchange) -> None:
        exchange.respond(500 if len(svc.seen) == 1 else 200, b"", [(b"x-again", b"yes")])

    svc = await start(reply)
    await serve(front, svc, retry=p.Retry(attempts=1, backoff=0.001, **rule))
    assert ((await front.ask()).status, len(svc.seen)) == (200 if asked == 2 else 500, asked)


async def test_a_lost_connection_is_tried_again_where_it_is_safe(front: Front, start: Any) -> None:
    def reply(exchange: Exchange) -> None:
        if len(svc.seen) == 1:
            exchange.abort()
        else:
            exchange.respond(200)

    svc = await start(reply)
    await serve(front, svc, retry=RETRY)
    assert ((await front.ask()).status, len(svc.seen)) == (200, 2)
    svc.seen.clear()
    front.pool.close()
    assert ((await front.ask(method="POST")).status, len(svc.seen)) == (502, 1)


async def test_a_kept_connection_that_closed_is_no_failure(front: Front, start: Any) -> None:
    svc = await start(lambda exchange: exchange.respond(200))
    await serve(front, svc)
    assert (await front.ask()).status == 200
    for connection in list(svc.server.connections):
        connection.transport.abort()
    assert (await front.ask()).status == 200


async def test_a_broken_service_does_not_get_a_multiple_of_its_traffic(front: Front, start: Any) -> None:
    svc = await start(failing(10_000))
    await serve(front, svc, retry=p.Retry(attempts=5, codes=(503,), backoff=0.0))
    for _ in range(50):
        assert (await front.ask()).status == 503
    assert 50 < len(svc.seen) < 50 + 10 + 10 + 10  # what it begins with, a fifth, and what a second or two bring


@pytest.mark.parametrize("rules", [{"timeout": 0.05}, {"backend_timeout": 0.05}])
async def test_too_slow_is_504(front: Front, start: Any, rules: dict[str, float]) -> None:
    svc = await start(hang)
    await serve(front, svc, **rules)
    assert (await front.ask()).status == 504
    assert front.rig.records()[-1]["status"] == 504


async def test_a_slow_attempt_is_given_up_for_another(front: Front, start: Any) -> None:
    def reply(exchange: Exchange) -> Any:
        if len(svc.seen) == 1:
            return hang(exchange)
        return exchange.respond(200)

    svc = await start(reply)
    await serve(front, svc, backend_timeout=0.05, timeout=5.0, retry=RETRY)
    assert ((await front.ask()).status, len(svc.seen)) == (200, 2)


async def test_the_whole_time_bounds_all_attempts(front: Front, start: Any) -> None:
    svc = await start(hang)
    await serve(front, svc, timeout=0.1, backend_timeout=0.04, retry=p.Retry(attempts=50, backoff=0.001))
    assert (await front.ask()).status == 504
    assert 2 <= len(svc.seen) <= 4


async def test_a_stream_that_takes_too_long_breaks_off(front: Front, start: Any) -> None:
    async def reply(exchange: Exchange) -> None:
        exchange.start(200)
        await exchange.send(b"first")
        await hang(exchange)

    svc = await start(reply)
    await serve(front, svc, timeout=0.05)
    answer = await front.raw(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")


async def test_a_client_that_leaves_ends_the_request_behind(front: Front, start: Any) -> None:
    left = asyncio.Event()

    async def reply(exchange: Exchange) -> None:
        exchange.on_disconnect(left.set)
        await asyncio.Event().wait()

    svc = await start(reply)
    await serve(front, svc, retry=RETRY)
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port())
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    async with asyncio.timeout(30):
        while not svc.seen:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        await left.wait()
    del reader
    assert len(svc.seen) == 1
