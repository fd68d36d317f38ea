"""The built-in embedding: deterministic, near what is alike, and OpenAI's endpoint around it."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.agents.memory.offline import DIMENSIONS, answer, embed
from quarterdeck.agents.memory.words import terms
from quarterdeck.errors import BadRequest


def near(a: str, b: str) -> float:
    return sum(x * y for x, y in zip(embed(a), embed(b), strict=True))


def test_what_is_alike_is_near() -> None:
    assert near("The deployment window is Friday", "when can we deploy?") > 0.3
    assert near("the quick brown fox", "The QUICK, brown fox!") == pytest.approx(1.0)
    assert near("kubernetes cluster", "kubernets clusters") > near("kubernetes cluster", "a bowl of soup") + 0.3
    assert abs(near("I like tea", "quarterly revenue report")) < 0.15
    assert embed("Where is my café?")[:3] == embed("WHERE is my Cafe")[:3]


@given(st.text(max_size=200), st.integers(8, 300))
def test_any_text_gives_a_unit_vector(text: str, dimensions: int) -> None:
    vector = embed(text, dimensions)
    assert len(vector) == dimensions and sum(x * x for x in vector) == pytest.approx(1.0)
    assert vector == embed(text, dimensions)
    assert all(term and term == term.lower() and " " not in term for term in terms(text))


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_the_endpoint_is_openais() -> None:
    found = answer(body(model="x", input=["a dog", "a cat"], dimensions=64), "offline")
    assert found["model"] == "offline" and [one["index"] for one in found["data"]] == [0, 1]
    assert found["data"][1]["embedding"] == embed("a cat", 64) and found["usage"]["prompt_tokens"] > 0
    (packed,) = answer(body(input="a dog", encoding_format="base64"), "m")["data"]
    numbers = struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(packed["embedding"]))
    assert numbers == pytest.approx(embed("a dog"), abs=1e-6)


@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        (b"{", "not JSON"), (b"[]", "JSON object"), (body(), "input"), (body(input=[]), "input"),
        (body(input=[1, 2]), "tokens are not taken"), (body(input=""), "none of them empty"),
        (body(input=["a"] * 2049), "2048 are the most"), (body(input="a", dimensions=4), "dimensions"),
        (body(input="a", dimensions=True), "dimensions"), (body(input="a", encoding_format="hex"), "encoding_format"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused(request_body: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        answer(request_body, "m")
