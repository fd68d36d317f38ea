"""The key file while the gateway runs: a key that is put in front of it seals from then on, older ones still open."""

from __future__ import annotations

import asyncio
from pathlib import Path

from .session import KEY_BYTES, SessionSealer

_INTERVAL = 5.0
"""Seconds between looks."""


class KeyFile:
    """Follows one file."""

    def __init__(self, path: Path, secret: bytes, sealer: SessionSealer) -> None:
        self._path = path
        self._secret = secret
        self._sealer = sealer

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            self.look()

    def look(self) -> None:
        """Use what the file holds now; what holds no keys, or cannot be read, changes nothing."""
        try:
            secret = self._path.read_bytes()
        except OSError:
            return
        if secret != self._secret and secret and len(secret) % KEY_BYTES == 0:
            self._secret = secret
            self._sealer.use(secret)
