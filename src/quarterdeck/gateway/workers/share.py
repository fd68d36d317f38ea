"""What one worker knows of the others: its number, the directory they share, and the line to the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from quarterdeck.errors import UsageError


class Share:
    """``index`` is 0 for the worker that does what only one may do."""

    def __init__(self, index: int, directory: Path, line: socket.socket | None = None) -> None:
        self.index = index
        self.directory = directory
        self._line = line

    @classmethod
    def parse(cls, text: str) -> Share | None:
        """``INDEX:FD:DIRECTORY`` as the supervisor gives it; empty is None. Raises UsageError."""
        if not text:
            return None
        index, _, rest = text.partition(":")
        descriptor, _, directory = rest.partition(":")
        try:
            line = socket.socket(fileno=int(descriptor))
            line.setblocking(False)
            return cls(int(index), Path(directory), line)
        except (ValueError, OSError) as error:
            raise UsageError(f"--worker is for the supervisor to give ({error}); use --workers") from error

    @property
    def control(self) -> Path:
        """The socket where this worker answers the supervisor."""
        return control_socket(self.directory, self.index)

    def tell(self, endpoints: Mapping[str, str]) -> None:
        """Tell the supervisor where this worker listens."""
        if self._line is not None:
            with contextlib.suppress(OSError):  # gone, or so slow that the next one will do
                self._line.send(msgspec.json.encode(endpoints) + b"\n")

    def watch(self, gone: Callable[[], None]) -> None:
        """Call ``gone`` when the supervisor is no more."""
        line = self._line
        if line is None:
            return
        loop = asyncio.get_running_loop()

        def readable() -> None:
            with contextlib.suppress(BlockingIOError):
                try:
                    data = line.recv(1024)
                except ConnectionError:
                    data = b""
                if not data:
                    loop.remove_reader(line.fileno())
                    gone()

        loop.add_reader(line.fileno(), readable)

    def agree(self, name: str, bind: Callable[[int], socket.socket]) -> socket.socket:
        """A socket on the port that all workers use for what ``name`` says; the first one takes a free one.

        Raises OSError.
        """
        file = self.directory / "ports.json"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            known: dict[str, int] = msgspec.json.decode(os.pread(descriptor, 1 << 20, 0) or b"{}")
            sock = bind(known.get(name, 0))
            known[name] = int(sock.getsockname()[1])
            data = msgspec.json.encode(known)
            os.pwrite(descriptor, data, 0)
            os.ftruncate(descriptor, len(data))
            return sock
        finally:
            os.close(descriptor)


def control_socket(directory: Path, index: int) -> Path:
    return directory / f"{index}.sock"
