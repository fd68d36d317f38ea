"""Requests of the gateway's own to services that the configuration names: issuers, authorizers, token endpoints."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.wire.client import Origin, Pool
from quarterdeck.wire.http import Header

from ..upstream import Upstreams

LIMIT = 1024 * 1024
"""Bytes of an answer that are read; a longer one is an error."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response; header names are lower case."""

    status: int
    headers: list[Header]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None


def parse_url(url: str, where: str) -> SplitResult:
    """An http(s) URL without user name. Raises ConfigError naming ``where``."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{where}: {url!r} is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ConfigError(f"{where}: {url!r} must be http(s)://host[:port]/path")
    return parts


def origin_of(parts: SplitResult) -> Origin:
    secure = parts.scheme == "https"
    return parts.hostname or "", parts.port or (443 if secure else 80), secure


class Fetcher:
    """Uses the pools of the gateway's upstreams, so the same addresses are refused. Redirects are not followed."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    async def request(
        self,
        method: str,
        url: str,
        headers: list[Header] | tuple[Header, ...] = (),
        body: bytes = b"",
        *,
        timeout: float = 5.0,
        limit: int = LIMIT,
    ) -> Answer:
        """Raises ConfigError for a bad URL, UpstreamError and TimedOut (``timeout`` is for the whole exchange)."""
        parts = parse_url(url, "request")
        origin = origin_of(parts)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        pool = self._pool(parts.netloc)
        if not any(name == b"host" for name, _ in headers):
            headers = [(b"host", parts.netloc.encode()), *headers]
        try:
            async with asyncio.timeout(timeout):
                response = await pool.request(method, origin, target, headers, body, timeout=timeout)
                return Answer(response.status, response.headers, await response.read(limit))
        except TimeoutError:
            raise TimedOut(
                f"{method} {parts.scheme}://{parts.netloc}{parts.path} took more than {timeout:g} s"
            ) from None

    def _pool(self, where: str) -> Pool:
        return self._upstreams.pool(where=where)

    async def get_json(self, url: str, *, timeout: float = 5.0) -> bytes:
        """The body of a 200 answer. Raises UpstreamError for any other."""
        answer = await self.request("GET", url, [(b"accept", b"application/json")], timeout=timeout)
        if answer.status != 200:
            raise UpstreamError(f"GET {url} gave HTTP {answer.status}")
        return answer.body
