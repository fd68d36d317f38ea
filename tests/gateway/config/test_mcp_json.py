# ruff: noqa: E501 - messages and files as they are
"""mcp.json of clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.config.standalone import FileOptions, Loaded, load
from quarterdeck.snapshot import Child, Endpoint, HeaderValue

DESKTOP = """{
  "mcpServers": {
    "time": {"command": "uvx", "args": ["mcp-server-time"], "env": {"TZ": "UTC"}},
    "off": {"command": "nothing", "disabled": true}
  },
  "globalShortcut": "Ctrl+Space"
}"""
CURSOR = """{
\t"mcpServers": {
\t\t// the remote one
\t\t"api": {
\t\t\t"url": "https://api.example/mcp?team=a", /* its
\t\t\t key */
\t\t\t"headers": {"Authorization": "Bearer ${env:API_KEY}"},
\t\t},
\t}
}"""
CODE = """{"mcpServers": {"old": {"type": "sse", "url": "${BASE:-http://localhost:9}/sse"},
            "new": {"type": "http", "url": "http://localhost:9/mcp"}}}"""
VSCODE = """{
  "inputs": [],
  "servers": {
    "files": {"type": "stdio", "command": "npx", "args": ["-y", "fs", "${workspaceFolder}", "${userHome}/x"], "cwd": "sub"}
  }
}"""
WINDSURF = '{"mcpServers": {"w": {"serverUrl": "http://localhost:9/mcp", "disabledTools": []}}}'


def read(tmp_path: Path, text: str, name: str = "mcp.json", **options: bool) -> Loaded:
    path = tmp_path / name
    path.write_text(text)
    return load(FileOptions(path, **options), {"API_KEY": "s3cret", "HOME": "/home/me"}, tmp_path)


def test_servers_of_a_desktop(tmp_path: Path) -> None:
    found = read(tmp_path, DESKTOP)
    assert found.title == "a client's mcp.json"
    assert found.snapshot.children == (Child("Target/file/time", "uvx", ("mcp-server-time",), (("TZ", "UTC"),)),)
    (listener,) = found.snapshot.listeners
    assert (listener.port, listener.address) == (8701, "127.0.0.1")
    assert [[match.path.value for match in route.matches] for route in listener.routes] == [
        ["/mcp", "/sse"], ["/mcp/time"],
    ]  # fmt: skip
    assert found.warnings == (f"{tmp_path}/mcp.json:6: globalShortcut: unknown, and left alone",)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ('"type": "http", "url": "http://h/mcp"', ("h", "STREAMABLE_HTTP")),
        ('"transport": "sse", "url": "http://h/sse"', ("h", "SSE")),
        ('"transportType": "streamable-http", "serverUrl": "http://h"', ("h", "STREAMABLE_HTTP")),
        ('"httpUrl": "http://h", "headers": {"X-Key": "1"}', ("h", "STREAMABLE_HTTP")),
        ('"command": "c", "args": ["x"], "env": {"A": 1}, "cwd": "/srv", "enabled": true', ("/srv", "")),
        ('"command": "c", "enabled": false', None),
        ('"command": "c", "disabled": true', None),
    ],
)
def test_servers(tmp_path: Path, body: str, wanted: tuple[str, str] | None) -> None:
    text = f'{{"mcpServers": {{"a": {{{body}}}, "b": {{"command": "b"}}}}}}'
    found = read(tmp_path, text).snapshot
    if wanted is None:
        assert [server.name for server in found.mcp] == ["b"]
    elif wanted[1]:
        assert (found.mcp[0].endpoints[0].host, found.mcp[0].protocol) == wanted
        assert [header.name for header in found.mcp[0].headers] == (["X-Key"] if "headers" in body else [])
    else:
        child = found.children[0]
        assert (child.args, child.env, child.cwd) == (("x",), (("A", "1"),), wanted[0])


def test_shapes(tmp_path: Path) -> None:
    (api,) = read(tmp_path, CURSOR).snapshot.mcp
    assert api.endpoints == (Endpoint("api.example", 443),) and api.tls and api.path == "/mcp?team=a"
    assert api.headers == (HeaderValue("Authorization", "Bearer s3cret", True),)
    old, new = read(tmp_path, CODE).snapshot.mcp
    assert (old.protocol, old.endpoints) == ("SSE", (Endpoint("localhost", 9),))
    assert (new.protocol, new.path) == ("STREAMABLE_HTTP", "/mcp")
    (files,) = read(tmp_path, VSCODE).snapshot.children
    assert files.args == ("-y", "fs", str(tmp_path), "/home/me/x") and files.cwd == f"{tmp_path}/sub"
    assert read(tmp_path, WINDSURF).snapshot.mcp[0].path == "/mcp"


def test_anonymous_is_asked_for(tmp_path: Path) -> None:
    (listener,) = read(tmp_path, DESKTOP, allow_anonymous=True).snapshot.listeners
    assert listener.address == "0.0.0.0" and listener.routes[0].backends[0].policies.open


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"mcpServers": {"a": {"comand": "x"}}}', "mcp.json:1: mcpServers.a.comand: unknown field; did you mean command?"),
        ('{"mcpServers": {"a": {}}}', "give exactly one of command, url"),
        ('{"mcpServers": {\n"a": {"command": "x", "url": "http://y"}}}', "mcp.json:2: mcpServers.a: give exactly one of"),
        ('{"mcpServers": {"a": {"url": "http://y/${input:key}"}}}', "nobody can be asked for key; write ${env:NAME}"),
        ('{"mcpServers": {"a": {"url": "http://y/${NOPE}"}}}', "variable NOPE is not set"),
        ('{"mcpServers": {"a": {"url": "y:x"}}}', "is no address"),
        ('{"mcpServers": {"a b": {"command": "x"}}}', "must be a name without"),
        ('{"mcpServers": {"a": {"command": "x", "envFile": ".env"}}}', "not served: write the variables as env"),
        ('{"mcpServers": {}}', "no server to offer"),
        ('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}', "given twice"),
        ('{"mcpServers": {"a": {"command": "x"', "mcp.json:1: not JSON"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_served(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert problem in str(caught.value)


def test_dollar_signs_of_shells_are_left_alone(tmp_path: Path) -> None:
    text = '{"mcpServers": {"a": {"command": "sh", "args": ["-c", "echo $HOME // not a comment"]}}}'
    assert read(tmp_path, text).snapshot.children[0].args == ("-c", "echo $HOME // not a comment")


def test_agentgateway_in_json_is_no_mcp_json(tmp_path: Path) -> None:
    text = '{"binds": [{"port": 1, "listeners": [{"routes": [{"backends": [{"host": "b:80"}]}]}]}]}'
    assert read(tmp_path, text, "config.json").title.startswith("agentgateway")
