"""What rules need besides the request: kept by the process, not by one configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from time import time
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot.policies import OAuthClient, Policies
from quarterdeck.wire.http import Exchange

from ..upstream import Upstreams
from .fetch import Fetcher, parse_url
from .jwks import KeyStores
from .outbound import Tokens
from .principal import Principal
from .refusal import Refusal

if TYPE_CHECKING:
    from ..call import Call
    from .authorizer import Decision

LimitsOf = Callable[[Policies, str], "Callable[[Call], Refusal | None] | None"]


class Revocations(Protocol):
    """Who may do nothing any more; asked only while ``active``."""

    @property
    def active(self) -> bool: ...
    def refusal(self, principal: Principal, headers: Mapping[bytes, bytes]) -> Decision | None: ...


class Services:
    """``public_url`` is how clients reach the gateway (``https://host[/path]``); without it, it is what they ask for.

    ``trusted_hops``: networks of proxies in front whose ``X-Forwarded-*`` are believed. Raises ConfigError when one is
    no network, or the URL none.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        *,
        keys: KeyStores | None = None,
        public_url: str = "",
        trusted_hops: Sequence[str] = (),
        limits: LimitsOf | None = None,
        revocations: Revocations | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        self.upstreams = upstreams
        self.fetcher = Fetcher(upstreams)
        self.keys = keys or KeyStores(self.fetcher, clock)
        if public_url:
            parse_url(public_url, "public URL")
        self.public_url = public_url.rstrip("/")
        self.limits = limits
        self.revocations = revocations
        self.clock = clock
        self._tokens: WeakValueDictionary[OAuthClient, Tokens] = WeakValueDictionary()
        self._hops = _networks(trusted_hops)
        self.is_trusted = lru_cache(maxsize=1024)(self._is_trusted)

    def base_url(self, exchange: Exchange, headers: dict[bytes, bytes]) -> str:
        """Scheme and host that the client used, without a path."""
        if self.public_url:
            return self.public_url
        scheme, host = self.forwarded(exchange, headers)
        return f"{scheme}://{host}"

    def forwarded(self, exchange: Exchange, headers: dict[bytes, bytes]) -> tuple[str, str]:
        """Scheme and authority of the request as the client made it; forwarded headers count from trusted hops only."""
        scheme = "https" if exchange.tls is not None else "http"
        host = headers.get(b"host", b"")
        if self._hops and exchange.peer is not None and self.is_trusted(exchange.peer[0]):
            told = headers.get(b"x-forwarded-proto", b"").rpartition(b",")[2].strip().lower()
            scheme = told.decode() if told in (b"http", b"https") else scheme
            host = headers.get(b"x-forwarded-host", host).rpartition(b",")[2].strip()
        return scheme, host.decode("latin-1")

    def client_address(self, exchange: Exchange, headers: dict[bytes, bytes]) -> str:
        """The nearest address that is no trusted hop."""
        peer = exchange.peer
        if peer is None:
            return ""
        address = peer[0]
        if self._hops and self.is_trusted(address):
            for part in reversed(headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")):
                candidate = part.strip()
                if not _is_address(candidate):
                    break
                address = candidate
                if not self.is_trusted(candidate):
                    break
        return address

    def _is_trusted(self, address: str) -> bool:
        if not _is_address(address):
            return False
        ip = ip_address(address.partition("%")[0])
        return any(ip.version == hop.version and ip in hop for hop in self._hops)

    def tokens_of(self, client: OAuthClient) -> Tokens:
        """The tokens that this client of an authorization server has got: one store for all routes that use it."""
        tokens = self._tokens.get(client)
        if tokens is None:
            tokens = self._tokens[client] = Tokens(client, self.fetcher, self.clock)
        return tokens

    def close(self) -> None:
        self.keys.close()


def _networks(hops: Sequence[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(hop, strict=False) for hop in hops)
    except ValueError as error:
        raise ConfigError(f"trusted hops: {error}") from error


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
