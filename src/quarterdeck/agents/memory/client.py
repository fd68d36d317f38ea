"""Memories at the control plane (``/v1/memories`` on the agents' port)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcpclient import HeaderSource, split_url
from quarterdeck.wire.client import Pool

_PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts: a control plane that is being started again is back within them."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """``saved`` is a date (``2026-11-21``); ``score`` from 0 to 1."""

    id: str
    text: str
    saved: str
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """``stale``: id and text of memories whose vectors are of another model."""

    memories: Sequence[Remembered]
    stale: Sequence[tuple[str, str]]


class MemoryClient:
    """``url`` is ``KAGENT_URL``. All methods raise UpstreamError."""

    def __init__(self, pool: Pool, url: str, headers: HeaderSource) -> None:
        self._pool = pool
        self._origin, base = split_url(url)
        self._base = base.rstrip("/") + "/v1/memories"
        self._headers = headers

    async def save(
        self,
        user: str,
        facts: Sequence[tuple[str, Sequence[float] | None]],
        *,
        model: str,
        ttl_days: int,
        session: str = "",
        turns: int = 0,
    ) -> int:
        """Texts with their vectors. With ``session``: what was learned up to its user message ``turns``, once."""
        items = [{"content": text, **({"vector": list(vector)} if vector else {})} for text, vector in facts]
        source = {"source": "auto", "session": session, "turns": turns} if session else {}
        body = {"user": user, "items": items, "model": model, "ttlDays": ttl_days, **source}
        return len((await self._call("POST", "", body))["ids"])

    async def search(
        self, user: str, text: str, vector: Sequence[float] | None, *, model: str, limit: int, least: float
    ) -> Found:
        body = {"user": user, "text": text, "vector": list(vector or ()), "model": model, "limit": limit,
                "minScore": least}  # fmt: skip
        answer = await self._call("POST", "/search", body)
        found = [Remembered(m["id"], m["content"], m["createdAt"][:10], m["score"]) for m in answer["memories"]]
        return Found(found, [(one["id"], one["content"]) for one in answer["stale"]])

    async def embed(self, user: str, model: str, vectors: Mapping[str, Sequence[float]]) -> None:
        await self._call("POST", "/vectors", {"user": user, "model": model, "vectors": dict(vectors)})

    async def progress(self, user: str, session: str) -> int:
        """Up to which user message of a session its facts were saved."""
        path = f"/progress?user={quote(user, safe='')}&session={quote(session, safe='')}"
        return int((await self._call("GET", path))["turns"])

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else b""
        for pause in (*_PAUSES, None):
            try:
                return await self._once(method, path, data)
            except _Unreachable:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("the last attempt answers or raises")

    async def _once(self, method: str, path: str, data: bytes) -> Any:
        headers = [(b"content-type", b"application/json"), *await self._headers()]
        try:
            response = await self._pool.request(method, self._origin, self._base + path, headers, data, timeout=10.0)
            content = await response.read()
        except (UpstreamError, TimedOut) as error:
            raise _Unreachable(f"the control plane cannot be reached: {error}") from error
        if response.status >= 500:
            raise _Unreachable(f"the control plane gave HTTP {response.status}")
        try:
            document = json.loads(content)
        except ValueError as error:
            raise UpstreamError("the control plane answered with what is not JSON") from error
        if response.status >= 400:
            raise UpstreamError(f"control plane: HTTP {response.status}: {document.get('message', '')}")
        return document


class _Unreachable(UpstreamError):
    """Worth another attempt."""
