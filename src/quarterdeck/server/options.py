"""Command line of the control plane process."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where the control plane keeps its data and listens. Ports of 0 take a free one."""

    home: Path
    kubeconfig: Path
    kubernetes_port: int = 8703
    api_port: int = 8700
    kagent_port: int = 8083
    gateway_port: int = 8701
    workloads_port: int = 8702
    database: str = ""
    """SQLAlchemy URL; empty keeps conversations in ``HOME/server.db``."""


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{port} is not in the range 0 to {HIGHEST_PORT}")
    return port


def parse(arguments: list[str]) -> ServerOptions:
    parser = argparse.ArgumentParser(
        prog="python -m quarterdeck.server", description="The control plane; run by qd up."
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--kubeconfig", type=Path)
    for name, port in (("kubernetes", 8703), ("api", 8700), ("kagent", 8083), ("gateway", 8701), ("workloads", 8702)):
        parser.add_argument(f"--{name}-port", type=_port, default=port)
    parser.add_argument("--database", default="")
    given = vars(parser.parse_args(arguments))
    given["kubeconfig"] = given["kubeconfig"] or given["home"] / "kubeconfig"
    return ServerOptions(**given)
