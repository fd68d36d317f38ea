"""Where things are on this machine: the data directory, the addresses of what runs, the clients made from them."""

from __future__ import annotations

import os
from pathlib import Path

from quarterdeck.errors import QuarterdeckError
from quarterdeck.server.endpoints import Endpoints, read_endpoints


class NotRunning(QuarterdeckError):
    """Nothing answers for this data directory."""

    reason = "NotRunning"


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


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return not os.path.isdir("/proc/self")  # without procfs the signal's answer stands
    return stat[stat.rindex(b")") + 2 :][:1] not in (b"Z", b"X")  # killed, only not yet collected by its parent


def endpoints(directory: Path | None = None) -> Endpoints:
    """Raises NotRunning when no platform runs on the data directory."""
    directory = directory or home()
    try:
        result = read_endpoints(directory)
    except FileNotFoundError:
        raise NotRunning(f"nothing runs on {directory}; start it with: qd up") from None
    if not alive(result.pid):
        raise NotRunning(f"the platform on {directory} has ended (process {result.pid} is gone); start it with: qd up")
    return result
