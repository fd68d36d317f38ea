"""Servers are asked in the background: one that never answers holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from quarterdeck.controllers.discovery import Discovery, list_tools
from quarterdeck.errors import UpstreamError
from quarterdeck.kube import resource as k
from quarterdeck.kube.resource import Key
from quarterdeck.snapshot import Endpoint, McpServer
from quarterdeck.wire.addresses import refused

from .servers import World


class Silent:
    """Takes connections and says nothing."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        await reader.read()
        while await reader.read(1024):
            pass
        self.open -= 1
        writer.close()


@asynccontextmanager
async def silent() -> AsyncGenerator[tuple[Silent, int]]:
    peer = Silent()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    try:
        yield peer, server.sockets[0].getsockname()[1]
    finally:
        server.close()


def asked(name: str, port: int) -> McpServer:
    return McpServer("ns", name, "RemoteMCPServer", "/mcp", endpoints=(Endpoint("127.0.0.1", port),))


async def until(condition: object) -> None:
    async with asyncio.timeout(30):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_few_at_once_each_with_a_deadline_and_back_off() -> None:
    loop, answered = asyncio.get_running_loop(), list[str]()
    async with silent() as (peer, port):
        discovery = Discovery(loop.time, 60, lambda s: answered.append(s.name), at_once=3, deadline=0.2)
        owner = asyncio.create_task(discovery.run())
        servers = [asked(f"s{number}", port) for number in range(7)]
        assert [discovery.tools(server) for server in servers] == [None] * 7
        assert [discovery.tools(server) for server in servers] == [None] * 7, "asked once"
        await until(lambda: len(answered) == 7)
        assert peer.most == 3
        found = discovery.tools(servers[0])
        assert found is not None and "no answer within 0.2 s" in found.error and 0 < found.again_in <= 2
        moved = asked("s1", 1)
        assert discovery.tools(moved) is None, "another address is asked at once"
        discovery.forget("RemoteMCPServer", Key("ns", "s1"))
        owner.cancel()
        await asyncio.gather(owner, return_exceptions=True)


async def test_silent_servers_hold_up_no_worker(embedded_world: World) -> None:
    world = embedded_world
    team = await world.namespace()
    async with silent() as (peer, port), world.operator():
        for number in range(20):
            spec = {"description": "d", "url": f"http://127.0.0.1:{port}/mcp"}
            await world.create(
                k.REMOTE_MCP_SERVER, {"metadata": {"name": f"s{number}", "namespace": team}, "spec": spec}
            )
        await until(lambda: peer.open == 16)
        spec = {"description": "d", "url": "http://nowhere.example:1/mcp"}
        spec |= {"headersFrom": [{"name": "X", "valueFrom": {"type": "Secret", "name": "none", "key": "k"}}]}
        await world.create(k.REMOTE_MCP_SERVER, {"metadata": {"name": "bad", "namespace": team}, "spec": spec})
        await world.condition(k.REMOTE_MCP_SERVER, team, "bad", "Accepted", "False")
        await world.create(
            k.MCP_SERVER,
            {"metadata": {"name": "m", "namespace": team},
             "spec": {"transportType": "stdio", "deployment": {"cmd": "uvx", "args": ["x"], "port": 3000}}},
        )  # fmt: skip
        await world.condition(k.MCP_SERVER, team, "m", "Programmed", "True")


async def test_a_name_that_leads_to_a_workload_is_not_asked() -> None:
    def refuse(host: str, address: str, port: int) -> str:
        del port
        return refused(host, address, {"127.0.0.1"}.__contains__)

    async with silent() as (peer, port):
        server = McpServer("ns", "s", "RemoteMCPServer", "/mcp", endpoints=(Endpoint("localhost", port),))
        with pytest.raises(UpstreamError, match=r"localhost:\d+ is a name for 127\.0\.0\.1"):
            await list_tools(server, refuse)
        metadata = McpServer("ns", "s", "RemoteMCPServer", "/mcp", endpoints=(Endpoint("127.0.0.1", port),))
        with pytest.raises(UpstreamError, match="link-local"):
            await list_tools(metadata, lambda host, address, port: refused(host, "169.254.169.254", lambda _: False))
        assert peer.most <= 2
