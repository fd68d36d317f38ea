"""Quarterdeck on a real control plane: the test plane with both charts installed by helm, as a person would."""

from __future__ import annotations

import subprocess
import time
from base64 import b64decode
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from cluster.build import build_helm
from cluster.plane import Plane, plane

from .platform import BIN, EXAMPLES, ROOT, SYSTEM, Platform, Ran

CHARTS = ROOT / "charts"


def helm(platform: Platform, major: Literal[3, 4], *args: str) -> Ran:
    """Real helm on the platform's cluster, with folders of its own."""
    folders = {f"HELM_{what}_HOME": str(platform.scratch / "helm" / what) for what in ("CACHE", "CONFIG", "DATA")}
    return platform.run(str(build_helm(major)), *args, timeout=180, env=folders)


NODE_RELAY = ("controller.env[0].name=QUARTERDECK_BYO_RELAY", "controller.env[0].value=node")
"""The test plane's nodes are ours: their Pods' relays attach tokens."""


@contextmanager
def real(*values: str, major: Literal[3, 4] = 4, database: str = "") -> Generator[tuple[Platform, Plane]]:
    """A fresh real control plane with one node, ``local``, and both charts installed by helm, as its manual says.

    ``values`` are further ``--set`` values of the chart; ``database``: URL of a PostgreSQL for two controllers. Raises
    RuntimeError when the plane is not built.
    """
    with plane(nodes=("local",)) as cluster:
        scratch = cluster.root / "scratch"
        scratch.mkdir()
        platform = Platform(cluster.kubeconfig, "", scratch, place=cluster.root)
        builder = subprocess.Popen(
            [str(BIN / "qd"), "mcp", "build", "-d", str(EXAMPLES / "datetime-server"), "-t", "datetime-server:latest"],
            env=platform.environment | {"QUARTERDECK_HOME": str(cluster.node_home("local"))},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            if database:
                platform.kubectl("create", "namespace", SYSTEM)
                platform.kubectl("create", "secret", "generic", "db", "-n", SYSTEM, f"--from-literal=url={database}")
                values = ("database.secretName=db", *values)
            began = time.monotonic()
            into = ("--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "120s")
            helm(platform, major, "install", "quarterdeck-crds", str(CHARTS / "quarterdeck-crds"), *into)
            # 127.0.0.1 is the machine's: several planes would meet at the admin port.
            wanted = [word for value in ("gateway.replicas=1", "gateway.admin=off", *NODE_RELAY, *values)
                      for word in ("--set", value)]  # fmt: skip
            helm(platform, major, "install", "quarterdeck", str(CHARTS / "quarterdeck"), *into, *wanted)
            platform.figures["helm install"] = time.monotonic() - began
            address = platform.get("service", "quarterdeck-gateway", SYSTEM)["spec"]["clusterIP"]
            platform.gateway = f"http://{address}:8701"
            secret = platform.get("secret", "quarterdeck-access-token", SYSTEM)
            platform.token = b64decode(secret["data"]["token"]).decode()
            controller = platform.get("service", "quarterdeck", SYSTEM)["spec"]["clusterIP"]
            platform.api = f"http://{controller}:8700"
            platform.person = cluster.kubeconfig_with_token()
            output, _ = builder.communicate(timeout=120)
            assert builder.returncode == 0, output
            yield platform, cluster
        finally:
            if builder.poll() is None:
                builder.kill()
                builder.wait()
