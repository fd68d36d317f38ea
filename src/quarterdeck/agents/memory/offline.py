"""The built-in embedding: feature hashing, no trained model. No key, no download, the same vector everywhere.

A text's features are its stems, pairs of neighbouring stems and the character 3- and 4-grams of its words, weighted by
``1 + ln(count)`` and hashed with a sign into a fixed number of places (Weinberger et al. 2009). Texts that share words,
forms of words or parts of them are near each other; synonyms are not: it knows spelling, not meaning.
"""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from itertools import pairwise
from math import log, sqrt
from typing import Any
from zlib import crc32

from quarterdeck.errors import BadRequest

from .words import terms

DIMENSIONS = 768
"""Places when the request does not say: what kagent's memory expects."""
_LEAST, _MOST = 8, 4096
_INPUTS = 2048
"""Texts in one request, as OpenAI has it."""
_STEM, _PAIR, _GRAMS = 1.0, 0.35, 0.9
"""Weights of a stem, of a pair of neighbours, and of all n-grams of a stem together."""


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A unit vector; for a text without any word, one that is near nothing."""
    places = [0.0] * dimensions
    stems = terms(text)
    for stem, count in Counter(stems).items():
        times = 1.0 + log(count)
        _put(places, f"w {stem}", _STEM * times)
        grams = _ngrams(stem)
        for gram in grams:
            _put(places, f"g {gram}", _GRAMS * times / sqrt(len(grams)))
    for pair, count in Counter(pairwise(stems)).items():
        _put(places, f"p {pair[0]} {pair[1]}", _PAIR * (1.0 + log(count)))
    if not stems:
        _put(places, f"t {text}", 1.0)
    length = sqrt(sum(value * value for value in places))
    if length == 0.0:  # all features cancelled each other out
        places[0] = length = 1.0
    return [value / length for value in places]


def _ngrams(stem: str) -> list[str]:
    framed = f"<{stem}>"
    return [framed[i : i + n] for n in (3, 4) for i in range(len(framed) - n + 1)]


def _put(places: list[float], feature: str, weight: float) -> None:
    hashed = (crc32(feature.encode("utf-8", "replace")) * 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF
    places[(hashed >> 20) % len(places)] += weight if hashed >> 63 else -weight


def answer(body: bytes, model: str) -> dict[str, Any]:
    """OpenAI's answer to ``POST /v1/embeddings``. Raises BadRequest naming the field."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise BadRequest("the body must be a JSON object")
    texts = _texts(request.get("input"))
    dimensions = request.get("dimensions", DIMENSIONS)
    if not isinstance(dimensions, int) or isinstance(dimensions, bool) or not _LEAST <= dimensions <= _MOST:
        raise BadRequest(f"dimensions: must be a whole number from {_LEAST} to {_MOST}")
    form = request.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise BadRequest("encoding_format: must be float or base64")
    vectors = [embed(text, dimensions) for text in texts]
    data = [
        {"object": "embedding", "index": i, "embedding": vector if form == "float" else _packed(vector)}
        for i, vector in enumerate(vectors)
    ]
    counted = sum(len(text) for text in texts) // 4 + 1
    return {
        "object": "list", "data": data, "model": model,
        "usage": {"prompt_tokens": counted, "total_tokens": counted},
    }  # fmt: skip


def _texts(given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise BadRequest("input: must be a text or a list of texts, none of them empty; tokens are not taken")
    if len(texts) > _INPUTS:
        raise BadRequest(f"input: has {len(texts)} texts, {_INPUTS} are the most")
    return texts


def _packed(vector: list[float]) -> str:
    """Base64 of little-endian 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
