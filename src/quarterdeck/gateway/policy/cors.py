"""Pages of other origins: which may read answers (CORS, as Envoy and agentgateway do it), and which change things."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

from quarterdeck.snapshot.policies import Cors, Csrf
from quarterdeck.wire.http import Header

from .admission import Admission
from .refusal import Refusal

_PORTS = {"http": 80, "https": 443}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_ORIGIN = re.compile(r"(https?)://([^/?#:@]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?\Z", re.IGNORECASE)

_LONGEST = 320
"""Letters of an origin or host that can be one: longer ones are not remembered, whoever sends them."""

Origin = tuple[str, str, int]


def parse_origin(text: str) -> Origin | None:
    """Scheme, host and port of an origin (RFC 6454), in lower case; None when it is none."""
    return _parse_origin(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=512)
def _parse_origin(text: str) -> Origin | None:
    match = _ORIGIN.match(text)
    if match is None:
        return None
    scheme = match.group(1).lower()
    return scheme, match.group(2).lower(), int(match.group(3) or _PORTS[scheme])


class Origins:
    """A list of allowed origins; ``*`` in a host stands for any characters, alone for every origin."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.every = "*" in allowed
        self._exact: set[Origin] = set()
        self._patterns: list[tuple[str, re.Pattern[str], int]] = []
        for text in allowed:
            parsed = parse_origin(text)
            if parsed is None:
                continue
            scheme, host, port = parsed
            if "*" in host:
                pattern = ".*".join(re.escape(part) for part in host.split("*"))
                self._patterns.append((scheme, re.compile(pattern), port))
            else:
                self._exact.add(parsed)
        self._known = lru_cache(maxsize=512)(self._allows)

    def allows(self, origin: str) -> bool:
        return self._known(origin) if len(origin) <= _LONGEST else self.every

    def _allows(self, origin: str) -> bool:
        if self.every:
            return True
        parsed = parse_origin(origin)
        if parsed is None or "*" in parsed[1]:
            return False
        return parsed in self._exact or any(
            scheme == parsed[0] and port == parsed[2] and pattern.fullmatch(parsed[1]) is not None
            for scheme, pattern, port in self._patterns
        )


class CorsPolicy:
    """Answers preflights, and says what actual responses may show."""

    def __init__(self, cors: Cors) -> None:
        self.origins = Origins(cors.allow_origins)
        self._methods = cors.allow_methods
        self._headers = cors.allow_headers
        self._expose = _joined(cors.expose_headers)
        self._credentials = cors.allow_credentials
        self._max_age = cors.max_age

    def preflight(self, admission: Admission) -> Refusal | None:
        """The answer to a preflight; None when the request is none."""
        headers = admission.headers
        origin = headers.get(b"origin")
        if admission.exchange.method != "OPTIONS" or origin is None:
            return None
        if not headers.get(b"access-control-request-method"):
            return None
        if not self.origins.allows(origin.decode("latin-1")):
            # without the headers the browser refuses by itself; the request must not reach the backend
            return Refusal(200, "this origin is not allowed", ((b"vary", b"Origin"),), "cors", b"", "denied")
        answer = self._common(origin)
        asked_method = headers.get(b"access-control-request-method", b"").strip()
        asked_headers = headers.get(b"access-control-request-headers", b"").strip()
        if self._methods:
            answer.append(
                (b"access-control-allow-methods", asked_method if "*" in self._methods else _joined(self._methods))
            )
        if self._headers:
            allowed = (asked_headers or b"*") if "*" in self._headers else _joined(self._headers)
            answer.append((b"access-control-allow-headers", allowed))
        if self._max_age:
            answer.append((b"access-control-max-age", b"%d" % self._max_age))
        return Refusal(200, "", tuple(answer), "cors", b"", "ok")

    def response(self, admission: Admission) -> list[Header]:
        """What a response gets, so that the page may read it."""
        origin = admission.headers.get(b"origin")
        if origin is None or not self.origins.allows(origin.decode("latin-1")):
            return [(b"vary", b"Origin")]
        return self._common(origin)

    def _common(self, origin: bytes) -> list[Header]:
        headers: list[Header] = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        if self._credentials:
            headers.append((b"access-control-allow-credentials", b"true"))
        if self._expose:
            headers.append((b"access-control-expose-headers", self._expose))
        return headers


class CsrfPolicy:
    """Requests that change something must come from the gateway's own pages, or from trusted origins."""

    def __init__(self, csrf: Csrf) -> None:
        self._trusted = Origins(csrf.additional_origins)

    def check(self, admission: Admission) -> Refusal | None:
        if admission.exchange.method in _SAFE:
            return None
        headers = admission.headers
        origin = headers.get(b"origin")
        if origin == b"null":
            return self._refuse() if headers.get(b"sec-fetch-site") not in (b"same-origin", b"none") else None
        site = headers.get(b"sec-fetch-site")
        if site in (b"same-origin", b"none"):
            return None
        if origin is None:
            return self._refuse() if site is not None else None
        text = origin.decode("latin-1")
        if site is None and same_origin(text, headers.get(b"host", b"").decode("latin-1")):
            return None
        return None if self._trusted.allows(text) else self._refuse()

    def _refuse(self) -> Refusal:
        return Refusal(403, "requests from pages of other origins are not allowed", rule="csrf")


def same_origin(origin: str, host: str) -> bool:
    """Whether a page of ``origin`` and a request to ``host`` are of one site: authority by authority."""
    return len(origin) <= _LONGEST and len(host) <= _LONGEST and _same_origin(origin, host)


@lru_cache(maxsize=256)
def _same_origin(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return bool(parts.netloc) and parts.netloc.lower() == host.lower()


def _joined(values: tuple[str, ...]) -> bytes:
    return ", ".join(values).encode("latin-1", "replace")
