"""Limits of routes on a listener: what HTTP clients and MCP clients are told, and what backends see of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.snapshot import routing as r
from quarterdeck.snapshot.policies import Breaker, Policies, RateLimit, Retry
from quarterdeck.snapshot.revocations import Revocation
from quarterdeck.wire.http import Exchange

from ..conftest import Rig
from ..routes.conftest import Front, Service, route
from .upstream import Upstream, serving

TWO = RateLimit(max_tokens=2, tokens_per_fill=1, fill_interval=60.0)


@pytest.fixture
async def front(bare: Rig) -> AsyncIterator[Front]:
    front = Front(bare)
    yield front
    front.pool.close()


def served(front: Front, service: Service, **policies: Any) -> Any:
    rules = Policies(open=True, **policies)
    return front.serve(front.listener(route(service.to(policies=rules), policies=rules)))


async def mcp(front: Front, upstream: Upstream, **policies: Any) -> None:
    rules = Policies(open=True, **policies)
    server = s.McpServer("file", "t", "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", upstream.port),))
    target = r.McpTarget("t", "Target/file/t", rules)
    backend = r.RouteBackend(mcp=r.McpBackend("b", (target,)), policies=rules)
    await front.serve(front.listener(route(backend, policies=rules)), mcp=(server,))


async def rpc(front: Front, method: str, params: dict[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}})
    given = {"content-type": "application/json", "accept": "application/json, text/event-stream", **headers}
    response = await front.ask("/mcp", method="POST", body=body, headers=given)
    assert response.status == 200
    return msgspec.json.decode(await response.read())


async def tool(front: Front, name: str, **headers: str) -> dict[str, Any]:
    return await rpc(front, "tools/call", {"name": name, "arguments": {}}, **headers)


async def test_requests_over_the_limit_get_429_and_when_to_come_back(front: Front) -> None:
    service = Service()
    await service.start()
    await served(front, service, rate_limits=(TWO,))
    told = [await front.ask() for _ in range(2)]
    assert [response.header(b"x-ratelimit-remaining") for response in told] == [b"1", b"0"]
    refused = await front.ask()
    assert refused.status == 429
    assert int(refused.header(b"retry-after") or b"0") in range(50, 61)
    assert refused.header(b"x-ratelimit-limit") == b"2" and refused.header(b"x-ratelimit-remaining") == b"0"
    assert b"rate limit" in await refused.read()
    record = front.rig.records()[-1]
    assert (record["decision"], record["outcome"], record["status"]) == ("deny", "denied", 429)
    assert record["rule"].endswith("/limits/0")
    assert len(service.seen) == 2
    metrics = front.gateway.registry.render()
    assert b"quarterdeck_gateway_rate_limited_total{" in metrics


async def test_a_new_configuration_fills_no_bucket(front: Front) -> None:
    service = Service()
    await service.start()
    for _ in range(2):
        await served(front, service, rate_limits=(TWO,))
        assert (await front.ask()).status == 200
    await served(front, service, rate_limits=(TWO,))
    assert (await front.ask()).status == 429
    await served(front, service, rate_limits=(RateLimit(3, 1, 60.0),))
    assert (await front.ask()).status == 200, "another limit has buckets of its own"


async def test_replicas_share_the_limit(front: Front) -> None:
    service = Service()
    await service.start()
    rules = Policies(open=True, rate_limits=(RateLimit(4, 1, 60.0),))
    await front.serve(front.listener(route(service.to(policies=rules), policies=rules)), replicas=2)
    assert [(await front.ask()).status for _ in range(3)] == [200, 200, 429]


async def test_a_key_gives_each_caller_a_bucket(front: Front) -> None:
    service = Service()
    await service.start()
    limit = RateLimit(1, 1, 60.0, key='request.headers["x-user"]')
    await served(front, service, rate_limits=(limit,))
    statuses = [(await front.ask(headers={"x-user": user})).status for user in ("a", "b", "a", "b", "c")]
    assert statuses == [200, 200, 429, 429, 200]
    nobody = [(await front.ask()).status for _ in range(2)]
    assert nobody == [200, 429], "who cannot be told apart shares one"


async def test_of_several_limits_all_must_allow_and_none_is_charged_for_a_refusal(front: Front) -> None:
    service = Service()
    await service.start()
    generous = RateLimit(3, 1, 60.0)
    each = RateLimit(1, 1, 60.0, key='request.headers["x-user"]')
    await served(front, service, rate_limits=(generous, each))
    statuses = [(await front.ask(headers={"x-user": user})).status for user in ("a", "a", "a", "a", "b", "c", "d")]
    assert statuses == [200, 429, 429, 429, 200, 200, 429]


async def test_a_limit_that_cannot_be_kept_refuses_everything(front: Front) -> None:
    service = Service()
    await service.start()
    await served(front, service, rate_limits=(RateLimit(1, 1, 0.0),))
    response = await front.ask()
    assert response.status == 500 and not service.seen


async def test_concurrency_is_bounded_and_a_client_that_left_is_not_counted(front: Front) -> None:
    arrived, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        arrived.release()
        await go_on.wait()
        exchange.respond(200, b"done")

    service = Service(reply=slow)
    await service.start()
    await served(front, service, concurrency=2)
    first, second = asyncio.ensure_future(front.ask()), asyncio.ensure_future(front.ask())
    await arrived.acquire()
    await arrived.acquire()
    refused = await front.ask()
    assert refused.status == 503 and refused.header(b"retry-after") == b"1"
    first.cancel()
    while True:
        third, got_there = asyncio.ensure_future(front.ask()), asyncio.ensure_future(arrived.acquire())
        await asyncio.wait({third, got_there}, return_when=asyncio.FIRST_COMPLETED)
        if got_there.done():
            break
        got_there.cancel()
        assert (await third).status == 503, "the gateway has not noticed yet that the first has left"
    go_on.set()
    assert (await second).status == (await third).status == 200


async def test_mcp_clients_get_an_error_they_understand(front: Front) -> None:
    async with serving("ok") as upstream:
        await mcp(front, upstream, rate_limits=(TWO,))
        for _ in range(2):
            assert "result" in await tool(front, "a")
        error = (await tool(front, "a"))["error"]
        assert error["code"] == 4029 and error["data"]["reason"] == "rate_limited"
        assert error["data"]["retryAfter"] in range(50, 61)
        assert upstream.calls == 2


async def test_a_limit_for_each_tool_and_caller_counts_calls_only(front: Front) -> None:
    async with serving("ok") as upstream:
        key = 'mcp.tool.name + "|" + request.headers["x-user"]'
        await mcp(front, upstream, rate_limits=(RateLimit(1, 1, 60.0, key=key),))
        for _ in range(3):
            assert "result" in await rpc(front, "tools/list", **{"x-user": "a"})
        answers = [await tool(front, name, **{"x-user": user}) for name, user in ("xa", "xa", "ya", "xb")]
        assert ["result" in answer for answer in answers] == [True, False, True, True]
        record = next(r for r in front.rig.records() if r["status"] == 429)
        assert record["outcome"] == "denied" and record["tool"] == "x"


async def test_an_answer_larger_than_allowed_is_not_passed_on(front: Front) -> None:
    async with serving("large") as upstream:
        await mcp(front, upstream, max_response=100_000)
        error = (await tool(front, "a"))["error"]
        assert error["code"] == 4002 and "more than 100000 bytes" in error["message"]


async def test_a_call_must_end_in_time(front: Front) -> None:
    async with serving("hang") as upstream:
        await mcp(front, upstream, timeout=0.1)
        assert (await tool(front, "a"))["error"]["code"] == 4008


SAFE = [{"name": "a", "annotations": {"readOnlyHint": True}}, {"name": "b", "annotations": {"idempotentHint": True}}]
UNSAFE = [{"name": "a", "annotations": {"destructiveHint": False}}, {"name": "b"}]


@pytest.mark.parametrize("failure", ["reset", "503", "html"])
async def test_a_tool_that_says_it_may_be_repeated_is(front: Front, failure: str) -> None:
    async with serving("ok") as upstream:
        upstream.tools = SAFE
        await mcp(front, upstream, retry=Retry(attempts=2, backoff=0.001))
        await rpc(front, "tools/list")
        for name in ("a", "b"):
            before = upstream.calls
            upstream.modes = [failure, failure, "ok"]
            answer = await tool(front, name)
            assert "result" in answer and upstream.calls == before + 3
        assert b'quarterdeck_gateway_retries_total{server="file/t"} 4' in front.gateway.registry.render()


@pytest.mark.parametrize("tools", [UNSAFE, []])
async def test_no_other_tool_is_ever_called_twice(front: Front, tools: list[dict[str, Any]]) -> None:
    async with serving("ok") as upstream:
        upstream.tools = tools
        await mcp(front, upstream, retry=Retry(attempts=2, backoff=0.001))
        if tools:
            await rpc(front, "tools/list")
        for name in ("a", "b"):
            before = upstream.calls
            upstream.modes = ["reset", "ok"]
            assert "error" in await tool(front, name)
            assert upstream.calls == before + 1


async def test_lists_are_asked_again(front: Front) -> None:
    async with serving("503", "ok") as upstream:
        await mcp(front, upstream, retry=Retry(attempts=1, backoff=0.001))
        assert (await rpc(front, "tools/list"))["result"] == {"tools": []}


async def test_statuses_that_the_rule_does_not_name_are_final(front: Front) -> None:
    async with serving("500", "ok") as upstream:
        await mcp(front, upstream, retry=Retry(attempts=1, backoff=0.001, codes=(503,)))
        assert "error" in await rpc(front, "tools/list")


async def test_attempts_end_with_the_time_of_the_call(front: Front) -> None:
    async with serving("503") as upstream:
        await mcp(front, upstream, timeout=1.0, retry=Retry(attempts=100, backoff=10.0))
        assert "error" in await rpc(front, "tools/list")


async def test_an_attempt_that_hangs_is_given_up_for_another(front: Front) -> None:
    async with serving("hang", "ok") as upstream:
        await mcp(front, upstream, retry=Retry(attempts=1, backoff=0.001, per_try_timeout=0.5))
        assert "result" in await rpc(front, "tools/list")


async def test_what_is_attached_to_the_route_holds_for_its_targets(front: Front) -> None:
    async with serving("500", "ok") as upstream:
        server = s.McpServer("file", "t", "Target", "/mcp", endpoints=(s.Endpoint("127.0.0.1", upstream.port),))
        outer = Policies(open=True, breaker=Breaker(failures=1, open_for=5.0))
        inner = Policies(rate_limits=(RateLimit(2, 1, 60.0),))
        backend = r.McpBackend("b", (r.McpTarget("t", "Target/file/t", inner),))
        routed = route(r.RouteBackend(mcp=backend, policies=outer), policies=outer)
        await front.serve(front.listener(routed), mcp=(server,))
        assert "error" in await tool(front, "a")
        assert (await tool(front, "a"))["result"]["isError"], "one failure is enough here"
        assert "result" in await tool(front, "b")
        error = (await tool(front, "b"))["error"]
        assert error["code"] == 4029, "and the target's own limit counts calls"


async def test_tokens_of_models_are_taken_when_they_are_known(front: Front) -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 40, "total_tokens": 70}
    answer = {"id": "1", "object": "chat.completion", "model": "m", "choices": [], "usage": usage}

    def reply(exchange: Exchange) -> None:
        exchange.respond(200, msgspec.json.encode(answer), [(b"content-type", b"application/json")])

    service = Service(reply=reply)
    await service.start()
    rules = Policies(open=True, rate_limits=(RateLimit(100, 10, 60.0, "tokens"),))
    model = s.Model("kagent", "m", "OpenAI", "m", f"http://127.0.0.1:{service.port}/v1")
    backend = r.RouteBackend(model="kagent/m", policies=rules)
    await front.serve(front.listener(route(backend, policies=rules)), models=(model,))

    async def ask() -> int:
        body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
        headers = {"content-type": "application/json"}
        response = await front.ask("/v1/chat/completions", method="POST", headers=headers, body=body)
        await response.read()
        return response.status

    assert [await ask() for _ in range(3)] == [200, 200, 429], "30 are left after the first: the second may use them up"
    assert len(service.seen) == 2


async def test_a_caller_revoked_while_an_attempt_waits_makes_no_other(front: Front) -> None:
    async with serving("503") as upstream:
        await mcp(front, upstream, retry=Retry(attempts=1, backoff=0.6))
        asked = asyncio.ensure_future(rpc(front, "tools/list"))
        while b'retries_total{server="file/t"} 1' not in front.gateway.registry.render():
            await asyncio.sleep(0.005)
        upstream.modes = ["ok"]
        front.gateway.revocations.add(Revocation("r1", "server", "file/t"))
        assert "error" in await asked
        assert upstream.modes == ["ok"] and front.rig.records()[-1]["rule"].startswith("revoked/server")
