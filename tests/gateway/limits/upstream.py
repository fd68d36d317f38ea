"""An MCP server that fails as it is told: real bytes on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

HEAD = b"HTTP/1.1 %d x\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
JSON = b"application/json"


class Upstream:
    """``modes`` are used up one by one, the last one stays."""

    def __init__(self, *modes: str) -> None:
        self.modes = list(modes) or ["ok"]
        self.calls = 0
        self.port = 0
        self.tools: list[dict[str, Any]] = []
        self.waiting = asyncio.Event()
        """Set while a call hangs."""
        self.release = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                message = msgspec.json.decode(await reader.readexactly(size) or b"{}")
                mode = self.modes.pop(0) if len(self.modes) > 1 else self.modes[0]
                if message.get("method") == "tools/call":
                    self.calls += 1
                if not await self._answer(writer, mode, message):
                    writer.transport.abort()
                    return

    async def _answer(self, writer: asyncio.StreamWriter, mode: str, message: dict[str, Any]) -> bool:
        ident: Any = message.get("id")
        status, media = 200, JSON
        result: dict[str, Any] = {"content": [{"type": "text", "text": "done"}]}
        if message.get("method") == "tools/list":
            result = {"tools": self.tools}
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": ident, "result": result})
        if mode == "hang":
            self.waiting.set()
            await self.release.wait()
        elif mode == "reset":
            return False
        elif mode == "cut":
            writer.write(HEAD % (200, JSON, 1000) + b'{"jsonrpc"')
            return False
        elif mode == "stream":
            event = b"event: message\ndata: " + body + b"\n\n"
            writer.write(HEAD % (200, b"text/event-stream", len(event)) + event)
            return True
        elif mode == "internal":
            body = msgspec.json.encode({"jsonrpc": "2.0", "id": ident, "error": {"code": -32603, "message": "broke"}})
        elif mode == "invalid":
            body = msgspec.json.encode({"jsonrpc": "2.0", "id": ident, "error": {"code": -32602, "message": "no"}})
        elif mode == "tool_error":
            body = msgspec.json.encode({"jsonrpc": "2.0", "id": ident, "result": {"content": [], "isError": True}})
        elif mode == "garbage":
            body = b"\xff\xfe not JSON at all"
        elif mode == "html":
            media, body = b"text/html", b"<html>sorry</html>"
        elif mode == "large":
            body = body[:-1] + b',"_pad":"' + b"x" * 200_000 + b'"}'
        elif mode.isdigit():
            status, media, body = int(mode), b"text/plain", b"no"
        writer.write(HEAD % (status, media, len(body)) + body)
        return True


@contextlib.asynccontextmanager
async def serving(*modes: str) -> AsyncIterator[Upstream]:
    upstream = Upstream(*modes)
    await upstream.start()
    try:
        yield upstream
    finally:
        upstream.release.set()
        upstream.stop()
