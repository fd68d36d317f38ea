"""v1alpha1 ↔ v1alpha2 of Agent and ModelConfig, and typed specs of either."""

from __future__ import annotations

from typing import Any

from .agent import AgentSpec
from .base import parse
from .model_config import ModelConfigSpec

Object = dict[str, Any]
_FLAT = ("systemMessage", "modelConfig", "stream", "a2aConfig", "deployment")


CONVERTED_KINDS = (("kagent.dev", "Agent"), ("kagent.dev", "ModelConfig"))
"""(group, kind) of the kinds whose versions differ in shape."""


def convert(obj: Object, api_version: str) -> Object:
    """The object in ``api_version`` (``kagent.dev/v1alpha1`` or ``…/v1alpha2``); the argument is not changed.

    v1alpha1 is the union of both shapes, so going back to it keeps the newer shape.
    """
    out = obj | {"apiVersion": api_version}
    if not api_version.endswith("/v1alpha2") or not isinstance(obj.get("spec"), dict):
        return out
    if obj["kind"] == "Agent":
        return out | {"spec": _agent(obj["spec"])}
    if obj["kind"] == "ModelConfig":
        return out | {"spec": _model(obj["spec"])}
    return out


def _agent(spec: Object) -> Object:
    """Flat v1alpha1 fields move under ``declarative``; references become name and namespace."""
    out = {key: value for key, value in spec.items() if key not in (*_FLAT, "tools", "memory")}
    flat = {key: spec[key] for key in _FLAT if key in spec}
    if "tools" in spec:
        flat["tools"] = spec["tools"]
    if flat or ("type" not in spec and "byo" not in spec):
        nested: Object = out.get("declarative") or {}
        out = {"type": "Declarative"} | out | {"declarative": flat | nested}
    declarative = out.get("declarative")
    if isinstance(declarative, dict) and declarative.get("tools"):
        out["declarative"] = declarative | {"tools": [_tool(tool) for tool in declarative["tools"]]}
    return out


def _tool(tool: Object) -> Object:
    out = dict(tool)
    server, agent = tool.get("mcpServer"), tool.get("agent")
    if isinstance(server, dict) and server.get("toolServer"):
        rest = {key: value for key, value in server.items() if key != "toolServer"}
        out["mcpServer"] = _name(server["toolServer"]) | {"kind": "RemoteMCPServer", "apiGroup": "kagent.dev"} | rest
    if isinstance(agent, dict) and agent.get("ref"):
        rest = {key: value for key, value in agent.items() if key != "ref"}
        out["agent"] = _name(agent["ref"]) | rest
    return out


def _name(reference: str) -> Object:
    namespace, slash, name = reference.partition("/")
    return {"name": name, "namespace": namespace} if slash else {"name": reference}


def _model(spec: Object) -> Object:
    out = {key: value for key, value in spec.items() if key not in ("apiKeySecretRef", "modelInfo")}
    reference = spec.get("apiKeySecretRef")
    if reference and not spec.get("apiKeySecret"):
        out["apiKeySecret"] = str(reference).rsplit("/", 1)[-1]
    return out


def agent_spec(obj: Object) -> AgentSpec:
    """The typed spec, whatever shape it was written in. Raises ConfigError."""
    return parse(AgentSpec, _agent(obj.get("spec") or {}), _named(obj))


def model_spec(obj: Object) -> ModelConfigSpec:
    """The typed spec, whatever shape it was written in. Raises ConfigError."""
    return parse(ModelConfigSpec, _model(obj.get("spec") or {}), _named(obj))


def _named(obj: Object) -> str:
    return f"{obj.get('kind', '')} {obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
