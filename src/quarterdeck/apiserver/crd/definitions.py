"""Validation of CustomResourceDefinitions themselves, worded as upstream's apiextensions validation."""

from __future__ import annotations

import re
from typing import Any

from quarterdeck.apiserver.crd import causes, jsonpath
from quarterdeck.apiserver.crd.schemas import check_schema
from quarterdeck.errors import Cause, UsageError
from quarterdeck.kube.resource import Object

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_WORDS = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_REPLICAS = re.compile(r"\.(spec|status)(\.[A-Za-z0-9_-]+)+")


def validate_crd(crd: Object, old: Object | None = None) -> list[Cause]:
    """What is wrong with a definition; ``old`` on update, where scope, group and the names that are keys are fixed."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return [causes.required("spec")]
    found: list[Cause] = []
    names: dict[str, Any] = spec.get("names") or {}
    group, plural = str(spec.get("group") or ""), str(names.get("plural") or "")
    name = (crd.get("metadata") or {}).get("name", "")
    if name != f"{plural}.{group}":
        found.append(causes.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if not group:
        found.append(causes.required("spec.group"))
    elif "." not in group:
        found.append(causes.invalid("spec.group", group, "should be a domain with at least one dot"))
    scope = spec.get("scope", "")
    if not scope:
        found.append(causes.required("spec.scope"))
    elif scope not in ("Cluster", "Namespaced"):
        found.append(causes.not_supported("spec.scope", scope, ("Cluster", "Namespaced")))
    _check_names(names, found)
    _check_versions(spec, found)
    _check_conversion(spec.get("conversion") or {}, found)
    if old is not None:
        _check_fixed(spec, old.get("spec") or {}, found)
    return found


def _check_names(names: dict[str, Any], found: list[Cause]) -> None:
    for key in ("plural", "singular"):
        _check_label(names.get(key), f"spec.names.{key}", found, needed=key == "plural")
    for key in ("kind", "listKind"):
        value = names.get(key)
        _check_label(value.lower() if isinstance(value, str) else value, f"spec.names.{key}", found, needed=True)
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        found.append(causes.invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same"))
    for key in ("shortNames", "categories"):
        for at, value in enumerate(names.get(key) or ()):
            _check_label(value, f"spec.names.{key}[{at}]", found, needed=True)


def _check_label(value: Any, path: str, found: list[Cause], *, needed: bool) -> None:
    if not value:
        if needed:
            found.append(causes.required(path))
    elif not isinstance(value, str) or not _LABEL.fullmatch(value):
        found.append(causes.invalid(path, value, _LABEL_WORDS))
    elif len(value) > 63:
        found.append(causes.invalid(path, value, "must be no more than 63 characters"))


def _check_versions(spec: dict[str, Any], found: list[Cause]) -> None:
    versions: list[dict[str, Any]] = spec.get("versions") or []
    if not versions:
        found.append(causes.required("spec.versions", "must have at least one version"))
        return
    seen: set[str] = set()
    for at, version in enumerate(versions):
        path = f"spec.versions[{at}]"
        name = str(version.get("name") or "")
        _check_label(name, f"{path}.name", found, needed=True)
        if name in seen:
            found.append(causes.duplicate(f"{path}.name", name))
        seen.add(name)
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            found.append(causes.required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        else:
            check_schema(schema, f"{path}.schema.openAPIV3Schema", found)
        _check_columns(version, path, found)
        _check_subresources(version.get("subresources") or {}, f"{path}.subresources", found)
    if sum(1 for version in versions if version.get("storage")) != 1:
        found.append(causes.invalid_omitted("spec.versions", "must have exactly one version marked as storage version"))


def _check_columns(version: dict[str, Any], path: str, found: list[Cause]) -> None:
    for at, column in enumerate(version.get("additionalPrinterColumns") or ()):
        place = f"{path}.additionalPrinterColumns[{at}]"
        for key in ("name", "type", "jsonPath"):
            if not column.get(key):
                found.append(causes.required(f"{place}.{key}"))
        if column.get("type") and column["type"] not in _COLUMN_TYPES:
            detail = f"must be one of {','.join(_COLUMN_TYPES)}"
            found.append(causes.invalid(f"{place}.type", column["type"], detail))
        _check_path(column.get("jsonPath"), f"{place}.jsonPath", found)
    for at, field in enumerate(version.get("selectableFields") or ()):
        _check_path(field.get("jsonPath"), f"{path}.selectableFields[{at}].jsonPath", found)


def _check_path(text: Any, path: str, found: list[Cause]) -> None:
    if not text:
        return
    try:
        jsonpath.compile_path(str(text))
    except UsageError as error:
        found.append(causes.invalid(path, text, str(error)))


def _check_subresources(subresources: dict[str, Any], path: str, found: list[Cause]) -> None:
    scale = subresources.get("scale")
    if not isinstance(scale, dict):
        return
    for key, root in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status."), ("labelSelectorPath", ".")):
        text = scale.get(key)
        place = f"{path}.scale.{key}"
        if not text:
            if key != "labelSelectorPath":
                found.append(causes.required(place))
        elif not _REPLICAS.fullmatch(text) or not text.startswith(root):
            found.append(causes.invalid(place, text, f"should be a json path under {root.rstrip('.') or '.'}"))


def _check_conversion(conversion: dict[str, Any], found: list[Cause]) -> None:
    strategy = conversion.get("strategy", "None")
    if strategy not in ("None", "Webhook"):
        found.append(causes.not_supported("spec.conversion.strategy", strategy, ("None", "Webhook")))
    webhook = conversion.get("webhook")
    if strategy != "Webhook" and webhook is not None:
        found.append(
            causes.forbidden("spec.conversion.webhook", "should not be set when strategy is not set to Webhook")
        )
    if strategy == "Webhook":
        if not webhook or not webhook.get("clientConfig"):
            found.append(
                causes.required("spec.conversion.webhook.clientConfig", "required when strategy is set to Webhook")
            )
        elif not webhook.get("conversionReviewVersions"):
            found.append(causes.required("spec.conversion.webhook.conversionReviewVersions"))


def _check_fixed(spec: dict[str, Any], old: dict[str, Any], found: list[Cause]) -> None:
    for path in ("group", "scope", "names.plural", "names.kind"):
        new_value, old_value = _at(spec, path), _at(old, path)
        if new_value != old_value:
            found.append(causes.invalid(f"spec.{path}", new_value, "field is immutable"))


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = (value or {}).get(key)
    return value
