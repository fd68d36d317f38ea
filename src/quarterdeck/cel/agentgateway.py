"""The functions that agentgateway adds to CEL (its schema/cel-functions.md), besides the standard ones."""

from __future__ import annotations

import base64
import hashlib
import random
import uuid
from collections.abc import Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec

from quarterdeck.cel import strings, types
from quarterdeck.cel.errors import BudgetExceeded, EvalError, no_overload
from quarterdeck.cel.function import Function, Library, Run, declare
from quarterdeck.cel.functions import GLOBAL, MEMBER, namespaces
from quarterdeck.cel.numbers import FUNCTIONS as NUMBERS
from quarterdeck.cel.regex import replace
from quarterdeck.cel.syntax import Call, Ident, Macro, Node
from quarterdeck.cel.values import Duration, Timestamp, type_name

_LONGEST = 2 * 1024 * 1024  # bytes of JSON that one call of json() reads, as agentgateway buffers


class Secret:
    """Text that shows itself as ``<redacted>`` unless ``unredacted()`` asks for it."""

    __slots__ = ("value",)
    cel_type: ClassVar[str] = "secret"

    def __init__(self, value: str) -> None:
        self.value = value

    def __str__(self) -> str:
        return "<redacted>"


def plain(value: Any) -> Any:
    """A value as JSON can hold it: maps complete, bytes as base64, times as text, secrets hidden."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (Secret, Timestamp, Duration)):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return type_name(value)


def _json(text: Any) -> Any:
    if not isinstance(text, (str, bytes)):
        raise no_overload(f"json applied to {type_name(text)}")
    if len(text) > _LONGEST:
        raise EvalError(f"json(): more than {_LONGEST} bytes")
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise EvalError(f"json(): {error}") from None


def _payload(token: str) -> Any:
    parts = token.split(".")
    if len(parts) != 3:
        raise EvalError("unvalidatedJwtPayload(): not a JWT")
    try:
        return _json(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError as error:
        raise EvalError(f"unvalidatedJwtPayload(): {error}") from None


def _octets(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise no_overload(f"{name} applied to {type_name(value)}")


def _digest(name: str) -> Function:
    def call(value: Any) -> str:
        return hashlib.new(name, _octets(f"{name}.encode", value), usedforsecurity=False).hexdigest()

    return Function(call, ("string|bytes",), types.STRING)


def _form_decode(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True))


def _form_encode(values: Any) -> str:
    if not isinstance(values, dict):
        raise no_overload(f"form.encode applied to {type_name(values)}")
    return urlencode({str(k): str(v) for k, v in values.items()})


def _fail(message: str = "fail()") -> Any:
    raise EvalError(message)


def flatten(value: Any, *, deep: bool = False) -> dict[str, Any]:
    """A map with dots in its keys instead of maps and lists in its values (one level, or all)."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        raise no_overload(f"flatten applied to {type_name(value)}")
    flat: dict[str, Any] = {}
    for key, item in pairs:
        if deep and isinstance(item, (dict, list)):
            flat.update({f"{key}.{inner}": leaf for inner, leaf in flatten(item, deep=True).items()})
        else:
            flat[str(key)] = item
    return flat


def _merge(left: Any, right: Any) -> dict[Any, Any]:
    if not isinstance(left, dict) or not isinstance(right, dict):
        raise no_overload(f"merge applied to ({type_name(left)}, {type_name(right)})")
    return {**left, **right}


def _cookie(header: Any, name: str) -> str:
    text = "; ".join(header) if isinstance(header, list) else header
    if not isinstance(text, str):
        raise no_overload(f"cookie applied to {type_name(header)}")
    try:
        found = SimpleCookie(text).get(name)
    except CookieError as error:
        raise EvalError(f"cookie(): {error}") from None
    if found is None:
        raise EvalError(f"no such cookie: {name}")
    return found.value


def _query(target: str, name: str) -> str:
    for key, value in parse_qsl(target.partition("?")[2], keep_blank_values=True):
        if key == name:
            return value
    raise EvalError(f"no such query parameter: {name}")


def _with_query(target: str, name: str, value: str, *, instead: bool) -> str:
    path, _, query = target.partition("?")
    pairs = [(k, v) for k, v in parse_qsl(query, keep_blank_values=True) if not instead or k != name]
    return f"{path}?{urlencode([*pairs, (name, value)])}"


def _first(runs: list[Run], *, skip_null: bool) -> Run:
    """The first argument that has a value, and for ``skip_null`` one that is not null."""

    def run(frame: list[Any]) -> Any:
        failure: EvalError | None = None
        for argument in runs:
            try:
                value = argument(frame)
            except BudgetExceeded:
                raise
            except EvalError as error:
                failure = error
                continue
            if value is not None or not skip_null or argument is runs[-1]:
                return value
        raise failure or EvalError("no argument has a value")

    return run


