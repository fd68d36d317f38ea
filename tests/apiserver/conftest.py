"""One API server for the session, in its own thread and event loop, as real clients see it."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig

KUBECTL = Path(__file__).parents[2] / ".venv" / "bin" / "kubectl"


class Running:
    """An API server in a background thread; ``call`` runs a coroutine in its loop."""

    def __init__(self, data_dir: Path) -> None:
        self.server = ApiServer(ApiServerConfig(data_dir, port=0))
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.call(self.server.start())

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def stop(self) -> None:
        self.call(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    started = Running(tmp_path_factory.mktemp("home"))
    yield started
    started.stop()


Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def kubectl(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """``kubectl(*args, input="", ok=True)`` against the session's server."""
    home = tmp_path_factory.mktemp("kube")

    def run(*args: str, input: str = "", ok: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        env = {"KUBECONFIG": str(running.server.kubeconfig), "HOME": str(home), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [str(KUBECTL), *args], input=input, capture_output=True, text=True, timeout=timeout, env=env, check=False
        )
        if ok:
            assert done.returncode == 0, f"kubectl {' '.join(args)}\n{done.stdout}\n{done.stderr}"
        return done

    return run
