"""bench/gateway_peers.py: a gateway that somebody names in QD_BENCH_PEERS is started, asked and measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bench import gateway_peers as peers
from bench import gotools

PEER = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from urllib.request import Request, urlopen


class Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        kept = ("content-type", "accept", "mcp-session-id", "mcp-protocol-version")
        asked = Request(sys.argv[2], body, {k: v for k, v in self.headers.items() if k.lower() in kept})
        with urlopen(asked) as answer:
            content = answer.read()
            self.send_response(answer.status)
            for name in ("content-type", "mcp-session-id"):
                if answer.headers[name]:
                    self.send_header(name, answer.headers[name])
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Threads(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 64


Threads(("127.0.0.1", int(sys.argv[1])), Relay).serve_forever()
"""


def test_commands_are_told_from_names() -> None:
    (one, two) = peers.named("mine=/opt/my gw --listen {port} --to {upstream}; agentgateway=/opt/agentgateway;")
    assert (one.name, one.command) == ("mine", ["/opt/my", "gw", "--listen", "{port}", "--to", "{upstream}"])
    assert (two.name, two.command) == ("agentgateway", ["/opt/agentgateway", "-f", "{config}"])
    for wrong in ("mine", "=x", "mine="):
        with pytest.raises(RuntimeError, match="is not NAME=COMMAND"):
            list(peers.named(wrong))


async def test_a_peer_that_ends_is_told_with_what_it_said() -> None:
    (peer,) = peers.named(f"broken={sys.executable} -c \"raise SystemExit('no such flag {{port}}')\"")
    with pytest.raises(RuntimeError, match=r"broken does not work: it ended with status 1; it said: no such flag \d+"):
        async with peers.running(peer, "http://127.0.0.1:1/mcp"):
            pass


async def test_a_peer_is_measured_beside_the_recorded_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = gotools.binary()
    if command is None:
        pytest.skip(gotools.NO_GO)
    script = tmp_path / "peer.py"
    script.write_text(PEER)

    def absent() -> peers.Peer:
        raise peers.NotInstalled("not installed: not in this test")

    monkeypatch.setenv("QD_BENCH_PEERS", f"mine={sys.executable} {script} {{port}} {{upstream}}")
    monkeypatch.setattr(peers, "fastmcp", absent)
    monkeypatch.setattr(peers, "contextforge", absent)
    rows = await peers.rows(command, 0.5)
    assert rows[0].what == "mine pass-through: CPU, times the upstream's" and rows[0].value > 1
    assert "calls/s, p50" in rows[0].beside
    rest = [row.what for row in rows[1:]]
    assert rest and all(what.startswith("recorded elsewhere: ") for what in rest)
    assert any("ContextForge" in row.what and row.beside.endswith("not installed: not in this test") for row in rows)
