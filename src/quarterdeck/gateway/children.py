"""stdio servers that a configuration file names: one bridge process each, on a unix socket only this user can reach.

The socket listens before the process is there, so that a call in the meantime (the start of ``uvx`` and ``npx`` takes
seconds) waits in its queue instead of failing. The same holds while a bridge that died is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import logging
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import monotonic

import msgspec

from quarterdeck import processes
from quarterdeck.errors import StorageError
from quarterdeck.snapshot import Child, Endpoint, Snapshot

_log = logging.getLogger("quarterdeck.gateway.children")

START_TIMEOUT = 120.0
"""Seconds from the start of a command to its first answer; it may have to be downloaded first."""
_STEADY = 60.0  # seconds a bridge must have lived for its next start to come at once
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_DIRECTORY = 75  # bytes: the kernel takes 107, and /PID/DIGEST.sock is added
_PR_SET_PDEATHSIG = 1


async def wait_with_jitter(attempt: int) -> None:
    """0.5 s, doubling to 30 s, each ± 30 %."""
    await asyncio.sleep(min(0.5 * 2 ** min(attempt, 6), 30.0) * random.uniform(0.7, 1.3))  # noqa: S311 - no secret


class _Running:
    """One child: its socket, its bridge, and the task that keeps it."""

    def __init__(self, spec: Child, path: Path, listener: socket.socket) -> None:
        self.spec = spec
        self.path = path
        self.listener = listener
        self.process: asyncio.subprocess.Process | None = None
        self.task: asyncio.Task[None] | None = None
        self.starts = 0


class Children:
    """Starts what a snapshot needs and ends what it does not need any more."""

    def __init__(
        self,
        directory: Path,
        backoff: Callable[[int], Awaitable[None]] = wait_with_jitter,
        silence: float = 300.0,
        *,
        shared: bool = False,
        start: bool = True,
    ) -> None:
        """``directory`` holds the sockets; ``silence``: seconds a server may be silent during a call.

        ``shared``: all workers of this gateway find the sockets right there, and only one is to ``start`` the servers;
        else they lie in a directory of this process.
        """
        self._parent = directory
        self._directory: Path | None = directory if shared else None
        self._starts = start
        self._backoff = backoff
        self._silence = silence
        self._running: dict[Child, _Running] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def place(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the addresses of its children, which are started where they are new.

        Nothing is ended before :meth:`keep`, so the snapshot in use goes on working. Raises StorageError.
        """
        if not snapshot.children:
            return snapshot
        for child in snapshot.children:
            if self._starts and child not in self._running:
                self._running[child] = self._start(child)
        sockets = {child.server: str(self._socket_path(child)) for child in snapshot.children}
        servers = tuple(
            msgspec.structs.replace(server, endpoints=(Endpoint(sockets[key], 0),))
            if (key := f"{server.kind}/{server.namespace}/{server.name}") in sockets
            else server
            for server in snapshot.mcp
        )
        return msgspec.structs.replace(snapshot, mcp=servers)

    def keep(self, children: tuple[Child, ...]) -> None:
        """End all others."""
        for child in [child for child in self._running if child not in children]:
            task = asyncio.get_running_loop().create_task(self._end(self._running.pop(child)))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def stop(self) -> None:
        """End all, and remove the sockets."""
        self.keep(())
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._directory is not None and self._starts:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def pids(self) -> dict[str, int]:
        """Server → process id of its bridge."""
        return {c.server: r.process.pid for c, r in self._running.items() if r.process is not None}

    # -- one child
    def _start(self, child: Child) -> _Running:
        path = self._socket_path(child)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(1024)
        except OSError as error:
            listener.close()
            raise StorageError(f"cannot listen on {path}: {error.strerror}") from error
        running = _Running(child, path, listener)
        running.task = asyncio.get_running_loop().create_task(self._supervise(running), name=f"child-{child.server}")
        return running

    def _socket_path(self, child: Child) -> Path:
        digest = hashlib.sha256(msgspec.json.encode(child)).hexdigest()[:16]
        if self._directory is None:
            try:
                self._directory = _own_directory(self._parent)
            except OSError as error:
                raise StorageError(f"cannot use {self._parent}: {error.strerror}") from error
        return self._directory / f"{digest}.sock"

    async def _supervise(self, running: _Running) -> None:
        attempt = 0
        while True:
            began = monotonic()
            try:
                running.process = await self._spawn(running)
                status = await running.process.wait()
                problem = f"ended with status {status}"
            except OSError as error:
                problem = f"cannot be started: {error.strerror}"
            running.process = None
            attempt = 0 if monotonic() - began > _STEADY else attempt + 1
            _log.warning("the bridge of %s %s; starting it again", running.spec.server, problem)
            await self._backoff(attempt)

    async def _spawn(self, running: _Running) -> asyncio.subprocess.Process:
        running.starts += 1
        child = running.spec
        environment = child_environment(child, os.environ)
        config = {
            "listen": {"port": 0},
            "command": command_path(child.command, environment.get("PATH") or os.environ.get("PATH", "")),
            "args": child.args,
            "name": child.server.rpartition("/")[2],
            "timeout": self._silence,
            "start_timeout": START_TIMEOUT,
            "hold": True,
        }
        file = running.path.with_suffix(".json")
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(msgspec.json.encode(config))
        listener = running.listener.fileno()
        return await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-m", "quarterdeck.bridge", "--config", str(file),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(listener,),
            env={**environment, "QUARTERDECK_LISTEN_FDS": f"0={listener}"},
            cwd=child.cwd or None,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip

    async def _end(self, running: _Running) -> None:
        if running.task is not None:
            running.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running.task
        if running.process is not None:
            await processes.end(running.process, _GRACE)
        running.listener.close()
        if not any(other.path == running.path for other in self._running.values()):
            running.path.unlink(missing_ok=True)
            running.path.with_suffix(".json").unlink(missing_ok=True)


def _own_directory(parent: Path) -> Path:
    """A directory for this process (several may share ``parent``); those of processes that are gone are removed."""
    if len(os.fsencode(parent)) > _DIRECTORY:
        return Path(tempfile.mkdtemp(prefix="qd-"))
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in parent.iterdir():
        if old.name.isdigit() and not processes.alive(int(old.name)):
            shutil.rmtree(old, ignore_errors=True)
    own = parent / str(os.getpid())
    own.mkdir(mode=0o700, exist_ok=True)
    own.chmod(0o700)
    return own


def child_environment(child: Child, environment: Mapping[str, str]) -> dict[str, str]:
    """What the server's process sees: ours without our own settings, unless ``clear_env``, and what the file adds.

    ``npx`` asks whether it may download; nobody is there to say so, and the file has.
    """
    own = {k: v for k, v in environment.items() if not k.startswith("QUARTERDECK_")}
    return {**({} if child.clear_env else {"npm_config_yes": "true", **own}), **dict(child.env)}


def command_path(command: str, path: str) -> str:
    """The command found on ``path``, or beside this interpreter (``uvx`` comes with us); else as it is written."""
    return shutil.which(command, path=os.pathsep.join((path, str(Path(sys.executable).parent)))) or command


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
