"""The words of a text as memory compares them: for the keyword index and for the built-in embedding. Pure.

Lower case without accents, English words by a crude stem, scripts without spaces by pairs of characters.
"""

from __future__ import annotations

import re
import unicodedata

from ..scripted.text import STOP, stem

LONGEST = 40
"""Characters of a word that count."""
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+"
)


def words(text: str) -> list[str]:
    """All words in their order, stop words included, not stemmed."""
    folded = unicodedata.normalize("NFKD", text).casefold()
    plain = unicodedata.normalize("NFC", "".join(c for c in folded if not unicodedata.combining(c)))
    found: list[str] = []
    for match in _WORD.finditer(plain):
        at = 0
        word = match.group()
        for run in _UNSPACED.finditer(word):
            found += [word[at : run.start()]] if run.start() > at else []
            found += _pairs(run.group())
            at = run.end()
        found += [word[at:]] if at < len(word) else []
    return [word[:LONGEST] for word in found]


def terms(text: str) -> list[str]:
    """The stems of the words that mean something; of all words when there is none that does."""
    every = words(text)
    meant = [word for word in every if word not in STOP and (len(word) > 1 or not word.isascii() or word.isdigit())]
    return [_stem(word) if word.isascii() else word for word in meant or every]


def _stem(word: str) -> str:
    base = stem(word)
    for ending in ("ment", "nes"):
        if base.endswith(ending) and len(base) >= len(ending) + 4:
            return stem(base[: -len(ending)])
    return base


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]
