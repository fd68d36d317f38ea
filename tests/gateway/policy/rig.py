"""Requests as a chain sees them, without sockets; issuers and other services as real HTTP servers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from quarterdeck.gateway.call import Call
from quarterdeck.gateway.policy.chain import Chain
from quarterdeck.gateway.policy.refusal import Refusal
from quarterdeck.gateway.policy.services import Services
from quarterdeck.gateway.upstream import Upstreams
from quarterdeck.snapshot.policies import Jwt, JwtProvider, Policies
from quarterdeck.wire.http import Exchange, Server

NOW = 1_700_000_000.0
KEY = ECKey.generate_key("P-256", {"kid": "k1", "use": "sig", "alg": "ES256"})
OTHER = ECKey.generate_key("P-256", {"kid": "k2", "use": "sig", "alg": "ES256"})
RSA = RSAKey.generate_key(2048, {"kid": "r1", "use": "sig"})
ISSUER = "https://issuer.example.org/realms/demo"


def jwks(*keys: Any) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) for key in keys]}


def token(key: Any = KEY, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token of ISSUER for alice; claims given as None are left out."""
    claims: dict[str, Any] = {"iss": ISSUER, "sub": "alice", "aud": "mcp", "exp": NOW + 600, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
    return jwt.encode({"alg": algorithm, "kid": key.kid, **(header or {})}, claims, key, algorithms=[algorithm])


def provider(**changes: Any) -> JwtProvider:
    return JwtProvider(**{"issuer": ISSUER, "audiences": ("mcp",), "jwks": jwks(KEY), **changes})


def tokens(mode: Any = "strict", **changes: Any) -> Jwt:
    return Jwt((provider(),), **{"mode": mode, **changes})


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class _Transport:
    def get_extra_info(self, name: str) -> Any:
        return None


class _Connection:
    """What an Exchange asks of its connection before anything is answered."""

    closed = False

    def __init__(self, peer: tuple[str, int] | None, certificate: dict[str, Any] | None) -> None:
        self.peer = peer
        self.transport = _Tls(certificate) if certificate is not None else _Transport()


class _Tls(_Transport):
    context = object()

    def __init__(self, certificate: dict[str, Any]) -> None:
        self._certificate = certificate

    def get_extra_info(self, name: str) -> Any:
        return self

    def getpeercert(self) -> dict[str, Any]:
        return self._certificate


def request(
    method: str = "GET",
    target: str = "/mcp",
    *,
    bearer: str = "",
    peer: tuple[str, int] | None = ("127.0.0.1", 50_000),
    body: bytes = b"",
    certificate: dict[str, Any] | None = None,
    repeat: tuple[tuple[str, str], ...] = (),
    **headers: str,
) -> Call:
    """A request; ``content_type="x"`` is the header ``content-type: x``."""
    fields = [("host", "gw.example.org"), *((k.replace("_", "-"), v) for k, v in headers.items()), *repeat]
    if "host" in headers:
        fields = fields[1:]
    if bearer:
        fields.append(("authorization", f"Bearer {bearer}"))
    lines = [(k.encode(), v.encode()) for k, v in fields]
    exchange = Exchange(_Connection(peer, certificate), method, target.encode(), lines, body, True)  # type: ignore[arg-type]
    exchange.context = dict(lines)
    return Call(exchange, "mcp", "server")


def services(clock: Callable[[], float] | None = None, **options: Any) -> Services:
    return Services(Upstreams(), clock=clock or Clock(), **options)


def chain(
    policies: Policies | None = None, where: str = "route/demo", *, given: Services | None = None, **fields: Any
) -> Chain:
    return Chain(policies or Policies(**fields), given or services(), where=where)


async def admit(chain: Chain, call: Call) -> Refusal | None:
    """The outcome, waited for when it must be."""
    outcome = chain.admit(call)
    return await outcome if inspect.iscoroutine(outcome) else outcome  # type: ignore[return-value]


def admit_now(chain: Chain, call: Call) -> Refusal | None:
    """The outcome of a chain that must not wait for anything."""
    outcome = chain.admit(call)
    assert not inspect.iscoroutine(outcome)
    return outcome  # type: ignore[return-value]


class Peer:
    """A real HTTP server; ``answer(exchange)`` gives status, headers and body. Remembers what it was asked."""

    def __init__(self, answer: Callable[[Exchange], tuple[int, list[tuple[bytes, bytes]], bytes]]) -> None:
        self.answer = answer
        self.asked: list[Exchange] = []
        self.url = ""
        self._server = Server(self._handle)

    def _handle(self, exchange: Exchange) -> None:
        self.asked.append(exchange)
        status, headers, body = self.answer(exchange)
        exchange.respond(status, body, headers)

    async def __aenter__(self) -> Peer:
        host, port = await self._server.listen("127.0.0.1", 0)
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0.0)


def json_answer(document: Any, status: int = 200) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    return status, [(b"content-type", b"application/json")], msgspec.json.encode(document)


def header(refusal: Refusal, name: bytes) -> str:
    return next((v.decode() for k, v in refusal.headers if k == name), "")
