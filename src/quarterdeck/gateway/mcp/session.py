"""Session ids: authenticated-encrypted, self-contained tokens bound to group and principal.

A token opens only where it was made for: presented on another route, by another principal, or altered, it is unknown
(404). It holds what is needed to reach the upstreams' sessions, so any process with the key can serve it; ``owner`` is
set when there is state behind it that lives in one process.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from os import urandom

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

KEY_BYTES = 32
_NONCE = 12
_OPENED = 1024
"""Opened tokens remembered; decrypting one costs 2 µs, and a client sends its token with every call."""
_TOKEN_BYTES = 4096
"""Longer tokens are not remembered: memory stays bounded by what we seal, not by what callers send."""


class Leg(Struct, array_like=True, frozen=True, gc=False):
    """The upstream session with one member of a group."""

    member: str
    host: str
    port: int
    session: str
    version: str


class Session(Struct, array_like=True, frozen=True, gc=False):
    """What a token holds. ``upstream`` is the upstream's session id, or the key of a state kept by ``owner``.

    ``legs``: sessions that any process may use on the client's behalf, where several servers are behind one.
    """

    upstream: str
    host: str = ""
    port: int = 0
    owner: str = ""
    legs: tuple[Leg, ...] = ()


_decoder = msgspec.msgpack.Decoder(Session)
_encoder = msgspec.msgpack.Encoder()


class SessionSealer:
    """Makes and opens session tokens. ``secret`` is shared by all processes of a gateway.

    It may be several keys of 32 bytes one after the other: the first seals, all open, so a key is rotated by putting
    the new one in front and taking the old one away when its sessions are over.
    """

    def __init__(self, secret: bytes) -> None:
        self._ciphers: list[AESGCM] = []
        self._opened: dict[tuple[bytes, bytes], Session] = {}
        self.generation = 0
        """Another one after each change of keys."""
        self.use(secret)

    def use(self, secret: bytes) -> None:
        """Seal and open with other keys from now on."""
        keys = [secret[at : at + KEY_BYTES] for at in range(0, len(secret), KEY_BYTES)]
        self._ciphers = [AESGCM(_derived(key)) for key in keys]
        self._opened.clear()
        self.generation += 1

    def seal(self, session: Session, binding: bytes, lot: bytes = b"") -> bytes:
        """A token for the session; ``binding`` names group and principal. :func:`lot_of` finds ``lot`` (one byte)."""
        return self.seal_bytes(_encoder.encode(session), binding, lot)

    def open(self, token: bytes, binding: bytes) -> Session | None:
        """The session, or None when the token was not made for this binding with one of these keys."""
        known = self._opened.get((token, binding))
        if known is not None:
            return known
        data = self.open_bytes(token, binding)
        try:
            session = _decoder.decode(data) if data is not None else None
        except msgspec.DecodeError:
            return None
        if session is not None and len(token) < _TOKEN_BYTES:
            if len(self._opened) >= _OPENED:
                self._opened.clear()
            self._opened[token, binding] = session
        return session

    def seal_bytes(self, data: bytes, binding: bytes, lot: bytes = b"") -> bytes:
        """Any bytes, as URL-safe text."""
        nonce = lot + urandom(_NONCE - len(lot))
        return urlsafe_b64encode(nonce + self._ciphers[0].encrypt(nonce, data, binding)).rstrip(b"=")

    def open_bytes(self, token: bytes, binding: bytes) -> bytes | None:
        """What :meth:`seal_bytes` was given; None for anything else."""
        try:
            data = urlsafe_b64decode(token + b"=" * (-len(token) % 4))
        except ValueError:
            return None
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(data[:_NONCE], data[_NONCE:], binding)
            except (InvalidTag, ValueError):
                continue
        return None


def lot_of(token: bytes) -> int:
    """The byte that a token was sealed with to be found by before anybody is known; any byte, if there was none."""
    try:
        return urlsafe_b64decode(token[:4])[0]
    except (ValueError, IndexError):
        return 0


def _derived(key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"quarterdeck mcp session v1").derive(key)
