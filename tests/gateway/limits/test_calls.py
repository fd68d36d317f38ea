"""Breakers and limits on calls through a real gateway to servers that really fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s

from ..conftest import Rig, snapshot, token
from .upstream import Upstream, serving

PATH = "/mcp/kagent/peer"
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {}}}
FAILURES = ["reset", "cut", "500", "503", "garbage", "html", "internal"]
ANSWERS = ["ok", "stream", "tool_error", "invalid"]


def served(rig: Rig, port: int, **server: Any) -> None:
    endpoint = s.Endpoint("127.0.0.1", port)
    rig.gateway.use(
        snapshot(port, mcp=(s.McpServer("kagent", "peer", "MCPServer", "/mcp", endpoints=(endpoint,), **server),))
    )


async def call(rig: Rig, tool: str = "add", path: str = PATH, **options: Any) -> dict[str, Any]:
    return await rig.rpc(path, "tools/call", {"name": tool, "arguments": {}}, bearer=token("pod-b"), **options)


def is_unavailable(answer: dict[str, Any]) -> bool:
    result = answer.get("result", {})
    said = "".join(part["text"] for part in result.get("content", ()))
    return result.get("isError") is True and said.startswith("tool unavailable")


@asynccontextmanager
async def opened(rig: Rig) -> AsyncIterator[Upstream]:
    """A server that has failed so often that it is not asked any more."""
    async with serving("500") as upstream:
        served(rig, upstream.port)
        for _ in range(3):
            await call(rig)
        yield upstream


async def probing(rig: Rig, upstream: Upstream) -> asyncio.Future[dict[str, Any]]:
    """The call that tries whether the server is well again, while the server works on it."""
    advance(rig, 30.0)
    upstream.modes = ["hang"]
    probe = asyncio.ensure_future(call(rig))
    await upstream.waiting.wait()
    return probe


def advance(rig: Rig, seconds: float) -> None:
    breakers = rig.gateway.limits.breakers
    before = breakers.clock
    breakers.clock = lambda: before() + seconds


@pytest.mark.parametrize("mode", FAILURES)
async def test_three_failures_make_the_tool_unavailable(bare: Rig, mode: str) -> None:
    async with serving(mode) as upstream:
        served(bare, upstream.port)
        for _ in range(3):
            assert not is_unavailable(await call(bare))
        answer = await call(bare)
        assert is_unavailable(answer)
        assert upstream.calls == 3, "an open breaker asks nobody"
        assert answer["result"]["_meta"]["quarterdeck.dev/unavailable"]["retryAfter"] in range(20, 31)
        record = bare.records()[-1]
        assert (record["outcome"], record["status"], record["rule"]) == ("error", 503, "breaker/kagent/peer/add")
        upstream.modes = ["ok"]
        assert (await call(bare, "other"))["result"]["content"][0]["text"] == "done", "other tools are called"


async def test_a_server_that_is_not_there(bare: Rig) -> None:
    async with serving() as upstream:
        port = upstream.port
    served(bare, port)
    for _ in range(3):
        assert (await call(bare))["error"]["code"] == 4002
    assert is_unavailable(await call(bare))


async def test_a_server_that_hangs(bare: Rig) -> None:
    async with serving("hang") as upstream:
        served(bare, upstream.port, timeout=0.1)
        answers = await asyncio.gather(*(call(bare) for _ in range(3)))
        assert [answer["error"]["code"] for answer in answers] == [4008] * 3
        assert is_unavailable(await call(bare))


@pytest.mark.parametrize("mode", [*ANSWERS, "401", "404"])
async def test_what_is_no_failure_opens_nothing(bare: Rig, mode: str) -> None:
    async with serving(mode) as upstream:
        served(bare, upstream.port)
        for _ in range(5):
            assert not is_unavailable(await call(bare))
        assert upstream.calls == 5 and not bare.gateway.limits.breakers.active


async def test_what_the_client_cancelled_or_the_gateway_denied_is_no_failure(bare: Rig) -> None:
    async with serving("hang") as upstream:
        served(bare, upstream.port)
        for _ in range(4):
            upstream.waiting.clear()
            task = asyncio.ensure_future(call(bare))
            await upstream.waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        for _ in range(4):
            assert "error" in await bare.rpc(PATH, "tools/call", {"name": "x"}, bearer=token("pod-a"))
        assert not bare.gateway.limits.breakers.active


async def test_after_thirty_seconds_one_call_tries_and_closes_it(bare: Rig) -> None:
    async with opened(bare) as upstream:
        probe = await probing(bare, upstream)
        assert all(is_unavailable(answer) for answer in await asyncio.gather(*(call(bare) for _ in range(4))))
        assert upstream.calls == 4
        upstream.modes = ["ok"]
        upstream.release.set()
        assert not is_unavailable(await probe)
        assert not is_unavailable(await call(bare))
        assert not bare.gateway.limits.breakers.active


async def test_a_probe_whose_client_leaves_lets_another_try(bare: Rig) -> None:
    async with opened(bare) as upstream:
        probe = await probing(bare, upstream)
        probe.cancel()
        while bare.gateway.upstreams.in_flight:
            await asyncio.sleep(0.01)
        upstream.modes = ["ok"]
        assert not is_unavailable(await call(bare))


async def test_the_aggregated_endpoint_shares_the_breakers(bare: Rig) -> None:
    async with serving("ok") as upstream:
        served(bare, upstream.port)
        session = await bare.initialize("/mcp", bearer=token("pod-b"))
        upstream.modes = ["500"]
        for _ in range(3):
            await call(bare)
        headers = {"mcp-session-id": session}
        assert is_unavailable(await call(bare, "peer_add", "/mcp", headers=headers))
        upstream.modes = ["ok"]
        assert not is_unavailable(await call(bare, "peer_other", "/mcp", headers=headers))


async def test_clients_of_2026_get_a_result_of_their_era(bare: Rig) -> None:
    async with opened(bare):
        version = "2026-07-28"
        meta = {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        }
        answer = await bare.rpc(
            PATH, "tools/call", {"name": "add", "_meta": meta}, bearer=token("pod-b"),
            headers={"mcp-protocol-version": version, "mcp-method": "tools/call", "mcp-name": "add"},
        )  # fmt: skip
        assert is_unavailable(answer) and answer["result"]["resultType"] == "complete"


async def test_operators_see_it_in_metrics_and_reset_it(bare: Rig) -> None:
    async with serving("500") as upstream:
        served(bare, upstream.port)
        for _ in range(4):
            await call(bare)
        local = {"host": "localhost:1"}
        response = await bare.request("/breakers", method="GET", listener="admin", headers=local)
        (seen,) = msgspec.json.decode(await response.read())["breakers"]
        assert (seen["server"], seen["tool"], seen["state"], seen["failures"]) == ("kagent/peer", "add", "open", 3)
        metrics = await (await bare.request("/metrics", method="GET", listener="stats")).read()
        for line in (
            b'quarterdeck_gateway_breaker_state{server="kagent/peer",tool="add",state="open"} 1',
            b'quarterdeck_gateway_breaker_opened_total{server="kagent/peer",tool="add"} 1',
            b'quarterdeck_gateway_breaker_refused_total{server="kagent/peer",tool="add"} 1',
        ):
            assert line in metrics
        upstream.modes = ["ok"]
        reset = "/breakers/reset?server=kagent/peer&tool=add"
        response = await bare.request(reset, listener="admin", headers=local)
        assert msgspec.json.decode(await response.read()) == {"reset": 1}
        assert not is_unavailable(await call(bare))
        response = await bare.request("/breakers/reset", listener="admin", headers=local)
        assert response.status == 400 and b"server=" in await response.read()


async def test_a_new_configuration_closes_nothing(bare: Rig) -> None:
    async with opened(bare) as upstream:
        served(bare, upstream.port)
        assert is_unavailable(await call(bare))


async def test_a_defect_of_ours_in_the_probe_lets_another_try(bare: Rig) -> None:
    async with opened(bare) as upstream:
        advance(bare, 30.0)
        sent, broken = bare.gateway.upstreams.send, Exception("a defect")

        def fails(*_: object, **__: object) -> None:
            raise broken

        bare.gateway.upstreams.send = fails  # type: ignore[method-assign]  # what no test can bring about otherwise
        assert (await bare.request(PATH, CALL, bearer=token("pod-b"))).status == 500
        bare.gateway.upstreams.send = sent  # type: ignore[method-assign]
        upstream.modes = ["ok"]
        assert not is_unavailable(await call(bare))


async def test_unavailable_is_said_at_once(bare: Rig) -> None:
    async with serving("hang") as upstream:
        served(bare, upstream.port, timeout=0.1)
        await asyncio.gather(*(call(bare) for _ in range(3)))
        for _ in range(20):
            assert is_unavailable(await call(bare))
        assert upstream.calls == 3, "nobody waited for the server's silence"
        latencies = sorted(record["latencyMs"] for record in bare.records() if record.get("status") == 503)
        assert latencies[len(latencies) // 2] < 1.0
