"""Structurality and well-formedness of the schemas in a CustomResourceDefinition."""

from __future__ import annotations

from typing import Any

from quarterdeck.apiserver.crd import causes
from quarterdeck.apiserver.crd.rules import Rule, type_of
from quarterdeck.apiserver.crd.values import Schema, ValueSchema
from quarterdeck.cel import CompileError, EvalError
from quarterdeck.cel.regex import compile_match
from quarterdeck.errors import Cause

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_FORBIDDEN = ("definitions", "dependencies", "patternProperties", "additionalItems", "$ref", "id")
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_NOT_IN_JUNCTORS = ("type", "default", "additionalProperties", "nullable", "description", "title")


def check_schema(schema: Schema, path: str, found: list[Cause]) -> None:
    """Append what is wrong with a version's schema."""
    if schema.get("type") != "object":
        found.append(causes.invalid(f"{path}.type", schema.get("type", ""), "must be object at the root"))
    for flag in ("nullable", "default"):
        if schema.get(flag):
            found.append(causes.forbidden(f"{path}.{flag}", f"{flag} cannot be set at the root"))
    metadata = (schema.get("properties") or {}).get("metadata") or {}
    for name in metadata.get("properties") or {}:
        if name not in ("name", "generateName"):
            found.append(
                causes.forbidden(
                    f"{path}.properties[metadata]",
                    "must not specify anything other than name and generateName, but metadata is implicitly specified",
                )
            )
            break
    _check_node(schema, path, found, root=True)


def _check_node(schema: Schema, path: str, found: list[Cause], *, root: bool = False) -> None:
    kind = schema.get("type", "")
    loose = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not kind and not loose:
        found.append(causes.required(f"{path}.type", "must not be empty for specified object fields"))
    elif kind and kind not in _TYPES:
        found.append(causes.not_supported(f"{path}.type", kind, _TYPES))
    for keyword in _FORBIDDEN:
        if schema.get(keyword) is not None:
            found.append(causes.forbidden(f"{path}.{keyword}", f"{keyword} is not supported"))
    _check_shape(schema, path, found)
    _check_pattern(schema, path, found)
    _check_list_type(schema, path, found)
    _check_junctors(schema, path, found)
    _check_default(schema, path, found)
    _check_rules(schema, path, found, root=root)
    for name, sub in (schema.get("properties") or {}).items():
        if not (root and name in ("metadata", "apiVersion", "kind")):
            _check_node(sub, f"{path}.properties[{name}]", found)
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            _check_node(schema[keyword], f"{path}.{keyword}", found)


def _check_shape(schema: Schema, path: str, found: list[Cause]) -> None:
    kind = schema.get("type", "")
    if schema.get("uniqueItems"):
        found.append(
            causes.forbidden(
                f"{path}.uniqueItems",
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            )
        )
    if schema.get("properties") and schema.get("additionalProperties") not in (None, False):
        found.append(
            causes.forbidden(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
        )
    if schema.get("additionalProperties") is False:
        found.append(causes.forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false"))
    if kind == "array" and not isinstance(schema.get("items"), dict):
        found.append(causes.required(f"{path}.items", "must be specified"))
    if isinstance(schema.get("items"), list):
        found.append(causes.forbidden(f"{path}.items", "items must be a schema object and not an array"))


def _check_junctors(schema: Schema, path: str, found: list[Cause]) -> None:
    for keyword in _JUNCTORS:
        for at, option in enumerate(schema.get(keyword) or ()):
            _check_junctor(
                option, f"{path}.{keyword}[{at}]", found, int_or_string=bool(schema.get("x-kubernetes-int-or-string"))
            )
    if isinstance(schema.get("not"), dict):
        _check_junctor(schema["not"], f"{path}.not", found)


def _check_pattern(schema: Schema, path: str, found: list[Cause]) -> None:
    if not schema.get("pattern"):
        return
    try:
        compile_match(schema["pattern"])
    except EvalError as error:
        found.append(
            causes.invalid(
                f"{path}.pattern", schema["pattern"], f"must be a valid regular expression, but isn't: {error}"
            )
        )


def _check_list_type(schema: Schema, path: str, found: list[Cause]) -> None:
    kind = schema.get("x-kubernetes-list-type")
    keys: list[str] = schema.get("x-kubernetes-list-map-keys") or []
    if kind is not None and kind not in ("atomic", "set", "map"):
        found.append(causes.not_supported(f"{path}.x-kubernetes-list-type", kind, ("atomic", "map", "set")))
    if kind == "map" and not keys:
        found.append(
            causes.required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
        )
    if kind != "map" and keys:
        found.append(
            causes.required(f"{path}.x-kubernetes-list-type", "must be map if x-kubernetes-list-map-keys is non-empty")
        )
    if kind is not None and schema.get("type") != "array":
        found.append(
            causes.invalid(
                f"{path}.type", schema.get("type", ""), "must be array if x-kubernetes-list-type is specified"
            )
        )
    items: Schema = schema.get("items") or {}
    for at, key in enumerate(keys):
        place = f"{path}.x-kubernetes-list-map-keys[{at}]"
        if key not in (items.get("properties") or {}):
            found.append(causes.invalid(place, key, "must be a property of the items"))
        elif key not in (items.get("required") or ()) and "default" not in items["properties"][key]:
            found.append(
                causes.required(
                    f"{path}.items.properties[{key}].default",
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be required",
                )
            )


def _check_junctor(schema: Schema, path: str, found: list[Cause], *, int_or_string: bool = False) -> None:
    """Inside allOf, anyOf, oneOf and not only value validations may stand."""
    for keyword in _NOT_IN_JUNCTORS:
        if schema.get(keyword) is not None and not (keyword == "type" and int_or_string):
            found.append(causes.forbidden(f"{path}.{keyword}", "must be undefined to be structural"))
    for keyword in schema:
        if keyword.startswith("x-kubernetes-") and keyword != "x-kubernetes-validations":
            found.append(causes.forbidden(f"{path}.{keyword}", "must be undefined to be structural"))
    _check_pattern(schema, path, found)
    for name, sub in (schema.get("properties") or {}).items():
        _check_junctor(sub, f"{path}.properties[{name}]", found)
    for keyword in _JUNCTORS:
        for at, option in enumerate(schema.get(keyword) or ()):
            _check_junctor(option, f"{path}.{keyword}[{at}]", found)
    for keyword in ("items", "not"):
        if isinstance(schema.get(keyword), dict):
            _check_junctor(schema[keyword], f"{path}.{keyword}", found)


def _check_default(schema: Schema, path: str, found: list[Cause]) -> None:
    if schema.get("default") is None:
        return
    wrong: list[Cause] = []
    ValueSchema(schema).validate(schema["default"], "", wrong)
    for cause in wrong:
        place = f"{path}.default.{cause.field}" if cause.field else f"{path}.default"
        found.append(Cause(place, cause.message, cause.reason))


def _check_rules(schema: Schema, path: str, found: list[Cause], *, root: bool) -> None:
    rules: list[Any] = schema.get("x-kubernetes-validations") or []
    if not rules:
        return
    kind = type_of(schema, root=root)
    for at, raw in enumerate(rules):
        place = f"{path}.x-kubernetes-validations[{at}]"
        text = str(raw.get("rule") or "").strip()
        if not text:
            found.append(causes.required(f"{place}.rule", "rule is not specified"))
            continue
        try:
            Rule(raw, kind)
        except CompileError as error:
            shown = {"rule": raw.get("rule", ""), "message": raw.get("message", "")}
            found.append(causes.invalid(f"{place}.rule", shown, f"compilation failed: ERROR: <input>: {error}"))
