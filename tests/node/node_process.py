"""A node in a process of its own, for tests that kill it: arguments are a kubeconfig and the data directory."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from quarterdeck.kube.client import KubeClient, load_config
from quarterdeck.node.node import Node
from quarterdeck.node.runtime import NodeConfig


async def main() -> None:
    client = KubeClient(load_config(sys.argv[1]))
    node = Node(NodeConfig(client, "killed", Path(sys.argv[2]), refresh=0.2))
    await node.start()
    sys.stdout.write("up\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
