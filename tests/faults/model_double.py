"""A double of an OpenAI-compatible model server that misbehaves on demand.

It stands in for a paid model API, which cannot be told to be broken. The user's message says what to do:
``call TOOL {json}`` calls that tool and then repeats its result; any name of :data:`MISBEHAVIOURS` does that instead.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.unmarked import unmarked

Json = dict[str, Any]


class ModelDouble:
    """Listens on a free loopback port until :meth:`close`."""

    def __init__(self) -> None:
        self.requests: list[Json] = []
        self.release = threading.Event()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = unmarked(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                double.requests.append(body)
                _answer(self, body, double.release)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


def _answer(handler: BaseHTTPRequestHandler, body: Json, release: threading.Event) -> None:
    last = body["messages"][-1]
    asked = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
    word = asked.split()[0]
    if word in MISBEHAVIOURS:
        MISBEHAVIOURS[word](handler, body, release)
    elif word == "call" and last["role"] == "user":
        _, tool, arguments = asked.split(maxsplit=2)
        reply(handler, body, calls=[(tool, arguments)])
    else:
        reply(handler, body, text=f"result: {last['content']}")


def reply(handler: BaseHTTPRequestHandler, body: Json, *, text: str = "", calls: list[tuple[str, str]] = []) -> None:
    """One completion, or one chunk when the caller streams."""
    tool_calls = [
        {
            "index": n,
            "id": f"call_{len(body['messages'])}_{n}",
            "type": "function",
            "function": {"name": name, "arguments": args},
        }
        for n, (name, args) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": text or None, **({"tool_calls": tool_calls} if calls else {})}
    finish = "tool_calls" if calls else "stop"
    if body.get("stream"):
        chunk = {
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": message, "finish_reason": finish}],
        }
        raw(handler, f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode(), "text/event-stream")
    else:
        document = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
        raw(handler, json.dumps(document).encode())


def raw(
    handler: BaseHTTPRequestHandler, data: bytes, kind: str = "application/json", status: int = 200, after: int = 0
) -> None:
    handler.send_response(status)
    handler.send_header("content-type", kind)
    if after:
        handler.send_header("retry-after", str(after))
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def _after_tool(body: Json) -> bool:
    return body["messages"][-1]["role"] == "tool"


def _malformed_arguments(handler: BaseHTTPRequestHandler, body: Json, release: threading.Event) -> None:
    if _after_tool(body):
        reply(handler, body, text=f"result: {body['messages'][-1]['content']}")
    else:
        reply(handler, body, calls=[("pid", '{"steps": ')])


def _unknown_tool(handler: BaseHTTPRequestHandler, body: Json, release: threading.Event) -> None:
    if _after_tool(body):
        reply(handler, body, text=f"result: {body['messages'][-1]['content']}")
    else:
        reply(handler, body, calls=[("launch_missiles", "{}")])


def _loops(handler: BaseHTTPRequestHandler, body: Json, release: threading.Event) -> None:
    reply(handler, body, calls=[("pid", "{}")])


def _hangs(handler: BaseHTTPRequestHandler, body: Json, release: threading.Event) -> None:
    release.wait(120)


def _breaks_off(handler: BaseHTTPRequestHandler, body: Json, release: threading.Event) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream" if body.get("stream") else "application/json")
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [' if not body.get("stream") else b'data: {"choices": [')
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(2)


def _endless(handler: BaseHTTPRequestHandler, body: Json, release: threading.Event) -> None:
    """Text without end, as fast as it is read."""
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream" if body.get("stream") else "application/json")
    handler.end_headers()
    piece = json.dumps({"choices": [{"index": 0, "delta": {"content": "x" * 65536}}]})
    data = f"data: {piece}\n\n".encode() if body.get("stream") else b" " * 65536
    try:
        while not release.is_set():
            handler.wfile.write(data)
    except OSError:
        pass
    handler.close_connection = True


def _sends(data: bytes, kind: str = "application/json", status: int = 200, after: int = 0) -> Callable[..., None]:
    return lambda handler, body, release: raw(handler, data, kind, status, after)


MISBEHAVIOURS: dict[str, Callable[[BaseHTTPRequestHandler, Json, threading.Event], None]] = {
    "malformed-arguments": _malformed_arguments,
    "unknown-tool": _unknown_tool,
    "loops": _loops,
    "hangs": _hangs,
    "breaks-off": _breaks_off,
    "endless": _endless,
    "not-json": _sends(b"<html>it works</html>", "text/html"),
    "no-choices": _sends(b'{"choices": []}'),
    "calls-of-the-wrong-type": _sends(b'{"choices": [{"message": {"role": "assistant", "tool_calls": "many"}}]}'),
    "http-500": _sends(b'{"error": {"message": "out of memory"}}', status=500),
    "http-429": _sends(b'{"error": {"message": "slow down"}}', status=429, after=86400),
}
