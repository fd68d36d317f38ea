"""The work behind ``qd tools``: arguments typed by the tool's schema, results as text."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import Any, TypeVar

from quarterdeck.errors import NeedsApproval, NotFound, UsageError
from quarterdeck.mcpclient import McpClient, RpcError, Tool
from quarterdeck.mcptypes.protocol import APPROVAL_REQUIRED
from quarterdeck.snapshot.permits import META_APPROVAL
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Header

from .durations import seconds
from .local import gateway_headers, gateway_url, part
from .output import emit, note, table, to_json, to_yaml
from .target import agents_namespace

T = TypeVar("T")
_TEXT_WIDTH = 80
_NOT_SERVED = "is not served here"
"""In the gateway's answer for a path that leads to no server."""


def show_tools(server: str, namespace: str, output: str) -> None:
    """Print the tools; raises UsageError for an unknown format."""
    if output not in ("", "json", "yaml", "name"):
        raise UsageError(f"--output={output}: must be json, yaml or name")

    async def work(client: McpClient) -> list[Tool]:
        return await client.list_tools()

    tools = _with_client(server, namespace, 30.0, work)
    if output == "name":
        emit("".join(f"{tool.name}\n" for tool in tools))
    elif output:
        raw = [tool.raw for tool in tools]
        emit(to_json(raw) if output == "json" else to_yaml(raw))
    elif tools:
        emit(table([[t.name, _signature(t.schema), _brief(t.description)] for t in tools],
                   header=["NAME", "ARGUMENTS", "DESCRIPTION"]))  # fmt: skip
    else:
        note("no tools")


def call_tool(
    server: str, name: str, pairs: list[str], args_json: str, namespace: str, *, output: str, timeout: str,
    approval: str = "",
) -> bool:  # fmt: skip
    """Print the result; False when the tool says it failed. Arguments are checked before the call.

    Raises NeedsApproval when people must approve first; ``approval``: NAMESPACE/NAME of what they did approve.
    """
    if output not in ("", "json", "yaml"):
        raise UsageError(f"--output={output}: must be json or yaml")
    limit = seconds(timeout, "--timeout")

    async def work(client: McpClient) -> dict[str, Any]:
        tools = await client.list_tools()
        tool = next((tool for tool in tools if tool.name == name), None)
        if tool is None:
            close = get_close_matches(name, [tool.name for tool in tools])
            hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(t.name for t in tools) or 'none'}"
            raise UsageError(f"server {server} has no tool {name!r} that you may use; {hint}")
        meta = {META_APPROVAL: approval} if approval else None
        return await client.call_tool(name, arguments(tool, pairs, args_json), meta=meta)

    result = _with_client(server, namespace, limit, work)
    if output:
        emit(to_json(result) if output == "json" else to_yaml(result))
    else:
        emit(result_text(result))
    return not result.get("isError")


def arguments(tool: Tool, pairs: list[str], args_json: str) -> dict[str, Any]:
    """The call's arguments. Raises UsageError naming what is missing, unknown or of the wrong type."""
    found = _from_json(args_json)
    properties: dict[str, Any] = tool.schema.get("properties") or {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--arg {pair}: must be KEY=VALUE")
        found[key] = typed(key, text, properties.get(key, {}))
    missing = [key for key in tool.schema.get("required") or [] if key not in found]
    if missing:
        raise UsageError(
            f"tool {tool.name} needs {', '.join(missing)}; give it with: "
            + " ".join(f"--arg {key}={_placeholder(properties.get(key, {}))}" for key in missing)
        )
    unknown = [key for key in found if properties and key not in properties]
    if unknown and not tool.schema.get("additionalProperties"):
        raise UsageError(f"tool {tool.name} has no argument {unknown[0]!r}; it takes: {', '.join(properties)}")
    if found and not properties and tool.schema.get("additionalProperties") is False:
        raise UsageError(f"tool {tool.name} takes no arguments")
    return found


def typed(key: str, text: str, schema: dict[str, Any]) -> Any:
    """A word of the command line as the value its schema wants. Raises UsageError."""
    wanted = _types(schema)
    if "string" in wanted or not wanted:
        return _allowed(key, text, schema)
    if text == "null" and "null" in wanted:
        return None
    if wanted & {"boolean"} and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        if "array" in wanted and text and text[0] not in '[{"':
            return [typed(key, item, schema.get("items") or {}) for item in text.split(",")]
        value = None
    good = {
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }
    if not any(good.get(name) for name in wanted):
        raise UsageError(f"--arg {key}={text}: must be of type {' or '.join(sorted(wanted))}")
    return _allowed(key, value, schema)


def _types(schema: dict[str, Any]) -> set[str]:
    declared = schema.get("type")
    if isinstance(declared, str):
        return {declared}
    if isinstance(declared, list):
        return {str(name) for name in declared}
    found: set[str] = set()
    for branch in (schema.get("anyOf") or []) + (schema.get("oneOf") or []):
        found |= _types(branch)
    return found


def _allowed(key: str, value: Any, schema: dict[str, Any]) -> Any:
    choices = schema.get("enum")
    if choices and value not in choices:
        raise UsageError(f"--arg {key}={value}: must be one of {', '.join(map(str, choices))}")
    return value


def _from_json(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found: Any = json.loads(sys.stdin.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--args-json: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError("--args-json: must be a JSON object")
    return found


def result_text(result: dict[str, Any]) -> str:
    """A CallToolResult for people: texts as they are, other content named, structured content when there is no text."""
    parts: list[str] = []
    for block in result.get("content") or []:
        if block.get("type") == "text":
            parts.append(str(block.get("text", "")))
        elif block.get("type") == "resource_link":
            parts.append(f"[{block.get('uri')}]")
        else:
            parts.append(f"[{block.get('type')} {block.get('mimeType', '')}]".replace(" ]", "]"))
    if not parts and "structuredContent" in result:
        parts.append(json.dumps(result["structuredContent"], ensure_ascii=False))
    return "\n".join(parts).rstrip("\n") + "\n" if parts else ""


def _with_client(server: str, namespace: str, limit: float, work: Callable[[McpClient], Awaitable[T]]) -> T:
    where, slash, rest = server.partition("/")
    if slash:
        namespace, server = where, rest
    namespace = agents_namespace(namespace)
    path = f"/mcp/{part(namespace)}/{part(server)}" if server else "/mcp"
    url = gateway_url() + path

    async def headers() -> list[Header]:
        return gateway_headers()

    async def run() -> T:
        pool = Pool()
        client = McpClient(pool, url, headers=headers, timeout=limit)
        try:
            return await work(client)
        except RpcError as error:
            if server and _NOT_SERVED in str(error):
                raise NotFound(
                    f"MCP server {namespace}/{server} is not served by the gateway; "
                    "see which there are: qd get mcpservers,remotemcpservers,virtualservers -A"
                ) from error
            if error.code == APPROVAL_REQUIRED:
                raise NeedsApproval(str(error)) from error
            raise
        finally:
            await client.close()
            pool.close()

    return asyncio.run(run())


def _signature(schema: dict[str, Any]) -> str:
    required = set(schema.get("required") or [])
    names: dict[str, Any] = schema.get("properties") or {}
    return ", ".join(name if name in required else f"[{name}]" for name in names)


def _brief(text: str) -> str:
    line = text.strip().partition("\n")[0].strip()
    return line if len(line) <= _TEXT_WIDTH else line[: _TEXT_WIDTH - 1] + "…"


def _placeholder(schema: dict[str, Any]) -> str:
    return "|".join(sorted(_types(schema))).upper() or "VALUE"
