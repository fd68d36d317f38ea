"""The cluster of tour.sh: control plane, one node, the datetime server's image, and PostgreSQL where it is installed.

Prints what the script needs as shell assignments and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster.build import build_helm
from cluster.plane import NO_ROUTES, available, plane
from support import postgresql
from support.platform import BIN, EXAMPLES


def main() -> int:
    found, why = available()
    if found is None:
        print(f"echo {shlex.quote(f'no real control plane here: {why}')}; exit 3", flush=True)
        return 3
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(plane(nodes=("local",)))
        if not cluster.routes:
            print(f"echo {shlex.quote(NO_ROUTES)}; exit 3", flush=True)
            return 3
        home = cluster.node_home("local")
        image = ["mcp", "build", "-d", str(EXAMPLES / "datetime-server"), "-t", "datetime-server:latest"]
        environment = os.environ | {"QUARTERDECK_HOME": str(home)}
        subprocess.run([str(BIN / "qd"), *image], env=environment, check=True, stdout=sys.stderr)
        database = ""
        if postgresql.commands() is not None:
            database = stack.enter_context(postgresql.running())
        known = {
            "KUBECONFIG": cluster.kubeconfig,
            "QUARTERDECK_HOME": cluster.root / "tour",
            "HELM": build_helm(4),
            "HELM_CACHE_HOME": cluster.root / "helm" / "cache",
            "HELM_CONFIG_HOME": cluster.root / "helm" / "config",
            "HELM_DATA_HOME": cluster.root / "helm" / "data",
            "DATABASE_URL": database,
        }
        for name, value in known.items():
            print(f"export {name}={shlex.quote(str(value))}")
        print("# ready", flush=True)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
