"""The strings extension, base64 and the Kubernetes regex library."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from quarterdeck.cel import types
from quarterdeck.cel.conversions import format_double, to_string
from quarterdeck.cel.errors import EvalError, no_overload
from quarterdeck.cel.function import Function, declare
from quarterdeck.cel.regex import find, find_all
from quarterdeck.cel.values import TypeValue, UInt, from_key, type_name

MAX_STRING = 1 << 20
_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_ASCII_LOWER = {code: code + 32 for code in range(65, 91)}
_ASCII_UPPER = {code: code - 32 for code in range(97, 123)}
_QUOTES = {
    "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\", '"': r"\"",
}  # fmt: skip
_VERB = re.compile(r"%(?:\.(\d+))?(.)", re.S)


def _bounded(size: int) -> None:
    if size > MAX_STRING:
        raise EvalError(f"string longer than {MAX_STRING} characters")


def _char_at(text: str, at: int) -> str:
    if not 0 <= at <= len(text):
        raise EvalError(f"index out of range: {at}")
    return text[at : at + 1]


def _index_of(text: str, part: str, start: int = 0) -> int:
    if start < 0 or start > len(text):
        if not part and start > len(text):
            return -1
        raise EvalError(f"index out of range: {start}")
    return text.find(part, start)


def _last_index_of(text: str, part: str, last: int | None = None) -> int:
    if last is None:
        return text.rfind(part)
    if last < 0 or last > len(text):
        raise EvalError(f"index out of range: {last}")
    return text.rfind(part, 0, last + len(part))


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    found = text.count(old) if limit < 0 else min(text.count(old), limit)
    _bounded(len(text) + found * len(new))
    return text.replace(old, new, limit)


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        return list(text) if limit < 0 or limit > len(text) else [*text[: limit - 1], text[limit - 1 :]]
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _substring(text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    if not 0 <= start <= len(text) or not 0 <= end <= len(text) or start > end:
        raise EvalError(f"index out of range: {start if not 0 <= start <= len(text) else end}")
    return text[start:end]


def quote(text: str) -> str:
    return '"' + "".join(_QUOTES.get(char, char) for char in text) + '"'


def _plain(value: Any) -> str:
    """A value as ``%s`` prints it."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_plain(item) for item in value)}]"
    if isinstance(value, dict):
        entries = sorted((_plain(from_key(key)), _plain(item)) for key, item in value.items())
        return "{" + ", ".join(f"{key}: {item}" for key, item in entries) + "}"
    if value is None:
        return "null"
    if type(value) is float:
        return {"+Inf": "Infinity", "-Inf": "-Infinity"}.get(format_double(value), format_double(value))
    return value.name if type(value) is TypeValue else to_string(value)


def _verb(verb: str, precision: str | None, value: Any) -> str:
    kind = type(value)
    whole = kind in (int, UInt)
    if verb == "s":
        return _plain(value)
    if verb == "d" and (whole or kind is float):
        return str(int(value)) if whole else _plain(value)
    if verb in "fe" and (kind is float or whole):
        text = f"{float(value):.{precision or 6}{verb}}"
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(text, text)
    if verb == "b" and (whole or kind is bool):
        return f"{int(value):b}"
    if verb == "o" and whole:
        return f"{int(value):o}"
    if verb in "xX" and (whole or kind in (str, bytes)):
        text = f"{int(value):x}" if whole else (value.encode() if kind is str else value).hex()
        return text.upper() if verb == "X" else text
    raise EvalError(f"could not format {type_name(value)} with %{verb}")


def _format(template: str, values: Any) -> str:
    if not isinstance(values, list):
        raise no_overload("format needs a list")
    arguments = iter(values)

    def replace(match: re.Match[str]) -> str:
        if match.group(2) == "%":
            return "%"
        try:
            return _verb(match.group(2), match.group(1), next(arguments))
        except StopIteration:
            raise EvalError(f"index {len(values)} out of range") from None

    if template.endswith("%") and not template.endswith("%%"):
        raise EvalError("unexpected end of format string")
    text = _VERB.sub(replace, template)
    _bounded(len(text))
    return text


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise EvalError("invalid base64 data") from None


MEMBERS: dict[str, Function] = {
    "charAt": declare("charAt", _char_at, "string int", types.STRING),
    "indexOf": declare("indexOf", _index_of, "string string int", types.INT, 1),
    "lastIndexOf": declare("lastIndexOf", _last_index_of, "string string int", types.INT, 1),
    "lowerAscii": declare("lowerAscii", lambda text: text.translate(_ASCII_LOWER), "string", types.STRING),
    "upperAscii": declare("upperAscii", lambda text: text.translate(_ASCII_UPPER), "string", types.STRING),
    "replace": declare("replace", _replace, "string string string int", types.STRING, 1),
    "split": declare("split", _split, "string string int", types.list_of(types.STRING), 1),
    "substring": declare("substring", _substring, "string int int", types.STRING, 1),
    "trim": declare("trim", lambda text: text.strip(_SPACES), "string", types.STRING),
    "reverse": declare("reverse", lambda text: text[::-1], "string", types.STRING),
    "format": declare("format", _format, "string list", types.STRING),
    "find": declare("find", find, "string string", types.STRING),
    "findAll": declare("findAll", find_all, "string string int", types.list_of(types.STRING), 1),
}
FUNCTIONS: dict[str, Function] = {
    "strings.quote": declare("strings.quote", quote, "string", types.STRING),
    "base64.encode": declare("base64.encode", lambda data: base64.b64encode(data).decode(), "bytes", types.STRING),
    "base64.decode": declare("base64.decode", _decode, "string", types.BYTES),
}
