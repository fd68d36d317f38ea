"""Bodies in, bodies out: JSON and YAML decoding with duplicate detection, media types, Accept headers."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal, cast

import msgspec
import yaml

from quarterdeck.apiserver import protobuf
from quarterdeck.errors import BadRequest, NotAcceptable, UnsupportedMediaType
from quarterdeck.kube.resource import Object

MAX_BODY = 3 * 1024 * 1024
_DEPTH = 400
_EXPANDED = 2_000_000
"""Nodes (and 64-byte pieces of text) of a YAML document with every alias written out: more than any honest body has."""

encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder()

Shape = Literal["object", "Table", "PartialObjectMetadata", "PartialObjectMetadataList", "APIGroupDiscoveryList"]


@dataclass(frozen=True, slots=True)
class Accept:
    """What the client wants: the shape, its API version and whether YAML."""

    shape: Shape = "object"
    version: str = "v1"
    yaml: bool = False


_PLAIN = Accept()


def negotiate(header: str, shapes: frozenset[str] = frozenset()) -> Accept:
    """The first acceptable media range whose shape is in ``shapes``; raises NotAcceptable (406)."""
    if not header or header in ("application/json", "*/*"):
        return _PLAIN
    for media in header.split(","):
        kind, *parameters = (part.strip() for part in media.split(";"))
        values = dict(p.split("=", 1) for p in parameters if "=" in p)
        if kind in ("application/json", "application/*", "*/*", "application/yaml"):
            wanted = values.get("as")
            if wanted is None:
                return Accept(yaml=kind == "application/yaml")
            if wanted in shapes:
                return Accept(cast(Shape, wanted), values.get("v", "v1"), kind == "application/yaml")
    raise NotAcceptable("only the following media types are accepted: application/json, application/yaml", code=406)


class _Duplicates:
    """Rebuilds an object from pairs and notes keys given twice. Paths are found in a second, slower pass."""

    def __init__(self) -> None:
        self.found = False

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            self.found = True
        return made


class _Pairs(list[tuple[str, Any]]):
    """An object as its pairs, so that it can be told from a JSON array."""


def _duplicate_paths(value: Any, path: str, out: list[str]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, child in value:
            here = f"{path}.{key}" if path else key
            if key in seen:
                message = f'duplicate field "{here}"'
                if message not in out:
                    out.append(message)
            seen.add(key)
            _duplicate_paths(child, here, out)
    elif isinstance(value, list):
        for index, child in enumerate(cast(list[Any], value)):
            _duplicate_paths(child, f"{path}[{index}]", out)


def decode_json(body: bytes, *, strict: bool = False) -> tuple[Any, list[str]]:
    """The value and, when ``strict``, messages such as ``duplicate field "spec.x"``. Raises BadRequest."""
    try:
        if not strict:
            return _decoder.decode(body), []
        hook = _Duplicates()
        value = json.loads(body, object_pairs_hook=hook)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(f"error decoding the request body: {error}") from error
    duplicates: list[str] = []
    if hook.found:
        _duplicate_paths(json.loads(body, object_pairs_hook=_Pairs), "", duplicates)
    return value, duplicates


def _require_shallow(body: bytes) -> None:
    """Refuse deep nesting before libyaml's composer recurses into it, on a C stack without limit. Raises BadRequest."""
    depth = 0
    for event in yaml.parse(body, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEPTH:
                raise BadRequest(f"error parsing YAML in the request body: exceeded max depth of {_DEPTH}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _require_small(root: yaml.Node | None) -> None:
    """Refuse a document whose aliases make more of it than was sent, or that contains itself. Raises BadRequest."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        sizes[id(node)] = _EXPANDED  # until it is known: a node below itself is without end
        children = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        total = 1 + (sum(map(size, children)) if isinstance(node, yaml.CollectionNode) else len(node.value) // 64)
        if total > _EXPANDED:
            raise BadRequest("error parsing YAML in the request body: document contains excessive aliasing")
        sizes[id(node)] = total
        return total

    if root is not None:
        size(root)


class _StrictLoader(yaml.CSafeLoader):
    """SafeLoader that notes keys given twice and leaves timestamps as text."""

    duplicates: list[str]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                self.duplicates.append(f'key "{key}" already set in map')
            seen.add(key)
        made = super().construct_mapping(node, deep)
        return {_key_text(key): value for key, value in made.items()}


def _key_text(key: Hashable) -> str:
    """JSON has no other keys than texts: ``1: x`` and ``on: x`` become "1" and "true", as kube-apiserver reads them."""
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else str(key)


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def decode_yaml(body: bytes) -> tuple[Any, list[str]]:
    """As :func:`decode_json`, for one YAML document."""
    try:
        _require_shallow(body)
        loader = _StrictLoader(body)
        loader.duplicates = []
        try:
            root = loader.get_single_node()
            _require_small(root)
            return (None if root is None else loader.construct_document(root)), loader.duplicates
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: bytes that are no text, bad numbers
        raise BadRequest(f"error parsing YAML in the request body: {error}") from error


def decode_object(body: bytes, content_type: str, *, strict: bool = False) -> tuple[Object, list[str]]:
    """One object of a write. Raises BadRequest, UnsupportedMediaType (protobuf and others)."""
    media = content_type.partition(";")[0].strip().lower()
    if media in ("", "application/json"):
        value, duplicates = decode_json(body, strict=strict)
    elif media == "application/yaml":
        value, duplicates = decode_yaml(body)
    elif media == "application/vnd.kubernetes.protobuf":
        value, duplicates = protobuf.decode(body), []
    else:
        raise UnsupportedMediaType(
            f"the body of the request was in an unknown format - accepted media types include: "
            f"application/json, application/yaml (got {media})"
        )
    if not isinstance(value, dict):
        raise BadRequest(f"the request body must be an object, not {type(value).__name__}")
    return cast(Object, value), duplicates


def dump_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()
