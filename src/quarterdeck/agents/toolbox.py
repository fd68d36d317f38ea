"""What the model may call: tools of MCP servers behind the gateway, and other agents.

A server that is down costs its tools for now, not the agent: the list is made anew for each turn, from copies at most
half a minute old. Whatever goes wrong in a call is told to the model as the tool's result.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from time import monotonic
from typing import Any

from quarterdeck.errors import Denied, QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.mcpclient import HeaderSource, McpClient, RpcError, SessionEnded
from quarterdeck.mcpclient import Tool as ListedTool
from quarterdeck.mcptypes import protocol
from quarterdeck.snapshot import permits
from quarterdeck.wire.client import Pool

from . import approvals, ask_user
from .config import AgentConfig, HttpTool
from .context import results
from .credentials import FORWARD, forwarded
from .journal.fold import Story
from .model import ToolCall
from .remote import RemoteAgentTool
from .tool import Context, Outcome, Tool

FRESH = 30.0
"""Seconds a server's tool list is used before it is asked for again."""
LISTEN = 60.0
"""Seconds after a turn for which a server is listened to."""
MARGIN = 3.0
"""Seconds we wait longer than the gateway and the bridge do, so that the one that knows why a tool is late says it."""
_TOOLS_CHANGED = "notifications/tools/list_changed"
_NAME = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(slots=True)
class McpTool:
    """One tool of one server under the name the model sees."""

    name: str
    description: str
    schema: dict[str, Any]
    client: McpClient
    upstream: str
    server: str = ""
    repeatable: bool = False
    timeout: float | None = None
    passed_on: Sequence[str] = ()

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        if lost := _lost(self.passed_on):
            raise Denied(
                f"the agent was restarted, and the user's header {lost} that {self.server} needs is not kept; ask the "
                "user to send the request again"
            )
        # a permit is good for one request: the same call once more needs another
        result = await self.client.call_tool(self.upstream, arguments, meta=_meta(context), repeat=not context.permit)
        found = results.read(result)
        # Chat completions have no error flag for tool results: every failure starts with the same word.
        failure = found.failed and not found.text.startswith("Error")
        return Outcome(f"Error: {found.text}" if failure else found.text, found.failed, tuple(found.media))


class Server:
    """One MCP server of the configuration with the copy of its list."""

    def __init__(self, pool: Pool, entry: HttpTool, headers: HeaderSource) -> None:
        self.url = entry.params.url
        self.name = _behind_gateway(entry.params.url)
        self.wanted = tuple(entry.tools)
        self.timeout = entry.timeout
        self.passed_on = tuple(entry.allowed_headers)
        static = [(k.lower().encode(), v.encode()) for k, v in entry.params.headers.items()]

        async def all_headers() -> list[tuple[bytes, bytes]]:
            return [*static, *_passed_on(entry.allowed_headers), *await headers()]

        self.client = McpClient(pool, self.url, headers=all_headers, timeout=entry.params.timeout + MARGIN)
        self.changes = 0
        """How often the server has said that its list changed."""
        self._tools: list[ListedTool] = []
        self._listed_at = float("-inf")
        self._failed: tuple[float, QuarterdeckError | None] = float("-inf"), None
        """When the last attempt to list them failed, and why."""
        self._lock = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None
        self._hearing: asyncio.Timeout | None = None

    async def tools(self) -> list[ListedTool]:
        """Raises QuarterdeckError when the server cannot be asked and there is no copy that is fresh."""
        came = monotonic()
        async with self._lock:
            if monotonic() - self._listed_at > FRESH:
                failed_at, error = self._failed
                if error is not None and failed_at >= came:  # who waited for an attempt does not wait for the next
                    raise error
                await self._list()
        if self._hearing is not None and not self._hearing.expired():
            self._hearing.reschedule(asyncio.get_running_loop().time() + LISTEN)
        elif self.hears and (self._listening is None or self._listening.done()):
            alone = contextvars.Context()  # not as part of the run that happens to come first
            self._listening = asyncio.create_task(self._listen(), name=f"listen-{self.url}", context=alone)
        return self._tools

    async def _list(self) -> None:
        try:
            listed = await self.client.list_tools()
        except QuarterdeckError as error:
            self._failed = monotonic(), error
            raise
        self._tools = [t for t in listed if not self.wanted or t.name in self.wanted]
        self._listed_at = monotonic()

    @property
    def hears(self) -> bool:
        """Whether the server may tell us: who is granted tools by their names gets no stream from the gateway, and each
        attempt would be a denial in its records."""
        return not self.wanted and self.client.tells_of_tools

    async def _listen(self) -> None:
        """Hear of changes while the server is used. A stream that has ended is opened again with the next turn."""
        try:
            async with asyncio.timeout(LISTEN) as self._hearing, contextlib.aclosing(self.client.told()) as messages:
                async for message in messages:
                    if message.get("method") == _TOOLS_CHANGED:
                        self._listed_at = float("-inf")
                        self.changes += 1
        except (QuarterdeckError, TimeoutError):
            return
        finally:
            self._hearing = None

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self.client.close()


