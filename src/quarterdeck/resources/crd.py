"""CustomResourceDefinitions from the models: structural schemas with defaults, rules, columns and subresources.

``python -m quarterdeck.resources.crd OUT_DIR`` writes one file per kind; ``charts/quarterdeck-crds/files`` is the
committed copy. Core Pod types are embedded verbatim from the published Kubernetes schemas.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from . import (
    agent,
    approval,
    approval_policy,
    mcp_server,
    memory,
    model_config,
    model_provider_config,
    remote_mcp_server,
    run,
    sandbox,
    tool_server,
    trigger,
    virtual_server,
)
from .base import Column, Kind, Model, Version
from .gateway_api import upstream
from .kgateway import agentgateway_backend, agentgateway_policy, backend, traffic_policy

KINDS: tuple[Kind, ...] = (
    agent.KIND,
    model_config.KIND,
    model_provider_config.KIND,
    remote_mcp_server.KIND,
    mcp_server.KIND,
    tool_server.KIND,
    memory.KIND,
    sandbox.SANDBOX_AGENT,
    sandbox.AGENT_HARNESS,
    virtual_server.KIND,
    approval_policy.KIND,
    approval.KIND,
    run.KIND,
    trigger.KIND,
)
GATEWAY_KINDS: tuple[Kind, ...] = (
    backend.KIND,
    traffic_policy.KIND,
    agentgateway_backend.KIND,
    agentgateway_policy.KIND,
)
"""Backends and policies of gateways. Their groups are others', so a cluster may have their definitions already."""
KGATEWAY_FOLDER = "kgateway"
PART_OF = {"app.kubernetes.io/part-of": "quarterdeck"}
"""Label of a definition that is one of these."""
_CORE = "io.k8s.api.core.v1."
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_INT_OR_STRING = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
}
_QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
# Containers, volumes and affinity carry half a megabyte of schema per use; they stay open and the Pod's own validation
# speaks when the Deployment is written. Rules may use a name: kube-apiserver compiles them against declared fields.
_NAME: dict[str, Any] = {"properties": {"name": {"type": "string", "description": "Its name in the Pod."}}}
_OPEN: dict[str, dict[str, Any]] = {"Container": _NAME | {"required": ["name"]}, "Volume": _NAME, "Affinity": {}}
_KEYWORDS = (
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "enum", "format", "default",
    "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
    "x-kubernetes-int-or-string",
)  # fmt: skip


@cache
def _kubernetes() -> dict[str, Any]:
    """Published definitions of the built-in types."""
    root = resources.files("kubernetes_validate") / "kubernetes-json-schema" / "v1.37.0-local" / "_definitions.json"
    return json.loads(root.read_text())["$defs"]


def _core_type(key: str) -> dict[str, Any]:
    definitions = _kubernetes()

    def convert(node: dict[str, Any]) -> dict[str, Any]:
        ref = str(node.get("$ref") or (node.get("allOf") or [{}])[0].get("$ref") or "").rsplit("/", 1)[-1]
        if ref:
            found = convert(definitions[ref])
            if ref in _INT_OR_STRING:
                found = {"x-kubernetes-int-or-string": True}
                if _INT_OR_STRING[ref] == "quantity":
                    found |= {"pattern": _QUANTITY}
            return _summarised(found, node)
        out: dict[str, Any] = {}
        kind = node.get("type")
        out["type"] = next((k for k in kind if k != "null"), "object") if isinstance(kind, list) else kind or "object"
        if node.get("properties"):
            out["properties"] = {name: convert(child) for name, child in node["properties"].items()}
        if isinstance(node.get("items"), dict):
            out["items"] = convert(node["items"])
        if isinstance(node.get("additionalProperties"), dict):
            out["additionalProperties"] = convert(node["additionalProperties"])
        out |= {k: node[k] for k in ("required", "format", "x-kubernetes-map-type") if k in node}
        if node.get("enum"):
            out["enum"] = [value for value in node["enum"] if value is not None]
        return _summarised(out, node)

    return convert(definitions[key])


