"""``qd`` as a person starts it, against a real API server in this process (no controllers, no node)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.resources.crd import crds

BIN = Path(__file__).parents[2] / ".venv" / "bin"
Run = Callable[..., subprocess.CompletedProcess[str]]


class Running:
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


def runner(program: str, env: dict[str, str]) -> Run:
    """``run(*args, input="", ok=True)``: a subprocess with a clean environment."""

    def run(*args: str, input: str = "", ok: bool = True, timeout: float = 40) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(BIN / program), *args], input=input, capture_output=True, text=True, timeout=timeout, check=False,
            env={"PATH": f"{BIN}:{os.environ['PATH']}", **env},
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        if ok:
            assert done.returncode == 0, f"{program} {' '.join(args)}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def environment(running: Running, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("person")
    return {"KUBECONFIG": str(running.server.kubeconfig), "HOME": str(home), "QUARTERDECK_HOME": str(home / "qd")}


@pytest.fixture(scope="session")
def qd(environment: dict[str, str]) -> Run:
    return runner("qd", environment)


@pytest.fixture(scope="session")
def kubectl(environment: dict[str, str]) -> Run:
    return runner("kubectl", environment)


@pytest.fixture(scope="session")
def kagent_kinds(qd: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Our CustomResourceDefinitions, applied by ``qd apply`` itself."""
    import yaml

    folder = tmp_path_factory.mktemp("crds")
    (folder / "all.yaml").write_text(yaml.safe_dump_all(crds()))
    done = qd("apply", "-f", str(folder))
    assert "customresourcedefinition.apiextensions.k8s.io/agents.kagent.dev created" in done.stdout
