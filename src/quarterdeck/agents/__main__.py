"""``python -m quarterdeck.agents --host IP --port 8080 --filepath /config``: the process of one agent's Pod."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from types import FrameType

import uvicorn

from quarterdeck.errors import ConfigError, QuarterdeckError
from quarterdeck.wire.client import Pool

from .a2a.card import AgentCard, tool_skills
from .a2a.core import Core
from .a2a.store import A2aState
from .app import build
from .config import load
from .credentials import WorkloadToken
from .model import ChatModel
from .runs import Runs, watch
from .toolbox import Toolbox

log = logging.getLogger("quarterdeck.agents")


class _Server(uvicorn.Server):
    """Knows when it was told to stop."""

    stopped_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.stopped_at = self.stopped_at or monotonic()
        super().handle_exit(sig, frame)


async def serve(host: str, port: int, directory: Path, drain: float) -> None:
    """Build the parts in order and serve until SIGTERM; what is running then gets ``drain`` seconds to finish."""
    config, card = load(directory)
    control_plane = os.environ.get("KAGENT_URL", "")
    if not control_plane:
        raise ConfigError("KAGENT_URL is not set; it is the control plane's REST API that keeps sessions and tasks")
    pool, token = Pool(), WorkloadToken()
    toolbox = Toolbox(pool, config, token.headers)
    model = ChatModel(pool, config.model, token.headers)
    state = A2aState(pool, control_plane, token.headers)
    runs = Runs(config, model, toolbox, state)

    app = build(Core(runs, state, AgentCard(card, extended=tool_skills(config), signer=state.sign), watch))
    name = os.environ.get("KAGENT_NAME", "agent")
    log.info("%s listens on %s:%d, model %s", name, host, port, config.model.model)
    settings = uvicorn.Config(
        app, host=host, port=port, loop="uvloop", http="httptools", ws="none", log_level="warning", access_log=False,
        timeout_graceful_shutdown=int(drain) or None, server_header=False,
    )  # fmt: skip
    server = _Server(settings)
    async with _stopping(runs, pool):
        await server.serve()
        since = monotonic() - (server.stopped_at or monotonic())
        await runs.drain(max(0.0, drain - since))  # tasks whose caller has gone are finished too


@asynccontextmanager
async def _stopping(runs: Runs, pool: Pool) -> AsyncGenerator[None]:
    heartbeat = asyncio.get_running_loop().create_task(runs.heartbeat.run(), name="heartbeat")
    try:
        yield
    finally:
        await runs.stop()
        heartbeat.cancel()
        pool.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.agents", description="The host of one agent.")
    parser.add_argument("--host", default=os.environ.get("POD_IP", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--filepath", type=Path, default=Path("/config"), help="folder of config.json, agent-card.json")
    parser.add_argument("--drain", type=float, default=20.0, help="seconds for the work at hand after SIGTERM")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        import uvloop

        # uvicorn raises the signal again when it has shut down: what comes after that must still run
        signal.signal(signal.SIGTERM, lambda *_: None)
        uvloop.run(serve(given.host, given.port, given.filepath, given.drain))
    except QuarterdeckError as error:
        print(f"agent: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
