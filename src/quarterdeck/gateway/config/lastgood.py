"""The last good snapshot on disk, encrypted with a key file of mode 0600: it holds provider keys."""

from __future__ import annotations

import os
from os import urandom
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quarterdeck.errors import StorageError

KEY_BYTES = 32
_AAD = b"quarterdeck snapshot v1"


def load_key(path: Path) -> bytes:
    """The gateway's secret, made on first use: 32 bytes, or several such keys, newest first. Raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if not key or len(key) % KEY_BYTES:
                raise StorageError(
                    f"{path} is not a key of 32 bytes, or several; remove it to make a new one"
                ) from None
            return key
        key = urandom(32)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
        return key
    except OSError as error:
        raise StorageError(f"cannot use the key file {path}: {error.strerror}") from error


class LastGood:
    """Keeps one snapshot line."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._ciphers = [AESGCM(key[at : at + KEY_BYTES]) for at in range(0, len(key), KEY_BYTES)]

    def save(self, line: bytes) -> None:
        """Replace what is kept, atomically. Raises StorageError."""
        nonce = urandom(12)
        fresh = self._path.with_suffix(".new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(nonce + self._ciphers[0].encrypt(nonce, line, _AAD))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            raise StorageError(f"cannot keep the snapshot in {self._path}: {error.strerror}") from error

    def load(self) -> bytes | None:
        """What was kept; None when there is nothing, or nothing that this key opens."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read the snapshot in {self._path}: {error.strerror}") from error
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(data[:12], data[12:], _AAD)
            except (InvalidTag, ValueError):
                continue
        return None
