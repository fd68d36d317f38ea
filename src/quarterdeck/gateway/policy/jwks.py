"""Keys of token issuers: given, read from a file or fetched, and looked at again from time to time.

Keys stay in use while their source cannot be read. A key that is gone from a set that could be read is gone at once:
:attr:`KeyStore.generation` changes, and what was verified with the keys before is verified anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from time import time
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.snapshot.policies import JwtProvider

from .fetch import Fetcher, parse_url

Key = RSAKey | ECKey | OKPKey
_ALGORITHMS: dict[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA", "Ed25519"),
}
"""What a key of each type may be used for; nothing symmetric, and never ``none``."""

_FIRST_RETRY = 1.0
_LAST_RETRY = 60.0
_MOST_KEYS = 100


class VerificationKey:
    """One public key and the algorithms it verifies."""

    __slots__ = ("algorithms", "key", "kid", "thumbprint")

    def __init__(self, key: Key, kid: str, algorithms: tuple[str, ...]) -> None:
        self.key = key
        self.kid = kid
        self.algorithms = algorithms
        self.thumbprint = key.thumbprint()


def parse_keys(document: bytes | dict[str, Any]) -> list[VerificationKey]:
    """The usable keys of a JWK Set (RFC 7517); others are left out. Raises ValueError when it is none."""
    data: Any = msgspec.json.decode(document) if isinstance(document, bytes) else document
    listed: Any = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(listed, list):
        raise ValueError('no JWK Set: there is no list "keys"')
    return [key for jwk in listed[:_MOST_KEYS] if isinstance(jwk, dict) and (key := _parse_key(jwk)) is not None]


def _parse_key(jwk: dict[str, Any]) -> VerificationKey | None:
    usable = _ALGORITHMS.get(str(jwk.get("kty")))
    if usable is None or jwk.get("use", "sig") != "sig":
        return None
    declared = jwk.get("alg")
    if declared is not None and declared not in usable:
        return None
    try:
        key: Any = JWKRegistry.import_key(jwk)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return VerificationKey(key, str(jwk.get("kid") or ""), (declared,) if declared else usable)


class KeyStore:
    """The keys of one source. ``load`` gives the document now; without it, ``document`` is all there ever is."""

    def __init__(
        self,
        name: str,
        load: Callable[[], Awaitable[bytes]] | None,
        *,
        document: dict[str, Any] | None = None,
        every: float = 300.0,
        clock: Callable[[], float] = time,
    ) -> None:
        self.name = name
        self.generation = 0
        self.loaded = False
        self.problem = ""
        """Why the last look failed; empty when it did not."""
        self.next_look = inf
        self._load = load
        self._every = every
        self._clock = clock
        self._keys: list[VerificationKey] = []
        self._failures = 0
        self._no_search_before = 0.0
        self._search_pause = _FIRST_RETRY
        self._looking: asyncio.Task[None] | None = None
        if load is not None:
            self.next_look = 0.0
        else:
            self._take(parse_keys(document or {"keys": []}))

    def find(self, kid: str, algorithm: str) -> list[VerificationKey]:
        """The keys that may have signed a token: of its ``kid``; all when it names none."""
        return [
            key for key in self._keys if algorithm in key.algorithms and (not kid or not key.kid or key.kid == kid)
        ][:8]

    def may_search(self) -> bool:
        """Whether a look at the source makes sense now: not when there was one lately, or there is nothing to see."""
        now = self._clock()
        if self._load is None:
            return False
        if self.loaded:
            return now >= self._no_search_before
        return self._looking is not None or now >= self.next_look

    async def search(self, kid: str, algorithm: str) -> list[VerificationKey]:
        """:meth:`find` after a look at the source. Searches that find nothing are spaced out more and more."""
        await asyncio.shield(self._look())
        found = self.find(kid, algorithm)
        self._search_pause = _FIRST_RETRY if found else min(self._search_pause * 2, _LAST_RETRY)
        self._no_search_before = self._clock() + self._search_pause
        return found

    def look_if_due(self, now: float) -> None:
        """Look at the source in the background when it is time to."""
        if now >= self.next_look and self._looking is None:
            self._look()

    def _look(self) -> asyncio.Task[None]:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._refresh())
            self._looking.add_done_callback(self._looked)
        return self._looking

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled():
            task.result()

    async def _refresh(self) -> None:
        assert self._load is not None
        try:
            keys = parse_keys(await self._load())
            if not keys:
                raise ValueError("there is no usable key in it")
        except (
            UpstreamError,
            TimedOut,
            ConfigError,
            OSError,
            ValueError,
            msgspec.DecodeError,
            RecursionError,
        ) as error:
            self.problem = f"{self.name}: {error}"
            self._failures += 1
            self.next_look = self._clock() + min(_FIRST_RETRY * 2**self._failures, _LAST_RETRY)
            return
        self.problem = ""
        self._failures = 0
        self._take(keys)
        self.next_look = self._clock() + self._every

    def _take(self, keys: list[VerificationKey]) -> None:
        if {key.thumbprint for key in self._keys} - {key.thumbprint for key in keys}:
            self.generation += 1
        self._keys = keys
        self.loaded = True

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()


class KeyStores:
    """The stores in use, one per source: they outlive the configurations that name them."""

    def __init__(self, fetcher: Fetcher, clock: Callable[[], float] = time) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._stores: WeakValueDictionary[tuple[str, str, float], KeyStore] = WeakValueDictionary()

    def of(self, provider: JwtProvider, where: str) -> KeyStore:
        """The store of an issuer's keys. Raises ConfigError when the source is not one, or an inline set is broken."""
        if provider.jwks is not None:
            try:
                return KeyStore(where, None, document=provider.jwks)
            except ValueError as error:
                raise ConfigError(f"{where}: jwks of {provider.issuer}: {error}") from error
        if provider.jwks_url:
            url = provider.jwks_url
            parse_url(url, f"{where}: jwks of {provider.issuer}")
            return self._shared("url", url, provider.cache, lambda: self._fetcher.get_json(url))
        if provider.jwks_file:
            path = Path(provider.jwks_file)
            return self._shared("file", str(path), provider.cache, lambda: _read(path))
        raise ConfigError(f"{where}: no keys for issuer {provider.issuer}: give jwks (inline, url or file)")

    def _shared(self, kind: str, source: str, every: float, load: Callable[[], Awaitable[bytes]]) -> KeyStore:
        key = (kind, source, every)
        store = self._stores.get(key)
        if store is None:
            store = self._stores[key] = KeyStore(source, load, every=every, clock=self._clock)
        return store

    def close(self) -> None:
        for store in list(self._stores.values()):
            store.close()


async def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UpstreamError(f"{path}: {error.strerror}") from error
