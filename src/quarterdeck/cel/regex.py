"""RE2 patterns in linear time.

``matches`` runs on Rust's ``regex`` crate (reached through jsonschema-rs), which like RE2 has no backtracking; a small
translation covers what the two spell differently. ``find`` needs positions, which only Python's ``re`` gives: there,
patterns with a repeated group that itself repeats are refused and the input is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from quarterdeck.cel.errors import EvalError

MAX_PATTERN = 4096
MAX_FIND_INPUT = 65_536
_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7F", "blank": r"\t ", "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ", "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_GROUP = re.compile(r"\$\$|\$\{(\w+)\}|\$(\w+)")
_REPEATED_REPEAT = re.compile(r"[*+}]\)*\)(?:[*+]|\{\d+,)")


def translate(pattern: str) -> str:
    r"""RE2 in the common subset of Rust's regex and Python's re: ``\Q..\E``, POSIX classes, literal ``[ & ~ -``."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            if pattern.startswith("\\Q", at):
                end = pattern.find("\\E", at)
                end = len(pattern) if end < 0 else end
                out.append(re.escape(pattern[at + 2 : end]))
                at = end + 2
                continue
            out.append(pattern[at : at + 2])
            at += 2
        elif char == "[":
            text, at = _char_class(pattern, at)
            out.append(text)
        else:
            out.append(char)
            at += 1
    return "".join(out)


def _char_class(pattern: str, start: int) -> tuple[str, int]:
    at = start + 1
    out = ["["]
    if pattern.startswith("^", at):
        out.append("^")
        at += 1
    first = True
    while at < len(pattern):
        char = pattern[at]
        if char == "]" and not first:
            return "".join([*out, "]"]), at + 1
        first = False
        if pattern.startswith("[:", at) and (end := pattern.find(":]", at)) > 0:
            name = pattern[at + 2 : end]
            if name not in _POSIX:
                raise EvalError(f"invalid regular expression {pattern!r}: unknown character class {name!r}")
            out.append(_POSIX[name])
            at = end + 2
        elif char == "\\":
            out.append(pattern[at : at + 2])
            at += 2
        else:
            # A dash that does not stand between two single characters is a literal one.
            dash = char == "-" and (len(out[-1]) != 1 or out[-1] in "[^" or pattern.startswith("]", at + 1))
            out.append("\\" + char if char in "[]&~" or dash else char)
            at += 1
    raise EvalError(f"invalid regular expression {pattern!r}: missing closing ]")


@lru_cache(maxsize=1024)
def compile_match(pattern: str) -> Callable[[str], bool]:
    """A predicate: does ``pattern`` match anywhere in the text? Raises EvalError for a pattern RE2 would refuse."""
    if len(pattern) > MAX_PATTERN:
        raise EvalError(f"regular expression longer than {MAX_PATTERN} characters")
    import jsonschema_rs  # a large library: only processes that use patterns hold it in memory

    schema: dict[str, Any] = {"pattern": translate(pattern)}
    try:
        validator = jsonschema_rs.validator_for(schema, pattern_options=jsonschema_rs.RegexOptions())
    except (ValueError, jsonschema_rs.ValidationError):
        raise EvalError(f"invalid regular expression {pattern!r}") from None
    return validator.is_valid


def matches(text: str, pattern: str) -> bool:
    return compile_match(pattern)(text)


@lru_cache(maxsize=256)
def _compile_find(pattern: str) -> re.Pattern[str]:
    compile_match(pattern)
    if _REPEATED_REPEAT.search(pattern):
        raise EvalError(f"regular expression {pattern!r} repeats a repeated group, which find does not support")
    try:
        return re.compile(translate(pattern).replace(r"\z", r"\Z"), re.ASCII)
    except re.error as error:
        raise EvalError(f"invalid regular expression {pattern!r}: {error}") from None


def _bounded(text: str) -> str:
    if len(text) > MAX_FIND_INPUT:
        raise EvalError(f"text longer than {MAX_FIND_INPUT} characters")
    return text


def find(text: str, pattern: str) -> str:
    """The first match, or the empty string."""
    match = _compile_find(pattern).search(_bounded(text))
    return match.group() if match else ""


def find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found: list[str] = []
    for match in _compile_find(pattern).finditer(_bounded(text)):
        if 0 <= limit <= len(found):
            break
        found.append(match.group())
    return found


def replace(text: str, pattern: str, replacement: str) -> str:
    """``text`` with every match replaced; ``$1`` and ``${name}`` stand for groups, ``$$`` for a dollar sign."""
    compiled = _compile_find(pattern)
    groups = compiled.groups
    names = compiled.groupindex

    def group(match: re.Match[str], name: str) -> str:
        if name.isdecimal():
            return (match.group(int(name)) or "") if int(name) <= groups else ""
        return (match.group(name) or "") if name in names else ""

    def expand(match: re.Match[str]) -> str:
        return _GROUP.sub(lambda m: "$" if m.group(0) == "$$" else group(match, m.group(1) or m.group(2)), replacement)

    return compiled.sub(expand, _bounded(text))
