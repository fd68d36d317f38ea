"""The 2026-07-28 side of the bridge: each request stands alone, one process answers all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from msgspec import Raw

from quarterdeck.errors import UpstreamError
from quarterdeck.mcptypes import LEGACY_VERSIONS, MODERN_VERSIONS, modern, protocol
from quarterdeck.mcptypes.jsonrpc import Message, error_response
from quarterdeck.wire.http import Exchange

from .frames import member
from .link import Link
from .processes import Processes
from .reply import Reply

_JSON = [(b"content-type", b"application/json")]
_PAGES = 100
_CHANGED = b"notifications/tools/list_changed"

Send = Callable[[Exchange, Link, Message, Reply, float], Coroutine[Any, Any, None]]


class Stateless:
    """Answers requests of the modern era. ``send`` passes one on to the process and waits for its answer."""

    def __init__(self, processes: Processes, send: Send) -> None:
        self._processes = processes
        self._config = processes.config
        self._send = send
        self._link: Link | None = None
        self._mirrored: dict[str, dict[modern.Path, str]] | None = None
        self._starting = asyncio.Lock()

    async def post(self, exchange: Exchange, message: Message) -> None:
        if not isinstance(message.id, Raw):
            exchange.respond(202)
            return
        request_id = bytes(message.id)
        refused = self._refusal(exchange, message)
        if refused is not None:
            code, text, data = refused
            exchange.respond(modern.status_of(code), error_response(request_id, code, text, data), _JSON)
            return
        reply = Reply(exchange, request_id, modern=True)
        stop = reply.starting()
        try:
            link = await self._process()
            problem = await self._parameters(exchange, message, link)
        except UpstreamError as error:
            reply.on_failure(error)
            return
        finally:
            stop()
        if problem:
            reply.on_answer(error_response(request_id, protocol.HEADER_MISMATCH, problem))
            return
        await self._send(exchange, link, message, reply, self._timeout(message))

    def _timeout(self, message: Message) -> float:
        return 0.0 if message.method == "subscriptions/listen" else self._config.timeout

    def _refusal(self, exchange: Exchange, message: Message) -> tuple[int, str, object] | None:
        """Code, text and data of the answer to a request that does not reach the process."""
        header = (exchange.header(protocol.H_VERSION) or b"").decode("latin-1")
        try:
            envelope = modern.envelope(message)
        except msgspec.ValidationError as error:
            return protocol.INVALID_PARAMS, f"the request is not one of 2026-07-28: {error}", None
        if envelope.version != header:
            text = f"MCP-Protocol-Version {header!r} does not match _meta {envelope.version!r}"
            return protocol.HEADER_MISMATCH, text, None
        known = MODERN_VERSIONS if self._processes.modern or not self._processes.ready else ()
        if envelope.version not in known:
            data = {"supported": list(known or LEGACY_VERSIONS), "requested": envelope.version}
            return protocol.UNSUPPORTED_VERSION, f"MCP server {self._config.name} does not speak this version", data
        if message.method in modern.REMOVED:
            return protocol.METHOD_NOT_FOUND, f"{message.method} is no method of {envelope.version}", None
        return None

    async def _process(self) -> Link:
        async with self._starting:
            if self._link is None or not self._link.child.alive:
                self._link, self._mirrored = await self._greeted(), None
            return self._link

    async def _greeted(self) -> Link:
        """A process that has been spoken to; a spare that has ended meanwhile is replaced, once."""
        link = Link(await self._processes.take(), self._unsolicited)
        try:
            await self._processes.greet(link)
        except UpstreamError:
            if link.child.alive:
                raise
            link = Link(await self._processes.take(), self._unsolicited)
            await self._processes.greet(link)
        return link

    def _unsolicited(self, message: bytes) -> bool:
        if _CHANGED in message:
            self._mirrored = None
        return False

    # -- arguments that travel as headers too
    async def _parameters(self, exchange: Exchange, message: Message, link: Link) -> str:
        """What is wrong with the ``Mcp-Param-*`` headers; empty when nothing is."""
        if message.method != protocol.TOOLS_CALL:
            return ""
        if self._mirrored is None:
            self._mirrored = await self._read_tools(link)
        name = member(message.params, "name")
        known = msgspec.json.decode(name) if name is not None else None
        mapping = self._mirrored.get(known) if isinstance(known, str) else None
        if not mapping:
            return ""
        arguments = member(message.params, "arguments")
        decoded = msgspec.json.decode(arguments) if arguments is not None else None
        return modern.param_problem(mapping, decoded, exchange.headers)

    async def _read_tools(self, link: Link) -> dict[str, dict[modern.Path, str]]:
        found: dict[str, dict[modern.Path, str]] = {}
        cursor: str | None = None
        for _ in range(_PAGES):
            answer = await self._processes.ask_modern(link, protocol.TOOLS_LIST, {"cursor": cursor} if cursor else {})
            if not isinstance(answer.result, Raw):
                break
            result = msgspec.json.decode(answer.result)
            for tool in result.get("tools") or ():
                if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
                    continue  # the client gets the list as it is; there is nothing to compare headers with
                mapping = modern.mirrored(tool.get("inputSchema"))
                if mapping:
                    found[tool["name"]] = mapping
            cursor = result.get("nextCursor")
            if not cursor:
                break
        return found
