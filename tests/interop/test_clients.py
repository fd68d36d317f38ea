"""Clients that people use, unmodified, through one endpoint to the seed's three servers: uvx, npx and a remote one.

The gateway serves examples/gateway/three-servers.yaml. Where the machine lets us (root or user namespaces for an
/etc/hosts of its own, an address that is not loopback, port 3000 free) it is the file itself, and the remote stands at
the very address that the file names; elsewhere port and address are other ones.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import ElicitResult

from .test_inspector import BIN, MODULES, NODE, ROOT

HERE = Path(__file__).parent
FILE = ROOT / "examples" / "gateway" / "three-servers.yaml"
REMOTE = "github-mcp-server.mcp.svc.cluster.local"
PORT = 3000
FASTMCP = "fastmcp==4.1.2"
pytestmark = [pytest.mark.skipif(shutil.which("npx") is None, reason="needs Node.js"), pytest.mark.timeout(120)]


@dataclass(frozen=True)
class Endpoint:
    url: str
    verbatim: str
    """Empty: the file is served as it is; else why not."""


def _address() -> str:
    """An IPv6 address of this machine that is not loopback: the gateway has all of IPv4 on its port."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        for line in Path("/proc/net/if_inet6").read_text().splitlines() if socket.has_ipv6 else ():
            digits, _, _, scope, *_ = line.split()
            if scope == "00":
                found = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
                probe.bind((found, 0))
                return found
    return ""


def _unlike() -> tuple[str, str]:
    """The remote's address, and why the file cannot be served as it is."""
    try:
        address = _address()
    except OSError as error:
        return "", f"no IPv6: {error}"
    if not address:
        return "", "this machine has no IPv6 address beside loopback"
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", PORT))
        except OSError:
            return "", f"port {PORT} is in use"
    if subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode:
        return "", "no mount namespace of our own"
    return address, ""


_UNSHARE = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    home = tmp_path_factory.mktemp("gateway")
    address, why = _unlike()
    with ExitStack() as stack:
        remote = [sys.executable, str(HERE / "github.py"), address or "127.0.0.1", str(PORT if address else 0)]
        port = _started(stack, remote)
        file, namespace = FILE, list[str]()
        if address:
            hosts = home / "hosts"
            hosts.write_text(f"127.0.0.1 localhost\n{address} {REMOTE}\n")
            namespace = [*_UNSHARE, "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "-"]
        else:
            file = home / "three-servers.yaml"
            text = FILE.read_text().replace(f"- port: {PORT}\n", "- port: 0\n").replace(REMOTE, "127.0.0.1")
            file.write_text(text.replace(f"port: {PORT}", f"port: {port}"))
        endpoints = home / "endpoints.json"
        flags = [f"--data-dir={home}/data", f"--endpoints-file={endpoints}"]
        flags += [f"--{name}=off" for name in ("admin", "stats", "ready")]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [*namespace, str(BIN / "qd"), "gateway", "-f", str(file), *flags],
                stdout=log,
                stderr=log,
                cwd=file.parent,
            )
        stack.callback(_end, process)
        deadline = time.monotonic() + 60
        while not (listener := _listener(endpoints)):
            assert process.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.1)
        yield Endpoint(f"{listener.replace('0.0.0.0', '127.0.0.1')}/mcp", why)


def _listener(endpoints: Path) -> str:
    """Where the gateway listens; empty while it does not: a port that is taken is tried again."""
    found: dict[str, str] = json.loads(endpoints.read_text()) if endpoints.exists() else {}
    return next((url for name, url in found.items() if name.startswith("bind/")), "")


def _started(stack: ExitStack, command: list[str]) -> int:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    stack.callback(_end, process, force=True)
    assert process.stdout is not None
    return int(process.stdout.readline())


def _end(process: subprocess.Popen[Any], *, force: bool = False) -> None:
    process.kill() if force else process.terminate()
    process.wait(90)


def check(saw: dict[str, Any]) -> None:
    """What every client must have seen."""
    assert {"time_get_current_time", "everything_echo", "github_search_code"} <= set(saw["tools"])
    assert len(saw["tools"]) == len(set(saw["tools"]))
    assert "github_review" in saw["prompts"] and any(name.startswith("everything_") for name in saw["prompts"])
    assert "github+repo://readme" in saw["resources"]
    assert "hello" in saw["echo"] and "21:00" in saw["time"] and saw["search"] == "2 files with gateway"
    assert saw["asked"] == "accept: green", "the server's question reached the person, and the answer the server"
    assert saw["steps"] == "done" and saw["progress"] == [1, 2, 3]
    assert "Review a.py, please." in saw["prompt"] and "Read me." in saw["resource"]
    assert "Unknown tool: " in saw["unknown"]


def test_the_seeds_file_is_served_as_it_is(endpoint: Endpoint) -> None:
    if endpoint.verbatim:
        pytest.skip(f"served with another port and address: {endpoint.verbatim}")
    assert endpoint.url == f"http://127.0.0.1:{PORT}/mcp"


@pytest.mark.parametrize(
    ("client", "mode", "revision"),
    [("v1", "", "2025-11-25"), ("v2", "legacy", "2025-11-25"), ("v2", "auto", ""), ("v2", "2026-07-28", "2026-07-28")],
)
def test_typescript(endpoint: Endpoint, client: str, mode: str, revision: str) -> None:
    given = {"url": endpoint.url, "client": client, "mode": mode, "modules": str(MODULES)}
    done = subprocess.run(
        [str(NODE), str(HERE / "clients" / "typescript.mjs"), json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout)
    check(saw)
    assert revision in ("", saw["revision"])


def test_fastmcp(endpoint: Endpoint) -> None:
    """In an environment of its own, which uv makes and keeps."""
    command = [str(BIN / "uv"), "run", "--quiet", "--no-project", "--python", sys.executable, "--with", FASTMCP]
    done = subprocess.run(
        [*command, "python", str(HERE / "clients" / "fastmcp_client.py"), endpoint.url],
        capture_output=True, text=True, timeout=110, cwd=HERE / "clients",
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout))


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_python(endpoint: Endpoint, mode: Any) -> None:
    progress: list[float] = []

    async def answer(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"color": "green"})

    async def step(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    async with Client(endpoint.url, mode=mode, elicitation_callback=answer, read_timeout_seconds=60) as client:

        async def call(name: str, arguments: dict[str, Any], **more: Any) -> str:
            result = await client.call_tool(name, arguments, **more)
            return "".join(getattr(part, "text", "") for part in result.content)

        async def failing(name: str) -> str:
            try:
                return await call(name, {})
            except MCPError as error:
                return str(error)

        saw: dict[str, Any] = {
            "tools": [tool.name for tool in (await client.list_tools()).tools],
            "prompts": [prompt.name for prompt in (await client.list_prompts()).prompts],
            "resources": [str(resource.uri) for resource in (await client.list_resources()).resources],
            "echo": await call("everything_echo", {"message": "hello"}),
            "time": await call(
                "time_convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
            ),
            "search": await call("github_search_code", {"query": "gateway"}),
            "asked": await call("github_ask", {}),
            "steps": await call("github_steps", {"count": 3}, progress_callback=step),
            "progress": progress,
            "prompt": str(await client.get_prompt("github_review", {"path": "a.py"})),
            "resource": str(await client.read_resource("github+repo://readme")),
        }
        saw["unknown"] = await failing("github_nonsense")
    check(saw)
