"""What ``qd up`` keeps running: one control plane process, started again when it dies, ended when we are."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from quarterdeck.errors import QuarterdeckError, StorageError, TimedOut, UsageError
from quarterdeck.server.directory import close_to_others
from quarterdeck.server.endpoints import Endpoints, endpoints_path, read_endpoints

from .home import kubeconfig_path

RESTARTS = 5
"""Deaths within :data:`WINDOW` seconds after which we give up and say why."""
WINDOW = 60.0
STOP_GRACE = 45.0
MINIMUM_FREE = 32 * 1024 * 1024
"""Bytes of free space below which nothing is started: a full disk would also swallow the log that says so."""


LOG_TAIL = 64 * 1024
"""Characters at the end of the log in which its last line is looked for."""
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)+(?=[A-Z]\w*(?::|$))")


class ControlPlaneFailed(QuarterdeckError):
    """The control plane ended and starting it again does not help."""

    reason = "ControlPlaneFailed"


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of the platform; 0 takes a free one."""

    kubernetes: int = 8703
    api: int = 8700
    kagent: int = 8083
    gateway: int = 8701
    workloads: int = 8702

    def __post_init__(self) -> None:
        """Raises UsageError where two are the same."""
        seen: dict[str, str] = {}
        for flag, _, port in (argument.partition("=") for argument in self.arguments()):
            if port != "0" and (other := seen.setdefault(port, flag)) != flag:
                raise UsageError(f"{other} and {flag} are both {port}: give each one of its own, or 0 for a free one")

    def arguments(self) -> list[str]:
        return [
            f"--kubernetes-port={self.kubernetes}",
            f"--api-port={self.api}",
            f"--kagent-port={self.kagent}",
            f"--gateway-port={self.gateway}",
            f"--workloads-port={self.workloads}",
        ]


class Supervisor:
    """Owns the control plane process of one data directory."""

    def __init__(self, directory: Path, ports: Ports, say: Callable[[str], None]) -> None:
        self.directory = directory
        self.ports = ports
        self.say = say
        self.log_path = directory / "run" / "controlplane.log"
        self._lock: IO[str] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._deaths: list[float] = []
        self._stopping = False

    def acquire(self) -> None:
        """Become the one supervisor of the data directory. Raises StorageError naming the other one."""
        run = self.directory / "run"
        close_to_others(self.directory)
        try:
            self._check_space()
            lock = (run / "up.lock").open("a+")
        except OSError as error:
            raise StorageError(
                f"data directory {self.directory}: {error.strerror}; make it writable or set QUARTERDECK_HOME"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            other = lock.read().strip() or "unknown"
            raise StorageError(
                f"a platform already runs on {self.directory} (qd up, process {other}); "
                "qd status shows it, qd down ends it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _check_space(self) -> None:
        disk = os.statvfs(self.directory)
        free = disk.f_bavail * disk.f_frsize
        if free < MINIMUM_FREE:
            raise StorageError(
                f"data directory {self.directory}: only {free // 1024} KiB are free on its disk, "
                f"{MINIMUM_FREE // 1024} KiB are needed; free some space or set QUARTERDECK_HOME to another disk"
            )

    def start(self) -> None:
        endpoints_path(self.directory).unlink(missing_ok=True)
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "quarterdeck.server", f"--home={self.directory}", *self._arguments()],
                stdin=subprocess.PIPE,  # the control plane stops when this end closes, however we die
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _arguments(self) -> list[str]:
        return [f"--kubeconfig={kubeconfig_path(self.directory)}", *self.ports.arguments()]

    def wait_started(self, seconds: float = 60.0) -> Endpoints:
        """Wait until the control plane has written its addresses. Raises with the end of its log when it died."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._child is not None
            code = self._child.poll()
            if code is not None:
                raise ControlPlaneFailed(f"the control plane ended with code {code}: {self.last_words()}")
            if endpoints_path(self.directory).exists():
                found = read_endpoints(self.directory)
                if found.pid == self._child.pid:
                    self.ports = _ports_of(found)
                    return found
            time.sleep(0.05)
        raise TimedOut(f"the control plane was not up within {seconds:g} s; its log: {self.log_path}")

    def run(self) -> None:
        """Watch until asked to stop; start the control plane again, on the same ports, when it dies."""
        while not self._stopping:
            assert self._child is not None
            try:
                code = self._child.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue
            if self._stopping:
                return
            now = time.monotonic()
            self._deaths = [t for t in self._deaths if now - t < WINDOW] + [now]
            if len(self._deaths) > RESTARTS:
                raise ControlPlaneFailed(
                    f"the control plane died {len(self._deaths)} times within {WINDOW:g} s, "
                    f"last with code {code}: {self.last_words()}"
                )
            self.say(f"the control plane ended with code {code}; starting it again")
            time.sleep(min(0.1 * 2 ** len(self._deaths), 3.0))
            self.start()

    def stop(self) -> None:
        """End the control plane, and with it the Pods; kill it only when it does not end by itself."""
        self._stopping = True
        child = self._child
        if child is None:
            return
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout=STOP_GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        endpoints_path(self.directory).unlink(missing_ok=True)
        from quarterdeck.node.remains import end_remains  # only at the end: small until then

        left = end_remains(self.directory / "node")
        if left:
            self.say(f"ended {left} processes that a control plane had left behind")

    def last_words(self) -> str:
        """What the control plane said last, in one line, and where the rest is."""
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError as error:
            return f"{self.log_path}: {error.strerror}"
        return f"{last_line(text[-LOG_TAIL:])}; its log: {self.log_path}"


def last_line(log: str) -> str:
    """The last line that is not part of a traceback's frames; an exception's own line without its module path."""
    lines = [line for line in log.splitlines() if line.strip() and not line[0].isspace()]
    if not lines:
        return "it said nothing"
    return _EXCEPTION.sub("", lines[-1].removeprefix("control plane: ")).strip()


def _ports_of(found: Endpoints) -> Ports:
    def port(url: str) -> int:
        return int(url.rsplit(":", 1)[1])

    return Ports(
        port(found.kubernetes), port(found.api), port(found.kagent), port(found.gateway), port(found.gateway_workloads)
    )
