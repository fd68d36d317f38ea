"""Looking for what a tool's definition hides from people or tells the model to do (tool poisoning).

Patterns find what is clumsy; they are no proof that a definition is good. Invisible characters are found for certain.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .pins import definition

_HIDDEN: dict[str, tuple[tuple[int, int], ...]] = {
    "tag characters (text that only models read)": ((0xE0000, 0xE007F),),
    "bidirectional controls (text that reads otherwise than it is)": (
        (0x202A, 0x202E), (0x2066, 0x2069), (0x200E, 0x200F), (0x061C, 0x061C),
    ),
    "zero-width characters": ((0x200B, 0x200D), (0x2060, 0x2064), (0xFEFF, 0xFEFF), (0x180E, 0x180E), (0x00AD, 0x00AD)),
    "variation selectors (they can carry any bytes)": ((0xE0100, 0xE01EF), (0xFE00, 0xFE0E)),
    "control characters": ((0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x9F)),
    "private-use characters": ((0xE000, 0xF8FF), (0xF0000, 0x10FFFD)),
}  # fmt: skip
_JOINERS = (0x200C, 0x200D)

_INSTRUCTIONS: tuple[tuple[str, str], ...] = (
    ("tells the model to ignore its instructions",
     r"\b(ignore|disregard|forget|override)\b.{0,40}\b(previous|prior|above|earlier|all|other|system)\b.{0,20}"
     r"\b(instructions?|prompts?|rules?|messages?|guidelines)\b"),
    ("keeps something from the user",
     r"\b(do not|don't|never|without)\b.{0,30}\b(tell|telling|mention|mentioning|inform|informing|reveal|revealing|"
     r"notify|notifying|show|showing|asking|ask)\b.{0,30}\b(users?|anyone|them|him|her|people)\b"),
    ("marks text as important to the model",
     r"<\s{0,4}/?\s{0,4}(important|system|secret|instructions?|hidden|critical)\s{0,4}>"),
    ("speaks as a system prompt",
     r"\b(system prompt|you are now|new instructions?:|assistant:|\[/?INST\]|<\|im_start\|>)"),
    ("orders another action first",
     r"\b(before|prior to|instead of|after)\b.{0,20}\b(using|calling|invoking|running|you (use|call))\b.{0,60}"
     r"\b(read|send|call|fetch|open|include|pass|access)\b"),
    ("asks for secrets",
     r"(~/\.(ssh|aws|config|kube|cursor)|\bid_(rsa|ed25519)\b|/etc/passwd|\.env\b|\bmcp\.json\b|"
     r"\b(read|send|include|attach|copy|upload|pass)\b.{0,60}\b(private keys?|passwords?|credentials?|api keys?|"
     r"access tokens?|environment variables|conversation history|chat history)\b)"),
    ("sends data elsewhere", r"\b(send|post|upload|forward|exfiltrate|bcc)\b.{0,60}(https?://|[\w.+-]+@[\w-]+\.[a-z]{2,})"),
    ("changes how other tools are used",
     r"\b(instead of|rather than|never use|do not use|don't use|always use this)\b.{0,40}\b(tools?|functions?)\b"),
)  # fmt: skip
_COMPILED = tuple((what, re.compile(pattern, re.IGNORECASE | re.DOTALL)) for what, pattern in _INSTRUCTIONS)
_EXCERPT = 80
_TEXT = 200_000


@dataclass(frozen=True, slots=True)
class Finding:
    """``where`` is the member, such as ``inputSchema.properties.path.description``; ``excerpt`` is safe to print."""

    kind: Literal["hidden", "instruction"]
    where: str
    what: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.excerpt}"


def scan(tool: Mapping[str, Any]) -> list[Finding]:
    """What is suspicious in a tool's definition, hidden text first."""
    found: list[Finding] = []
    for where, text in _texts(definition(tool), ""):
        found += _hidden(where, text)
        found += _instructions(where, text)
    return sorted(found, key=lambda finding: finding.kind)


def visible(text: str) -> str:
    """With everything that is neither plainly visible nor a line's end written out as ``<U+XXXX>``."""
    shown = (c if c in "\n\t" or (c.isprintable() and not _class_of(c)) else f"<U+{ord(c):04X}>" for c in text)
    return "".join(shown)


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """All strings, names of members too, with where they are."""
    if isinstance(value, str):
        yield where, value[:_TEXT]
    elif isinstance(value, dict):
        members: dict[str, Any] = value
        for key, item in members.items():
            path = f"{where}.{visible(key)}" if where else visible(key)
            yield path, key
            yield from _texts(item, path)
    elif isinstance(value, list):
        items: list[Any] = value
        for at, item in enumerate(items):
            yield from _texts(item, f"{where}[{at}]")


def _hidden(where: str, text: str) -> list[Finding]:
    if text.isascii() and text.isprintable():
        return []
    seen: dict[str, int] = {}
    for at, char in enumerate(text):
        what = _class_of(char)
        if what and not (ord(char) in _JOINERS and _joins(text, at)):
            seen.setdefault(what, at)
    return [Finding("hidden", where, what, _around(text, at)) for what, at in seen.items()]


def _class_of(char: str) -> str:
    code = ord(char)
    for what, ranges in _HIDDEN.items():
        if any(low <= code <= high for low, high in ranges):
            return what
    return ""


def _joins(text: str, at: int) -> bool:
    """Whether a joiner stands where scripts and emoji need one: between two characters that are no Latin letters."""
    if not 0 < at < len(text) - 1:
        return False
    return all(not c.isascii() and unicodedata.category(c)[0] in "LMS" for c in (text[at - 1], text[at + 1]))


def _instructions(where: str, text: str) -> list[Finding]:
    matches = ((what, pattern.search(text)) for what, pattern in _COMPILED)
    return [Finding("instruction", where, what, _around(text, m.start())) for what, m in matches if m is not None]


def _around(text: str, at: int) -> str:
    start = max(0, at - 10)
    excerpt = " ".join(visible(text[start : start + _EXCERPT]).split())
    return f'"{excerpt}"'
