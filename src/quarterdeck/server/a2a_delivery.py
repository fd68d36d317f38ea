"""Delivery of push notifications (A2A §4.3.3, §13.2): to public addresses only, signed, tried again with back-off."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from time import time
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from quarterdeck.a2atypes import MEDIA_TYPE
from quarterdeck.errors import ConfigError

from .a2a_queue import PushStore
from .database import Database, Row
from .signing import SigningKey

log = logging.getLogger(__name__)
ATTEMPTS = 12
"""Tries of one notification; with the pauses between them about 40 minutes."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 600.0
TIMEOUT = 15.0
_CLAIM = 60.0
_AT_ONCE = 16
_IDLE = 5.0
_TOKEN_LIFE = 300
SIGNATURE = "X-Quarterdeck-Signature"
"""Header with our JWT over the body: claims iss, aud, iat, exp, jti, task_id, request_body_sha256."""

Send = Callable[[str, dict[str, str], bytes], Awaitable[int]]
"""POST; returns the status, raises OSError or TimeoutError."""


class Guard:
    """Which addresses may be called: public ones, and ``allowed`` networks. Raises ConfigError for what is none."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        try:
            self._allowed: list[IPv4Network | IPv6Network] = [
                ip_network(each.strip()) for each in allowed if each.strip()
            ]
        except ValueError as error:
            raise ConfigError(f"QUARTERDECK_PUSH_ALLOW: {error}; it is a list of networks, e.g. 10.1.0.0/16") from error

    def may(self, address: str) -> bool:
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if any(ip.version == network.version and ip in network for network in self._allowed):
            return True
        return ip.is_global and not ip.is_multicast and not ip.is_reserved

    async def addresses(self, host: str, port: int) -> list[tuple[int, str]]:
        """Family and address of a host, if all of them may be called. Raises OSError that says why not."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [(int(family), str(where[0])) for family, _, _, _, where in found]
        refused = [address for _, address in addresses if not self.may(address)]
        if refused or not addresses:
            raise OSError(f"{host} is no public address; an administrator may allow it with QUARTERDECK_PUSH_ALLOW")
        return addresses

    async def problem(self, url: str, *, unknown_ok: bool = False) -> str:
        """Why a URL must not be called; empty when it may be. ``unknown_ok``: a name may not resolve yet."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            return f"cannot be read: {error}"
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            return "must be an http or https URL without user and password"
        try:
            await self.addresses(parts.hostname, port or (443 if parts.scheme == "https" else 80))
        except socket.gaierror as error:
            return "" if unknown_ok else f"cannot be resolved: {error.strerror}"
        except (OSError, UnicodeError) as error:
            return f"cannot be called: {error}"
        return ""


class _Resolver(AbstractResolver):
    """Resolves at the time of the call, so that a name cannot be pointed elsewhere after it was checked."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, address in await self._guard.addresses(host, port)
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        return None


class Client:
    """HTTP to webhooks: no redirects, no proxies, answers are not read."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._session: aiohttp.ClientSession | None = None

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> int:
        problem = await self._guard.problem(url)  # the resolver is not asked for addresses written as numbers
        if problem:
            raise OSError(problem)
        if self._session is None:
            connector = aiohttp.TCPConnector(resolver=_Resolver(self._guard), use_dns_cache=False, limit=_AT_ONCE)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT), cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                return response.status
        except aiohttp.ClientError as error:
            raise OSError(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Pusher:
    """Empties the queue. Several replicas may: each takes what no other has claimed."""

    def __init__(
        self, database: Database, key: SigningKey, send: Send, *, clock: Callable[[], float] = time, issuer: str = ""
    ) -> None:
        self.store = PushStore(database)
        self._queued = database.queued
        self._key = key
        self._send = send
        self._clock = clock
        self._issuer = issuer or "quarterdeck"

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._queued.clear()
            while await self.step():
                pass
            try:
                async with asyncio.timeout(min(_IDLE, FIRST_PAUSE)):
                    await self._queued.wait()
            except TimeoutError:
                continue

    async def step(self) -> int:
        """Try what is due now, side by side; how many that were."""
        now = self._clock()
        claimed = await self.store.claim(now, now + _CLAIM, _AT_ONCE)
        await asyncio.gather(*(self._deliver(row, config) for row, config in claimed))
        return len(claimed)

    async def _deliver(self, row: Row, config: Row) -> None:
        kept = json.loads(config["config"])
        body = row["body"].encode()
        why = ""
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await self._send(kept["url"], self._headers(row, config, kept, body), body)
            if 200 <= status < 300:
                await self.store.done(row)
                return
            why = f"HTTP {status}"
        except TimeoutError:
            why = f"no answer within {TIMEOUT:g} s"
        except OSError as error:
            why = str(error)
        attempts = row["attempts"] + 1
        where = urlsplit(kept["url"]).netloc.rpartition("@")[2]
        if attempts >= ATTEMPTS:
            log.warning("task %s: notification of %s given up after %d tries: %s", row["task_id"], where, attempts, why)
            await self.store.done(row)
            return
        log.info("task %s: notification of %s failed (%s), try %d", row["task_id"], where, why, attempts)
        await self.store.later(row, self._clock() + pause(attempts))

    def _headers(self, row: Row, config: Row, kept: dict[str, object], body: bytes) -> dict[str, str]:
        headers = {"Content-Type": MEDIA_TYPE if config["version"] != "0.3" else "application/json"}
        headers["User-Agent"] = "quarterdeck"
        if kept.get("token"):
            headers["X-A2A-Notification-Token"] = str(kept["token"])
        parts = urlsplit(str(kept["url"]))
        now = int(self._clock())
        token = self._key.token(
            {
                "iss": self._issuer, "sub": f"agent:{row['agent']}", "aud": f"{parts.scheme}://{parts.netloc}",
                "iat": now, "exp": now + _TOKEN_LIFE, "jti": str(uuid4()), "task_id": row["task_id"],
                "request_body_sha256": hashlib.sha256(body).hexdigest(),
            }
        )  # fmt: skip
        headers[SIGNATURE] = token
        authentication = kept.get("authentication")
        if isinstance(authentication, dict) and authentication.get("scheme"):
            credentials = authentication.get("credentials")
            scheme = str(authentication["scheme"])
            if credentials:
                headers["Authorization"] = f"{scheme} {credentials}"
            elif scheme.lower() in ("bearer", "jwt"):
                headers["Authorization"] = f"Bearer {token}"
        return headers


def pause(attempts: int) -> float:
    """Seconds to wait after so many tries."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempts - 1))
