"""Where snapshots come from: the control plane's stream, or a file."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from quarterdeck.errors import ConfigError, Denied, QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot import Snapshot, decode
from quarterdeck.wire.client import Origin, Pool
from quarterdeck.wire.http import Header
from quarterdeck.wire.tls import client_context

_LINE_LIMIT = 256 * 1024 * 1024
_SILENCE = 90.0  # seconds without a byte (the control plane sends blank lines) after which the stream is given up

Accept = Callable[[Snapshot, bytes], None]
"""Takes a snapshot and its line into use. Raises QuarterdeckError when it cannot be served."""


class Backoff(Protocol):
    """Waits between attempts."""

    def __call__(self, attempt: int) -> Awaitable[None]: ...


async def wait_with_jitter(attempt: int) -> None:
    """0.2 s, doubling to 10 s, each ± 30 %."""
    await asyncio.sleep(min(0.2 * 2 ** min(attempt, 6), 10.0) * random.uniform(0.7, 1.3))  # noqa: S311 - no secret


def read_file(path: Path) -> tuple[Snapshot, bytes]:
    """A snapshot out of a JSON file. Raises ConfigError naming file and place."""
    try:
        line = path.read_bytes()
        return decode(line), line
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}") from error


class ControlPlane:
    """Follows ``GET /v1/gateways/{namespace}/{name}/config?watch`` and acknowledges what comes."""

    def __init__(
        self,
        url: str,
        gateway: str,
        token_file: Path | None,
        accept: Accept,
        log: Callable[[str], None],
        *,
        ca_pem: str = "",
        backoff: Backoff = wait_with_jitter,
        problems: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """``problems``: listener → why it cannot be served here; told with each acknowledgement."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--control-plane {url!r} must be http(s)://host:port")
        secure = parts.scheme == "https"
        self._origin: Origin = (parts.hostname, parts.port or (443 if secure else 80), secure)
        self._path = f"{parts.path.rstrip('/')}/v1/gateways/{gateway}/config"
        self._token_file = token_file
        self._accept = accept
        self._log = log
        self._backoff = backoff
        self._problems = problems
        self._pool = Pool(tls=client_context(ca_pem=ca_pem) if secure else None)
        self.connected = False
        self.rejected = 0

    async def run(self) -> None:
        """Until cancelled: connect, read, and connect again."""
        attempt = 0
        while True:
            try:
                await self._follow()
                attempt = 0
            except (UpstreamError, TimedOut, ConfigError, TimeoutError) as error:
                if attempt == 0 or self.connected:
                    self._log(f"control plane {self._origin[0]}:{self._origin[1]}: {error}; serving the last good")
                attempt = 1 if self.connected else attempt + 1
            self.connected = False
            await self._backoff(attempt)

    async def _follow(self) -> None:
        response = await self._pool.request("GET", self._origin, f"{self._path}?watch", self._headers(), timeout=10.0)
        if response.status != 200:
            body = (await response.read())[:300].decode("utf-8", "replace")
            raise UpstreamError(f"GET {self._path} gave HTTP {response.status}: {body}")
        self.connected = True
        pending = bytearray()
        chunks = aiter(response)
        try:
            while True:
                # Not wait_for: Python 3.11's swallows a cancellation that arrives together with the chunk.
                async with asyncio.timeout(_SILENCE):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                pending += chunk
                if b"\n" in chunk:
                    *lines, rest = bytes(pending).split(b"\n")
                    pending = bytearray(rest)
                    for line in lines:
                        if line.strip():
                            await self._take(line)
                elif len(pending) > _LINE_LIMIT:
                    raise UpstreamError(f"a snapshot is larger than {_LINE_LIMIT} bytes")
        finally:
            response.close()

    async def _take(self, line: bytes) -> None:
        version = ""
        errors: list[str] = []
        try:
            version = msgspec.json.decode(line, type=_Version).version
            self._accept(decode(line), line)
        except (msgspec.DecodeError, QuarterdeckError) as error:
            errors.append(str(error))
            self.rejected += 1
            self._log(f"snapshot {version or '?'} is refused, the previous one stays: {error}")
        if version:
            await self.acknowledge(version, errors)

    async def acknowledge(self, version: str, errors: Sequence[str] = ()) -> None:
        """Say that a version is served, or why not. Raises UpstreamError, TimedOut, ConfigError."""
        told: dict[str, object] = {"accepted": not errors, "errors": errors}
        problems = self._problems()
        if problems:
            told["problems"] = problems
        body = msgspec.json.encode(told)
        headers = [*self._headers(), (b"content-type", b"application/json")]
        response = await self._pool.request("POST", self._origin, f"{self._path}/{version}/ack", headers, body)
        await response.read()
        if response.status >= 300:
            self._log(f"the control plane answered the acknowledgement of {version} with HTTP {response.status}")

    async def post(self, what: str, body: bytes) -> None:
        """Tell the control plane something about this gateway. Raises QuarterdeckError when it does not take it."""
        # a kept connection would lead to the same replica of the control plane again, and only one of them leads
        headers = [*self._headers(), (b"content-type", b"application/json"), (b"connection", b"close")]
        path = f"{self._path.rpartition('/')[0]}/{what}"
        try:
            response = await self._pool.request("POST", self._origin, path, headers, body, timeout=10.0)
            answer = await response.read()
        except TimeoutError as error:
            raise TimedOut(f"POST {path}: no answer") from error
        if response.status >= 300:
            text = answer[:300].decode("utf-8", "replace")
            raise UpstreamError(f"POST {path} gave HTTP {response.status}: {text}")

    async def ask(self, path: str, body: bytes) -> bytes:
        """``POST /v1/{path}``; any replica answers. Raises Denied for 403, other QuarterdeckErrors for what fails."""
        headers = [*self._headers(), (b"content-type", b"application/json")]
        target = f"{self._path.partition('/v1/')[0]}/v1/{path}"
        try:
            response = await self._pool.request("POST", self._origin, target, headers, body, timeout=10.0)
            answer = await response.read()
        except TimeoutError as error:
            raise TimedOut(f"the control plane gave no answer to POST /v1/{path}") from error
        if response.status >= 300:
            try:
                text = msgspec.json.decode(answer, type=_Failure).error.message
            except MALFORMED:
                text = answer[:300].decode("utf-8", "replace")
            raise (Denied if response.status == 403 else UpstreamError)(text or f"HTTP {response.status}")
        return answer

    def _headers(self) -> list[Header]:
        if self._token_file is None:
            return []
        try:
            token = self._token_file.read_bytes().strip()  # rotated by the kubelet or node: read each time
        except OSError as error:
            raise ConfigError(f"--token-file {self._token_file}: {error.strerror}") from error
        return [(b"authorization", b"Bearer " + token)]


class _Version(msgspec.Struct):
    version: str = ""


class _Message(msgspec.Struct):
    message: str = ""


class _Failure(msgspec.Struct):
    error: _Message
