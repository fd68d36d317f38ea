"""Checkpoints: a signed word, kept elsewhere, of how far a chain had come.

The hash of a line commits to all lines before it, so the newest checkpoint of a chain shows any later change, and any
line up to it that is missing. The key (Ed25519, RFC 8032) is made at the start of a process and never written down:
whoever owns the file afterwards cannot sign for its chain.
"""

from __future__ import annotations

from base64 import b64decode, b64encode

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from quarterdeck.errors import ConfigError
from quarterdeck.malformed import MALFORMED

from .record import Position


class Checkpoint(Struct, frozen=True, omit_defaults=True):
    """``ts`` is seconds since the epoch; ``key`` and ``sig`` are base64. ``seq`` is that of the last line so far."""

    gateway: str
    replica: str
    chain: str
    seq: int
    hash: str
    ts: float
    key: str
    pruned: tuple[Position, ...] = ()
    """Rotation has removed the lines of these chains up to these positions."""
    final: bool = False
    """The process has ended well: nothing comes after."""
    sig: str = ""


class Signer:
    """Signs for one process."""

    def __init__(self, gateway: str, replica: str) -> None:
        self._gateway = gateway
        self._replica = replica
        self._key = Ed25519PrivateKey.generate()
        self.key = b64encode(self._key.public_key().public_bytes_raw()).decode()
        """The public key."""

    def sign(
        self, position: Position, ts: float, *, pruned: tuple[Position, ...] = (), final: bool = False
    ) -> Checkpoint:
        bare = Checkpoint(
            self._gateway, self._replica, position.chain, position.seq, position.hash, ts, self.key, pruned, final
        )
        return msgspec.structs.replace(bare, sig=b64encode(self._key.sign(_signed(bare))).decode())


def genuine(checkpoint: Checkpoint) -> bool:
    """Whether the signature is that of the key it names."""
    try:
        key = Ed25519PublicKey.from_public_bytes(b64decode(checkpoint.key, validate=True))
        key.verify(b64decode(checkpoint.sig, validate=True), _signed(checkpoint))
    except (InvalidSignature, ValueError):
        return False
    return True


def read(data: bytes, where: str) -> list[Checkpoint]:
    """Checkpoints one a line, as an anchor file has them. Raises ConfigError naming the line."""
    found: list[Checkpoint] = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            found.append(msgspec.json.decode(line, type=Checkpoint))
        except MALFORMED as error:
            raise ConfigError(f"{where}, line {number}: no checkpoint: {error}") from error
    return found


def _signed(checkpoint: Checkpoint) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(checkpoint, sig=""))
