"""Lines 14 and 15: what a stdio server is started with, and who can have one started."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.gateway.config.standalone import FileOptions
from quarterdeck.wire.client import Pool

from .conftest import running

SERVER = str(Path(__file__).with_name("stdio_server.py"))


async def test_s14_arguments_reach_a_server_as_written_and_secrets_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell: nothing in an argument is run, split, expanded or redirected."""
    mark = tmp_path / "mark"
    monkeypatch.setenv("QUARTERDECK_TOKEN", "sk-ours")
    monkeypatch.setenv("MARK", str(mark))
    arguments = [
        f"; touch {mark}", f"$(touch {mark})", f"`touch {mark}`", f"| touch {mark}", f"> {mark}", "a b", "*", "'\"",
        "$$HOME",
        "--flag=&& id", "",
    ]  # fmt: skip
    target = {"name": "told", "stdio": {"cmd": sys.executable, "args": [SERVER, *arguments], "env": {"OWN": "1"}}}
    text = json.dumps(
        {"binds": [{"port": 0, "listeners": [{"routes": [{"backends": [{"mcp": {"targets": [target]}}]}]}]}]}
    )
    async with running(tmp_path / "gw", file=FileOptions(inline=text, compat="now")) as rig:
        web = next(name for name in rig.gateway.endpoints if name.startswith("bind"))
        headers = {"host": "localhost", "accept": "application/json, text/event-stream"}
        headers["mcp-session-id"] = await rig.initialize("/mcp", listener=web, headers=headers)
        call = {"name": "tell", "arguments": {"a": f"$(touch {mark})"}}
        answer = await rig.rpc("/mcp", "tools/call", call, listener=web, headers=headers)
        told = json.loads(answer["result"]["content"][0]["text"])
    assert told["argv"] == [argument.replace("$$", "$") for argument in arguments]
    assert not mark.exists() and told["parent"] not in ("sh", "bash", "dash")
    assert "sk-ours" not in str(told["env"]) and told["env"]["OWN"] == "1"


STDIO: dict[str, Any] = {"name": "evil", "stdio": {"cmd": "/bin/sh", "args": ["-c", "touch MARK"]}}
BODIES: list[Any] = [
    {"binds": [{"port": 0, "listeners": [{"routes": [{"backends": [{"mcp": {"targets": [STDIO]}}]}]}]}]},
    {"mcpServers": {"evil": {"command": "/bin/sh", "args": ["-c", "touch MARK"]}}},
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"command": "/bin/sh", "args": ["-c", "touch MARK"]}},
    {"transportType": "stdio", "command": "/bin/sh", "args": "-c 'touch MARK'"},
]
PATHS = (
    "/", "/config", "/config_dump", "/sse?transportType=stdio&command=sh&args=-c", "/stdio?command=sh", "/mcp",
    "/message",
    "/revocations", "/tools/evil", "/breakers/reset", "/logging?level=info", "/v1/servers",
)  # fmt: skip


async def test_s15_no_port_takes_a_command(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with running(tmp_path / "gw") as rig:
        for body in BODIES:
            data = msgspec.json.encode(body).replace(b"MARK", str(mark).encode())
            for listener in ("admin", "stats", "ready", "local", "workloads"):
                for path in PATHS:
                    for method in ("POST", "PUT", "GET", "PATCH"):
                        response = await rig.request(path, data, method=method, listener=listener)
                        await response.read()
        assert not rig.gateway.children.pids and not rig.gateway.snapshot.mcp
        assert rig.gateway.version == "v0"
    assert not mark.exists()


PAGES = [
    {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:5173"},
    {"host": "evil.example"}, {"host": "evil.example:15000"}, {"host": "localhost.evil.example:15000"}, {"host": ""},
]  # fmt: skip


@pytest.mark.parametrize("headers", PAGES)
async def test_s15_the_operators_port_is_for_no_web_page(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running(tmp_path / "gw") as rig:
        for method, path in (
            ("GET", "/config_dump"), ("POST", "/revocations"), ("GET", "/revocations"), ("DELETE", "/revocations/x"),
            ("POST", "/logging?level=debug"), ("POST", "/breakers/reset?server=a/b"), ("GET", "/tools/x"),
            ("GET", "/logging"),
        ):  # fmt: skip
            pool = Pool()
            lines = [(k.encode(), v.encode()) for k, v in {"host": "localhost:15000", **headers}.items()]
            body = b'{"user":"alice"}'
            response = await pool.request(method, rig.origin("admin"), path, lines, body)
            await response.read()
            pool.close()
            assert response.status in (400, 403), f"{method} {path}"
        assert not rig.gateway.revocations.all()
