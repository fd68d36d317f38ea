"""Agent projects: what ``qd agent init`` writes, and what the other commands read of one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

from quarterdeck.errors import ConfigError, UsageError

TEMPLATE = Path(__file__).with_name("agent_template")
MANIFEST = "agent.yaml"
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,54}[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_GROUPS = {
    "MCPServer": "kagent.dev",
    "RemoteMCPServer": "kagent.dev",
    "VirtualServer": "quarterdeck.dev",
    "Service": "",
}
"""API groups of what a tool may be."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a new project is to be. ``tools`` are MCP servers: NAME, NAMESPACE/NAME, or KIND/NAMESPACE/NAME."""

    name: str
    namespace: str
    description: str
    model_config: str
    tools: Sequence[str] = ()


def create(directory: Path, wanted: Wanted, *, force: bool) -> list[Path]:
    """Write the project; gives its files. Raises UsageError for a bad name, or for files that are there already."""
    if not _NAME.fullmatch(wanted.name):
        raise UsageError(f"{wanted.name}: an agent's name has lower-case letters, digits and -, at most 56 characters")
    if any(sign in '"\\' or not sign.isprintable() for sign in wanted.description):
        raise UsageError("--description: one line without quotation marks and backslashes")
    for option, name in (("--model-config", wanted.model_config), ("--namespace", wanted.namespace)):
        if not _OBJECT.fullmatch(name):
            raise UsageError(f"{option} {name}: must be the name of an object: lower-case letters, digits, - and .")
    values = {
        "name": wanted.name,
        "card_name": wanted.name.replace("-", "_"),
        "namespace": wanted.namespace,
        "description": wanted.description,
        "model_config": wanted.model_config,
        "image": f"{wanted.name}:latest",
        "tools": _block([_reference(tool, wanted.namespace) for tool in wanted.tools]),
    }
    files = {_place(path): path for path in sorted(TEMPLATE.rglob("*.txt"))}
    there = [place for place in files if (directory / place).exists()]
    if there and not force:
        raise UsageError(f"{directory / there[0]} is there already; --force writes over it")
    for place, source in files.items():
        text = source.read_text()
        for name, value in values.items():
            text = text.replace("{{" + name + "}}", _yaml(value) if _quoted(place, name) else value)
        target = directory / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return [directory / place for place in files]


def _place(path: Path) -> Path:
    relative = path.relative_to(TEMPLATE)
    name = relative.name.removesuffix(".txt")
    return relative.with_name(f".{name}" if name.endswith("ignore") else name)


def _quoted(place: Path, name: str) -> bool:
    return place.name == MANIFEST and name == "description"


def _yaml(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _block(references: list[dict[str, Any]]) -> str:
    """What stands behind ``tools:``, as people write it."""
    import yaml

    if not references:
        return " []"
    return "\n" + indent(yaml.safe_dump(references, sort_keys=False).rstrip(), " " * 6)


def _reference(tool: str, namespace: str) -> dict[str, Any]:
    """A tool reference of the Agent. Raises UsageError."""
    *kind, place, name = ["", *tool.split("/")] if tool.count("/") == 0 else tool.split("/")
    if not name or len(kind) > 1:
        raise UsageError(f"--tool {tool}: write NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME")
    server: dict[str, Any] = {"kind": kind[0] if kind and kind[0] else "MCPServer", "name": name}
    if server["kind"] not in _GROUPS:
        raise UsageError(f"--tool {tool}: kind {server['kind']} has no tools; there are {', '.join(_GROUPS)}")
    server["apiGroup"] = _GROUPS[server["kind"]]
    if place and place != namespace:
        server["namespace"] = place
    return {"type": "McpServer", "mcpServer": server}


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with an ``agent.yaml``. ``manifest`` is the Agent."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.manifest["metadata"].get("namespace") or "kagent")

    @property
    def image(self) -> str:
        """Raises ConfigError when the Agent names none."""
        found = self._spec("byo", "deployment").get("image")
        if not found:
            raise ConfigError(f"{self.directory / MANIFEST}: spec.byo.deployment.image is missing")
        return str(found)

    def _spec(self, *path: str) -> dict[str, Any]:
        found: Any = self.manifest.get("spec")
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def config(self, gateway: str) -> dict[str, Any]:
        """The ``config.json`` that the platform would write, with the addresses of a gateway at ``gateway``."""
        from quarterdeck.translate.options import Options

        declarative = self._spec("declarative")
        options = Options(gateway_url=gateway)
        model = str(declarative.get("modelConfig") or options.default_model)
        tools: list[dict[str, Any]] = []
        for tool in declarative.get("tools") or ():
            server = tool.get("mcpServer")
            if server is not None:
                place = str(server.get("namespace") or self.namespace)
                url = options.mcp_url(place, str(server["name"]), str(server.get("kind") or "MCPServer"))
                tools.append({"params": {"url": url}, "tools": list(server.get("toolNames") or ())})
        return {
            "model": {"type": "openai", "model": model, "base_url": options.llm_url(self.namespace, model)},
            "description": str(self._spec().get("description") or ""),
            "instruction": str(declarative.get("systemMessage") or ""),
            "http_tools": tools,
        }


def load(directory: Path) -> Project:
    """Raises ConfigError when the folder holds no project, or an Agent that cannot be read."""
    import yaml

    from quarterdeck.resources.agent import AgentSpec
    from quarterdeck.resources.base import parse

    path = directory / MANIFEST
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{directory} holds no {MANIFEST}: make a project with qd agent init NAME") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    metadata = found.get("metadata") if isinstance(found, dict) and found.get("kind") == "Agent" else None
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise ConfigError(f"{path}: not an Agent with a name")
    parse(AgentSpec, found.get("spec") or {}, str(path))
    return Project(directory, found)
