"""Validation of values against a schema, compiled once per place in the schema and worded as kube-apiserver does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from quarterdeck.apiserver.crd import causes
from quarterdeck.apiserver.crd.causes import child
from quarterdeck.apiserver.crd.formats import FORMATS
from quarterdeck.cel.regex import compile_match
from quarterdeck.errors import Cause

Check = Callable[[Any, str, list[Cause]], None]
Schema = dict[str, Any]
_NAMES: dict[type, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array", type(None): "null",
}  # fmt: skip

_NUMBER_FORMATS: dict[type, str] = {int: "int64", float: "float64"}


class ValueSchema:
    """One place of a schema. Places below are compiled when first visited."""

    __slots__ = (
        "_below", "_checks", "_format", "_properties", "_required", "_rest", "_type", "items", "nullable", "raw",
    )  # fmt: skip

    def __init__(self, raw: Schema) -> None:
        self.raw = raw
        self.nullable = bool(raw.get("nullable"))
        self._type: str = "int-or-string" if raw.get("x-kubernetes-int-or-string") else raw.get("type", "")
        layout: str = raw.get("format") or ""
        self._format = layout if layout in ("int32", "int64") or layout.replace("-", "_") in FORMATS else ""
        self._required: tuple[str, ...] = tuple(raw.get("required") or ())
        self._properties: dict[str, Schema] = raw.get("properties") or {}
        rest = raw.get("additionalProperties")
        self._rest = ValueSchema(rest) if isinstance(rest, dict) else None
        items = raw.get("items")
        self.items = ValueSchema(items) if isinstance(items, dict) else None
        self._below: dict[str, ValueSchema] = {}
        self._checks = _compile(raw)

    def child(self, key: str) -> ValueSchema | None:
        found = self._below.get(key)
        if found is None:
            raw = self._properties.get(key)
            if raw is None:
                return self._rest
            found = self._below[key] = ValueSchema(raw)
        return found

    def validate(self, value: Any, path: str, found: list[Cause], old: Any = None) -> None:
        """Append what is wrong. A value equal to ``old`` at the same place is let through (ratcheting)."""
        if old is not None and old == value:
            return
        if value is None and self.nullable:
            return
        fits = self._fits(value)
        if not fits:
            self._refuse_type(value, path, found)
        for check in self._checks:
            check(value, path, found)
        if not fits:
            return
        if isinstance(value, dict):
            self._validate_object(value, path, found, old if isinstance(old, dict) else None)
        elif isinstance(value, list) and self.items is not None:
            previous = correlate(self.raw, value, old) if isinstance(old, list) else None
            items = self.items
            for at, item in enumerate(value):
                items.validate(item, f"{path}[{at}]", found, previous[at] if previous else None)

    def _validate_object(
        self, value: dict[str, Any], path: str, found: list[Cause], old: dict[str, Any] | None
    ) -> None:
        for name in self._required:
            if name not in value:
                found.append(causes.required(child(path, name)))
        for key, item in value.items():
            below = self._below.get(key) or self.child(key)
            if below is not None:
                below.validate(item, child(path, key), found, old.get(key) if old else None)

    def _refuse_type(self, value: Any, path: str, found: list[Cause]) -> None:
        """Upstream names the format instead of the type where there is one, and leaves lists and texts to it."""
        kind, layout = type(value), self._format
        if not layout or kind in (str, list):
            if not layout or self._type in ("integer", "number"):
                expected = "integer,string" if self._type == "int-or-string" else self._type
                found.append(causes.type_invalid(path, _NAMES.get(kind, "object"), expected))
        elif value is None:
            found.append(causes.type_invalid(path, "null", self._type))
        else:
            found.append(causes.type_invalid(path, _NUMBER_FORMATS.get(kind, ""), layout))

    def _fits(self, value: Any) -> bool:
        kind, expected = type(value), self._type
        if not expected:
            return True
        if expected == "string":
            return kind is str
        if expected == "object":
            return kind is dict
        if expected == "array":
            return kind is list
        if expected == "boolean":
            return kind is bool
        if expected == "int-or-string":
            return kind is int or kind is str
        if kind is float and expected == "integer":
            return value.is_integer()
        return kind is int or kind is float


def correlate(raw: Schema, value: list[Any], old: list[Any]) -> list[Any] | None:
    """For each item of a map list its previous value (None when new); None for lists without identity."""
    keys = raw.get("x-kubernetes-list-map-keys")
    if raw.get("x-kubernetes-list-type") != "map" or not keys:
        return None
    index = {identity(item, keys): item for item in old if isinstance(item, dict)}
    return [index.get(identity(item, keys)) if isinstance(item, dict) else None for item in value]


def identity(item: dict[str, Any], keys: list[str]) -> tuple[str, ...]:
    return tuple(causes.show(item.get(key)) for key in keys)


def _compile(raw: Schema) -> list[Check]:
    checks: list[Check] = [_integer(raw.get("format") or "")] if raw.get("type") == "integer" else []
    if any(raw.get(keyword) is not None for keyword in ("maxLength", "minLength", "pattern")):
        checks.append(_text(raw))
    for keyword, build in _KEYWORDS.items():
        if raw.get(keyword) is not None:
            checks.append(build(raw[keyword], raw))
    return checks


def _enum(allowed: list[Any], raw: Schema) -> Check:
    def check(value: Any, path: str, found: list[Cause]) -> None:
        if not any(type(value) is type(item) and value == item for item in allowed):
            found.append(causes.not_supported(path, value, tuple(allowed)))

    return check


def _when(kinds: tuple[type, ...], wrong: Callable[[Any], bool], words: str) -> Check:
    def check(value: Any, path: str, found: list[Cause]) -> None:
        if type(value) in kinds and wrong(value):
            found.append(causes.invalid(path, value, f"{path} in body {words}"))

    return check


_NUMBERS = (int, float)


def _minimum(limit: Any, raw: Schema) -> Check:
    if raw.get("exclusiveMinimum"):
        return _when(_NUMBERS, lambda value: value <= limit, f"should be greater than {_number(limit)}")
    return _when(_NUMBERS, lambda value: value < limit, f"should be greater than or equal to {_number(limit)}")


def _maximum(limit: Any, raw: Schema) -> Check:
    if raw.get("exclusiveMaximum"):
        return _when(_NUMBERS, lambda value: value >= limit, f"should be less than {_number(limit)}")
    return _when(_NUMBERS, lambda value: value > limit, f"should be less than or equal to {_number(limit)}")


def _number(value: Any) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _multiple_of(factor: Any, raw: Schema) -> Check:
    def wrong(value: Any) -> bool:
        if type(value) is int and type(factor) is int:
            return value % factor != 0
        ratio = value / factor
        return not math.isclose(ratio, round(ratio), rel_tol=1e-12)

    return _when(_NUMBERS, wrong, f"should be a multiple of {_number(factor)}")


def _integer(layout: str) -> Check:
    """The range check of numbers, which upstream reports beside the type and without a field."""
    limit = 2**31 if layout == "int32" else 2**63
    words = f"with format {layout}" if layout else "(default format)"

    def check(value: Any, path: str, found: list[Cause]) -> None:
        if type(value) not in _NUMBERS or (float(value).is_integer() and -limit <= value < limit):
            return
        detail = f"Checked value must be of type integer {words} in {path}"
        found.append(Cause("<nil>", f'Invalid value: "": {detail}'))

    return check


def _text(raw: Schema) -> Check:
    """Only the first of these is reported."""
    longest, shortest, pattern = raw.get("maxLength"), raw.get("minLength"), raw.get("pattern")
    matches = compile_match(pattern) if pattern is not None else None

    def check(value: Any, path: str, found: list[Cause]) -> None:
        if type(value) is not str:
            return
        if longest is not None and len(value) > longest:
            found.append(causes.too_long(path, longest))
        elif shortest is not None and len(value) < shortest:
            found.append(causes.invalid(path, value, f"{path} in body should be at least {shortest} chars long"))
        elif matches is not None and not matches(value):
            found.append(causes.invalid(path, value, f"{path} in body should match '{pattern}'"))

    return check


def _format(name: str, raw: Schema) -> Check:
    known = FORMATS.get(name.replace("_", "-"))

    def check(value: Any, path: str, found: list[Cause]) -> None:
        if known is not None and type(value) is str and not known(value):
            found.append(causes.type_invalid(path, value, name))

    return check


def _min_size(kind: type, what: str) -> Callable[[int, Schema], Check]:
    def build(limit: int, raw: Schema) -> Check:
        def check(value: Any, path: str, found: list[Cause]) -> None:
            if type(value) is kind and len(value) < limit:
                found.append(causes.invalid(path, len(value), f"{path} in body should have at least {limit} {what}"))

        return check

    return build


def _max_size(kind: type) -> Callable[[int, Schema], Check]:
    def build(limit: int, raw: Schema) -> Check:
        def check(value: Any, path: str, found: list[Cause]) -> None:
            if type(value) is kind and len(value) > limit:
                found.append(causes.too_many(path, len(value), limit))

        return check

    return build


def _unique(flag: bool, raw: Schema) -> Check:
    def wrong(value: list[Any]) -> bool:
        return flag and len({causes.show(item) for item in value}) != len(value)

    return _when((list,), wrong, "shouldn't contain duplicates")


def _list_type(kind: str, raw: Schema) -> Check:
    keys: list[str] = raw.get("x-kubernetes-list-map-keys") or []

    def check(value: Any, path: str, found: list[Cause]) -> None:
        if kind == "atomic" or type(value) is not list:
            return
        seen: set[Any] = set()
        for at, item in enumerate(value):
            if kind == "map" and not isinstance(item, dict):
                found.append(causes.invalid(f"{path}[{at}]", item, "must be an object for an array of list-type map"))
                continue
            shown = {key: item[key] for key in keys if key in item} if keys and isinstance(item, dict) else item
            mark = causes.show(shown)
            if mark in seen:
                found.append(causes.duplicate(f"{path}[{at}]", shown))
            seen.add(mark)

    return check


def _failures(schema: ValueSchema, value: Any, path: str) -> list[Cause]:
    found: list[Cause] = []
    schema.validate(value, path, found)
    return found


def _any_of(options: list[Schema], raw: Schema) -> Check:
    schemas = [ValueSchema(option) for option in options]

    def check(value: Any, path: str, found: list[Cause]) -> None:
        results = [_failures(schema, value, path) for schema in schemas]
        if all(results):
            found.append(causes.invalid(path, "", f'"{path}" must validate at least one schema (anyOf)'))
            found += min(results, key=len)

    return check


def _one_of(options: list[Schema], raw: Schema) -> Check:
    schemas = [ValueSchema(option) for option in options]

    def check(value: Any, path: str, found: list[Cause]) -> None:
        results = [_failures(schema, value, path) for schema in schemas]
        valid = sum(1 for result in results if not result)
        if valid != 1:
            tail = "Found none valid" if not valid else f"Found {valid} valid alternatives"
            found.append(causes.invalid(path, "", f'"{path}" must validate one and only one schema (oneOf). {tail}'))
            found += min(results, key=len) if not valid else []

    return check


def _all_of(options: list[Schema], raw: Schema) -> Check:
    schemas = [ValueSchema(option) for option in options]

    def check(value: Any, path: str, found: list[Cause]) -> None:
        failed = [cause for schema in schemas for cause in _failures(schema, value, path)]
        if failed:
            found.append(causes.invalid(path, "", f'"{path}" must validate all the schemas (allOf)'))
            found += failed

    return check


def _not(option: Schema, raw: Schema) -> Check:
    schema = ValueSchema(option)

    def check(value: Any, path: str, found: list[Cause]) -> None:
        if not _failures(schema, value, path):
            found.append(causes.invalid(path, "", f'"{path}" must not validate the schema (not)'))

    return check


_KEYWORDS: dict[str, Callable[[Any, Schema], Check]] = {
    "enum": _enum,
    "format": _format,
    "minimum": _minimum,
    "maximum": _maximum,
    "multipleOf": _multiple_of,
    "minItems": _min_size(list, "items"),
    "maxItems": _max_size(list),
    "uniqueItems": _unique,
    "minProperties": _min_size(dict, "properties"),
    "maxProperties": _max_size(dict),
    "x-kubernetes-list-type": _list_type,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "allOf": _all_of,
    "not": _not,
}
