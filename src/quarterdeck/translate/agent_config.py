"""config.json and agent-card.json of an agent: kagent's format (reference/kagent.md §3.1), the gateway's URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.resources.agent import AgentSpec, ContextConfig, Declarative, Tool
from quarterdeck.resources.run import RunSettings

from .objects import duration, present
from .options import Options

ACTING_FOR = "x-quarterdeck-acting-for"
"""Sent by the gateway with a user's message; kagent's ADK passes on what ``allowed_headers`` names."""
Name = tuple[str, str]
"""namespace, name"""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """The ModelConfig an agent uses."""

    namespace: str
    name: str
    model: str
    timeout: float | None = None
    """Seconds for one answer, where the ModelConfig says."""


@dataclass(frozen=True, slots=True)
class ToolTarget:
    """A tool reference with its target found: an MCP server, or an agent (kind Agent)."""

    tool: Tool
    kind: str
    namespace: str
    name: str
    description: str = ""
    timeout: float = 30.0
    sse_read_timeout: float | None = None
    terminate_on_close: bool = True
    hosted: bool = False
    """Of an agent: whether our host runs it."""


@dataclass(frozen=True, slots=True)
class AgentInputs:
    """An Agent with everything it refers to resolved."""

    obj: dict[str, Any]
    spec: AgentSpec
    model: ResolvedModel | None = None
    instruction: str = ""
    targets: Sequence[ToolTarget] = ()
    embedding: ResolvedModel | None = None
    summarizer: ResolvedModel | None = None
    mounted: Mapping[str, str] = field(default_factory=dict[str, str])
    """Hashes of the Secrets and ConfigMaps mounted or in env, by ``kind/name``; only they roll the Pods."""

    @property
    def namespace(self) -> str:
        return self.obj["metadata"]["namespace"]

    @property
    def name(self) -> str:
        return self.obj["metadata"]["name"]


def agent_config(inputs: AgentInputs, options: Options) -> dict[str, Any]:
    """The content of config.json. No secret is in it: the gateway attaches credentials."""
    spec, declarative = inputs.spec, inputs.spec.declarative
    byo = spec.type == "BYO"
    options = options.inside() if byo else options
    config: dict[str, Any] = {"description": spec.description or "", "instruction": inputs.instruction}
    if inputs.model is not None:
        config = {"model": _model(inputs.model, options)} | config
    if declarative is None:
        return config
    tools = [_http_tool(target, options) for target in inputs.targets if target.kind != "Agent"]
    config["http_tools"] = [byo_tool(tool) for tool in tools] if byo else tools
    config["sse_tools"] = []
    config["remote_agents"] = [_remote_agent(target, options) for target in inputs.targets if target.kind == "Agent"]
    config["stream"] = declarative.stream
    return config | _optional(inputs, declarative, options)


def _model(model: ResolvedModel, options: Options) -> dict[str, Any]:
    url = options.llm_url(model.namespace, model.name)
    return {"type": "openai", "model": model.model, "base_url": url} | present(timeout=model.timeout)


def _http_tool(target: ToolTarget, options: Options) -> dict[str, Any]:
    """A server behind the gateway: Streamable HTTP whatever the server itself speaks."""
    params = present(
        url=options.mcp_url(target.namespace, target.name, target.kind),
        timeout=_timeout(target) or target.timeout,
        sse_read_timeout=target.sse_read_timeout,
    )
    params["headers"] = {}
    params["terminate_on_close"] = target.terminate_on_close
    server = target.tool.mcp_server
    out: dict[str, Any] = {"params": params, "tools": list(server.tool_names or ()) if server else []}
    out |= present(timeout=_timeout(target))
    if server is not None:
        out |= present(allowed_headers=server.allowed_headers)
        if server.require_approval:
            out["require_approval"] = []  # the gateway asks: an image that asks, too, would ask twice
    return out


def byo_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """As kagent's SDK is to use it: the gateway alone asks for approvals, and hears for whom a call is made."""
    passed = [*(tool.get("allowed_headers") or ()), ACTING_FOR]
    return tool | {"require_approval": [], "allowed_headers": list(dict.fromkeys(passed))}


def _timeout(target: ToolTarget) -> float | None:
    """Seconds that the tool reference allows a call, whatever its server does."""
    return duration(target.tool.timeout) if target.tool.timeout is not None else None