def _default(runs: list[Run]) -> Run:
    return _first(runs, skip_null=False)


def _coalesce(runs: list[Run]) -> Run:
    return _first(runs, skip_null=True)


def _variables(runs: list[Run]) -> Run:
    del runs
    return lambda frame: frame[0]


def _two(build: Callable[[Node, str, Node, int], Node]) -> Callable[[Node, Sequence[Node], int], Node | None]:
    """A macro of a plain name and an expression."""

    def expand(target: Node, args: Sequence[Node], pos: int) -> Node | None:
        if len(args) != 2 or not isinstance(args[0], Ident):
            return None
        return build(target, args[0].name, args[1], pos)

    return expand


_OTHER = "@other"  # a name no expression can use


def _keys(target: Node, name: str, predicate: Node, pos: int) -> Node:
    return Macro("transformMap", target, (name, _OTHER), [predicate, Ident(_OTHER, pos)], pos)


def _without_keys(target: Node, name: str, predicate: Node, pos: int) -> Node:
    return _keys(target, name, Call("!_", None, [predicate], pos), pos)


def _unredacted(value: Any) -> Any:
    return value.value if type(value) is Secret else value


def _split_header(value: Any, separator: str = ",", limit: int = -1) -> list[str]:
    if isinstance(value, list):
        return [part.strip() for item in value for part in str(item).split(separator)]
    if type(value) is not str:
        raise no_overload(f"split applied to {type_name(value)}")
    return strings.MEMBERS["split"].call(value, separator, limit)


_FUNCTIONS: dict[str, Function] = {
    **GLOBAL,
    "json": Function(_json, ("string|bytes",)),
    "toJson": Function(lambda value: msgspec.json.encode(plain(value)).decode(), ("",), types.STRING),
    "unvalidatedJwtPayload": declare("unvalidatedJwtPayload", _payload, "string"),
    "base64.encode": Function(
        lambda value: base64.b64encode(_octets("base64.encode", value)).decode(), ("string|bytes",), types.STRING
    ),
    "url.encode": declare("url.encode", lambda text: quote(text, safe=""), "string", types.STRING),
    "url.decode": declare("url.decode", unquote, "string", types.STRING),
    "form.encode": Function(_form_encode, ("map",), types.STRING),
    "form.decode": declare("form.decode", _form_decode, "string", types.MAP),
    "sha1.encode": _digest("sha1"),
    "sha256.encode": _digest("sha256"),
    "md5.encode": _digest("md5"),
    "random": Function(random.random, (), types.DOUBLE),
    "uuid": Function(lambda: str(uuid.uuid4()), (), types.STRING),
    "fail": Function(_fail, ("string",), optional=1),
    "flatten": Function(flatten, ("list|map",), types.MAP),
    "flattenRecursive": Function(lambda value: flatten(value, deep=True), ("list|map",), types.MAP),
    "max": NUMBERS["math.greatest"],
    "min": NUMBERS["math.least"],
}
_MEMBERS: dict[str, Function] = {
    **MEMBER,
    "merge": Function(_merge, ("map", "map"), types.MAP),
    "regexReplace": declare("regexReplace", replace, "string string string", types.STRING),
    "stripPrefix": declare("stripPrefix", str.removeprefix, "string string", types.STRING),
    "stripSuffix": declare("stripSuffix", str.removesuffix, "string string", types.STRING),
    "cookie": Function(_cookie, ("string|list", "string"), types.STRING),
    "query": declare("query", _query, "string string", types.STRING),
    "addQuery": declare(
        "addQuery", lambda text, name, value: _with_query(text, name, value, instead=False), "string string string"
    ),
    "setQuery": declare(
        "setQuery", lambda text, name, value: _with_query(text, name, value, instead=True), "string string string"
    ),
    "redacted": Function(lambda value: "<redacted>", ("",), types.STRING),
    "unredacted": Function(_unredacted, ("",)),
    "raw": Function(lambda value: value if isinstance(value, list) else [value], ("string|list",), types.LIST),
    "split": Function(_split_header, ("string|list", "string", "int"), types.list_of(types.STRING), 2),
}
LIBRARY = Library(
    _FUNCTIONS,
    _MEMBERS,
    special={"default": _default, "coalesce": _coalesce, "variables": _variables},
    macros={
        "with": _two(lambda target, name, body, pos: Macro("bind", target, (name,), [body], pos)),
        "mapValues": _two(lambda target, name, body, pos: Macro("transformMap", target, (_OTHER, name), [body], pos)),
        "filterKeys": _two(_keys),
        "removeKeys": _two(_without_keys),
    },
    namespaces=namespaces(_FUNCTIONS),
)
"""CEL as agentgateway's configuration files use it."""
