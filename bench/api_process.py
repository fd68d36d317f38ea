"""The embedded API server alone in a process: `python -m bench.api_process DIR`. Prints its client configuration."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import uvloop

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.apiserver.crd.conversion import InProcess
from quarterdeck.resources.conversion import CONVERTED_KINDS, convert


async def main(directory: Path) -> None:
    converters = InProcess()
    for group, kind in CONVERTED_KINDS:
        converters.register(group, kind, convert)
    server = ApiServer(ApiServerConfig(directory, port=0, converters=converters))
    await server.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print(json.dumps(server.client_config()), flush=True)
    await stopping.wait()
    await server.stop()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