class Toolbox:
    """All tools of an agent. ``builtin`` are the host's own; their names are theirs."""

    def __init__(self, pool: Pool, config: AgentConfig, headers: HeaderSource) -> None:
        self.builtin: list[Tool] = [ask_user.AskUser()]
        self._servers = [Server(pool, entry, headers) for entry in [*config.http_tools, *config.sse_tools]]
        self._agents = [RemoteAgentTool(pool, agent, headers) for agent in config.remote_agents]
        self.unavailable: dict[str, str] = {}

    @property
    def changes(self) -> int:
        """Grows when a server says that its tools have changed."""
        return sum(server.changes for server in self._servers)

    async def load(self) -> dict[str, Tool]:
        """The callables by the name the model sees; servers that cannot be asked are noted in ``unavailable``."""
        lists = await asyncio.gather(*(server.tools() for server in self._servers), return_exceptions=True)
        found: dict[str, Tool] = {}
        own: dict[str, Tool] = {tool.name: tool for tool in self.builtin}
        self.unavailable = {}
        for server, listed in zip(self._servers, lists, strict=True):
            if isinstance(listed, QuarterdeckError):
                self.unavailable[server.url] = str(listed)
            elif isinstance(listed, BaseException):
                raise listed
            else:
                for tool in listed:
                    name = _unused(tool.name, server.url, found.keys() | own.keys())
                    found[name] = McpTool(
                        name,
                        tool.description,
                        tool.schema,
                        server.client,
                        tool.name,
                        server.name,
                        _repeatable(tool),
                        server.timeout,
                        server.passed_on,
                    )
        for agent in self._agents:
            found[_unused(agent.name, agent.url, found.keys() | own.keys())] = agent
        return found | own

    async def abandon(self, story: Story, context: Context) -> None:
        """A run that others left is cancelled, and so is what other agents do, or ask, for its open calls."""
        agents = {_NAME.sub("_", agent.name)[:64]: agent for agent in self._agents}
        left = [step for step in story.steps.values() if step.phase != "done" and step.name in agents]
        begun = [(agents[step.name], step.task or step.waits_for) for step in left]
        await asyncio.gather(*(agent.cancel(task, context) for agent, task in begun if task))

    def missing(self) -> str:
        """What the model has to know about servers that could not be asked; empty when all could."""
        lines = [
            f"The tools of server {server_name(url)} are not available now: {reason}"
            for url, reason in sorted(self.unavailable.items())
        ]
        return "\n".join([*lines, "If the request needs them, say so and why."]) if lines else ""

    async def close(self) -> None:
        await asyncio.gather(*(server.close() for server in self._servers))


class Uncertain(Exception):
    """A call through the gateway broke off. ``answered``: the gateway is there, the server is not."""

    def __init__(self, text: str, *, answered: bool) -> None:
        super().__init__(text)
        self.answered = answered


