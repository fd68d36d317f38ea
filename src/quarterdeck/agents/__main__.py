"""``python -m quarterdeck.agents --host IP --port 8080 --filepath /config``: the process of one agent's Pod."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from quarterdeck.errors import QuarterdeckError

from .host import serve


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.agents", description="The host of one agent.")
    parser.add_argument("--host", default=os.environ.get("POD_IP", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--grpc-port", type=int, default=0, help="port of A2A over gRPC; 0 for none")
    parser.add_argument("--filepath", type=Path, default=Path("/config"), help="folder of config.json, agent-card.json")
    parser.add_argument("--drain", type=float, default=20.0, help="seconds for the work at hand after SIGTERM")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        import uvloop

        # uvicorn raises the signal again when it has shut down: what comes after that must still run
        signal.signal(signal.SIGTERM, lambda *_: None)
        uvloop.run(serve(given.host, given.port, given.filepath, given.drain, given.grpc_port))
    except QuarterdeckError as error:
        print(f"agent: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
