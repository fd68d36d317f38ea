"""A stdio MCP server of the legacy era that starts at once: initialize, and one tool that tells its environment."""

import json
import os
import sys

for line in sys.stdin:
    message = json.loads(line)
    method, result = message.get("method", ""), None
    if "id" not in message:
        continue
    if method == "initialize":
        result = {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "tiny", "version": sys.argv[1] if len(sys.argv) > 1 else "1"},
        }
    elif method == "tools/list":
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        result = {"tools": [{"name": name, "inputSchema": schema} for name in ("env", "where")]}
    elif method == "tools/call":
        arguments = message["params"].get("arguments") or {}
        asked = message["params"]["name"]
        text = os.getcwd() if asked == "where" else os.environ.get(arguments.get("name", ""), "")
        result = {"content": [{"type": "text", "text": text}]}
    elif method == "ping":
        result = {}
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if result is None:
        answer["error"] = {"code": -32601, "message": f"no method {method}"}
    else:
        answer["result"] = result
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
