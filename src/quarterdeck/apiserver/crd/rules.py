"""``x-kubernetes-validations``: CEL rules at any place of a schema, typed by that schema."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from quarterdeck import cel
from quarterdeck.apiserver.crd import causes
from quarterdeck.apiserver.crd.values import Schema, correlate
from quarterdeck.cel import types
from quarterdeck.cel.lexer import RESERVED
from quarterdeck.cel.types import Type
from quarterdeck.errors import Cause

View = Callable[[Any], Any]
_OUT_OF_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"
_LIMITS = cel.Limits(steps=2_000_000)
_KEYWORDS = RESERVED | {"true", "false", "null", "in"}
_NAMEABLE = re.compile(r"[A-Za-z_./-][A-Za-z0-9_./-]*")
_PATH_PART = re.compile(r"""\.([^.\[\]]+)|\[['"]([^'"]+)['"]\]""")
_ROOT_FIELDS = {
    "apiVersion": types.STRING,
    "kind": types.STRING,
    "metadata": types.object_of({"name": types.STRING, "generateName": types.STRING}),
}


def escape(name: str) -> str | None:
    """A property name as CEL identifier; None when rules cannot name it."""
    if not _NAMEABLE.fullmatch(name):
        return None
    if name in _KEYWORDS:
        return f"__{name}__"
    escaped = name.replace("__", "__underscores__").replace(".", "__dot__")
    return escaped.replace("-", "__dash__").replace("/", "__slash__")


class _Fields(Mapping[str, Type]):
    """The fields of an object type; types of large sub-schemas are made when a rule names them."""

    def __init__(self, schema: Schema, names: dict[str, str]) -> None:
        self._schemas: Schema = schema.get("properties") or {}
        self._names = names
        self._made: dict[str, Type] = {}

    def __getitem__(self, field: str) -> Type:
        if field not in self._made:
            self._made[field] = type_of(self._schemas[self._names[field]])
        return self._made[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def type_of(schema: Schema, *, root: bool = False) -> Type:
    """The CEL type of a place in a schema."""
    if schema.get("x-kubernetes-int-or-string"):
        return types.DYN
    kind, layout = schema.get("type", ""), schema.get("format", "")
    if kind == "object":
        return _object_type(schema, root=root)
    if kind == "array":
        items = schema.get("items")
        return types.list_of(type_of(items)) if isinstance(items, dict) else types.LIST
    if kind == "string":
        return {
            "byte": types.BYTES, "duration": types.DURATION, "date": types.TIMESTAMP, "date-time": types.TIMESTAMP,
        }.get(layout, types.STRING)  # fmt: skip
    return {"integer": types.INT, "number": types.DOUBLE, "boolean": types.BOOL}.get(kind, types.DYN)


def _object_type(schema: Schema, *, root: bool) -> Type:
    rest = schema.get("additionalProperties")
    if rest is not None and not schema.get("properties"):
        return types.map_of(type_of(rest)) if isinstance(rest, dict) else types.map_of(types.DYN)
    resource = root or schema.get("x-kubernetes-embedded-resource")
    if not schema.get("properties") and not resource:
        return types.object_of({})  # as upstream also where unknown fields are kept: rules cannot name them
    names = {escaped: name for name in schema.get("properties") or {} if (escaped := escape(name)) is not None}
    fields: Mapping[str, Type] = _Fields(schema, names)
    if resource:
        fields = {**{name: fields[name] for name in fields if name not in _ROOT_FIELDS}, **_ROOT_FIELDS}
    return types.object_of(fields, names)


def view_of(schema: Schema) -> View | None:
    """Turns JSON into CEL values where the two differ (numbers, dates, bytes); None when they do not."""
    if schema.get("x-kubernetes-int-or-string"):
        return None
    kind = schema.get("type", "")
    if kind == "number":
        return lambda value: float(value) if type(value) is int else value
    if kind == "integer":
        return lambda value: int(value) if type(value) is float else value
    if kind == "string":
        return _string_view(schema.get("format", ""))
    if kind == "array":
        items = view_of(schema["items"]) if isinstance(schema.get("items"), dict) else None
        if items is None:
            return None
        return lambda value: [items(item) for item in value] if isinstance(value, list) else value
    if kind != "object":
        return None
    rest = schema.get("additionalProperties")
    others = view_of(rest) if isinstance(rest, dict) else None
    below = {name: view for name, sub in (schema.get("properties") or {}).items() if (view := view_of(sub))}
    return _object_view(below, others) if below or others else None


def _object_view(below: dict[str, View], others: View | None) -> View:
    def view(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: apply(item) if (apply := below.get(key, others)) else item for key, item in value.items()}

    return view


def _string_view(layout: str) -> View | None:
    convert: dict[str, Callable[[str], Any]] = {
        "byte": _bytes,
        "duration": cel.Duration.parse,
        "date-time": cel.Timestamp.parse,
        "date": lambda text: cel.Timestamp.parse(f"{text}T00:00:00Z"),
    }
    apply = convert.get(layout)
    return (lambda value: apply(value) if type(value) is str else value) if apply else None


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error as error:
        raise cel.EvalError(f"invalid base64: {error}") from None


def field_path(text: str) -> str:
    """A rule's ``fieldPath`` in the notation of causes: ``.spec['a-b']`` → ``.spec.a-b``."""
    return "".join(f".{plain or quoted}" for plain, quoted in _PATH_PART.findall(text))


