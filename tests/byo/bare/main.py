"""An agent of A2A 0.3 in the standard library: it makes the HTTP request that its user's message describes."""

import http.server
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

CARD = {
    "name": "bare", "description": "Asks what it is told to ask.", "url": "http://localhost:8080/", "version": "1",
    "protocolVersion": "0.3.0", "preferredTransport": "JSONRPC", "capabilities": {"streaming": False},
    "defaultInputModes": ["text"], "defaultOutputModes": ["text"], "skills": [],
}  # fmt: skip


def ask(wanted: dict[str, Any]) -> dict[str, Any]:
    """``{url, method?, headers?, body?}``; ``$NAME`` in the URL is a variable of the environment."""
    body = json.dumps(wanted["body"]).encode() if "body" in wanted else None
    headers = {"Content-Type": "application/json"} | wanted.get("headers", {})
    url = os.path.expandvars(wanted["url"])
    request = urllib.request.Request(url, body, headers, method=wanted.get("method", "GET"))
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return {"status": answer.status, "body": answer.read().decode()}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": error.read().decode()}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(CARD)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = request["params"]["message"]
        text = message["parts"][0]["text"]
        found = ask(json.loads(text)) if text.startswith("{") else {"user": self.headers["x-user-id"], "heard": text}
        task = {
            "kind": "task", "id": message["messageId"], "contextId": message["contextId"],
            "status": {"state": "completed"},
            "artifacts": [{"artifactId": "a", "parts": [{"kind": "text", "text": json.dumps(found)}]}],
        }  # fmt: skip
        self._answer({"jsonrpc": "2.0", "id": request["id"], "result": task})

    def _answer(self, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    with open("/config/agent-card.json") as card, open("/config/config.json") as config:
        sys.stdout.write(f"{json.load(card)['name']}: {sorted(json.load(config))}\n")
    http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
