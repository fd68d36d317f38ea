"""Secrets at rest: AES-256-GCM with keys from a file, newest first so that a rotated key still reads old data."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash

from quarterdeck.errors import StorageError

from .files import private_dir, read_private, write_private

_MAGIC = b"qdenc1:"
_KEY_ID = 4
_NONCE = 12


def _key_id(key: bytes) -> bytes:
    digest = Hash(SHA256())
    digest.update(b"quarterdeck key id" + key)
    return digest.finalize()[:_KEY_ID]


class SecretCipher:
    """Encrypts values bound to where they are stored.

    Format: ``qdenc1:`` + 4 bytes key id + 12 bytes nonce + ciphertext with tag. ``aad`` is the storage key, so a value
    copied to another object does not decrypt. The key file holds one base64 key a line, the first encrypts.
    """

    def __init__(self, key_file: Path) -> None:
        self._file = Path(key_file)
        data = read_private(self._file)
        if data is None:
            private_dir(self._file.parent)
            self._keys = [os.urandom(32)]
            self._save()
        else:
            self._keys = self._parse(data)
        self._index()

    def encrypt(self, data: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return _MAGIC + self._current + nonce + self._ciphers[self._current].encrypt(nonce, data, aad)

    def decrypt(self, data: bytes, aad: bytes) -> bytes:
        """Raises StorageError when no key of the file fits or the data was changed."""
        where = aad.decode(errors="replace")
        if not self.is_encrypted(data):
            raise StorageError(f"{where}: stored value is not in the encrypted format; restore the data directory")
        start = len(_MAGIC)
        cipher = self._ciphers.get(data[start : start + _KEY_ID])
        if cipher is None:
            raise StorageError(
                f"{where} was encrypted with a key that is not in {self._file}; put the original key file back"
            )
        nonce = data[start + _KEY_ID : start + _KEY_ID + _NONCE]
        try:
            return cipher.decrypt(nonce, data[start + _KEY_ID + _NONCE :], aad)
        except (InvalidTag, ValueError):
            raise StorageError(f"{where} does not decrypt with {self._file}: the stored value was altered") from None

    def rotate(self) -> None:
        """Encrypt with a new key from now on; older keys keep reading."""
        self._keys.insert(0, os.urandom(32))
        self._save()
        self._index()

    def needs_rewrite(self, data: bytes) -> bool:
        """True when ``data`` was encrypted with an older key."""
        return data[len(_MAGIC) : len(_MAGIC) + _KEY_ID] != self._current

    @staticmethod
    def is_encrypted(data: bytes) -> bool:
        return data.startswith(_MAGIC)

    def _index(self) -> None:
        self._ciphers = {_key_id(k): AESGCM(k) for k in self._keys}
        self._current = _key_id(self._keys[0])

    def _save(self) -> None:
        write_private(self._file, b"".join(base64.b64encode(k) + b"\n" for k in self._keys))

    def _parse(self, data: bytes) -> list[bytes]:
        try:
            keys = [base64.b64decode(line, validate=True) for line in data.split()]
        except ValueError:
            keys = []
        if not keys or any(len(k) != 32 for k in keys):
            raise StorageError(f"{self._file} is not a valid key file; put the original back (Secrets need it)")
        return keys
