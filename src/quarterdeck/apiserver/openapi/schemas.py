"""Component schemas: built-in definitions as published, custom resources from their CRD."""

from __future__ import annotations

from typing import Any, Protocol, cast

from quarterdeck.apiserver.schema import KindSchema
from quarterdeck.apiserver.schema.definitions import OBJECT_META, decode_definition, definitions, kind_names
from quarterdeck.kube.resource import Resource

Json = dict[str, Any]

_DEFS = "#/$defs/"
_LIST_META = OBJECT_META.replace("ObjectMeta", "ListMeta")
_API_VERSION = (
    "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized "
    "schemas to the latest internal value, and may reject unrecognized values."
)
_KIND = "Kind is a string value representing the REST resource this object represents. Cannot be updated. In CamelCase."


class ServedKind(Protocol):
    """What the documents need of a served kind (``apiserver.kinds.Kind``)."""

    @property
    def resource(self) -> Resource: ...
    @property
    def list_name(self) -> str: ...
    @property
    def subresources(self) -> Any: ...
    @property
    def schema(self) -> KindSchema: ...


def is_builtin(kind: ServedKind) -> bool:
    res = kind.resource
    return (res.group, res.version, res.kind) in kind_names()


def component_name(res: Resource, kind: str = "") -> str:
    """``io.k8s.api.apps.v1.Deployment``; for custom resources the group reversed: ``dev.kagent.v1alpha2.Agent``."""
    known = kind_names().get((res.group, res.version, kind or res.kind))
    if known:
        return known
    return ".".join([*reversed(res.group.split(".")), res.version, kind or res.kind])


def components(kinds: list[ServedKind], prefix: str) -> Json:
    """Every schema the kinds reach, by component name; ``prefix`` starts a reference (``#/components/schemas/``)."""
    found: Json = {}
    wanted = [OBJECT_META, _LIST_META]
    for kind in kinds:
        if is_builtin(kind):
            wanted.append(component_name(kind.resource))
            listed = component_name(kind.resource, kind.list_name)
            if listed in definitions():
                wanted.append(listed)
        else:
            found.update(_custom(kind, prefix))
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        references: list[str] = []
        found[name] = _convert(decode_definition(name), prefix, references)
        wanted.extend(references)
    return dict(sorted(found.items()))


def _convert(schema: Json, prefix: str, references: list[str]) -> Json:
    """A published definition (JSON Schema, nullable everywhere) as the OpenAPI schema upstream serves."""
    result: Json = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            result[key] = value[0]
        elif key == "properties":
            result[key] = {name: _property(name, item, prefix, references) for name, item in value.items()}
        elif key in ("items", "additionalProperties", "not") and isinstance(value, dict):
            result[key] = _convert(cast("Json", value), prefix, references)
        elif key in ("oneOf", "anyOf", "allOf"):
            result[key] = [_convert(item, prefix, references) for item in value]
        elif key == "$ref":
            name = value.removeprefix(_DEFS)
            references.append(name)
            result[key] = prefix + name
        else:
            result[key] = value
    if "$ref" in result and len(result) > 1:
        result["allOf"] = [{"$ref": result.pop("$ref")}]
    return result


def _property(name: str, schema: Json, prefix: str, references: list[str]) -> Json:
    converted = _convert(schema, prefix, references)
    if name in ("apiVersion", "kind"):
        converted.pop("enum", None)  # the publisher's addition
    return converted


def _gvk(res: Resource, kind: str) -> list[Json]:
    return [{"group": res.group, "version": res.version, "kind": kind}]


def _reference(name: str, prefix: str, description: str) -> Json:
    return {"description": description, "allOf": [{"$ref": prefix + name}]}


def _custom(kind: ServedKind, prefix: str) -> Json:
    res = kind.resource
    schema = dict(kind.schema.root.raw)
    schema.setdefault("type", "object")
    schema["properties"] = {
        **schema.get("properties", {}),
        "apiVersion": {"type": "string", "description": _API_VERSION},
        "kind": {"type": "string", "description": _KIND},
        "metadata": _reference(OBJECT_META, prefix, "Standard object's metadata."),
    }
    schema["x-kubernetes-group-version-kind"] = _gvk(res, res.kind)
    listed: Json = {
        "description": f"{kind.list_name} is a list of {res.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": _API_VERSION},
            "kind": {"type": "string", "description": _KIND},
            "metadata": _reference(_LIST_META, prefix, "Standard list metadata."),
            "items": {"type": "array", "items": {"$ref": prefix + component_name(res)}},
        },
        "x-kubernetes-group-version-kind": _gvk(res, kind.list_name),
    }
    return {component_name(res): schema, component_name(res, kind.list_name): listed}
