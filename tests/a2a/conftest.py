"""The agent of the TCK on real ports, behind a gateway, and drivers for each binding."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio
from a2a_drivers import Driver, HttpJson, JsonRpc
from a2a_grpc import Grpc

from fixtures.tck_agent.serving import Served, gateway_in_front, pod_token, serving

BINDINGS = ("jsonrpc", "http_json", "grpc")


@dataclass
class World:
    """One agent, and how to reach it."""

    served: Served
    http: httpx.AsyncClient
    drivers: dict[str, Driver]
    card: dict[str, Any]
    gateway: str = ""
    """URL of the agent as clients reach it: its own, or the gateway's for workloads."""
    workloads: str = ""
    token: str = ""
    stranger: str = ""
    sent: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """What went to webhooks."""
    answers: list[int] = field(default_factory=list)
    """Statuses that webhooks answer, 200 when empty."""
    acting_for: Callable[[str], str] | None = None
    """At the gateway an agent calls: how it proves for whom."""


@asynccontextmanager
async def world(directory: Path, *, via_gateway: bool = False, **options: Any) -> AsyncIterator[World]:
    sent: list[tuple[str, dict[str, str], bytes]] = []
    answers: list[int] = []

    async def send(url: str, headers: dict[str, str], body: bytes) -> int:
        sent.append((url, headers, body))
        return answers.pop(0) if answers else 200

    async with AsyncExitStack() as parts:
        directory.mkdir(exist_ok=True)
        served = await parts.enter_async_context(serving(directory, delay=0.05, send=send, **options))
        base = served.url
        acting_for: Callable[[str], str] | None = None
        if via_gateway:
            front = await parts.enter_async_context(gateway_in_front(directory, served))
            base, acting_for = front.workloads, front.acting_for
        http = await parts.enter_async_context(httpx.AsyncClient(base_url=base, timeout=20, trust_env=False))
        channel = await parts.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{served.grpc_port}"))
        token = pod_token("pod-a") if via_gateway else ""
        bearer = {"authorization": f"Bearer {token}"} if token else {}
        card = (await http.get("/.well-known/agent-card.json", headers=bearer)).json()
        drivers: dict[str, Driver] = {"jsonrpc": JsonRpc(http), "http_json": HttpJson(http), "grpc": Grpc(channel)}
        yield World(served, http, drivers, card, base, base, token, pod_token("pod-b"), sent, answers, acting_for)


class Worlds:
    """Made once for a module, as starting one costs more than most checks."""

    def __init__(self, directory: Path, parts: AsyncExitStack) -> None:
        self._directory = directory
        self._parts = parts
        self._made: dict[tuple[str, bool], World] = {}

    async def get(self, name: str, options: dict[str, Any], via_gateway: bool) -> World:
        found = self._made.get((name, via_gateway))
        if found is None:
            directory = self._directory / f"{name}-{via_gateway}"
            made = world(directory, via_gateway=via_gateway, **options)
            found = self._made[name, via_gateway] = await self._parts.enter_async_context(made)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worlds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worlds]:
    async with AsyncExitStack() as parts:
        yield Worlds(tmp_path_factory.mktemp("a2a"), parts)
