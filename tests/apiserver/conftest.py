"""One API server for the session, in its own thread and event loop, as real clients see it."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.apiserver.security.pki import Pki, ensure_pki

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import kubectls
from support.objects import Objects


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(kubectls.summary())


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


@pytest.fixture(scope="session", params=kubectls.params())
def kubectl(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """``kubectl(*args, input="", ok=True)`` of each release against a server of its own."""
    binary = kubectls.kubectl(request.param)
    home = tmp_path_factory.mktemp("kube")
    started = Running(tmp_path_factory.mktemp("home"))
    env = {"KUBECONFIG": str(started.server.kubeconfig), "HOME": str(home), "PATH": "/usr/bin:/bin"}

    def run(*args: str, input: str = "", ok: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(binary), *args], input=input, capture_output=True, text=True, timeout=timeout, env=env, check=False
        )
        if ok:
            assert done.returncode == 0, f"kubectl {' '.join(args)}\n{done.stdout}\n{done.stderr}"
        return done

    yield run
    started.stop()


class Api:
    """Plain HTTP to the session's server. ``as_user`` impersonates; ``token`` "" goes without credentials."""

    def __init__(self, running: Running, token: str | None = None, as_user: str = "") -> None:
        self.running = running
        server = running.server
        self.token = server.admin_token if token is None else token
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        if as_user:
            headers["impersonate-user"] = as_user
        verify = ssl.create_default_context(cadata=server.ca_pem.decode())
        self.http = httpx.Client(base_url=server.url, headers=headers, verify=verify, timeout=20)

    def __call__(self, method: str, path: str, body: Any = None, type: str = "", **params: Any) -> httpx.Response:
        content = body if isinstance(body, (bytes, str)) else None if body is None else json.dumps(body)
        headers = {"content-type": type or "application/json"} if content is not None else {}
        return self.http.request(method, path, content=content, headers=headers, params=params)

    def ok(self, method: str, path: str, body: Any = None, type: str = "", **params: Any) -> Any:
        """The decoded answer of a request that must succeed."""
        response = self(method, path, body, type, **params)
        assert response.status_code < 300, response.text
        return response.json()

    def refused(self, code: int, method: str, path: str, body: Any = None, type: str = "", **params: Any) -> Any:
        """The Status of a request that must fail with ``code``."""
        response = self(method, path, body, type, **params)
        assert response.status_code == code, response.text
        status = response.json()
        assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", code)
        return status

    @contextmanager
    def watch(self, path: str, accept: str = "application/json", **params: Any) -> Iterator[Iterator[Any]]:
        """The events of a watch as they come."""
        query = {"watch": "true", "timeoutSeconds": "20", **params}
        with self.http.stream("GET", path, params=query, headers={"accept": accept}) as response:
            assert response.status_code == 200, response.read()
            yield (json.loads(line) for line in response.iter_lines())

    def namespace(self) -> str:
        """A fresh namespace with the default ServiceAccount (no controller makes it here); its URL prefix."""
        made = self.ok("POST", "/api/v1/namespaces", {"metadata": {"generateName": "test-"}})
        path = f"/api/v1/namespaces/{made['metadata']['name']}"
        self.ok("POST", f"{path}/serviceaccounts", {"metadata": {"name": "default"}})
        return path

    def close(self) -> None:
        self.http.close()


@pytest.fixture(scope="session")
def api(running: Running) -> Iterator[Api]:
    """The session's server as cluster admin."""
    made = Api(running)
    yield made
    made.close()


@pytest.fixture
def api_as(running: Running) -> Iterator[Callable[..., Api]]:
    """``api_as(user)`` or ``api_as(token=…)``: the session's server as somebody else."""
    made: list[Api] = []

    def connect(as_user: str = "", token: str | None = None) -> Api:
        made.append(Api(running, token, as_user))
        return made[-1]

    yield connect
    for one in made:
        one.close()


@pytest.fixture
def space(api: Api) -> str:
    """URL prefix of a fresh namespace: ``/api/v1/namespaces/test-x``."""
    return api.namespace()


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return ensure_pki(Path(tmp_path_factory.mktemp("data")))
