"""The parts of an agent's process, built in order and served until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from quarterdeck.errors import ConfigError
from quarterdeck.wire.client import Pool

from .a2a.card import AgentCard, tool_skills
from .a2a.core import Core
from .a2a.store import A2aState
from .app import build
from .config import AgentConfig, load
from .credentials import WorkloadToken
from .interrupted import Leases
from .journal.client import JournalClient
from .memory import memory
from .model import ChatModel
from .observe.run import About, Hosted
from .runs import Runs
from .skills import plugin as skills
from .toolbox import Toolbox

if TYPE_CHECKING:
    from .a2a.grpc import GrpcServer

log = logging.getLogger("quarterdeck.agents")


class _Server(uvicorn.Server):
    """Knows when it was told to stop, and tells ``leases``: from then on nothing is taken over."""

    stopped_at: float | None = None
    leases: Leases

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.stopped_at = self.stopped_at or monotonic()
        self.leases.resting = True
        super().handle_exit(sig, frame)


async def serve(host: str, port: int, directory: Path, drain: float, grpc_port: int = 0) -> None:
    """Build the parts in order and serve until SIGTERM; what is running then gets ``drain`` seconds to finish."""
    config, card = load(directory)
    control_plane = os.environ.get("KAGENT_URL", "")
    if not control_plane:
        raise ConfigError("KAGENT_URL is not set; it is the control plane's REST API that keeps sessions and tasks")
    pool, token = Pool(), WorkloadToken()
    toolbox = Toolbox(pool, config, token.headers)
    model = ChatModel(pool, config.model, token.headers)
    state = A2aState(pool, control_plane, token.headers)
    hosted = Hosted(_about(config), os.environ)
    journal = JournalClient(pool, control_plane, token.headers)
    remembering = memory.of(config, pool, control_plane, token.headers, model, state)
    parts = [*remembering, *skills.plugins()]
    runs = Runs(config, model, toolbox, state, journal, plugins=parts, observer=hosted.observer)

    extended = tool_skills(config)
    agent_card = AgentCard(card, grpc_port=grpc_port, extended=extended, signer=state.sign, media=runs.takes)
    core = Core(runs, state, agent_card)
    app = build(core, metrics=hosted.observer.registry)
    name = os.environ.get("KAGENT_NAME", "agent")
    log.info("%s listens on %s:%d, model %s", name, host, port, config.model.model)
    settings = uvicorn.Config(
        app, host=host, port=port, loop="uvloop", http="httptools", ws="none", log_level="warning", access_log=False,
        timeout_graceful_shutdown=int(drain) or None, server_header=False,
    )  # fmt: skip
    server = _Server(settings)
    server.leases = runs.heartbeat
    async with _stopping(runs, pool, hosted, remembering, server):
        rpc = await _grpc(core, state, host, grpc_port) if grpc_port else None
        await server.serve()
        if rpc is not None:
            await rpc.stop(max(0.0, drain))
        since = monotonic() - (server.stopped_at or monotonic())
        await runs.drain(max(0.0, drain - since))  # tasks whose caller has gone are finished too


def _about(config: AgentConfig) -> About:
    """What is said of this agent to who observes it."""
    agent = f"{os.environ.get('KAGENT_NAMESPACE', '')}/{os.environ.get('KAGENT_NAME', 'agent')}".lstrip("/")
    budget = config.runs.budget
    return About(agent, config.model.model, config.model.type, budget.input_price, budget.output_price)


async def _grpc(core: Core, state: A2aState, host: str, port: int) -> GrpcServer | None:
    """A2A over gRPC, where grpcio is installed. Raises ConfigError for a port that cannot be had."""
    try:
        from .a2a.grpc import GrpcServer
    except ImportError as error:
        log.warning("A2A over gRPC is not served: %s", error)
        core.card.grpc_port = 0
        return None
    server = GrpcServer(core, state.caller)
    try:
        await server.listen(host, port)
    except OSError as error:
        raise ConfigError(str(error)) from error
    return server


@asynccontextmanager
async def _stopping(
    runs: Runs, pool: Pool, hosted: Hosted, remembering: Sequence[memory.Memory], server: uvicorn.Server
) -> AsyncGenerator[None]:
    def died(task: asyncio.Task[None]) -> None:
        """Without it every run would be lost to others, again and again: the kubelet starts us anew."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("leases of runs are not kept any more", exc_info=error)
            server.should_exit = True

    hosted.start()
    heartbeat = asyncio.get_running_loop().create_task(runs.heartbeat.run(), name="heartbeat")
    heartbeat.add_done_callback(died)
    try:
        yield
    finally:
        await runs.stop()
        await asyncio.gather(*(each.stop() for each in remembering))
        heartbeat.cancel()
        await hosted.stop()
        pool.close()
