"""The control plane's ``/v1/runs`` as an agent host uses it. Writes are repeated while the control plane is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec

from quarterdeck.errors import QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcpclient import HeaderSource, split_url
from quarterdeck.snapshot.runs import Event
from quarterdeck.wire.client import Pool
from quarterdeck.wire.sse import SseParser

from .pause import Fenced

PATIENCE = 60.0
"""Seconds that a write is repeated for; then the run is left to whoever finds it when the control plane is back."""
SILENCE = 60.0
"""Seconds after which a stream of events is opened again: the control plane says at least that it is there."""
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
_NOT_YET = (401, 403, 429)
"""A control plane that was just started does not know yet whose Pods are whose."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """An event to be written."""

    kind: str
    step: int
    data: Json


@dataclass(frozen=True, slots=True)
class Written:
    """Number and time of the first event, permits by step, and whether the run shall end."""

    first: int
    at: float
    permits: dict[int, str]
    cancel: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that is ours now, with its journal."""

    run: Json
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the control plane said to a sign of life."""

    lost: list[str]
    cancel: list[str]
    claimed: list[Claimed]


class Gone(UpstreamError):
    """There is no such run."""


class Refused(UpstreamError):
    """What is to be written will never be taken, however often it is sent."""


class JournalClient:
    """``url`` is ``KAGENT_URL``: the journal is served beside kagent's contract."""

    def __init__(
        self,
        pool: Pool,
        url: str,
        headers: HeaderSource,
        *,
        patience: float = PATIENCE,
        silence: float = SILENCE,
    ) -> None:
        self._pool = pool
        self._origin, base = split_url(url)
        self._base = base.rstrip("/")
        self._headers = headers
        self._patience = patience
        self._silence = silence

    async def create(self, body: Json) -> Json:
        """Begin a run: ``{user, session, task, message, replica, asks}``. Raises UpstreamError."""
        return await self._call("POST", "/v1/runs", body)

    async def append(self, run: str, fence: int, drafts: Sequence[Draft]) -> Written:
        """Raises Fenced, UpstreamError and of these Gone, Refused."""
        events = [{"kind": d.kind, "step": d.step, "data": d.data} for d in drafts]
        body = {"fence": fence, "batch": uuid4().hex, "events": events}
        found = await self._call("POST", f"/v1/runs/{run}/events", body)
        return Written(found["first"], found["at"], {int(k): v for k, v in found["permits"].items()}, found["cancel"])

    async def claim(
        self, replica: str, held: dict[str, int], *, most: int = 0, wait: float = 0.0, only: str = ""
    ) -> Answer:
        """One attempt. Raises UpstreamError."""
        body = {"replica": replica, "held": held, "most": most, "wait": int(wait), "only": only}
        found = await self._once("POST", "/v1/runs/claim", body, timeout=wait + 10.0)
        claimed = [Claimed(run, msgspec.convert(run.pop("events"), list[Event])) for run in found["claimed"]]
        return Answer(found["lost"], found["cancel"], claimed)

    async def release(self, run: str, fence: int) -> None:
        """One attempt: a lease that is not given back lapses. Raises UpstreamError."""
        await self._once("POST", f"/v1/runs/{run}/release", {"fence": fence})

    async def answer(self, run: str, step: int, data: Json) -> None:
        await self._call("POST", f"/v1/runs/{quote(run, safe='')}/answer", {"step": step, "data": data})

    async def cancel(self, run: str) -> None:
        await self._call("POST", f"/v1/runs/{quote(run, safe='')}/cancel", {})

    async def events(self, run: str, after: int = 0) -> tuple[Json, list[Event]]:
        """A run, by its id or its task's, and what was written of it. Raises Gone, UpstreamError."""
        found = await self._call("GET", f"/v1/runs/{quote(run, safe='')}/events?after={after}")
        return found["run"], msgspec.convert(found["events"], list[Event])

    async def watch(self, run: str, after: int = 0) -> AsyncGenerator[Event]:
        """What is written from now on, until the run has ended or waits. Raises Gone, UpstreamError."""
        while True:
            target = f"{self._base}/v1/runs/{quote(run, safe='')}/events?after={after}&watch"
            parser = SseParser()
            try:
                response = await self._pool.request(
                    "GET", self._origin, target, await self._headers(), timeout=self._silence
                )
                if response.status == 404:
                    raise Gone(f"run {run!r} does not exist")
                if response.status != 200:
                    raise UpstreamError(f"GET {target} gave HTTP {response.status}")
                try:
                    chunks = aiter(response)
                    while True:
                        async with asyncio.timeout(self._silence):
                            chunk = await anext(chunks, b"")
                        if not chunk:
                            return
                        for found in parser.feed(chunk):
                            if found.data:
                                event = msgspec.json.decode(found.data, type=Event)
                                after = event.seq
                                yield event
                finally:
                    response.close()
            except Gone:
                raise
            except (UpstreamError, TimedOut, TimeoutError):
                await asyncio.sleep(_PAUSES[-1])

    async def _call(self, method: str, path: str, body: Json | None = None) -> Any:
        """Repeated while the control plane cannot be reached. Raises Fenced, Gone, UpstreamError."""
        until = asyncio.get_running_loop().time() + self._patience
        attempt = 0
        while True:
            try:
                return await self._once(method, path, body)
            except _Unreachable as error:
                pause = _PAUSES[min(attempt, len(_PAUSES) - 1)]
                if asyncio.get_running_loop().time() + pause > until:
                    raise UpstreamError(f"the control plane cannot be reached: {error}") from error
                attempt += 1
                await asyncio.sleep(pause)

    async def _once(self, method: str, path: str, body: Json | None = None, *, timeout: float = 10.0) -> Any:
        headers = [(b"content-type", b"application/json"), *await self._headers()]
        data = msgspec.json.encode(body) if body is not None else b""
        try:
            response = await self._pool.request(method, self._origin, self._base + path, headers, data, timeout=timeout)
            content = await response.read()
        except (UpstreamError, TimedOut) as error:
            raise _Unreachable(str(error)) from error
        if response.status >= 500 or response.status in _NOT_YET:
            raise _Unreachable(f"{method} {path} gave HTTP {response.status}")
        try:
            document = msgspec.json.decode(content)
        except MALFORMED as error:
            raise UpstreamError(f"control plane: {method} {path} answered with what is not JSON") from error
        if response.status >= 400:
            raise _refusal(response.status, f"control plane: {method} {path}: {document.get('message', '')}")
        return document


def _refusal(status: int, text: str) -> QuarterdeckError | Fenced:
    if status == 409:
        return Fenced(text)
    return {400: Refused, 404: Gone, 413: Refused}.get(status, UpstreamError)(text)


class _Unreachable(UpstreamError):
    """Worth another attempt."""
