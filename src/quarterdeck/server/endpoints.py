"""``run/endpoints.json``: the real addresses of a running platform, the only place ``qd`` looks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Endpoints:
    """URLs without a trailing slash; ``pid`` is the control plane's process."""

    kubernetes: str
    api: str
    kagent: str
    gateway: str
    gateway_workloads: str
    pid: int


def endpoints_path(home: Path) -> Path:
    return home / "run" / "endpoints.json"


def write_endpoints(home: Path, found: Endpoints) -> None:
    """Publish the addresses, all at once."""
    path = endpoints_path(home)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(".tmp")
    document = {
        "kubernetes": found.kubernetes,
        "api": found.api,
        "kagent": found.kagent,
        "gateway": found.gateway,
        "gatewayWorkloads": found.gateway_workloads,
        "pid": found.pid,
    }
    partial.write_text(json.dumps(document))
    partial.replace(path)


def read_endpoints(home: Path) -> Endpoints:
    """Raises FileNotFoundError when nothing was published, ConfigError when the file is damaged."""
    path = endpoints_path(home)
    try:
        found = json.loads(path.read_text())
        return Endpoints(
            found["kubernetes"], found["api"], found["kagent"], found["gateway"], found["gatewayWorkloads"],
            int(found["pid"]),
        )  # fmt: skip
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); run: qd down && qd up") from error
