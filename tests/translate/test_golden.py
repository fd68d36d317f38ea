"""YAML in, JSON out. ``UPDATE_GOLDEN=1 pytest tests/translate`` writes what came out, to be read before committing."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from quarterdeck.kube.resource import Object
from quarterdeck.resources.base import parse
from quarterdeck.resources.conversion import agent_spec, model_spec
from quarterdeck.resources.mcp_server import MCPServerSpec
from quarterdeck.translate import prompt
from quarterdeck.translate.agent import translate_agent
from quarterdeck.translate.agent_config import AgentInputs, ResolvedModel, ToolTarget
from quarterdeck.translate.mcp_server import translate_mcp_server
from quarterdeck.translate.options import Options
from quarterdeck.translate.reference import tool_target_key
from quarterdeck.translate.scripted import translate_scripted

DATA = Path(__file__).parent / "testdata"
OPTIONS = Options("http://gateway:8702", "http://kagent-controller:8083", "ghcr.io/quarterdeck-dev/quarterdeck:test")


def inputs_of(obj: Object, documents: list[Object]) -> AgentInputs:
    spec = agent_spec(obj)
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    declarative = spec.declarative
    if declarative is None:
        return AgentInputs(obj, spec)
    config_maps = {
        d["metadata"]["name"]: d.get("data") or {} for d in documents if d["kind"] in ("ConfigMap", "Secret")
    }
    text = declarative.system_message or ""
    if declarative.system_message_from:
        text = config_maps[declarative.system_message_from.name][declarative.system_message_from.key]
    if declarative.prompt_template:
        sources = {s.alias or s.name: config_maps[s.name] for s in declarative.prompt_template.data_sources or ()}
        names = [n for t in declarative.tools or () if t.mcp_server for n in t.mcp_server.tool_names or ()]
        text = prompt.render(text, sources, prompt.PromptContext(name, namespace, spec.description or "", names))
    targets = [ToolTarget(tool, *tool_target_key(namespace, tool, lambda _: True)) for tool in declarative.tools or ()]
    model = ResolvedModel(namespace, declarative.model_config_ or "default-model-config", "gpt-4.1-mini")
    embedding = ResolvedModel(namespace, declarative.memory.model_config_, "embed") if declarative.memory else None
    return AgentInputs(obj, spec, model, text, targets, embedding)


def translated(documents: list[Object]) -> list[Object]:
    out: list[Object] = []
    for obj in documents:
        if obj["kind"] in ("ConfigMap", "Secret"):
            continue
        obj["metadata"]["uid"] = "uid"
        if obj["kind"] == "Agent":
            out += translate_agent(inputs_of(obj, documents), OPTIONS)
        elif obj["kind"] == "MCPServer":
            out += translate_mcp_server(obj, parse(MCPServerSpec, obj["spec"], "MCPServer"), OPTIONS)
        else:
            out += translate_scripted(obj, model_spec(obj), OPTIONS)
    return [opened(item) for item in out]


def opened(obj: Object) -> Any:
    """Secrets readable: their JSON documents instead of base64."""
    if obj["kind"] != "Secret":
        return obj
    return obj | {"data": {key: json.loads(base64.b64decode(value)) for key, value in obj["data"].items()}}


@pytest.mark.parametrize("path", sorted((DATA / "inputs").glob("*.yaml")), ids=lambda p: p.stem)
def test_golden(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    result = json.dumps(translated(documents), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    golden = DATA / "outputs" / f"{path.stem}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(result)
    assert result == golden.read_text()


def test_no_secret_reaches_the_pod_or_its_configuration() -> None:
    for path in (DATA / "outputs").glob("*.json"):
        text = path.read_text()
        assert "API_KEY" not in text and "s3cr3t" not in text, path
