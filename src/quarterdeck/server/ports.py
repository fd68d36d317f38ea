"""The ports of what the control plane starts: wanted ones checked, free ones chosen, the running gateway's kept.

The gateway is a Pod and outlives the control plane. A control plane that starts again finds the gateway's ports taken,
by the gateway: they are left as they are, so that nothing is rolled and no caller is cut off.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from quarterdeck.controllers.bootstrap import GATEWAY, SYSTEM_NAMESPACE
from quarterdeck.kube.resource import Object
from quarterdeck.node.runtime import read_state

from .options import ServerOptions
from .rest import port_taken

LISTENERS = ("local", "workloads", "stats", "ready", "admin")
"""The gateway's, by the name of their flag."""
_FLAGS = {"local": "--gateway-port"}


def reserve(options: ServerOptions, before: dict[str, int], *, gateway_runs: bool) -> dict[str, int]:
    """Ports by name: api, kagent and :data:`LISTENERS`. ``before`` are those the gateway was told last.

    Raises QuarterdeckError for a wanted port that somebody else has.
    """
    wanted = dict.fromkeys(LISTENERS, 0) | {
        "api": options.api_port,
        "kagent": options.kagent_port,
        "local": options.gateway_port,
        "workloads": options.workloads_port,
    }
    held: list[socket.socket] = []
    found: dict[str, int] = {}
    try:
        for name, port in wanted.items():
            known = before.get(name, 0)
            if gateway_runs and known and port in (0, known):
                found[name] = known
                continue
            sock = _bound(port, known)
            if sock is None:
                raise port_taken(port, _FLAGS.get(name, f"--{name}-port"))
            held.append(sock)
            found[name] = int(sock.getsockname()[1])
    finally:
        for sock in held:
            sock.close()
    return found


def _bound(port: int, known: int) -> socket.socket | None:
    """A socket on the port; for 0 on the one used before or, when that is taken, on a free one."""
    for candidate in (port,) if port or not known else (known, 0):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", candidate))
        except OSError:
            sock.close()
        else:
            return sock
    return None


def listeners_of(deployment: Object | None) -> dict[str, int]:
    """The ports a gateway's Deployment names in its arguments; later ones win, as on a command line."""
    if deployment is None:
        return {}
    args: Sequence[str] = deployment["spec"]["template"]["spec"]["containers"][0].get("args") or ()
    found: dict[str, int] = {}
    for flag, value in pairwise(args):
        name, port = flag.removeprefix("--"), value.rpartition(":")[2]
        if name in LISTENERS and port.isdigit():
            found[name] = int(port)
    return found


def gateway_runs(node_dir: Path) -> bool:
    """Whether a gateway that an earlier control plane started is still there, by the node's own records."""
    for record in node_dir.glob("pods/*/pod.json"):
        meta = (json.loads(record.read_text()).get("pod") or {}).get("metadata") or {}
        if meta.get("namespace") != SYSTEM_NAMESPACE or not str(meta.get("name", "")).startswith(f"{GATEWAY}-"):
            continue
        for state in record.parent.glob("containers/*/state.json"):
            _, process = read_state(state)
            if process is not None and process.alive():
                return True
    return False
