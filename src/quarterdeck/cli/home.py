"""Where things are on this machine: the data directory, the addresses of what runs, the clients made from them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.errors import ConfigError, QuarterdeckError


class NotRunning(QuarterdeckError):
    """Nothing answers for this data directory."""

    reason = "NotRunning"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The real addresses of a running platform, as ``run/endpoints.json`` has them."""

    kubernetes: str
    api: str
    kagent: str
    gateway: str
    gateway_workloads: str
    pid: int


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


def endpoints_path(directory: Path) -> Path:
    return directory / "run" / "endpoints.json"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def endpoints(directory: Path | None = None) -> Endpoints:
    """Raises NotRunning when no platform runs on the data directory."""
    directory = directory or home()
    path = endpoints_path(directory)
    try:
        found = json.loads(path.read_text())
        result = Endpoints(
            found["kubernetes"],
            found["api"],
            found["kagent"],
            found["gateway"],
            found["gatewayWorkloads"],
            int(found["pid"]),
        )
    except FileNotFoundError:
        raise NotRunning(f"nothing runs on {directory}; start it with: qd up") from None
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); run: qd down && qd up") from error
    if not alive(result.pid):
        raise NotRunning(f"the platform on {directory} has ended (process {result.pid} is gone); start it with: qd up")
    return result
