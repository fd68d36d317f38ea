"""A proxy in front of an API server that ends TLS and does what networks and servers under stress do.

Writes are refused (409, 429, 500), carried out without an answer, or never arrive, with the connection closed or kept
open in silence; watches are cut in the middle of a
line, held back, or told that their version is too old. What happens to which request is drawn from a seeded generator.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Literal

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web

from quarterdeck.apiserver.security.pki import ensure_pki
from quarterdeck.kube.config import ClientConfig, Credential, ssl_context

Fault = Literal["conflict", "busy", "broken", "unanswered", "lost", "swallowed", "mute"]
FAULTS: tuple[Fault, ...] = ("conflict", "busy", "broken", "unanswered", "lost")
"""409, 429 and 500 without carrying it out; carried out, connection closed; neither carried out nor answered."""
SILENT: tuple[Fault, ...] = ("swallowed", "mute")
"""The client hears nothing and has to give up: not carried out; carried out."""
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_STATUS = {"conflict": (409, "Conflict"), "busy": (429, "TooManyRequests"), "broken": (500, "InternalError")}
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "content-encoding", "host"})


class FaultProxy:
    """``failing``: share of writes (of paths with ``about`` in them) that fail, by one of ``faults``; ``expired``:
    watches that get 410 next; ``flow``: unset, watches wait."""

    def __init__(self, upstream: ClientConfig, seed: int = 0) -> None:
        self.failing = 0.0
        self.about = ""
        self.faults = FAULTS
        self.expired = 0
        self.flow = asyncio.Event()
        self.flow.set()
        self.done: Counter[str] = Counter()
        """Faults so far."""
        self._upstream = upstream
        self._random = Random(seed)
        self._watches: set[web.StreamResponse] = set()
        self._requests: dict[web.StreamResponse, web.Request] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        watch = bool(request.query.get("watch"))
        if watch and self.expired > 0:
            self.expired -= 1
            self.done["expired"] += 1
            return _status(410, "Expired", "too old resource version")
        fault: Fault | None = None
        aimed = request.method in WRITES and self.about in request.path
        if aimed and self._random.random() < self.failing:
            fault = self._random.choice(self.faults)
            self.done[fault] += 1
        if fault in _STATUS:
            code, reason = _STATUS[fault]
            return _status(code, reason, "made to fail")
        if fault == "lost":
            return _hang_up(request)
        if fault == "swallowed":
            return await _say_nothing()
        data = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with self._session.request(
            request.method, self._upstream.base_url + request.raw_path, data=data or None, headers=headers
        ) as answer:
            if fault == "unanswered":
                await answer.read()
                return _hang_up(request)
            if fault == "mute":
                await answer.read()
                return await _say_nothing()
            return await (self._watch(request, answer) if watch else self._whole(request, answer))

    async def _whole(self, request: web.Request, answer: ClientResponse) -> web.StreamResponse:
        body = await answer.read()
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
        return web.Response(status=answer.status, body=body, headers=headers)

    async def _watch(self, request: web.Request, answer: ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watches.add(response)
        self._requests[response] = request
        try:
            async for chunk in answer.content.iter_any():
                await self.flow.wait()
                await response.write(chunk)
        finally:
            self._watches.discard(response)
            self._requests.pop(response, None)
        return response

    async def cut(self) -> int:
        """End every watch in the middle of a line; gives how many."""
        cut = list(self._watches)
        for response in cut:
            request = self._requests.get(response)
            with suppress(ConnectionError, RuntimeError):
                await response.write(b'{"type":"MODIFIED","object":{"kind":"Cut')
            if request is not None and request.transport is not None:
                request.transport.abort()
        self.done["cut"] += len(cut)
        return len(cut)

    @property
    def watches(self) -> int:
        return len(self._watches)

    @asynccontextmanager
    async def serve(self, folder: Path) -> AsyncGenerator[ClientConfig]:
        """Listen on a free port; gives the configuration of a client that goes through it, with the same rights."""
        pki = ensure_pki(folder, ("127.0.0.1",))
        pair = pki.serving_pair()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pair.certificate, pair.key)
        connector = TCPConnector(ssl=ssl_context(self._upstream, Credential()), limit=0, force_close=False)
        self._session = ClientSession(connector=connector, timeout=ClientTimeout(total=None), auto_decompress=True)
        app = web.Application(client_max_size=8 * 1024 * 1024, middlewares=[_unreachable])
        app.router.add_route("*", "/{tail:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
            await site.start()
            yield ClientConfig(
                f"https://127.0.0.1:{runner.addresses[0][1]}", token=self._upstream.token, ca_file=str(pki.ca_path),
                timeout=5.0,
            )  # fmt: skip
        finally:
            self.flow.set()
            await runner.cleanup()
            await self._session.close()


@web.middleware
async def _unreachable(request: web.Request, handler: object) -> web.StreamResponse:
    """The server behind is gone: so is the connection to us."""
    try:
        return await handler(request)  # type: ignore[operator]  # aiohttp's Handler is not public
    except ClientError:
        return _hang_up(request)


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    headers = {"Retry-After": "0"} if code == 429 else None
    return web.json_response(body | {"code": code}, status=code, headers=headers)


async def _say_nothing() -> web.Response:
    """Until the client has had enough, which cancels us."""
    await asyncio.Event().wait()
    raise AssertionError("never set")


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)
