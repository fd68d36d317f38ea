"""Header fields on their way through: what belongs to one connection, what we say of the client, what rules change."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot.policies import HeaderModifier
from quarterdeck.wire.http import Exchange, Header

from ..call import is_header

Edit = Callable[[list[Header]], list[Header]]

_PER_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
     b"trailer", b"transfer-encoding", b"upgrade"}
)  # fmt: skip
"""Never passed on (RFC 9110 §7.6.1)."""
_OURS = frozenset(
    {b"host", b"content-length", b"expect", b"forwarded", b"traceparent", b"x-forwarded-for", b"x-forwarded-host",
     b"x-forwarded-port", b"x-forwarded-proto"}
)  # fmt: skip
"""Written anew for the backend, or answered here: what a client says of itself in them proves nothing."""
_NOT_SENT = _PER_CONNECTION | _OURS
_NOT_RETURNED = _PER_CONNECTION | {b"date"}
_FIXED = _PER_CONNECTION | {b"content-length"}
"""What rules may not change: it frames the message."""
_LONGEST = 320
"""Bytes of a value that is remembered; no host is longer."""
_PRIVATE = b"x-quarterdeck-"
_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5})?)?")


def host_of(value: bytes) -> str | None:
    """The name in a Host field: lower case, without port and final dot; None when it is no host."""
    return _host_of(value) if len(value) <= _LONGEST else None


@lru_cache(maxsize=1024)
def _host_of(value: bytes) -> str | None:
    found = _HOST.fullmatch(value.decode("latin-1"))
    return found[1].lower().rstrip(".") if found is not None else None


def to_backend(exchange: Exchange, headers: Mapping[bytes, bytes], scheme: str, host: str) -> list[Header]:
    """The request's fields without those of the connection, with who asked for what (X-Forwarded-*).

    ``scheme`` and ``host`` (with port) are what the client asked for, as far as anybody trusted says.

    Host, trace context and framing are not among them. A field that only differs from one of ours by ``_`` is not
    passed on either: CGI and WSGI do not tell the two apart.
    """
    listed = _listed(headers.get(b"connection"))
    kept: list[Header] = []
    for header in exchange.headers:
        name = header[0]
        if b"_" in name:
            name = name.replace(b"_", b"-")
        if name not in _NOT_SENT and name not in listed and not name.startswith(_PRIVATE):
            kept.append(header)
    peer = exchange.peer
    if peer is not None:
        before = headers.get(b"x-forwarded-for")
        address = peer[0].encode("latin-1")
        kept.append((b"x-forwarded-for", b"%b, %b" % (before, address) if before else address))
    if host:
        kept.append((b"x-forwarded-host", host.encode("latin-1")))
    kept.append((b"x-forwarded-proto", scheme.encode()))
    return kept


def to_client(headers: list[Header]) -> list[Header]:
    """The response's fields without those of the connection; Date is the listener's."""
    listed: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection":
            listed |= _listed(value)
    return [header for header in headers if header[0] not in _NOT_RETURNED and header[0] not in listed]


def _listed(connection: bytes | None) -> frozenset[bytes]:
    """The fields that a Connection field names as its own."""
    if connection is None:
        return frozenset()
    return _names_in(connection) if len(connection) <= _LONGEST else _names_in.__wrapped__(connection)


@lru_cache(maxsize=256)
def _names_in(connection: bytes) -> frozenset[bytes]:
    return frozenset(name.strip().lower() for name in connection.split(b","))


def modifier(rule: HeaderModifier | None, where: str) -> Edit | None:
    """The rule compiled. Raises ConfigError, naming ``where``, for what cannot be a header or must not be changed."""
    if rule is None or not (rule.add or rule.set or rule.remove):
        return None
    added = [_header(name, value, where) for name, value in rule.add]
    replaced = [_header(name, value, where) for name, value in rule.set]
    removed = frozenset(_header(name, "", where)[0] for name in rule.remove)
    dropped = removed | {name for name, _ in replaced}

    def edit(headers: list[Header]) -> list[Header]:
        kept = [header for header in headers if header[0] not in dropped]
        kept += [header for header in replaced if header[0] not in removed]
        for name, value in added:
            if name not in removed:
                _append(kept, name, value)
        return kept

    return edit


def _append(headers: list[Header], name: bytes, value: bytes) -> None:
    """Set-Cookie alone cannot be one field of several values (RFC 9110 §5.3)."""
    if name != b"set-cookie":
        for at, (key, before) in enumerate(headers):
            if key == name:
                headers[at] = (name, b"%b,%b" % (before, value))
                return
    headers.append((name, value))


def _header(name: str, value: str, where: str) -> Header:
    if not is_header(name, value) or not name.isascii():
        raise ConfigError(f"{where}: {name!r} with that value is not a header")
    key = name.lower().encode("ascii")
    if key in _FIXED:
        raise ConfigError(f"{where}: header {name} frames the message and cannot be changed")
    return key, value.encode()
