"""An agent host in a process of its own that costs a fork, so that it can be killed often."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from quarterdeck.agents.a2a.store import A2aState
from quarterdeck.agents.config import AgentConfig
from quarterdeck.agents.journal.client import JournalClient
from quarterdeck.agents.model import ChatModel
from quarterdeck.agents.runs import Runs
from quarterdeck.agents.toolbox import Toolbox
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Header

Json = dict[str, Any]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__])


def start_host(config: Json, url: str, token: str, replica: str, message: Json | None) -> BaseProcess:
    """A host that works on ``message``, if there is one, and on what other replicas left. ``url``: control plane."""
    _preloaded()
    process = _forks.Process(target=_main, args=(config, url, token, replica, message), daemon=True)
    process.start()
    return process


def _preloaded() -> None:
    """The server that forks must find this module by itself: it is not told our path (Python 3.11)."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in (str(Path(__file__).parents[1]), before) if path)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _main(config: Json, url: str, token: str, replica: str, message: Json | None) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(config, url, token, replica, message))


async def serve(config: Json, url: str, token: str, replica: str, message: Json | None) -> None:
    runs = make_runs(config, url, token, replica)
    if message is not None:
        await runs.start(message, "alice")
    await runs.heartbeat.run()


def make_runs(config: Json, url: str, token: str, replica: str) -> Runs:
    """The host's heart, as ``agents.__main__`` builds it."""

    async def headers() -> list[Header]:
        return [(b"authorization", b"Bearer " + token.encode())]

    pool, parsed = Pool(), AgentConfig.model_validate(config)
    journal = JournalClient(pool, url, headers)
    model = ChatModel(pool, parsed.model, headers)
    boot = f"{replica}/{os.urandom(6).hex()}"
    return Runs(parsed, model, Toolbox(pool, parsed, headers), A2aState(pool, url, headers), journal, replica=boot)