def _summarised(out: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    text = str(node.get("description") or "").split("\n", 1)[0].split(". ", 1)[0].rstrip(".")
    return out | {"description": f"{text}."} if text else out


def _described(out: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    text = str(node.get("description") or "")
    return out | {"description": text} if text else out


def structural(model: type[Model], *, embed: bool = True) -> dict[str, Any]:
    """The structural schema of a model: references in line, no null types, constants as enums.

    Without ``embed`` core types are left open: old versions need no second copy of the Pod's schema.
    """
    document = model.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = document.get("$defs", {})

    def convert(node: dict[str, Any]) -> dict[str, Any]:
        core, meta = node.get("x-quarterdeck-core-type"), node.get("x-quarterdeck-meta-type")
        if core and (core in _OPEN or not embed):
            found: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True} | _OPEN.get(
                core, {}
            )
            return _described(found, node if "description" in node else {"description": f"A core/v1 {core}."})
        if core or meta:
            return _described(_core_type(_CORE + core if core else f"{_META}{meta}"), node)
        if "$ref" in node:
            return _overlay(convert(definitions[node["$ref"].rsplit("/", 1)[-1]]), node)
        options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
        if len(options) == 1:
            return _overlay(convert(options[0]), node)
        return _plain(node)

    def _plain(node: dict[str, Any]) -> dict[str, Any]:
        out = _described({}, node)
        if node.get("x-kubernetes-preserve-unknown-fields"):
            out["x-kubernetes-preserve-unknown-fields"] = True
        if "type" in node:
            out["type"] = node["type"]
        if node.get("properties"):
            out["properties"] = {name: convert(child) for name, child in node["properties"].items()}
        if "items" in node:
            out["items"] = convert(node["items"])
        if isinstance(node.get("additionalProperties"), dict):
            out["additionalProperties"] = convert(node["additionalProperties"])
        return _keywords(out, node)

    def _keywords(out: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
        out |= {key: node[key] for key in _KEYWORDS if key in node and node[key] not in (None, [])}
        required = [name for name in node.get("required", ()) if name in out.get("properties", {})]
        return out | ({"required": required} if required else {})

    def _overlay(found: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
        return _keywords(
            _described(found, {}) | _described({}, node), {k: v for k, v in node.items() if k != "required"}
        )

    return convert(document)


def _version(kind: Kind, version: Version) -> dict[str, Any]:
    schema = structural(version.model, embed=version.storage)
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
        "kind": {"type": "string", "description": "Kind of this object."},
        "metadata": {"type": "object"},
    } | schema["properties"]
    subresources: dict[str, Any] = {"status": {}}
    if kind.scale:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    out: dict[str, Any] = {
        "name": version.name,
        "served": True,
        "storage": version.storage,
        **({"deprecated": True, "deprecationWarning": version.deprecated} if version.deprecated else {}),
        "schema": {"openAPIV3Schema": schema},
        "subresources": subresources,
    }
    if version.columns:
        out["additionalPrinterColumns"] = [_column(column) for column in version.columns]
    return out


def _column(column: Column) -> dict[str, Any]:
    out: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        out["description"] = column.description
    return out | ({"priority": column.priority} if column.priority else {})


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind, as JSON data."""
    names: dict[str, Any] = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.kind.lower(),
        "categories": list(kind.categories),
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{kind.group}",
            "labels": dict(PART_OF),
            # Helm deletes what a release installed; people's agents would go with the definition
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced",
            "versions": [_version(kind, version) for version in kind.versions],
        },
    }


def crds() -> list[dict[str, Any]]:
    """The definitions that the platform needs."""
    return [crd(kind) for kind in KINDS]


def gateway_crds() -> list[dict[str, Any]]:
    """Gateway API as published, and backends and policies: what a cluster may have from somebody else.

    Raises ConfigError when this installation does not carry the published ones.
    """
    return [*upstream.definitions(), *(crd(kind) for kind in GATEWAY_KINDS)]


def write(folder: Path) -> None:
    """One YAML file per kind, as the committed chart has them."""
    for place, kinds in ((folder, KINDS), (folder / KGATEWAY_FOLDER, GATEWAY_KINDS)):
        place.mkdir(parents=True, exist_ok=True)
        for kind in kinds:
            document = crd(kind)
            (place / f"{document['metadata']['name']}.yaml").write_text(render(document))


def render(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_NoAliases, sort_keys=False, width=100)


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


if __name__ == "__main__":
    write(Path(sys.argv[1]))
