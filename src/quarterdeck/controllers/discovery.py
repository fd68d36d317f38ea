"""Tool discovery: ask MCP servers which tools they have, straight at their endpoints, with back-off per server."""

from __future__ import annotations

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

    def listed(self) -> list[Object]:
        """As status.discoveredTools: sorted, and of a size that an object in etcd can carry.

        Descriptions are cut first, then the list.
        """
        named = sorted(self.tools, key=lambda tool: str(tool.get("name", "")))
        tools: list[Object] = []
        for limit in _DESCRIPTION_LIMITS:
            tools = [
                {"name": str(tool.get("name", "")), "description": str(tool.get("description") or "")[:limit]}
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
    """Remembers each server's answer; asks again after ``interval`` seconds, or 2, 4, … up to that after failures."""

    def __init__(self, clock: Callable[[], float], interval: float = 60.0) -> None:
        self._clock = clock
        self._interval = interval
        self._known: dict[tuple[str, str, str], _Known] = {}

    def forget(self, kind: str, key: Key) -> None:
        self._known.pop((kind, key.namespace, key.name), None)

    async def tools(self, server: McpServer) -> Found:
        """The server's tools; from memory while nothing about the server changed and it is not due again."""
        slot = (server.kind, server.namespace, server.name)
        known = self._known.get(slot)
        now = self._clock()
        if known is not None and known.server == server and now < known.due:
            return Found(known.found.tools, known.found.error, known.due - now)
        failures = known.failures if known is not None and known.server == server else 0
        try:
            found = Found(await list_tools(server))
            failures = 0
            wait = self._interval
        except QuarterdeckError as error:
            found = Found(error=f"{server.kind} {server.namespace}/{server.name}: {error}")
            wait = min(2.0 * 2**failures, self._interval)
            failures += 1
        found.again_in = wait
        self._known[slot] = _Known(server, found, self._clock() + wait, failures)
        return found


async def list_tools(server: McpServer) -> list[Object]:
    """All tools of a server, every page. Raises QuarterdeckError saying what failed."""
    if not server.endpoints:
        raise UpstreamError(f"{server.authority} has no ready endpoints".lstrip())
    if server.protocol == "SSE":
        raise ConfigError("protocol SSE cannot be discovered; use STREAMABLE_HTTP")
    context: ssl.SSLContext | None = None
    if server.tls:
        context = client_context(insecure=server.tls_insecure, ca_pem=server.tls_ca, where=server.name)
    name = server.authority.rsplit(":", 1)[0] if server.tls else None
    endpoint = server.endpoints[0]
    authority = server.authority or f"{endpoint.host}:{endpoint.port}"
    headers = [(header.name.lower().encode(), header.value.encode()) for header in server.headers]

    async def attached() -> list[Header]:
        return headers

    pool = Pool(tls=context, server_hostname=name, body_limit=16 * 1024 * 1024)
    url = f"{'https' if server.tls else 'http'}://{authority}{server.path}"
    origin = (endpoint.host, endpoint.port, server.tls)
    client = McpClient(pool, url, headers=attached, timeout=server.timeout, origin=origin)
    try:
        return [tool.raw for tool in await client.list_tools()]
    finally:
        await client.close()
        pool.close()
