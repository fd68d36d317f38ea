"""Permits: the control plane's signed word that a step of a run may be carried out, shown to the gateway with it.

The control plane signs one when it has written the intent of a tool call (Ed25519, RFC 8032); the gateway has the
public keys in its snapshot. A permit binds the agent, the run, its step and fence, the tool and the arguments' hash,
for :data:`LIFETIME` seconds.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

LIFETIME = 30.0
LEEWAY = 10.0
"""Seconds that the clocks of control plane and gateway may differ by."""
_LONGEST = 4096

META_RUN = "dev.quarterdeck/run"
META_STEP = "dev.quarterdeck/step"
META_KEY = "dev.quarterdeck/idempotencyKey"
META_PERMIT = "dev.quarterdeck/permit"
META_TASK = "dev.quarterdeck/task"
META_APPROVAL = "dev.quarterdeck/approval"
"""Members of ``_meta`` in the tools/call of a hosted agent; the gateway takes permit and approval out."""


class Permit(Struct, frozen=True, array_like=True):
    """``attempt`` counts the intents of the step under this fence; ``expires`` is in seconds since the epoch."""

    run: str
    step: int
    fence: int
    attempt: int
    agent: str
    tool: str
    arguments: str
    expires: float


class InvalidPermit(ValueError):
    """Why a permit does not count."""


class Signer:
    """Signs with one key."""

    def __init__(self, private: bytes) -> None:
        """``private``: the 32 bytes of an Ed25519 key."""
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public = _text(self._key.public_key().public_bytes_raw())
        """As :class:`Verifier` takes it."""

    @classmethod
    def new(cls) -> tuple[Signer, bytes]:
        """A signer with a fresh key, and the key."""
        private = Ed25519PrivateKey.generate().private_bytes_raw()
        return cls(private), private

    def sign(self, permit: Struct) -> str:
        """``permit``: a Permit, or a Struct that cannot be taken for one."""
        payload = msgspec.json.encode(permit)
        return f"{_text(payload)}.{_text(self._key.sign(payload))}"


class Verifier:
    """Knows the public keys of one snapshot."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = [Ed25519PublicKey.from_public_bytes(_bytes(key)) for key in keys]

    def open(self, token: str, now: float) -> Permit:
        """The permit in a token. Raises InvalidPermit."""
        try:
            permit = msgspec.json.decode(self.payload(token), type=Permit)
        except msgspec.DecodeError:
            raise InvalidPermit("it is no permit") from None
        if now > permit.expires + LEEWAY:
            raise InvalidPermit(f"it has expired {now - permit.expires:.0f} s ago")
        return permit

    def payload(self, token: str) -> bytes:
        """What the control plane signed. Raises InvalidPermit."""
        if len(token) > _LONGEST:
            raise InvalidPermit("it is too long")
        head, _, tail = token.partition(".")
        try:
            payload, signature = _bytes(head), _bytes(tail)
        except ValueError:
            raise InvalidPermit("it is malformed") from None
        if not any(_signed_by(key, payload, signature) for key in self._keys):
            raise InvalidPermit("it is not signed by the control plane")
        return payload


def _signed_by(key: Ed25519PublicKey, payload: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, payload)
    except InvalidSignature:
        return False
    return True


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Raises ValueError."""
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