def agent_tool_name(namespace: str, name: str) -> str:
    """The tool name under which kagent offers another agent."""
    return re.sub(r"[^A-Za-z0-9_]", "_", f"{namespace}__NS__{name}")


def _remote_agent(target: ToolTarget, options: Options) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": agent_tool_name(target.namespace, target.name),
        "url": options.a2a_url(target.namespace, target.name),
        "headers": {},
        "description": target.description,
    }
    out |= present(timeout=_timeout(target)) | ({"hosted": True} if target.hosted else {})
    return out | ({"isolate_sessions": True} if target.tool.isolate_sessions else {})


def _optional(inputs: AgentInputs, declarative: Declarative, options: Options) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if declarative.memory is not None:
        memory: dict[str, Any] = {"ttl_days": declarative.memory.ttl_days or 15}
        if inputs.embedding is not None:
            memory["embedding"] = {
                "provider": "openai",
                "model": inputs.embedding.model,
                "base_url": options.llm_url(inputs.embedding.namespace, inputs.embedding.name),
            }
        out["memory"] = memory
    if declarative.output_schema is not None:
        out["output_schema"] = declarative.output_schema
    if declarative.context is not None:
        out["context_config"] = _context(inputs, declarative.context, options)
    if declarative.share_tools and inputs.spec.type != "BYO":  # kagent's image would offer what is not there
        out["share_tools"] = True
    if declarative.runs is not None:
        out["runs"] = _runs(declarative.runs)
    sandbox = inputs.spec.sandbox
    if sandbox is not None and sandbox.network is not None:
        out["network"] = {"allowed_domains": sandbox.network.allowed_domains or []}
    return out


def _context(inputs: AgentInputs, context: ContextConfig, options: Options) -> dict[str, Any]:
    out: dict[str, Any] = present(max_tokens=context.max_tokens)
    if context.images != "Auto":
        out["images"] = context.images
    if context.tool_results is not None:
        out["tool_results"] = {"page_size": context.tool_results.page_size, "max_size": context.tool_results.max_size}
    compaction = context.compaction
    if compaction is None:
        return out
    values = present(
        compaction_interval=compaction.compaction_interval,
        overlap_size=compaction.overlap_size,
        token_threshold=compaction.token_threshold,
        event_retention_size=compaction.event_retention_size,
    )
    if compaction.summarizer is not None:
        model = inputs.summarizer or inputs.model
        summary = present(prompt_template=compaction.summarizer.prompt_template)
        values["summarizer"] = summary | ({"model": _model(model, options)} if model else {})
    return out | {"compaction": values}


def _runs(settings: RunSettings) -> dict[str, Any]:
    out: dict[str, Any] = {
        "on_unknown_outcome": settings.on_unknown_outcome,
        "repeat_tools": list(settings.repeat_tools or ()),
    }
    budget = settings.budget
    if budget is None:
        return out
    price = budget.price
    return out | {
        "budget": present(
            steps=budget.steps,
            tool_calls=budget.tool_calls,
            tokens=budget.tokens,
            cost=float(budget.cost) if budget.cost is not None else None,
            wall_time=duration(budget.wall_time) if budget.wall_time is not None else None,
            input_price=float(price.input) if price is not None else None,
            output_price=float(price.output) if price is not None else None,
        )
    }


def agent_card(inputs: AgentInputs) -> dict[str, Any]:
    """The A2A card. The agent's host rewrites ``url`` to where it was asked."""
    spec = inputs.spec
    config = spec.declarative.a2a_config if spec.declarative else None
    skills = [skill.model_dump(by_alias=True, exclude_none=True) for skill in config.skills] if config else []
    card: dict[str, Any] = {
        "name": inputs.name.replace("-", "_"),
        "description": spec.description or "",
        "url": f"http://{inputs.name}.{inputs.namespace}:8080",
        "version": spec.version or "",
        "capabilities": {"streaming": True, "pushNotifications": False, "stateTransitionHistory": True},
        "defaultInputModes": ["text"],
        "defaultOutputModes": ["text"],
        "skills": skills,
    }
    provider = spec.provider.model_dump(by_alias=True) if spec.provider else None
    return card | present(iconUrl=spec.icon_url, documentationUrl=spec.documentation_url, provider=provider)
