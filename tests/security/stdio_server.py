"""A stdio MCP server whose only tool tells its arguments, environment and parent's name."""

import json
import os
import sys

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = {}
    if message["method"] == "initialize":
        result = {
            "protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
            "serverInfo": {"name": "told", "version": "1"},
        }  # fmt: skip
    elif message["method"] == "tools/list":
        result = {"tools": [{"name": "tell", "inputSchema": {"type": "object"}}]}
    elif message["method"] == "tools/call":
        with open(f"/proc/{os.getppid()}/comm") as comm:
            told = {"argv": sys.argv[1:], "env": dict(os.environ), "parent": comm.read().strip()}
        result = {"content": [{"type": "text", "text": json.dumps(told)}]}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n")
    sys.stdout.flush()