class Rule:
    """One compiled rule. Raises cel.CompileError when it, or its messageExpression, cannot be compiled."""

    __slots__ = ("_message", "_optional_old", "_reason", "_text", "_where", "program", "source", "transition")

    def __init__(self, raw: Schema, kind: Type) -> None:
        self.source = str(raw.get("rule", "")).strip()
        self._optional_old = bool(raw.get("optionalOldSelf"))
        old = types.OPTIONAL if self._optional_old else kind
        variables = {"self": kind, "oldSelf": old}
        self.program = cel.compile(self.source, variables, _LIMITS)
        if self.program.result.kind not in ("bool", "dyn"):
            raise cel.CompileError("must evaluate to a bool")
        expression = raw.get("messageExpression")
        self._message = cel.compile(expression, variables, _LIMITS) if expression else None
        if self._message is not None and self._message.result.kind not in ("string", "dyn"):
            raise cel.CompileError("must evaluate to a string")
        self._text = str(raw.get("message") or "").strip() or f"failed rule: {self.source}"
        self._reason = raw.get("reason", "FieldValueInvalid")
        self._where = field_path(raw.get("fieldPath") or "")
        self.transition = any(reference[0] == "oldSelf" for reference in self.program.references)

    def check(self, value: Any, old: Any, has_old: bool, path: str, found: list[Cause]) -> None:
        """Append a cause when the rule does not hold; transition rules run only when there is an old value."""
        if self.transition and not has_old and not self._optional_old:
            return
        variables = {"self": value}
        if self._optional_old:
            variables["oldSelf"] = cel.Optional(has_old, old)
        elif has_old:
            variables["oldSelf"] = old
        try:
            if self.program.evaluate(variables) is True:
                return
        except cel.BudgetExceeded:
            found.append(causes.invalid_omitted(path, _OUT_OF_BUDGET))
            return
        except cel.EvalError as error:
            found.append(_shown(path, value, f"{error} evaluating rule: {self._label()}"))
            return
        found.append(self._failure(value, variables, f"{path}{self._where}".lstrip(".")))

    def _label(self) -> str:
        return self._text if not self._text.startswith("failed rule: ") else self.source

    def _failure(self, value: Any, variables: dict[str, Any], path: str) -> Cause:
        text, computed = self._text, self._computed(variables)
        if computed:
            text = computed
        if self._reason == "FieldValueForbidden":
            return causes.forbidden(path, text)
        if self._reason == "FieldValueRequired":
            return causes.required(path, text)
        if self._reason == "FieldValueDuplicate":
            return causes.duplicate(path, value)
        return causes.invalid_omitted(path, text) if computed else _shown(path, value, text)

    def _computed(self, variables: dict[str, Any]) -> str:
        """The messageExpression's text; empty, so that ``message`` is used, when it fails or gives no single line."""
        if self._message is None:
            return ""
        try:
            text = self._message.evaluate(variables)
        except cel.EvalError:
            return ""
        return text.strip() if isinstance(text, str) and "\n" not in text else ""


def _shown(path: str, value: Any, detail: str) -> Cause:
    if isinstance(value, (str, int, float, bool)):
        return causes.invalid(path, value, detail)
    return causes.invalid_omitted(path, detail)


class RuleTree:
    """The rules of a schema and of everything below it. ``rules`` are compiled when first needed."""

    def __init__(self, schema: Schema, *, root: bool = False) -> None:
        self._schema = schema
        self._root = root
        self._rules: list[Rule] | None = None
        self._view: View | None = None
        self.below: dict[str, RuleTree] = {
            name: tree for name, sub in (schema.get("properties") or {}).items() if (tree := RuleTree(sub)).any
        }
        rest, items = schema.get("additionalProperties"), schema.get("items")
        self.rest = tree if isinstance(rest, dict) and (tree := RuleTree(rest)).any else None
        self.items = tree if isinstance(items, dict) and (tree := RuleTree(items)).any else None
        self._own: list[Schema] = schema.get("x-kubernetes-validations") or []
        self.any = bool(self._own or self.below or self.rest or self.items)

    @property
    def rules(self) -> list[Rule]:
        if self._rules is None:
            kind = type_of(self._schema, root=self._root)
            self._rules = [Rule(raw, kind) for raw in self._own]
            self._view = view_of(self._schema)
        return self._rules

    def validate(self, value: Any, old: Any, has_old: bool, path: str, found: list[Cause]) -> None:
        """Append a cause for each rule that does not hold. Unchanged values pass, but for transition rules."""
        if not self.any or value is None:
            return
        unchanged = has_old and old == value
        if self._own:
            self._check_own(value, old, has_old, unchanged, path, found)
        if isinstance(value, dict):
            previous: dict[str, Any] = old if has_old and isinstance(old, dict) else {}
            for key, item in value.items():
                tree = self.below.get(key, self.rest)
                if tree is not None:
                    tree.validate(item, previous.get(key), key in previous, causes.child(path, key), found)
        elif isinstance(value, list) and self.items is not None:
            matched = correlate(self._schema, value, old) if has_old and isinstance(old, list) else None
            for at, item in enumerate(value):
                before = matched[at] if matched else item if unchanged else None
                self.items.validate(item, before, before is not None, f"{path}[{at}]", found)

    def _check_own(self, value: Any, old: Any, has_old: bool, unchanged: bool, path: str, found: list[Cause]) -> None:
        rules = [rule for rule in self.rules if rule.transition or not unchanged]
        if not rules:
            return
        if self._view is not None:
            try:
                value, old = self._view(value), self._view(old) if has_old else None
            except cel.EvalError as error:
                found.append(causes.invalid_omitted(path, f"{error} evaluating rule: {rules[0].source}"))
                return
        for rule in rules:
            rule.check(value, old, has_old, path, found)
