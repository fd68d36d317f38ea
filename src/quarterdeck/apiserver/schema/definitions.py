"""Schemas of the built-in kinds, read from the published Kubernetes API schema in the package kubernetes-validate.

The file is kept as undecoded slices; a definition becomes a ``SchemaNode`` when a kind that reaches it is first used.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import msgspec

from quarterdeck.errors import ConfigError

from .node import MISSING, SchemaNode

_FILE = ("kubernetes-json-schema", "v1.37.0-local", "_definitions.json")
_REF = "#/$defs/"

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
OBJECT_META = _META + "ObjectMeta"

_ANYTHING = frozenset(
    {
        "io.k8s.apimachinery.pkg.runtime.RawExtension",
        _META + "FieldsV1",
        _META + "Patch",
        _EXTENSIONS + "JSON",
        _EXTENSIONS + "JSONSchemaPropsOrBool",
        _EXTENSIONS + "JSONSchemaPropsOrArray",
        _EXTENSIONS + "JSONSchemaPropsOrStringArray",
    }
)

# Defaults of list-map keys that the published schema leaves out: merging needs them to find the item.
_KEY_DEFAULTS: dict[tuple[str, str], Any] = {
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
}


class _File(msgspec.Struct):
    defs: dict[str, msgspec.Raw] = msgspec.field(name="$defs")


class _Kind(msgspec.Struct):
    group: str
    version: str
    kind: str


class _Head(msgspec.Struct):
    kinds: list[_Kind] = msgspec.field(name="x-kubernetes-group-version-kind", default_factory=list[_Kind])


@cache
def definitions() -> dict[str, msgspec.Raw]:
    """Undecoded JSON schemas by definition name."""
    return msgspec.json.decode(_path().read_bytes(), type=_File).defs


def _path() -> Path:
    """Found without importing the package, which would pull in a JSON Schema validator (100 ms, 20 MB)."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the package kubernetes-validate is missing: run `make setup` (it carries the API schemas)")
    return Path(spec.submodule_search_locations[0], *_FILE)


@cache
def kind_names() -> dict[tuple[str, str, str], str]:
    """(group, version, kind) → definition name, for kinds of exactly one group and version."""
    decoder = msgspec.json.Decoder(_Head)
    names: dict[tuple[str, str, str], str] = {}
    for name, raw in definitions().items():
        head = decoder.decode(raw)
        if len(head.kinds) == 1:
            gvk = head.kinds[0]
            names[gvk.group, gvk.version, gvk.kind] = name
    return names


def decode_definition(name: str) -> dict[str, Any]:
    """The JSON schema ``name`` as published; a fresh copy."""
    return cast("dict[str, Any]", msgspec.json.decode(definitions()[name]))


def kind_node(group: str, version: str, kind: str) -> SchemaNode:
    """The root node of a built-in kind. Raises KeyError for a kind Kubernetes does not have."""
    return definition_node(kind_names()[group, version, kind])


_nodes: dict[str, SchemaNode] = {}


def definition_node(name: str) -> SchemaNode:
    """The node of one definition; ``raw["$id"]`` is its name, from which messages take the Go type."""
    node = _nodes.get(name)
    if node is None:
        node = _nodes[name] = SchemaNode(raw={"$id": name})  # before its children: definitions may be recursive
        _fill_definition(node, name)
    return node


def go_type(node: SchemaNode) -> str:
    """The Go type of a definition as decoder messages print it, e.g. ``v1.PodSpec``; "" for anonymous nodes."""
    name: str = node.raw.get("$id", "")
    return ".".join(name.split(".")[-2:]) if name else ""


def _fill_definition(node: SchemaNode, name: str) -> None:
    if name in _ANYTHING:
        node.preserve_unknown = True
        return
    if name == QUANTITY:
        node.format = "quantity"
        return
    if name == INT_OR_STRING:
        node.int_or_string = True
        node.format = "int-or-string"
        return
    schema = decode_definition(name)
    _fill(node, schema)
    for (definition, key), default in _KEY_DEFAULTS.items():
        if definition == name:
            properties = dict(node.properties)
            properties[key] = replace(properties[key], default=default)
            node.properties = properties


def _build(schema: dict[str, Any]) -> SchemaNode:
    ref = schema.get("$ref")
    if ref is None:
        node = SchemaNode()
        _fill(node, schema)
        return node
    target = definition_node(cast("str", ref).removeprefix(_REF))
    strategy = schema.get("x-kubernetes-patch-strategy", "")
    map_type = schema.get("x-kubernetes-map-type", target.map_type)
    if strategy == target.patch_strategy and map_type == target.map_type:
        return target
    return replace(target, patch_strategy=strategy, map_type=map_type)


def _fill(node: SchemaNode, schema: dict[str, Any]) -> None:
    declared = schema.get("type", "")
    node.type = declared if isinstance(declared, str) else cast("list[str]", declared)[0]
    node.format = schema.get("format", "")
    node.required = tuple(schema.get("required", ()))
    node.default = schema.get("default", MISSING)
    node.patch_strategy = schema.get("x-kubernetes-patch-strategy", "")
    node.merge_key = schema.get("x-kubernetes-patch-merge-key", "")
    node.map_type = schema.get("x-kubernetes-map-type", "granular")
    properties = schema.get("properties")
    if properties:
        node.properties = {key: _build(value) for key, value in properties.items()}
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        node.additional = _build(additional)
    if isinstance(schema.get("items"), dict):
        node.items = _build(schema["items"])
        _set_list_type(node, schema)
    if node.type == "object" and not node.properties and node.additional is None:
        node.preserve_unknown = True


def _set_list_type(node: SchemaNode, schema: dict[str, Any]) -> None:
    """As kube-openapi converts to structured-merge-diff: the list type, else what the patch strategy implies."""
    declared = schema.get("x-kubernetes-list-type")
    keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
    if declared is not None:
        node.list_type = declared
    elif "merge" in node.patch_strategy.split(","):
        node.list_type = "map" if node.merge_key else "set"
    if node.list_type == "map":
        node.list_map_keys = keys or (node.merge_key,)
