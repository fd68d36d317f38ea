"""An MCP server in a process of its own that can be killed: ``python note_server.py PORT WATCHER``.

``note`` is not idempotent, ``look`` is read-only. Before and after each answer it tells ``WATCHER`` (a URL), and goes
on when that has answered: so what is killed there is killed at that very point.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
TOOLS = [
    {"name": "note", "description": "Writes a note.", "inputSchema": SCHEMA},
    {"name": "look", "description": "Looks.", "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}},
]
_open = build_opener(ProxyHandler({})).open


def tell(watcher: str, **facts: Any) -> None:
    _open(f"{watcher}?{urlencode(facts)}", timeout=120).read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    watcher = ""

    def do_GET(self) -> None:
        self._answer(405, b"")

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "id" not in message:
            self._answer(202, b"")
            return
        params = message.get("params") or {}
        if message["method"] == "initialize":
            info = {"name": "notes", "version": "1"}
            result: Any = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
        elif message["method"] == "tools/list":
            result = {"tools": TOOLS}
        elif message["method"] == "tools/call":
            key, meta = f"{params['name']} {params['arguments']['n']}", params.get("_meta") or {}
            facts = {"call": key, "run": meta.get("dev.quarterdeck/run"), "step": meta.get("dev.quarterdeck/step")}
            tell(self.watcher, when="before", **facts)
            body = {"content": [{"type": "text", "text": f"did {key}"}]}
            self._say(message, body)
            tell(self.watcher, when="after", **facts)
            return
        else:
            result = {}
        self._say(message, result)

    def _say(self, message: Any, result: Any) -> None:
        self._answer(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        del format, args


if __name__ == "__main__":
    Handler.watcher = sys.argv[2]
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
