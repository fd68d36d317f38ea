"""The last good snapshot on disk, encrypted with a key file of mode 0600: it holds provider keys."""

from __future__ import annotations

import os
from os import urandom
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quarterdeck.errors import StorageError

_AAD = b"quarterdeck snapshot v1"


def load_key(path: Path) -> bytes:
    """The gateway's secret (32 bytes), made on first use. Raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if len(key) != 32:
                raise StorageError(f"{path} is not a key of 32 bytes; remove it to make a new one") from None
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
        self._cipher = AESGCM(key)

    def save(self, line: bytes) -> None:
        """Replace what is kept, atomically. Raises StorageError."""
        nonce = urandom(12)
        fresh = self._path.with_suffix(".new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(nonce + self._cipher.encrypt(nonce, line, _AAD))
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
        try:
            return self._cipher.decrypt(data[:12], data[12:], _AAD)
        except (InvalidTag, ValueError):
            return None
