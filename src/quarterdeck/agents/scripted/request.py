"""One thing asked for: its text with the literals in it and the words around them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from .text import PRONOUNS, STOP, bag, stem, words
from .values import Value, extract

_TOKEN = re.compile(r"[A-Za-zÀ-ɏ]+(?:['’][a-z]+)?|\d+")
_ARTICLES = bag("a an the my our your its their this that")
_SIGNS = {"+": "plus", "*": "multiply", "/": "divide"}
_BLANK = "\x00"


@dataclass(frozen=True)
class Request:
    """A clause. ``refers``: it speaks of an earlier result ("it", "the first"); those words ask for no tool then."""

    text: str
    refers: bool = False

    @cached_property
    def values(self) -> tuple[Value, ...]:
        return tuple(extract(self.text))

    @cached_property
    def bare(self) -> str:
        """The text with literals blanked out, positions kept."""
        text = self.text
        for value in self.values:
            if value.start >= 0:
                text = text[: value.start] + _BLANK * (value.end - value.start) + text[value.end :]
        return text

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Stems of the words outside literals that mean something, each once."""
        signs = [_SIGNS[m] for m in re.findall(r"(?<=\x00)\s*([+*/])\s*(?=\x00)", self.bare)]
        said = [w for w in (*words(self.bare), *signs) if w not in STOP and not (self.refers and w in PRONOUNS)]
        return tuple(dict.fromkeys(stem(w) for w in said))

    @cached_property
    def _tokens(self) -> list[tuple[str, int, int]]:
        return [(m.group().lower(), m.start(), m.end()) for m in _TOKEN.finditer(self.text)]

    def before(self, value: Value, width: int = 3) -> list[str]:
        """Up to ``width`` words before a literal, nearest first, not past another literal or a full stop."""
        if value.start < 0:
            return []
        edge = max([v.end for v in self.values if 0 <= v.end <= value.start], default=0)
        stop = max(self.text.rfind(mark, edge, value.start) for mark in (";", "?", "!", ". ", ","))
        near = [w for w, s, e in self._tokens if s >= max(edge, stop) and e <= value.start and w not in _ARTICLES]
        return near[::-1][:width]

    def after(self, value: Value, width: int = 2) -> list[str]:
        """Up to ``width`` words right after a literal, not past another literal."""
        if value.start < 0:
            return []
        edge = min([v.start for v in self.values if v.start >= value.end], default=len(self.text))
        found: list[str] = []
        for word, start, end in self._tokens:
            if start < value.end:
                continue
            if end > edge or len(found) == width or re.search(r"[.;!?,]", self.text[value.end : start]):
                break
            if word in STOP and word not in _ARTICLES:
                break
            found.append(word)
        return found
