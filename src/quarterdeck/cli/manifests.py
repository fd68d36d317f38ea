"""YAML and JSON files as Kubernetes objects that remember where they came from."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quarterdeck.errors import ConfigError, UsageError

_SUFFIXES = (".yaml", ".yml", ".json")
_PATH_PART = re.compile(r"\[(\d+)\]|\[\"?([^\]\"]+)\"?\]|([^.\[\]]+)")
_FIRST = {"Namespace": 0, "CustomResourceDefinition": 1}


class _Loader(yaml.SafeLoader):
    """Dates stay text, as in JSON and as kubectl reads them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object of a file. ``document`` counts from 1; ``tree`` is its YAML node, for line numbers."""

    source: str
    document: int
    body: dict[str, Any]
    tree: yaml.Node

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    def at(self, field: str = "") -> str:
        """``file.yaml: document 2, line 14`` for a field path such as ``spec.tools[0].type``."""
        return f"{self.source}: document {self.document}, line {line_of(self.tree, field)}"


def line_of(tree: yaml.Node, field: str) -> int:
    """The line of a field, 1-based; of the nearest parent that is there when the field itself is missing."""
    node, line = tree, tree.start_mark.line + 1
    for index, quoted, name in _PATH_PART.findall(field):
        if isinstance(node, yaml.SequenceNode) and index and int(index) < len(node.value):
            node = node.value[int(index)]
            line = node.start_mark.line + 1
            continue
        wanted = quoted or name or index
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        for key, value in entries:
            if getattr(key, "value", None) == wanted:
                node, line = value, key.start_mark.line + 1
                break
        else:
            break
    return line


def read(sources: list[str], *, recursive: bool = False) -> list[Manifest]:
    """Objects of files, folders, ``-`` and http(s) URLs: Namespaces first, then definitions of kinds, then the rest
    in the order written. Raises ConfigError naming file, document and line, UsageError when there is nothing.
    """
    if not sources:
        raise UsageError("must specify -f FILE, a folder, - or a URL")
    found: list[Manifest] = []
    for source in sources:
        for name, text in _texts(source, recursive):
            found += parse(name, text)
    if not found:
        raise UsageError(f"no objects in {', '.join(sources)}")
    return sorted(found, key=lambda manifest: _FIRST.get(manifest.body["kind"], 2))


def parse(source: str, text: str) -> list[Manifest]:
    """All objects of one text; Lists are taken apart, empty documents skipped. Raises ConfigError."""
    found: list[Manifest] = []
    number = 0
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            number += 1
            if node is not None:
                found += _objects(source, number, loader.construct_document(node), node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"{source}: document {number + 1}{where}: not YAML: {problem}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: document {number}: a value cannot be read: {error}") from error
    return found


def _objects(source: str, number: int, body: Any, node: yaml.Node) -> list[Manifest]:
    if body is None:
        return []
    where = f"{source}: document {number}, line {node.start_mark.line + 1}"
    if not isinstance(body, dict):
        raise ConfigError(f"{where}: a Kubernetes object must be a mapping with apiVersion, kind and metadata")
    for field in ("apiVersion", "kind"):
        if not isinstance(body.get(field), str) or not body[field]:
            raise ConfigError(f"{where}: {field}: Required value; every object names its {field}")
    if body["kind"].endswith("List") and isinstance(body.get("items"), list):
        items = next(value for key, value in node.value if key.value == "items")
        parts = zip(body["items"], items.value, strict=True)
        return [manifest for item, tree in parts for manifest in _objects(source, number, item, tree)]
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise ConfigError(f"{where}: {body['kind']}: metadata.name: Required value; give the object a name")
    return [Manifest(source, number, body, node)]


def _texts(source: str, recursive: bool) -> list[tuple[str, str]]:
    if source == "-":
        return [("standard input", sys.stdin.read())]
    if source.startswith(("http://", "https://")):
        return [(source, _download(source))]
    path = Path(source)
    try:
        if not path.is_dir():
            return [(source, path.read_text(encoding="utf-8"))]
        files = sorted(path.rglob("*") if recursive else path.iterdir())
        return [(str(p), p.read_text(encoding="utf-8")) for p in files if p.suffix in _SUFFIXES and p.is_file()]
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; check the path after -f") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8 text at byte {error.start}") from error


def _download(url: str) -> str:
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - the scheme was checked
            return str(response.read().decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{url}: cannot be fetched: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{url}: not UTF-8 text at byte {error.start}") from error
