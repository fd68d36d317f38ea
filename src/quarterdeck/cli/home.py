"""Where things are on this machine: the data directory, the addresses of what runs, the clients made from them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from quarterdeck.errors import ConfigError, QuarterdeckError
from quarterdeck.processes import alive
from quarterdeck.server.endpoints import Endpoints, read_endpoints

RESTART_SECONDS = 10.0
"""How long a command waits for a control plane that its supervisor is starting."""


class NotRunning(QuarterdeckError):
    """Nothing answers for this data directory."""

    reason = "NotRunning"


class Starting(QuarterdeckError):
    """The supervisor lives and its control plane is not back yet."""

    reason = "Starting"


def home() -> Path:
    """``$QUARTERDECK_HOME``, else the XDG data directory."""
    chosen = os.environ.get("QUARTERDECK_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME") or str(Path("~/.local/share").expanduser())
    return Path(data) / "quarterdeck"


def kubeconfig_path(directory: Path) -> Path:
    """Inside ``$QUARTERDECK_HOME`` when that is set, else in the XDG configuration directory."""
    if os.environ.get("QUARTERDECK_HOME"):
        return directory / "kubeconfig"
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(config) / "quarterdeck" / "kubeconfig"


def supervisor_pid(directory: Path) -> int | None:
    """The process of the ``qd up`` that holds the data directory; None when there is none."""
    path = directory / "run" / "up.lock"
    try:
        with path.open("r") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask are no supervisor
            except BlockingIOError:
                return int(lock.read().strip() or 0) or None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return None


def endpoints(directory: Path | None = None, wait: float = RESTART_SECONDS) -> Endpoints:
    """The addresses of what runs; a control plane that starts again is waited for, ``wait`` seconds at most.

    Raises NotRunning when no platform runs on the data directory, Starting when it was not back in time.
    """
    directory = directory or home()
    deadline = time.monotonic() + wait
    while (result := _published(directory)) is None or not alive(result.pid):
        supervisor = supervisor_pid(directory)
        if supervisor is None:
            raise _not_running(directory, result)
        if time.monotonic() > deadline:
            raise Starting(
                f"the control plane on {directory} is starting again (supervisor {supervisor}); try again, "
                f"or look at its log: {directory / 'run' / 'controlplane.log'}"
            )
        time.sleep(0.05)
    return result


def await_restart(directory: Path) -> None:
    """Wait for a control plane that is being started again; nothing to do when no supervisor runs. Raises Starting."""
    if supervisor_pid(directory) is not None:
        with contextlib.suppress(NotRunning, ConfigError):  # a damaged address book is no reason to refuse
            endpoints(directory)


def _published(directory: Path) -> Endpoints | None:
    try:
        return read_endpoints(directory)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _not_running(directory: Path, last: Endpoints | None) -> NotRunning:
    if last is None:
        return NotRunning(f"nothing runs on {directory}; start it with: qd up")
    return NotRunning(f"the platform on {directory} has ended (process {last.pid} is gone); start it with: qd up")
