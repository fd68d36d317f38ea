"""``qd agent init`` and what its project is, without a platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from quarterdeck.cli.agent_build import local_environment
from quarterdeck.cli.agent_project import Wanted, create, load
from quarterdeck.cli.manifests import read
from quarterdeck.errors import ConfigError, UsageError
from quarterdeck.oci.project import inspect
from quarterdeck.resources.agent import AgentSpec


def wanted(**more: Any) -> Wanted:
    fields: dict[str, Any] = {
        "name": "my-agent", "namespace": "kagent", "description": "Says what: it knows.", "model_config": "gpt",
        "tools": ("clock", "tools/files", "RemoteMCPServer/kagent/docs"),
    }  # fmt: skip
    return Wanted(**(fields | more))


def test_a_new_project_passes_its_own_tests(tmp_path: Path) -> None:
    create(tmp_path, wanted(), force=False)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_its_agent_and_its_image_are_what_the_platform_takes(tmp_path: Path) -> None:
    create(tmp_path, wanted(), force=False)
    [manifest] = read([str(tmp_path / "agent.yaml")])
    spec = AgentSpec.model_validate(manifest.body["spec"])
    assert (spec.type, spec.description) == ("BYO", "Says what: it knows.")
    assert spec.declarative is not None and spec.declarative.tools is not None
    found = [tool.mcp_server for tool in spec.declarative.tools]
    assert [(s.kind, s.namespace, s.name) for s in found if s is not None] == [
        ("MCPServer", None, "clock"), ("MCPServer", "tools", "files"), ("RemoteMCPServer", None, "docs"),
    ]  # fmt: skip
    project = inspect(tmp_path)
    assert project.command == ("python", "src/main.py")
    assert project.keeps("src/main.py") and not project.keeps("tests") and not project.keeps(".env")


def test_it_runs_here_with_what_a_pod_would_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_GATEWAY_URL", "http://gateway:8701/")
    monkeypatch.setenv("QUARTERDECK_TOKEN", "t")
    create(tmp_path, wanted(), force=False)
    environment = local_environment(load(tmp_path), tmp_path, 8081)
    assert (environment["QUARTERDECK_TOKEN"], environment["PORT"]) == ("t", "8081")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model"]["base_url"] == "http://gateway:8701/llm/kagent/gpt/v1"
    assert [tool["params"]["url"] for tool in config["http_tools"]] == [
        "http://gateway:8701/mcp/kagent/clock", "http://gateway:8701/mcp/tools/files",
        "http://gateway:8701/mcp/kagent/remotemcpserver.docs",
    ]  # fmt: skip


def test_its_card_names_the_port_that_it_has(tmp_path: Path) -> None:
    create(tmp_path, wanted(), force=False)
    done = subprocess.run(
        [sys.executable, "-c", "import main; print(*(i.url for i in main.CARD.supported_interfaces))"],
        cwd=tmp_path / "src", env=os.environ | {"PORT": "8123"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["http://localhost:8123/", "http://localhost:8123"], done.stderr


def test_tools_are_written_as_people_write_them(tmp_path: Path) -> None:
    create(tmp_path, wanted(), force=False)
    text = (tmp_path / "agent.yaml").read_text()
    assert "    tools:\n      - type: McpServer\n        mcpServer:\n          kind: MCPServer\n" in text
    create(tmp_path, wanted(tools=()), force=True)
    assert "    tools: []\n" in (tmp_path / "agent.yaml").read_text()


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    create(tmp_path, wanted(), force=False)
    (tmp_path / "src/agent.py").write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        create(tmp_path, wanted(), force=False)
    assert (tmp_path / "src/agent.py").read_text() == "mine"
    create(tmp_path, wanted(name="other"), force=True)
    assert yaml.safe_load((tmp_path / "agent.yaml").read_text())["metadata"]["name"] == "other"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"name": "My Agent"}, "lower-case letters"),
        ({"name": "a" * 57}, "56"),
        ({"description": 'a "b"'}, "quotation marks"),
        ({"tools": ("a/b/c/d",)}, "--tool a/b/c/d"),
        ({"tools": ("Tool/kagent/x",)}, "--tool Tool/kagent/x: kind Tool has no tools; there are MCPServer"),
        ({"model_config": "a: [b"}, "--model-config a: .b: must be the name of an object"),
        ({"namespace": "k/x"}, "--namespace k/x: must be"),
        ({"description": "tab\tbed"}, "--description"),
    ],
)
def test_bad_wishes_write_nothing(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        create(tmp_path, wanted(**more), force=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not an Agent"), ("kind: Agent\n", "not an Agent"), (":\n- {", "agent.yaml"),
        ("kind: Agent\nmetadata: [x]\n", "not an Agent"), ("\xff\xfe", "agent.yaml: 'utf-8' codec"),
        ("kind: Agent\nmetadata: {name: a}\nspec: {declarative: {tools: [x]}}\n", "declarative.tools.0"),
        ("kind: Agent\nmetadata: {name: a}\nspec: x\n", "agent.yaml"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_project(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match="qd agent init"):
        load(tmp_path)
    (tmp_path / "agent.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=says):
        load(tmp_path)
