"""Session ids: authenticated-encrypted, self-contained tokens bound to route and principal.

A token opens only where it was made for: presented on another route, by another principal, or altered, it is unknown
(404). It holds what is needed to reach the upstream's session, so any worker with the key can serve it; ``owner`` is
set when the state behind it lives in one process.
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

_NONCE = 12
_OPENED = 4096
"""Opened tokens remembered; decrypting one costs 2 µs, and a client sends its token with every call."""
_TOKEN_BYTES = 512
"""Longer tokens are not remembered: memory stays bounded by what we seal, not by what callers send."""


class Session(Struct, array_like=True, frozen=True, gc=False):
    """What a token holds. ``upstream`` is the upstream's session id, or the key of a state kept by ``owner``."""

    upstream: str
    host: str = ""
    port: int = 0
    owner: str = ""


_decoder = msgspec.msgpack.Decoder(Session)
_encoder = msgspec.msgpack.Encoder()


class SessionSealer:
    """Makes and opens session tokens. ``secret`` is shared by all workers of a gateway."""

    def __init__(self, secret: bytes) -> None:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"quarterdeck mcp session v1").derive(secret)
        self._cipher = AESGCM(key)
        self._opened: dict[tuple[bytes, bytes], Session] = {}

    def seal(self, session: Session, binding: bytes) -> bytes:
        """A token for the session; ``binding`` names route and principal."""
        nonce = urandom(_NONCE)
        return urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, _encoder.encode(session), binding)).rstrip(b"=")

    def open(self, token: bytes, binding: bytes) -> Session | None:
        """The session, or None when the token was not made for this binding with this key."""
        known = self._opened.get((token, binding))
        if known is not None:
            return known
        session = self._decrypt(token, binding)
        if session is not None and len(token) < _TOKEN_BYTES:
            if len(self._opened) >= _OPENED:
                self._opened.clear()
            self._opened[token, binding] = session
        return session

    def _decrypt(self, token: bytes, binding: bytes) -> Session | None:
        try:
            data = urlsafe_b64decode(token + b"=" * (-len(token) % 4))
            return _decoder.decode(self._cipher.decrypt(data[:_NONCE], data[_NONCE:], binding))
        except (InvalidTag, ValueError):
            return None
