"""Other processes of the same gateway: workers on this machine, replicas elsewhere.

What only one process can do (a held call, a merged stream, a server of another transport or era) is passed to it, with
the caller it was authenticated as. ``owner`` says where that process is reached, and which start of it is meant: it is
part of sealed tokens, so nobody but the gateway can name an address. An owner that is gone is 404 to clients with
sessions, who then initialise again, and a JSON-RPC error to others.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from hashlib import sha256
from os import urandom
from pathlib import Path
from time import time
from typing import Any

import msgspec
from msgspec import Struct

from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.wire.client import Origin, Pool
from quarterdeck.wire.http import Disconnected, Exchange, Limits, Server

from ..policy.principal import Principal
from .answers import Answers, departure, first
from .call import McpCall, Problem
from .groups import McpGroup
from .session import SessionSealer

Handle = Callable[[Exchange, McpGroup, Principal], Coroutine[Any, Any, None] | None]
Address = tuple[str, int]
HEADER = b"x-quarterdeck-peer"
_GONE = b"x-quarterdeck-gone"
_BINDING = b"peer"
_FRESH = 60.0
"""Seconds within which a passed request must arrive: clocks differ, and nothing is to be replayed later."""
_HOP = frozenset(
    {b"connection", b"transfer-encoding", b"content-length", b"date", b"keep-alive", b"authorization", HEADER}
)


class Passed(Struct, array_like=True):
    """What the receiver is told of a request, sealed."""

    owner: str
    group: str
    at: float
    principal: dict[str, Any]
    request: bytes
    """SHA-256 of method, target and body: it is good for no other request."""
    nonce: bytes
    """It is good once."""


class Peers:
    """This process among the others. ``owner`` is its name in tokens; give it :attr:`handle` and :attr:`find`."""

    def __init__(self, sealer: SessionSealer, answers: Answers) -> None:
        self.boot = urandom(8).hex()
        self.owner = f"{self.boot}@"
        self.handle: Handle | None = None
        self.find: Callable[[str], McpGroup | None] = _nowhere
        """A group by its key."""
        self._sealer = sealer
        self._answers = answers
        self._pool = Pool(connect_timeout=2.0)
        self._server: Server | None = None
        self._taken: OrderedDict[bytes, float] = OrderedDict()
        """Nonces of requests that came, and until when they must be remembered."""

    async def start(self, where: Address | Path | None, warn: Callable[[str], None]) -> None:
        """Be reached at an address or by a socket in a directory. Raises ConfigError when the address is taken."""
        try:
            if isinstance(where, Path):
                await self.listen_unix(where)
            elif where is not None:
                await self.listen(*where)
        except OSError as error:
            if not isinstance(where, Path):
                raise ConfigError(f"--peers: cannot listen on {where}: {error.strerror or error}") from error
            # one process needs no others; where there are several, sessions they cannot pass on are told to begin anew
            warn(f"other workers cannot reach this one: no socket in {where}: {error.strerror or error}")

    async def listen_unix(self, directory: Path) -> None:
        """Be reached by the other workers of this machine. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in directory.glob("*.sock"):
            if await _deserted(left):
                left.unlink(missing_ok=True)
        path = directory / f"{self.boot}.sock"
        self._server = Server(self._received, name="peers", limits=Limits())
        await self._server.listen_unix(str(path))
        self.owner = f"{self.boot}@{path}"

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Be reached by other replicas; the address must be one that they can reach. Raises OSError."""
        self._server = Server(self._received, name="peers", limits=Limits())
        bound = await self._server.listen(host, port)
        self.owner = f"{self.boot}@{bound[0]}:{bound[1]}"
        return bound

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
        self._pool.close()

    # -- towards the owner
    async def pass_on(self, call: McpCall, owner: str) -> None:
        """Have ``owner`` answer a request."""
        exchange = call.exchange
        origin = _origin(owner)
        if origin is None or owner == self.owner:
            self._gone(call)
            return
        principal = msgspec.to_builtins(call.principal, enc_hook=_bare)
        told = Passed(owner, call.group.key, time(), principal, _digest(exchange), urandom(12))
        sealed = self._sealer.seal_bytes(msgspec.msgpack.encode(told), _BINDING)
        headers = [(k, v) for k, v in exchange.headers if k not in _HOP] + [(HEADER, sealed)]
        target = exchange.target.decode("latin-1")
        try:
            response = await self._pool.request(exchange.method, origin, target, headers, exchange.body, timeout=None)
        except (UpstreamError, TimedOut):
            self._gone(call)
            return
        if response.header(_GONE) is not None:
            response.close()
            self._gone(call)
            return
        gone = departure(exchange)
        call.done = True  # the owner records it
        exchange.start(response.status, [(k, v) for k, v in response.headers if k not in _HOP])
        try:
            chunks = aiter(response)
            while (chunk := await first(_chunk(chunks), gone)) is not None:
                await exchange.send(chunk)
            if not gone.done():
                exchange.finish()
        except Disconnected:
            pass
        except UpstreamError:
            exchange.abort()
        finally:
            response.close()

    def _gone(self, call: McpCall) -> None:
        if call.modern:
            text = "the process that held this call is gone; send the request anew, without requestState"
            self._answers.error(call, protocol.INVALID_PARAMS, text)
        else:
            text = "the process that kept this session is gone; initialize again"
            self._answers.invalid(call, Problem(text, status=404))

    # -- as the owner
    def _received(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """A request that another process passed to us."""
        headers = exchange.context = dict(exchange.headers)
        sealed = headers.pop(HEADER, b"")
        exchange.headers = [(k, v) for k, v in exchange.headers if k != HEADER]
        data = self._sealer.open_bytes(sealed, _BINDING)
        try:
            told = msgspec.msgpack.decode(data, type=Passed) if data is not None else None
            principal = _principal(told.principal) if told is not None else None
        except (msgspec.DecodeError, TypeError):
            told = principal = None
        if told is None or principal is None or not self._first_time(told, exchange):
            body = jsonrpc.error_response(
                b"null", protocol.INVALID_REQUEST, "this port is for the gateway's own processes"
            )
            exchange.respond(403, body, [(b"content-type", b"application/json")])
            return None
        group = self.find(told.group)
        if told.owner != self.owner or group is None or self.handle is None:
            exchange.respond(404, b"", [(_GONE, b"1")])
            return None
        exchange.route = group.ref
        return self.handle(exchange, group, principal)

    def _first_time(self, told: Passed, exchange: Exchange) -> bool:
        """Whether this is the request that was passed, in time, and not one that somebody sends again."""
        now = time()
        while self._taken and next(iter(self._taken.values())) < now:
            self._taken.popitem(last=False)
        if abs(now - told.at) > _FRESH or told.request != _digest(exchange) or told.nonce in self._taken:
            return False
        self._taken[told.nonce] = now + 2 * _FRESH
        return True


def _digest(exchange: Exchange) -> bytes:
    return sha256(b"%b %b\0%b" % (exchange.method.encode(), exchange.target, exchange.body)).digest()


def _bare(value: Any) -> str:
    """The text of a hidden value: what is sealed may hold it."""
    return str(value.value)


def _principal(told: dict[str, Any]) -> Principal:
    """The caller as the other process knew it. Raises TypeError."""
    key = told.get("api_key", {}).get("key")
    if isinstance(key, str):
        from ..policy.attributes import api_key_value

        told = {**told, "api_key": api_key_value(told["api_key"], key)}
    return Principal(**told)


def _origin(owner: str) -> Origin | None:
    """Where an owner listens; None when it is not reached from outside."""
    _, _, address = owner.partition("@")
    if address.startswith("/"):
        return (address, 0, False)
    host, _, port = address.rpartition(":")
    return (host, int(port), False) if host and port.isdigit() else None


async def _deserted(path: Path) -> bool:
    """Whether nobody listens at a socket any more: its process was killed."""
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:
        return False
    writer.close()
    return False


def _nowhere(key: str) -> McpGroup | None:
    del key
    return None


async def _chunk(chunks: Any) -> bytes | None:
    try:
        return await asyncio.ensure_future(anext(chunks))
    except StopAsyncIteration:
        return None
