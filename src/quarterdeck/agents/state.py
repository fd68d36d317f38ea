"""What outlives the Pod: conversations and tasks, kept by the control plane (kagent's REST contract).

The Pod holds no database and no credential but its own token, so a rolled or killed Pod loses nothing it has
acknowledged.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

from quarterdeck.errors import QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.mcpclient import HeaderSource, split_url
from quarterdeck.wire.client import Pool

from .context.conversation import Conversation, conversation_of

_RETRIES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Pauses between attempts: a control plane that is being started again is back within them."""


class ControlPlaneState:
    """Client of ``/api/sessions`` and ``/api/tasks``. ``url`` is ``KAGENT_URL``."""

    def __init__(self, pool: Pool, url: str, headers: HeaderSource) -> None:
        self._pool = pool
        self._origin, base = split_url(url)
        self._base = base.rstrip("/")
        self._headers = headers

    async def conversation(self, user: str, session: str, *, before: str) -> Conversation:
        """What was said in a session until the run ``before`` began; empty for a new one."""
        path = f"/api/sessions/{quote(session, safe='')}?limit=-1&order=asc"
        found = await self._call("GET", path, user, missing_ok=True)
        return conversation_of((found or {}).get("events", []), before)

    async def save_task(self, user: str, task: dict[str, Any]) -> None:
        await self._call("POST", "/api/tasks", user, task)

    async def task(self, task_id: str, user: str = "") -> dict[str, Any] | None:
        """A task of this agent; with ``user``, only if it is that user's."""
        return await self._call("GET", f"/api/tasks/{quote(task_id, safe='')}", user, missing_ok=True)

    async def tasks(self, user: str, session: str) -> list[dict[str, Any]]:
        path = f"/api/sessions/{quote(session, safe='')}/tasks"
        return await self._call("GET", path, user, missing_ok=True) or []

    async def _call(
        self,
        method: str,
        path: str,
        user: str,
        body: dict[str, Any] | None = None,
        *,
        missing_ok: bool = False,
    ) -> Any:
        """One call, repeated while the control plane cannot be reached; None for what is ok. Raises UpstreamError."""
        accepted = {404: missing_ok}
        last: QuarterdeckError | None = None
        for pause in (*_RETRIES, None):
            try:
                return await self._once(method, path, user, body, accepted)
            except _Unreachable as error:
                last = error
            if pause is not None:
                await asyncio.sleep(pause)
        assert last is not None
        raise UpstreamError(f"the control plane cannot be reached: {last}")

    async def _once(
        self, method: str, path: str, user: str, body: dict[str, Any] | None, accepted: dict[int, bool]
    ) -> Any:
        headers = [(b"content-type", b"application/json"), *await self._headers()]
        if user:
            headers.append((b"x-user-id", user.encode()))
        data = json.dumps(body).encode() if body is not None else b""
        try:
            response = await self._pool.request(method, self._origin, self._base + path, headers, data, timeout=10.0)
            content = await response.read()
        except (UpstreamError, TimedOut) as error:
            raise _Unreachable(str(error)) from error
        if accepted.get(response.status):
            return None
        if response.status >= 500:
            raise _Unreachable(f"{method} {path} gave HTTP {response.status}")
        try:
            document = json.loads(content)
        except ValueError as error:
            raise UpstreamError(f"control plane: {method} {path} answered with what is not JSON") from error
        if response.status >= 400:
            raise UpstreamError(
                f"control plane: {method} {path}: HTTP {response.status}: {document.get('message', '')}"
            )
        return document.get("data")


class _Unreachable(UpstreamError):
    """Worth another attempt."""
