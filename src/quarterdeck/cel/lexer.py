"""CEL source text to tokens (language definition, section "Syntax")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from quarterdeck.cel.errors import CompileError
from quarterdeck.cel.values import INT64_MAX, UINT64_MAX, UInt

_TOKEN = re.compile(
    r"""(?P<space>[\t\n\f\r ]+|//[^\n]*)
    |(?P<string>(?:[rR][bB]?|[bB][rR]?)?(?:'''|\"\"\"|'|"))
    |(?P<double>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    |(?P<integer>(?:0[xX][0-9a-fA-F]+|[0-9]+)[uU]?)
    |(?P<ident>[_a-zA-Z][_a-zA-Z0-9]*)
    |(?P<quoted>`[a-zA-Z0-9_.\-/ ]+`)
    |(?P<op>\[\?|\.\?|&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"""\\(?:([abfnrtv\\?"'`])|[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.|$))""", re.S
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_KEYWORDS = {"true": True, "false": False, "null": None}
RESERVED = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)


@dataclass(slots=True)
class Token:
    """``kind``: "op" (value is the operator), "ident", "quoted", "literal" or "end"."""

    kind: str
    value: Any
    pos: int


def tokenize(source: str) -> list[Token]:
    """Raises CompileError at the first character that starts no token."""
    tokens: list[Token] = []
    pos = 0
    while pos < len(source):
        match = _TOKEN.match(source, pos)
        if match is None:
            raise CompileError(f"Syntax error: token recognition error at: '{source[pos]}'", pos)
        kind, text = str(match.lastgroup), match.group()
        start, pos = pos, match.end()
        if kind == "space":
            continue
        if kind == "string":
            value, pos = _string(source, start, text)
            tokens.append(Token("literal", value, start))
        elif kind == "double":
            tokens.append(Token("literal", float(text), start))
        elif kind == "integer":
            tokens.append(Token("literal", _integer(text, start), start))
        elif kind == "ident" and text in _KEYWORDS:
            tokens.append(Token("literal", _KEYWORDS[text], start))
        elif kind == "ident" and text == "in":
            tokens.append(Token("op", "in", start))
        else:
            tokens.append(Token(kind, text.strip("`"), start))
    tokens.append(Token("end", "<EOF>", len(source)))
    return tokens


def _integer(text: str, pos: int) -> int:
    unsigned = text[-1] in "uU"
    digits = text.rstrip("uU")
    if len(digits) > 32:
        raise CompileError("invalid uint literal" if unsigned else "invalid int literal", pos)
    value = int(digits, 16) if digits[:2] in ("0x", "0X") else int(digits)
    # -9223372036854775808 is written as a negated literal, so one above the maximum is let through to the parser.
    if value > (UINT64_MAX if unsigned else INT64_MAX + 1):
        raise CompileError("invalid uint literal" if unsigned else "invalid int literal", pos)
    return UInt(value) if unsigned else value


def _string(source: str, start: int, opening: str) -> tuple[str | bytes, int]:
    prefix = opening.rstrip("'\"").lower()
    quote = opening[len(prefix) :]
    raw, is_bytes = "r" in prefix, "b" in prefix
    begin = pos = start + len(opening)
    while True:
        if pos >= len(source) or (len(quote) == 1 and source[pos] in "\r\n"):
            raise CompileError("Syntax error: unterminated string literal", start)
        if source.startswith(quote, pos):
            break
        pos += 2 if source[pos] == "\\" and not raw else 1
    text, end = source[begin:pos], pos + len(quote)
    if raw:
        return (text.encode() if is_bytes else text), end
    return (_unescape_bytes(text, start) if is_bytes else _unescape(text, start)), end


def _code_point(digits: str, start: int) -> str:
    code = int(digits, 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise CompileError("invalid unicode code point in escape sequence", start)
    return chr(code)


def _unescape(text: str, start: int) -> str:
    if "\\" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        simple, hexa, four, eight, octal, bad = match.groups()
        if bad is not None:
            raise CompileError(f"Syntax error: invalid escape sequence '\\{bad}'", start)
        if simple:
            return _SIMPLE.get(simple, simple)
        return chr(int(octal, 8)) if octal else _code_point(hexa or four or eight, start)

    return _ESCAPE.sub(replace, text)


def _unescape_bytes(text: str, start: int) -> bytes:
    out = bytearray()
    pos = 0
    for match in _ESCAPE.finditer(text):
        out += text[pos : match.start()].encode()
        pos = match.end()
        simple, hexa, four, eight, octal, bad = match.groups()
        if bad is not None or four or eight:
            raise CompileError("Syntax error: invalid escape sequence in bytes literal", start)
        out += _SIMPLE.get(simple, simple).encode() if simple else bytes([int(hexa, 16) if hexa else int(octal, 8)])
    return bytes(out + text[pos:].encode())
