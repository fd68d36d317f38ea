"""v1alpha1 ↔ v1alpha2 of Agent and ModelConfig, and typed specs of either."""

from __future__ import annotations

import json
from typing import Any

from .agent import AgentSpec
from .base import parse
from .model_config import ModelConfigSpec

Object = dict[str, Any]
LEGACY = "quarterdeck.dev/v1alpha1"
"""Annotation of a v1alpha2 object that was written as v1alpha1: JSON of what only that version can say."""
_FLAT = ("systemMessage", "modelConfig", "stream", "a2aConfig", "deployment", "tools")
_MODEL_LEGACY = ("apiKeySecretRef", "modelInfo")
_REFERENCE = ("name", "namespace", "kind", "apiGroup")

CONVERTED_KINDS = (("kagent.dev", "Agent"), ("kagent.dev", "ModelConfig"))
"""(group, kind) of the kinds whose versions differ in shape."""


def convert(obj: Object, api_version: str) -> Object:
    """The object in ``api_version`` (``kagent.dev/v1alpha1`` or ``…/v1alpha2``); the argument is not changed.

    v1alpha1 is the union of both shapes. What only its flat shape can say goes into the annotation ``LEGACY`` of the
    v1alpha2 object, and back into its place when that is read as v1alpha1: an object is read as it was written.
    """
    out = obj | {"apiVersion": api_version}
    if not isinstance(obj.get("spec"), dict) or obj["kind"] not in ("Agent", "ModelConfig"):
        return out
    agent = obj["kind"] == "Agent"
    if api_version.endswith("/v1alpha2"):
        kept = _agent_legacy(obj["spec"]) if agent else _model_legacy(obj["spec"])
        spec = _agent(obj["spec"]) if agent else _model(obj["spec"])
        return out | {"spec": spec} | ({"metadata": _annotated(obj["metadata"], kept)} if kept else {})
    kept = _kept(obj["metadata"])
    if kept is None:
        return out
    spec = _flat_agent(obj["spec"], kept) if agent else _legacy_model(obj["spec"], kept)
    return out | {"spec": spec, "metadata": _annotated(obj["metadata"], None)}


def _annotated(metadata: Object, kept: Object | None) -> Object:
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LEGACY}
    if kept is not None:
        annotations[LEGACY] = json.dumps(kept, sort_keys=True)
    rest = {key: value for key, value in metadata.items() if key != "annotations"}
    return rest | ({"annotations": annotations} if annotations else {})


def _kept(metadata: Object) -> Object | None:
    """What the annotation holds; None without it, or when somebody wrote something else there."""
    try:
        kept = json.loads((metadata.get("annotations") or {}).get(LEGACY) or "null")
    except ValueError:
        return None
    return kept if isinstance(kept, dict) else None


def _agent(spec: Object) -> Object:
    """Flat v1alpha1 fields move under ``declarative`` and win over what is there; references become name and kind."""
    out = {key: value for key, value in spec.items() if key not in (*_FLAT, "memory")}
    flat = {key: spec[key] for key in _FLAT if key in spec}
    if flat or ("type" not in spec and "byo" not in spec):
        nested: Object = out.get("declarative") or {}
        out = {"type": "Declarative"} | out | {"declarative": nested | flat}
    declarative = out.get("declarative")
    if isinstance(declarative, dict) and declarative.get("tools"):
        out["declarative"] = declarative | {"tools": [_tool(tool) for tool in declarative["tools"]]}
    return out


def _agent_legacy(spec: Object) -> Object:
    flat = any(key in spec for key in _FLAT)
    return ({"flat": True} if flat else {}) | ({"memory": spec["memory"]} if "memory" in spec else {})


def _flat_agent(spec: Object, kept: Object) -> Object:
    out = spec | ({"memory": kept["memory"]} if "memory" in kept else {})
    declarative = spec.get("declarative")
    if not kept.get("flat") or not isinstance(declarative, dict):
        return out
    flat = {key: declarative[key] for key in _FLAT if key in declarative}
    if "tools" in flat:
        flat["tools"] = [_legacy_tool(tool) for tool in flat["tools"]]
    rest = {key: value for key, value in declarative.items() if key not in _FLAT}
    out = {key: value for key, value in out.items() if key != "declarative"} | flat
    return out | ({"declarative": rest} if rest else {})


def _tool(tool: Object) -> Object:
    """A ToolServer keeps its kind: resolution finds what serves it now (translate/reference.py)."""
    out = dict(tool)
    server, agent = tool.get("mcpServer"), tool.get("agent")
    if isinstance(server, dict) and server.get("toolServer"):
        target = {"kind": "ToolServer", "apiGroup": "kagent.dev"} | _name(server["toolServer"])
        out["mcpServer"] = target | _given(server, "toolServer")
    if isinstance(agent, dict) and agent.get("ref"):
        out["agent"] = _name(agent["ref"]) | _given(agent, "ref")
    return out


def _given(reference: Object, without: str) -> Object:
    """Members that say something: v1alpha1 gives ``name`` an empty default."""
    return {key: value for key, value in reference.items() if key != without and value not in ("", None)}


def _legacy_tool(tool: Object) -> Object:
    out = dict(tool)
    server, agent = tool.get("mcpServer"), tool.get("agent")
    if isinstance(server, dict) and (server.get("kind"), server.get("apiGroup")) == ("ToolServer", "kagent.dev"):
        rest = {key: value for key, value in server.items() if key not in _REFERENCE}
        out["mcpServer"] = {"toolServer": _reference(server)} | rest
    if isinstance(agent, dict) and not {"kind", "apiGroup"} & agent.keys():  # a ref cannot say more
        rest = {key: value for key, value in agent.items() if key not in _REFERENCE}
        out["agent"] = {"ref": _reference(agent)} | rest
    return out


def _name(reference: str) -> Object:
    namespace, _, name = reference.partition("/")
    return {"name": name, "namespace": namespace} if namespace and name else {"name": reference}


def _reference(target: Object) -> str:
    return f"{target['namespace']}/{target['name']}" if target.get("namespace") else str(target["name"])


def _model(spec: Object) -> Object:
    """The older reference wins: who writes v1alpha1 changes that one."""
    out = {key: value for key, value in spec.items() if key not in _MODEL_LEGACY}
    reference = spec.get("apiKeySecretRef")
    return out | ({"apiKeySecret": str(reference).rsplit("/", 1)[-1]} if reference else {})


def _model_legacy(spec: Object) -> Object:
    return {key: spec[key] for key in _MODEL_LEGACY if spec.get(key)}


def _legacy_model(spec: Object, kept: Object) -> Object:
    out = spec | {key: kept[key] for key in _MODEL_LEGACY if key in kept}
    secret, reference = spec.get("apiKeySecret"), kept.get("apiKeySecretRef")
    if reference is None:
        return out
    del out["apiKeySecretRef"]
    if secret is None:
        return out
    del out["apiKeySecret"]
    same = str(reference).rsplit("/", 1)[-1] == secret
    return out | {"apiKeySecretRef": reference if same else secret}


def agent_spec(obj: Object) -> AgentSpec:
    """The typed spec, whatever shape it was written in. Raises ConfigError."""
    return parse(AgentSpec, _agent(obj.get("spec") or {}), _named(obj))


def model_spec(obj: Object) -> ModelConfigSpec:
    """The typed spec, whatever shape it was written in. Raises ConfigError."""
    return parse(ModelConfigSpec, _model(obj.get("spec") or {}), _named(obj))


def _named(obj: Object) -> str:
    return f"{obj.get('kind', '')} {obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
