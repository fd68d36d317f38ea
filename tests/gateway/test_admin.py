"""Operators' ports, and the gateway as a process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from quarterdeck import snapshot as s
from quarterdeck.telemetry.audit import verify

from .conftest import Rig, snapshot, token


async def test_metrics_count_calls_denials_and_unknown_tools(rig: Rig) -> None:
    path = "/mcp/kagent/peer"
    bearer = token("pod-a")
    headers = {"mcp-session-id": await rig.initialize(path, bearer=bearer)}
    for name in ("add", "fail"):
        call = {"name": name, "arguments": {"a": 1, "b": 2}}
        await rig.rpc(path, "tools/call", call, bearer=bearer, headers=headers)
    response = await rig.request("/metrics", method="GET", listener="stats")
    text = (await response.read()).decode()
    assert 'mcp_tool_call_total{tool_name="add",server="kagent/peer"} 1' in text
    assert 'mcp_tool_call_errors_total{tool_name="",server="kagent/peer"} 1' in text
    assert "agentgateway_build_info" in text


async def test_the_dump_is_redacted_and_not_for_web_pages(rig: Rig, peer: int) -> None:
    secret = s.HeaderValue("x-key", "very-secret", True)
    server = s.McpServer("kagent", "peer", "MCPServer", "/mcp", headers=(secret,))
    rig.gateway.use(snapshot(peer, mcp=(server,)))
    response = await rig.request("/config_dump", method="GET", listener="admin")
    text = await response.read()
    assert b"very-secret" not in text and b"<redacted>" in text
    refused = await rig.request("/config_dump", method="GET", listener="admin", headers={"origin": "http://x"})
    assert refused.status == 403
    level = await rig.request("/logging?level=debug", method="POST", listener="admin")
    assert await level.read() == b"current log level is debug\n"
    ready = await rig.request("/healthz/ready", method="GET", listener="ready")
    assert ready.status == 200


def test_the_process_writes_its_addresses_and_drains_on_sigterm(tmp_path: Path) -> None:
    config = tmp_path / "snapshot.json"
    config.write_bytes(s.encode(s.Snapshot()))
    endpoints = tmp_path / "endpoints.json"
    flags = [f"--{name}=127.0.0.1:0" for name in ("local", "workloads", "stats", "ready", "admin")]
    flags += [f"--config={config}", f"--data-dir={tmp_path}", f"--endpoints-file={endpoints}"]
    process = subprocess.Popen([sys.executable, "-m", "quarterdeck.gateway", *flags], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not endpoints.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        found = json.loads(endpoints.read_bytes())
        assert found["pid"] == process.pid and found["local"].startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
    finally:
        process.kill()
        process.wait()
    assert verify(tmp_path / "audit.jsonl").ok


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    config = tmp_path / "snapshot.json"
    config.write_bytes(msgspec.json.encode(s.Snapshot()))
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = [f"--config={config}", f"--data-dir={tmp_path}", f"--local=127.0.0.1:{port}"]
        done = subprocess.run([sys.executable, "-m", "quarterdeck.gateway", *flags], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr and "--local" in done.stderr
    assert "Traceback" not in done.stderr
