"""Functions of Go's templates, Sprig and Helm that our charts use, with the same results."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from typing import Any

import yaml

from quarterdeck.errors import ConfigError

Function = Callable[..., Any]


def truth(value: Any) -> bool:
    """Go: the zero value of a type is false, empty collections too."""
    return bool(value)


def text(value: Any) -> str:
    """As an action prints it; Helm prints nothing for nil."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def to_json(value: Any) -> str:
    """encoding/json: sorted keys, no blanks, HTML characters escaped."""
    out = json.dumps(_integers(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for char in ("<", ">", "&", "\u2028", "\u2029"):
        out = out.replace(char, f"\\u{ord(char):04x}")
    return out


def _integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_yaml(value: Any) -> str:
    out = yaml.safe_dump(value, default_flow_style=False, width=1 << 20, allow_unicode=True)
    return out.removesuffix("\n").removesuffix("\n...")


def _kind_is(kind: str, value: Any) -> bool:
    kinds = {type(None): "invalid", bool: "bool", str: "string", int: "int64", float: "float64", dict: "map"}
    return kinds.get(type(value), "slice") == kind


def _integer(value: Any) -> int:
    try:
        return int(float(value or 0))
    except (TypeError, ValueError):
        return 0


def _fail(message: str) -> None:
    raise ConfigError(message)


def _pairs(*items: Any) -> dict[str, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _indented(width: int, value: str) -> str:
    blanks = " " * width
    return blanks + value.replace("\n", "\n" + blanks)


def _last_true(values: tuple[Any, ...], wanted: bool) -> Any:
    """``and`` gives the first false value, ``or`` the first true one; else the last."""
    return next((value for value in values if truth(value) == wanted), values[-1])


def _compare(test: Callable[[Any, Any], bool]) -> Function:
    return lambda a, b: test(a, b)


FUNCTIONS: dict[str, Function] = {
    "and": lambda *values: _last_true(values, False),
    "base": posixpath.basename,
    "default": lambda fallback, value=None: value if truth(value) else fallback,
    "dict": _pairs,
    "empty": lambda value: not truth(value),
    "eq": lambda value, *others: value in others,
    "fail": _fail,
    "gt": _compare(lambda a, b: a > b),
    "has": lambda item, values: item in (values or ()),
    "int": _integer,
    "join": lambda separator, values: separator.join(text(value) for value in values or ()),
    "kindIs": _kind_is,
    "list": lambda *values: list(values),
    "ne": lambda a, b: a != b,
    "nindent": lambda width, value: "\n" + _indented(width, value),
    "indent": _indented,
    "not": lambda value: not truth(value),
    "or": lambda *values: _last_true(values, True),
    "printf": lambda form, *values: form % values,
    "quote": lambda value: json.dumps(text(value), ensure_ascii=False),
    "ternary": lambda yes, no, condition: yes if condition else no,
    "toJson": to_json,
    "toYaml": to_yaml,
}
