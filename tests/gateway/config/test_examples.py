"""The seed's configuration files: all are valid, and do what they say. tests/interop serves the first as it stands."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.config.standalone import FileOptions, load
from quarterdeck.gateway.config.validate import validated
from quarterdeck.gateway.options import Options
from quarterdeck.snapshot import policies as p
from quarterdeck.wire.client import Pool

from .test_files import Rig

EXAMPLES = Path(__file__).parents[3] / "examples" / "gateway"
FILES = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".json"))
ENVIRONMENT = {"GATEWAY_KEY": "k", "GITHUB_TOKEN": "t"}
PRINTED = """
binds:
- port: 3000
  listeners:
  - routes:
    - backends:
      - mcp:
          targets:
          - name: time
            stdio:
              cmd: uvx
              args: ["mcp-server-time"]
          - name: everything
            stdio:
              cmd: npx
              args: ["@modelcontextprotocol/server-everything"]
          - name: github
            mcp:
              host: github-mcp-server.mcp.svc.cluster.local
              path: /mcp
              port: 3000
"""
NEEDS_NODE = pytest.mark.skipif(shutil.which("npx") is None, reason="needs Node.js")


@pytest.mark.parametrize("name", FILES)
def test_every_example_is_valid(name: str) -> None:
    validated(FileOptions(EXAMPLES / name), ENVIRONMENT, EXAMPLES)


def test_every_example_is_listed() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    assert [name for name in FILES if f"`{name}`" not in readme] == []


def test_the_three_servers_are_as_printed() -> None:
    assert (EXAMPLES / "three-servers.yaml").read_text() == PRINTED.lstrip()


def test_the_seeds_tokens_are_checked_and_passed_on() -> None:
    loaded = load(FileOptions(EXAMPLES / "jwt-passthrough.yaml"), ENVIRONMENT, EXAMPLES)
    found = loaded.snapshot.listeners[0].routes[0].policies
    assert found.jwt is not None and found.jwt.providers[0].issuer == "agentgateway.dev"
    assert found.jwt.providers[0].audiences == ("test.agentgateway.dev",)
    assert found.credential == p.BackendCredential("passthrough")


@pytest.fixture
async def serve(tmp_path: Path, peer: int) -> AsyncIterator[Callable[..., Any]]:
    """An example on a free port, its server in the cluster replaced by a real one on this machine."""
    started: list[Rig] = []
    zero = ("127.0.0.1", 0)

    async def start(name: str) -> Rig:
        text = (EXAMPLES / name).read_text()
        text = text.replace("- port: 3000\n", "- port: 0\n")
        text = text.replace("github-mcp-server.mcp.svc.cluster.local", "127.0.0.1").replace(
            "port: 3000", f"port: {peer}"
        )
        (tmp_path / name).write_text(text)
        options = Options(
            None, None, zero, zero, zero,
            data_dir=tmp_path / "d", audit_file=tmp_path / "a", file=FileOptions(tmp_path / name),
        )  # fmt: skip
        rig = Rig(Gateway(options), tmp_path / name, Pool())
        started.append(rig)
        await rig.gateway.start()
        return rig

    yield start
    for rig in started:
        rig.pool.close()
        await rig.gateway.stop(0.2)


@NEEDS_NODE
@pytest.mark.slow
@pytest.mark.timeout(170)
async def test_the_seeds_rule_shows_and_allows_five_tools(serve: Callable[..., Any]) -> None:
    rig = await serve("mcp-authorization.yaml")
    session, _ = await rig.initialize()
    _, answer = await rig.rpc("/mcp", "tools/list", {}, session)
    assert {tool["name"] for tool in answer["result"]["tools"]} == {"everything_echo", "time_get_current_time"}
    _, answer = await rig.rpc("/mcp", "tools/call", {"name": "github_add", "arguments": {"a": 1, "b": 2}}, session)
    assert answer["error"]["code"] == -32602 and answer["error"]["message"] == "Unknown tool: github_add"
