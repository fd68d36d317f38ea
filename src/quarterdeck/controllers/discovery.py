"""Tool discovery: ask MCP servers which tools they have, straight at their endpoints, with back-off per server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from quarterdeck.errors import ConfigError, QuarterdeckError, UpstreamError
from quarterdeck.kube.resource import Key, Object
from quarterdeck.mcpclient import McpClient
from quarterdeck.snapshot import McpServer
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Header
from quarterdeck.wire.tls import client_context

DISABLED = "kagent.dev/discovery"
_DESCRIPTION_LIMITS = (2048, 256, 64, 0)
_STATUS_LIMIT = 512 * 1024
"""Bytes; etcd takes 1.5 MiB an object, which the spec and the managed fields share."""
_AT_ONCE = 16
_DEADLINE = 20.0
"""Seconds for all pages of a server's tools."""
Slot = tuple[str, str, str]


@dataclass(slots=True)
class Found:
    """What a server said last. ``again_in``: seconds until it is asked again."""

    tools: list[Object] = field(default_factory=list[Object])
    error: str = ""
    again_in: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Of all tools, sorted."""
        return tuple(sorted(str(tool.get("name", "")) for tool in self.tools))

    def listed(self, *members: str) -> list[Object]:
        """As status.discoveredTools: sorted, and of a size that an object in etcd can carry.

        Descriptions are cut first, then the list. ``members`` are kept of each tool, too.
        """
        named = sorted(self.tools, key=lambda tool: str(tool.get("name", "")))
        tools: list[Object] = []
        for limit in _DESCRIPTION_LIMITS:
            tools = [
                {"name": str(tool.get("name", "")), "description": str(tool.get("description") or "")[:limit]}
                | {member: tool[member] for member in members}
                for tool in named
            ]
            if _size(tools) <= _STATUS_LIMIT:
                return tools
        while _size(tools) > _STATUS_LIMIT:
            tools = tools[: len(tools) * 9 // 10]
        return tools

    def summary(self) -> str:
        """For a condition."""
        count, shown = len(self.tools), len(self.listed())
        return f"Discovered {count} tools" + (f"; the status lists {shown} of them" if shown < count else "")


def _size(tools: list[Object]) -> int:
    return len(msgspec.json.encode(tools))


@dataclass(slots=True)
class _Known:
    server: McpServer
    found: Found
    due: float
    failures: int


class Discovery:
    """Asks servers in the background, a few at a time, and remembers their answers; reconcilers never wait for one.

    A server is asked again after ``interval`` seconds, or 2, 4, … up to that after failures. ``answered`` is called
    with each server that has said something, or failed to. ``refuse`` is the Pool's.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        interval: float,
        answered: Callable[[McpServer], None],
        refuse: Callable[[str, str, int], str] | None = None,
        *,
        at_once: int = _AT_ONCE,
        deadline: float = _DEADLINE,
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._answered = answered
        self._refuse = refuse
        self._deadline = deadline
        self._limit = asyncio.Semaphore(at_once)
        self._known: dict[Slot, _Known] = {}
        self._asking: dict[Slot, tuple[McpServer, asyncio.Task[None]]] = {}

    def forget(self, kind: str, key: Key) -> None:
        slot = (kind, key.namespace, key.name)
        self._known.pop(slot, None)
        if slot in self._asking:
            self._asking.pop(slot)[1].cancel()

    def tools(self, server: McpServer) -> Found | None:
        """What the server said last; None while it is being asked (``answered`` tells when that is over)."""
        slot = _slot(server)
        known = self._known.get(slot)
        now = self._clock()
        if known is not None and known.server == server and now < known.due:
            return Found(known.found.tools, known.found.error, known.due - now)
        asking = self._asking.get(slot)
        if asking is not None and asking[0] == server:
            return None
        if asking is not None:
            asking[1].cancel()
        failures = known.failures if known is not None and known.server == server else 0
        task = asyncio.create_task(self._ask(server, failures), name=f"discovery {'/'.join(slot)}")
        self._asking[slot] = (server, task)
        return None

    def known(self, slot: Slot) -> list[Object] | None:
        """The definitions that a server gave last; None when it has given none yet."""
        known = self._known.get(slot)
        return known.found.tools if known is not None and not known.found.error else None

    async def run(self) -> None:
        """Own the questions: they end when this is cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            tasks = [task for _, task in self._asking.values()]
            self._asking.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, server: McpServer, failures: int) -> None:
        slot = _slot(server)
        try:
            async with self._limit, asyncio.timeout(self._deadline):
                found = Found(await list_tools(server, self._refuse))
            failures, wait = 0, self._interval
        except (QuarterdeckError, TimeoutError) as error:
            text = str(error) or f"no answer within {self._deadline:g} s"
            found = Found(error=f"{server.kind} {server.namespace}/{server.name}: {text}")
            wait = min(2.0 * 2**failures, self._interval)
            failures += 1
        self._known[slot] = _Known(server, found, self._clock() + wait, failures)
        self._asking.pop(slot, None)
        self._answered(server)


def _slot(server: McpServer) -> Slot:
    return server.kind, server.namespace, server.name


async def list_tools(server: McpServer, refuse: Callable[[str, str, int], str] | None = None) -> list[Object]:
    """All tools of a server, every page. Raises QuarterdeckError saying what failed."""
    if not server.endpoints:
        raise UpstreamError(f"{server.authority} has no ready endpoints".lstrip())
    if server.protocol == "SSE":
        raise ConfigError("protocol SSE cannot be discovered; use STREAMABLE_HTTP")
    context: ssl.SSLContext | None = None
    if server.tls:
        context = client_context(
            insecure=server.tls_insecure, ca_pem=server.tls_ca, system=server.tls_system, where=server.name
        )
    name = server.authority.rsplit(":", 1)[0] if server.tls else None
    endpoint = server.endpoints[0]
    authority = server.authority or f"{endpoint.host}:{endpoint.port}"
    headers = [(header.name.lower().encode(), header.value.encode()) for header in server.headers]

    async def attached() -> list[Header]:
        return headers

    pool = Pool(tls=context, server_hostname=name, body_limit=16 * 1024 * 1024, refuse=refuse)
    url = f"{'https' if server.tls else 'http'}://{authority}{server.path}"
    origin = (endpoint.host, endpoint.port, server.tls)
    client = McpClient(pool, url, headers=attached, timeout=server.timeout, origin=origin)
    try:
        return [tool.raw for tool in await client.list_tools()]
    finally:
        await client.close()
        pool.close()
