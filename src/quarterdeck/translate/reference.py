"""References between resources: which object is meant, and whether it may be used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from quarterdeck.errors import ConfigError
from quarterdeck.kube.selector import selects
from quarterdeck.resources.agent import Tool

from .options import Options

_MCP_KINDS = {
    ("", ""): "MCPServer",
    ("", "MCPServer"): "MCPServer",
    ("kagent.dev", "MCPServer"): "MCPServer",
    ("kagent.dev", ""): "MCPServer",
    ("", "RemoteMCPServer"): "RemoteMCPServer",
    ("kagent.dev", "RemoteMCPServer"): "RemoteMCPServer",
    ("", "VirtualServer"): "VirtualServer",
    ("quarterdeck.dev", "VirtualServer"): "VirtualServer",
    ("", "Service"): "Service",
    ("core", "Service"): "Service",
}
_TOOL_SERVER = ("RemoteMCPServer", "MCPServer")
"""What an agent of v1alpha1 may mean by a ToolServer, best first: that kind is stored only."""

Target = tuple[str, str, str]
"""kind, namespace, name"""


def tool_target_key(namespace: str, tool: Tool, exists: Callable[[Target], bool]) -> Target:
    """What a tool refers to; the best candidate when none exists. Raises ConfigError for a kind that is no tool."""
    candidates = tool_target_keys(namespace, tool)
    return next((key for key in candidates if len(candidates) == 1 or exists(key)), candidates[0])


def tool_target_keys(namespace: str, tool: Tool) -> list[Target]:
    """All a tool may refer to, best first: one, but for ToolServers. Raises ConfigError for a kind that is no tool."""
    if tool.type == "Agent" and tool.agent is not None:
        return [("Agent", tool.agent.namespace or namespace, tool.agent.name)]
    server = tool.mcp_server
    if server is None:
        raise ConfigError(f"tools: type {tool.type} without its block")
    if server.kind == "ToolServer" and server.api_group in (None, "", "kagent.dev"):
        return [(kind, server.namespace or namespace, server.name) for kind in _TOOL_SERVER]
    kind = _MCP_KINDS.get((server.api_group or "", server.kind or ""))
    if kind is None:
        raise ConfigError(
            f"tools: {server.api_group or ''}/{server.kind or ''} {server.name} is not a kind of MCP server; "
            "use MCPServer or RemoteMCPServer of kagent.dev, VirtualServer of quarterdeck.dev, or a core Service"
        )
    return [(kind, server.namespace or namespace, server.name)]


def model_key(namespace: str, wanted: str, existing: Collection[tuple[str, str]], options: Options) -> tuple[str, str]:
    """The ModelConfig meant by ``wanted`` (empty: the default). Only the default's name crosses namespaces."""
    name = wanted or options.default_model
    if name == options.default_model and (namespace, name) not in existing:
        return options.default_namespace, name
    return namespace, name


def allowed(
    rule: Mapping[str, Any] | None, target_namespace: str, source: str, source_labels: Mapping[str, str]
) -> bool:
    """Whether ``allowedNamespaces`` of a target admits ``source``."""
    if source == target_namespace:
        return True
    kind = (rule or {}).get("from") or "Same"
    if kind == "All":
        return True
    selector = (rule or {}).get("selector")
    return kind == "Selector" and selector is not None and selects(selector, source_labels)