class Unsent(Exception):
    """A call was not carried out: the server no longer knew the session."""


async def carry_out(call: ToolCall, tools: dict[str, Tool], context: Context) -> Outcome:
    """Run one call; every failure becomes a result the model can read, but for :class:`Uncertain`, :class:`Unsent`.

    Raises Pause when the call waits for people.
    """
    if call.problem:
        return Outcome(f"Error: {call.problem}", failed=True)
    tool = tools.get(call.name)
    if tool is None:
        return Outcome(
            f"Error: there is no tool {call.name!r}; the tools are: {', '.join(sorted(tools)) or 'none'}", True
        )
    try:
        outcome = await _in_time(tool, call, context)
    except SessionEnded as error:
        raise Unsent(str(error)) from error
    except UpstreamError as error:
        if isinstance(error, RpcError) and approvals.needs_approval(error):
            raise approvals.paused(error, call) from error
        if tool.server and (not isinstance(error, RpcError) or error.code == protocol.UPSTREAM_FAILED):
            raise Uncertain(str(error), answered=isinstance(error, RpcError)) from error
        return Outcome(f"Error: {error}", failed=True)
    except QuarterdeckError as error:
        return Outcome(f"Error: {error}", failed=True)
    return outcome


async def _in_time(tool: Tool, call: ToolCall, context: Context) -> Outcome:
    """Raises TimedOut where the agent's configuration allows the tool less than it takes."""
    seconds: float | None = getattr(tool, "timeout", None)
    if seconds is None:
        return await tool.call(call.arguments, context)
    try:
        async with asyncio.timeout(seconds):
            return await tool.call(call.arguments, context)
    except TimeoutError:
        raise TimedOut(
            f"{call.name} gave no answer within {seconds:g} s and was cancelled; whether it did anything is not known"
        ) from None


def described(tools: dict[str, Tool]) -> list[dict[str, Any]]:
    """The tools as the chat completions API takes them."""
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": tool.description,
                "parameters": tool.schema or {"type": "object", "properties": {}},
            },
        }
        for name, tool in tools.items()
    ]


def server_name(url: str) -> str:
    """``namespace/server`` of a server behind the gateway; any other URL as it is."""
    return _behind_gateway(url) or url


def _behind_gateway(url: str) -> str:
    _, gateway, name = url.partition("/mcp/")
    return name if gateway else ""


def _repeatable(tool: ListedTool) -> bool:
    hints = tool.raw.get("annotations")
    return isinstance(hints, dict) and (hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True)


def _passed_on(names: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """The user's headers that the agent may pass on to a server. The gateway looks again at which those are."""
    told = forwarded.get()
    found = [(name, told.get(name)) for name in (name.lower() for name in names)]
    return [(f"{FORWARD}{name}".encode(), value.encode("latin-1", "ignore")) for name, value in found if value]


def _lost(names: Sequence[str]) -> str:
    """Those that the user's request had, and that are known no more."""
    told = forwarded.get()
    return ", ".join(name for name in names if told.get(name.lower(), "") is None)


def _meta(context: Context) -> dict[str, Any]:
    """Which step of which run a call is, and that it is permitted."""
    if not context.run:
        return {}
    meta: dict[str, Any] = {
        permits.META_RUN: context.run, permits.META_STEP: context.step, permits.META_KEY: context.key,
    }  # fmt: skip
    meta |= approvals.meta(context)
    return meta | ({permits.META_PERMIT: context.permit} if context.permit else {})


def _unused(name: str, url: str, taken: Set[str]) -> str:
    """A function name that model providers accept and nobody has yet; a clash gets the server's name in front."""
    clean = _NAME.sub("_", name)[:64]
    if clean not in taken:
        return clean
    server = _NAME.sub("_", url.rstrip("/").rsplit("/", 1)[-1])
    candidate = f"{server}_{clean}"[:64]
    number = 2
    while candidate in taken:
        candidate = f"{server}_{clean}"[:61] + f"_{number}"
        number += 1
    return candidate
