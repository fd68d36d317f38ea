"""A changed Agent rolls out under load: open conversations go on to their end, new ones find somebody to talk to."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from support.platform import Platform
from support.slow_tool import SlowTool

AGENT = "roller"


def manifests(url: str) -> list[dict[str, Any]]:
    metadata = {"namespace": "kagent"}
    tool = {"type": "McpServer", "mcpServer": {"kind": "RemoteMCPServer", "apiGroup": "kagent.dev", "name": "slow"}}
    return [
        {
            "apiVersion": "kagent.dev/v1alpha2", "kind": "RemoteMCPServer", "metadata": metadata | {"name": "slow"},
            "spec": {"description": "Waits.", "url": url, "timeout": "120s"},
        },
        {
            "apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "metadata": metadata | {"name": AGENT},
            "spec": {
                "type": "Declarative", "description": "Waits for the gate.",
                "declarative": {"systemMessage": "You wait.", "tools": [tool]},
            },
        },
    ]  # fmt: skip


@dataclass
class Load:
    """Conversations of one client, and what became of them."""

    client: httpx.AsyncClient
    url: str
    ended: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    async def stream(self) -> None:
        """One open conversation, read to its end."""
        last: dict[str, Any] = {}
        said = ""
        try:
            async with self.client.stream("POST", self.url, json=_message("message/stream", GATE)) as response:
                async for line in response.aiter_lines():
                    said = line or said
                    if line.startswith("data:"):
                        last = json.loads(line[5:])
        except httpx.HTTPError as error:
            self.failures.append(f"stream: {type(error).__name__}: {error}")
            return
        state = _state(last)
        self.ended[state] += 1
        if state != "completed":
            self.failures.append(f"stream ended with {said[-700:]}")

    async def ask(self, over: asyncio.Event) -> int:
        """Short questions one after the other until ``over``; gives how many."""
        asked = 0
        while not over.is_set():
            asked += 1
            try:
                response = await self.client.post(self.url, json=_message("message/send", "Hello!"))
                answer = response.json()
            except (httpx.HTTPError, ValueError) as error:
                self.failures.append(f"question: {type(error).__name__}: {error}")
                continue
            if _state(answer) != "completed":
                self.failures.append(f"question: HTTP {response.status_code} {response.text[:500]}")
        return asked


GATE = "Please wait for the gate."


def _message(method: str, text: str) -> dict[str, Any]:
    message = {"kind": "message", "messageId": uuid4().hex, "role": "user", "parts": [{"kind": "text", "text": text}]}
    return {"jsonrpc": "2.0", "id": uuid4().hex, "method": method, "params": {"message": message}}


def _state(answer: dict[str, Any]) -> str:
    return str(((answer.get("result") or {}).get("status") or {}).get("state", "none"))


async def until(check: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)


def listens(address: str) -> bool:
    try:
        socket.create_connection((address, 8080), timeout=60).close()
    except ConnectionRefusedError:
        return False
    return True


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work)


async def rolled_under_load(platform: Platform, streams: int) -> None:
    slow = SlowTool()
    url = await slow.start()
    limits = httpx.Limits(max_connections=None)
    async with platform.http(timeout=120, limits=limits) as client:
        try:
            await _roll(platform, Load(client, f"{platform.gateway}/a2a/kagent/{AGENT}"), slow, url, streams)
        finally:
            slow.gate.set()
            await in_thread(lambda: platform.kubectl("delete", "agent", AGENT, "-n", "kagent", ok=False))
            await in_thread(lambda: platform.kubectl("delete", "rmcps", "slow", "-n", "kagent", ok=False))
            await slow.stop()


async def _roll(platform: Platform, load: Load, slow: SlowTool, url: str, streams: int) -> None:
    def kubectl(*args: str) -> Awaitable[Any]:
        return in_thread(lambda: platform.kubectl(*args, "-n", "kagent", timeout=120))

    await in_thread(lambda: platform.apply(*manifests(url)))
    await in_thread(lambda: platform.wait(f"agent/{AGENT}", condition="ResolvedRefs"))
    await in_thread(lambda: platform.wait(f"agent/{AGENT}"))
    before = await in_thread(lambda: platform.pod(f"kagent={AGENT}"))

    began = time.monotonic()
    open_ones = [asyncio.create_task(load.stream()) for _ in range(streams)]
    await until(lambda: slow.waiting == streams or bool(load.failures), f"{streams} open conversations", 90)
    assert load.failures == []
    opened = time.monotonic() - began
    over = asyncio.Event()
    askers = [asyncio.create_task(load.ask(over)) for _ in range(4)]
    change = json.dumps({"spec": {"declarative": {"systemMessage": "You wait, changed."}}})
    await kubectl("patch", "agent", AGENT, "--type=merge", "-p", change)
    await in_thread(lambda: platform.qd("rollout", "status", f"agent/{AGENT}", "-n", "kagent", "--timeout", "90s"))
    rolled = time.monotonic() - began - opened
    name = before["metadata"]["name"]
    leaving = await in_thread(lambda: platform.get("pod", name))
    assert leaving["metadata"]["deletionTimestamp"], "the old Pod is on its way out"
    # its host was told to end, and takes nobody in any more: what is open has nowhere else to go
    await until(lambda: not listens(leaving["status"]["podIP"]), "the old Pod listens no more", 60)
    assert slow.waiting == streams, "conversations were cut"
    over.set()
    asked = sum(await asyncio.gather(*askers))
    slow.gate.set()
    await asyncio.gather(*open_ones)
    took = time.monotonic() - began
    print(f"\n{streams} streams opened in {opened:.1f} s, rolled in {rolled:.1f} s, all over after {took:.1f} s; "
          f"{asked} questions meanwhile; {dict(load.ended)}")  # fmt: skip
    assert load.failures == []
    assert load.ended == {"completed": streams}
    assert asked > 4
    await kubectl("wait", "--for=delete", f"pod/{name}", "--timeout=90s")


@pytest.mark.timeout(240)
async def test_open_conversations_outlive_a_rolling_update(platform: Platform) -> None:
    await rolled_under_load(platform, 20)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_200_open_conversations_outlive_a_rolling_update(platform: Platform) -> None:
    await rolled_under_load(platform, 200)
