"""A gateway that follows a file: reload without losing anybody, and bad files that change nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.app import Gateway
from quarterdeck.gateway.config import files
from quarterdeck.gateway.config.standalone import FileOptions
from quarterdeck.gateway.options import Options
from quarterdeck.wire.client import Origin, Pool

TINY = str(Path(__file__).with_name("tiny_server.py"))
LISTENER = "bind/0/listener0"


def answering(text: str) -> str:
    return (
        "binds:\n- port: 0\n  listeners:\n  - routes:\n"
        f"    - policies: {{directResponse: {{status: 200, body: {text}}}}}\n"
    )


class Rig:
    def __init__(self, gateway: Gateway, file: Path, pool: Pool) -> None:
        self.gateway = gateway
        self.file = file
        self.pool = pool

    def origin(self, name: str = LISTENER) -> Origin:
        host, _, port = self.gateway.endpoints[name].removeprefix("http://").rpartition(":")
        return "127.0.0.1" if host == "0.0.0.0" else host, int(port), False

    async def get(self, path: str = "/", name: str = LISTENER, method: str = "GET") -> tuple[int, str]:
        response = await self.pool.request(method, self.origin(name), path, [], b"", timeout=20)
        return response.status, (await response.read()).decode()

    async def rpc(self, path: str, method: str, params: dict[str, Any] | None = None, session: str = "") -> Any:
        headers = [(b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")]
        headers += [(b"mcp-session-id", session.encode())] if session else []
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}})
        response = await self.pool.request("POST", self.origin(), path, headers, body, timeout=50)
        data = await response.read()
        if (response.header(b"content-type") or b"").startswith(b"text/event-stream"):
            data = next(line[5:] for line in data.splitlines() if line.startswith(b"data:") and len(line) > 6)
        return (response.header(b"mcp-session-id") or b"").decode(), msgspec.json.decode(data)

    async def initialize(self, path: str = "/mcp") -> tuple[str, Any]:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        return await self.rpc(path, "initialize", params)


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    started: list[Rig] = []
    zero = ("127.0.0.1", 0)

    async def start(text: str, **options: Any) -> Rig:
        file = tmp_path / "c.yaml"
        file.write_text(text)
        given = FileOptions(file, compat="now", **options)
        gateway = Gateway(
            Options(None, None, zero, zero, zero, data_dir=tmp_path / "d", audit_file=tmp_path / "a", file=given)
        )
        rig = Rig(gateway, file, Pool())
        started.append(rig)
        await gateway.start()
        return rig

    yield start
    for rig in started:
        rig.pool.close()
        await rig.gateway.stop(0.2)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_changed_file_is_served_on_the_connections_that_are_open(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "POLL", 0.01)
    rig = await serve(answering("one"))
    assert await rig.get() == (200, "one")
    held = rig.pool.idle(rig.origin())
    assert held is not None
    rig.pool.release(held)
    version = rig.gateway.version
    rig.file.write_text(answering("two"))
    await until(lambda: rig.gateway.version != version)
    assert await rig.get() == (200, "two")
    again = rig.pool.idle(rig.origin())
    assert again is held, "the connection of before was used, and is still good"
    rig.pool.release(again)


async def test_a_bad_file_changes_nothing_and_is_told_everywhere(
    serve: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    rig = await serve(answering("one"))
    rig.file.write_text(answering("two").replace("port:", "prt:"))
    assert rig.gateway.files.reload() is False
    assert await rig.get() == (200, "one")
    assert "c.yaml:2: binds[0].prt: unknown field; did you mean port?" in caplog.text
    _, metrics = await rig.get("/metrics", "stats")
    assert "quarterdeck_gateway_config_rejected_total 1" in metrics
    _, dump = await rig.get("/config_dump", "admin")
    source = msgspec.json.decode(dump)["quarterdeck"]["source"]
    assert (source["state"], source["rejected"]) == ("rejected", 1)
    assert any("binds[0].prt: unknown field" in line for line in source["error"])
    assert await rig.get("/healthz/ready", "ready") == (200, "ready\n")
    rig.file.write_text(answering("three"))
    assert rig.gateway.files.reload() is True
    assert await rig.get() == (200, "three")
    _, dump = await rig.get("/config_dump", "admin")
    assert msgspec.json.decode(dump)["quarterdeck"]["source"]["state"] == "serving"


async def test_settings_of_the_process_that_change_are_told(serve: Callable[..., Any]) -> None:
    rig = await serve(answering("one"))
    rig.file.write_text(answering("two") + "config: {adminAddr: 'localhost:1'}\naudit: {onFailure: drop}\n")
    assert rig.gateway.files.reload() is True
    assert await rig.get() == (200, "two"), "the rest is served"
    _, dump = await rig.get("/config_dump", "admin")
    told = msgspec.json.decode(dump)["quarterdeck"]["source"]["warnings"]
    assert any("in effect from the next start on: config.adminAddr, audit or" in one for one in told)
    rig.file.write_text(answering("three"))
    assert rig.gateway.files.reload() is True
    _, dump = await rig.get("/config_dump", "admin")
    assert "next start" not in dump


async def test_rules_that_do_not_compile_are_a_bad_file(serve: Callable[..., Any]) -> None:
    rig = await serve(answering("one"))
    rules = "    - policies: {directResponse: {status: 200}, authorization: {rules: ['request.nothing == 1']}}\n"
    rig.file.write_text(answering("two") + rules)
    assert rig.gateway.files.reload() is False
    assert await rig.get() == (200, "one")


async def test_a_certificate_without_its_key_is_a_bad_file(serve: Callable[..., Any], tmp_path: Path) -> None:
    rig = await serve(answering("one"))
    (tmp_path / "x.pem").write_text("no certificate")
    tls = f"protocol: HTTPS, tls: {{cert: {tmp_path}/x.pem, key: {tmp_path}/x.pem}}"
    rig.file.write_text(
        answering("two") + f"- {{port: 65000, listeners: [{{name: b, hostname: b, {tls}, routes: []}}]}}\n"
    )
    assert rig.gateway.files.reload() is False
    assert "bind/65000/b: the certificate is not PEM" in rig.gateway.files.error
    assert await rig.get() == (200, "one")


async def test_a_file_that_is_gone_changes_nothing(serve: Callable[..., Any]) -> None:
    rig = await serve(answering("one"))
    rig.file.unlink()
    assert rig.gateway.files.reload() is False
    assert "No such file" in rig.gateway.files.error
    assert await rig.get() == (200, "one")


async def test_files_it_names_are_followed_too(
    serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "POLL", 0.01)
    key = tmp_path / "key"
    key.write_text("one")
    rig = await serve(
        "binds: [{port: 0, listeners: [{routes: [{policies: {apiKey: {mode: strict, keys: [{key: {file: "
        f"{key}}}}}]}}, directResponse: {{status: 200}}}}}}]}}]}}]"
    )
    version = rig.gateway.version
    key.write_text("two")
    await until(lambda: rig.gateway.version != version)


async def test_the_first_file_must_be_good(serve: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="did you mean binds"):
        await serve("bind: []")


async def test_stdio_servers_are_called_in_the_environment_they_were_given(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    stdio = f"{{cmd: {sys.executable}, args: [{TINY}], env: {{GREETING: hello}}}}"
    text = f"mcp: {{port: 0, targets: [{{name: tiny, stdio: {stdio}}}]}}"
    rig = await serve(text)
    rig.gateway.endpoints[LISTENER] = rig.gateway.endpoints["mcp/default"]
    session, answer = await rig.initialize()
    assert answer["result"]["serverInfo"]["name"] == "tiny"
    call = {"name": "env", "arguments": {"name": "GREETING"}}
    _, answer = await rig.rpc("/mcp", "tools/call", call, session)
    assert answer["result"]["content"][0]["text"] == "hello"


async def test_a_session_lives_on_when_another_part_of_the_file_changes(serve: Callable[..., Any]) -> None:
    target = f"{{name: tiny, stdio: {{cmd: {sys.executable}, args: [{TINY}]}}}}"
    text = f"mcp: {{port: 0, targets: [{target}]}}\n"
    rig = await serve(text)
    rig.gateway.endpoints[LISTENER] = rig.gateway.endpoints["mcp/default"]
    session, _ = await rig.initialize()
    pids = rig.gateway.children.pids
    rig.file.write_text(text + "backends: [{name: other, host: 'h:80'}]\n")
    assert rig.gateway.files.reload() is True
    rig.gateway.endpoints[LISTENER] = rig.gateway.endpoints["mcp/default"]
    _, answer = await rig.rpc("/mcp", "tools/list", {}, session)
    assert {tool["name"] for tool in answer["result"]["tools"]} == {"env", "where"}
    assert rig.gateway.children.pids == pids


async def test_levels_of_the_log_are_changed_at_run_time(serve: Callable[..., Any]) -> None:
    rig = await serve(answering("one"))
    status, text = await rig.get("/logging?level=gateway.mcp=debug", "admin", "POST")
    assert status == 200 and text.startswith("current log level is ")
    status, text = await rig.get("/logging", "admin")
    assert status == 200 and "gateway.mcp=debug" in text
    status, text = await rig.get("/logging?level=loud", "admin", "POST")
    assert status == 400 and "must be LEVEL or NAME=LEVEL" in text
    _, text = await rig.get("/logging?reset", "admin", "POST")
    assert "gateway.mcp" not in text
    assert (await rig.get("/stats/prometheus", "stats"))[0] == 200
