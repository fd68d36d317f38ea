"""Path items of served kinds. Clients look up the kind of a path and which query parameters its operations take."""

from __future__ import annotations

from typing import Any, Literal

from quarterdeck.kube.resource import Resource

from .schemas import ServedKind, component_name, is_builtin

Json = dict[str, Any]
Version = Literal["v2", "v3"]

_CUSTOM_PATCHES = ("application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json")
_PATCHES = (*_CUSTOM_PATCHES, "application/strategic-merge-patch+json")
_READ_LIST = ("continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "resourceVersionMatch", "watch")
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_BOOLEAN = frozenset({"watch", "force", "orphanDependents"})
_INTEGER = frozenset({"limit", "gracePeriodSeconds"})

# method, action, query parameters
_COLLECTION = (
    ("get", "list", _READ_LIST),
    ("post", "post", _WRITE),
    ("delete", "deletecollection", ("dryRun", "propagationPolicy", *_READ_LIST)),
)
_ITEM = (
    ("get", "get", ("resourceVersion",)),
    ("put", "put", _WRITE),
    ("patch", "patch", (*_WRITE, "force")),
    ("delete", "delete", ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")),
)


def paths(kinds: list[ServedKind], prefix: str, version: Version) -> Json:
    """``paths`` of a document; ``prefix`` starts a schema reference."""
    found: Json = {}
    for kind in kinds:
        res = kind.resource
        collection = res.path("{namespace}" if res.namespaced else None).replace("%7B", "{").replace("%7D", "}")
        if res.namespaced:
            found[res.path()] = _item(kind, _COLLECTION[:1], [], prefix, version)
        place = [_path_parameter("namespace", version)] if res.namespaced else []
        found[collection] = _item(kind, _COLLECTION, place, prefix, version)
        named = [_path_parameter("name", version), *place]
        found[f"{collection}/{{name}}"] = _item(kind, _ITEM, named, prefix, version)
        for subresource in sorted(set(kind.subresources) & {"status", "scale"}):
            found[f"{collection}/{{name}}/{subresource}"] = _item(kind, _ITEM[:3], named, prefix, version)
    return dict(sorted(found.items()))


def _path_parameter(name: str, version: Version) -> Json:
    return _parameter(name, "path", version) | {"required": True}


def _parameter(name: str, place: str, version: Version) -> Json:
    kind = "boolean" if name in _BOOLEAN else "integer" if name in _INTEGER else "string"
    typed: Json = {"schema": {"type": kind, "uniqueItems": True}} if version == "v3" else {"type": kind}
    return {"name": name, "in": place, **typed}


def _item(kind: ServedKind, methods: Any, parameters: list[Json], prefix: str, version: Version) -> Json:
    item: Json = {
        method: _operation(kind, method, action, queries, prefix, version) for method, action, queries in methods
    }
    if parameters:
        item["parameters"] = parameters
    return item


def _operation(
    kind: ServedKind, method: str, action: str, queries: tuple[str, ...], prefix: str, version: Version
) -> Json:
    res: Resource = kind.resource
    answer = component_name(res, kind.list_name) if action == "list" else component_name(res)
    schema = {"$ref": prefix + answer}
    operation: Json = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": res.group, "version": res.version, "kind": res.kind},
        "parameters": [_parameter(name, "query", version) for name in queries],
    }
    if version == "v3":
        operation["responses"] = {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}}
    else:
        operation["responses"] = {"200": {"description": "OK", "schema": schema}}
        operation["produces"] = ["application/json"]
    if method in ("post", "put", "patch"):
        _add_body(operation, method, {"$ref": prefix + component_name(res)}, version, custom=not is_builtin(kind))
    return operation


def _add_body(operation: Json, method: str, schema: Json, version: Version, *, custom: bool) -> None:
    """A patch body is any object or list of operations; other bodies are the kind itself."""
    patches = _CUSTOM_PATCHES if custom else _PATCHES
    types = patches if method == "patch" else ("application/json",)
    if version == "v3":
        body = {} if method == "patch" else schema
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": body} for kind in types}}
    else:
        body = {"type": "object"} if method == "patch" else schema
        operation["parameters"].append({"name": "body", "in": "body", "required": True, "schema": body})
        operation["consumes"] = list(types)
