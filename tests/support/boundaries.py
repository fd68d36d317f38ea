"""A model and an MCP server around a platform's agent that stop the world at every boundary of a run's journal.

A run asks the model, calls ``note 1`` and ``look 1`` side by side, asks, calls ``note 2``, asks and answers. Before and
after each answer of the model and of a tool, :attr:`Boundaries.at` is called and waited for.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.run_world import tool_call

SCRIPT = [[tool_call("note", 1), tool_call("look", 1)], [tool_call("note", 2)]]
ASKS = [f"model {n}" for n in (1, 2, 3)]
CALLS = ["note 1", "look 1", "note 2"]
POINTS = [(what, when) for what in ASKS + CALLS for when in ("before", "after")]
"""What is being answered, and whether it is."""
_SOURCE = Path(__file__).with_name("note_server.py")
At = Callable[[str, str, str], None]


class Boundaries:
    """``at(what, when, run)`` is called from threads of its own; ``run`` is empty for the model."""

    def __init__(self) -> None:
        self.at: At = lambda what, when, run: None
        self.calls: Counter[tuple[str, str]] = Counter()
        """How often each call was begun, by run and call."""
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                facts = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
                with outer._lock:
                    outer.calls[facts["run"], facts["call"]] += facts["when"] == "before"
                outer.at(facts["call"], facts["when"], facts["run"])
                self._answer(b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                number, answer = _reply(body["messages"])
                outer.at(f"model {number}", "before", "")
                self._answer(json.dumps(answer).encode())
                outer.at(f"model {number}", "after", "")

            def _answer(self, data: bytes) -> None:
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # who was killed hung up
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self._port = int(sock.getsockname()[1])
        self._tools: subprocess.Popen[bytes] | None = None
        self.start_tools()

    @property
    def tools_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/mcp"

    def start_tools(self) -> None:
        """A new process of the MCP server, which listens when this returns."""
        self._tools = subprocess.Popen([sys.executable, str(_SOURCE), str(self._port), f"{self.url}/at"])
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "the MCP server did not start"
                time.sleep(0.05)

    def restart_tools(self) -> None:
        """``kill -9``, and another process at the same port."""
        assert self._tools is not None
        self._tools.kill()
        self._tools.wait()
        self.start_tools()

    def close(self) -> None:
        assert self._tools is not None
        self._tools.kill()
        self._tools.wait()
        self._server.shutdown()
        self._server.server_close()

    def manifests(self, name: str, **spec: Any) -> list[dict[str, Any]]:
        """An agent ``name`` with this model and this server; ``spec`` goes into the Agent's."""
        kagent, meta = "kagent.dev/v1alpha2", {"name": name, "namespace": "kagent"}
        tool = {"type": "McpServer", "mcpServer": {"kind": "RemoteMCPServer", "apiGroup": "kagent.dev", "name": name}}
        model = {"provider": "OpenAI", "model": "double", "apiKeySecret": f"{name}-key", "apiKeySecretKey": "KEY",
                 "openAI": {"baseUrl": f"{self.url}/v1"}}  # fmt: skip
        declarative = {"systemMessage": "Do as asked.", "modelConfig": name, "tools": [tool]}
        key = {"name": f"{name}-key", "namespace": "kagent"}
        return [
            {"apiVersion": "v1", "kind": "Secret", "metadata": key, "stringData": {"KEY": "sk-double"}},
            {"apiVersion": kagent, "kind": "ModelConfig", "metadata": meta, "spec": model},
            {"apiVersion": kagent, "kind": "RemoteMCPServer", "metadata": meta,
             "spec": {"description": "Notes.", "url": self.tools_url, "timeout": "30s"}},
            {"apiVersion": kagent, "kind": "Agent", "metadata": meta,
             "spec": {"type": "Declarative", "description": "Takes notes.", "declarative": declarative, **spec}},
        ]  # fmt: skip


def _reply(messages: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """Which of the run's questions this is, and its answer: the model has no memory but the messages."""
    last = max(i for i, m in enumerate(messages) if m["role"] == "user")
    rounds = sum(m["role"] == "assistant" for m in messages[last:])
    message: dict[str, Any] = {"role": "assistant", "content": "all done"}
    if rounds < len(SCRIPT):
        message = {"role": "assistant", "content": None, "tool_calls": SCRIPT[rounds]}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return rounds + 1, {"object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}


@contextmanager
def boundaries() -> Generator[Boundaries]:
    made = Boundaries()
    try:
        yield made
    finally:
        made.close()
