"""Providers that answer with anything: it is an error of theirs or an answer in OpenAI's shape, and nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.errors import UpstreamError
from quarterdeck.gateway.llm.formats import FORMATS
from quarterdeck.gateway.llm.formats.answer import Chunks
from quarterdeck.gateway.llm.formats.problem import problem
from quarterdeck.gateway.llm.framing import cutter
from quarterdeck.gateway.llm.relay import NO_ANSWER
from quarterdeck.malformed import MALFORMED

from .doubles import ANSWERS, STREAMS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
ALLOWED = (UpstreamError, *NO_ANSWER)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        found += places(child, (*path, key))
    return found


def changed(document: Any, path: tuple[Any, ...], value: Any, *, drop: bool) -> Any:
    document = copy.deepcopy(document)
    target = document
    for key in path[:-1]:
        target = target[key]
    if drop:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return document


def documents(name: str) -> list[tuple[str, Any]]:
    return cutter(FORMATS[name].framing).feed(b"".join(STREAMS[name]))


def check(message: Any) -> None:
    """What a client of OpenAI's may rely on."""
    for field in ("content", "refusal", "reasoning_content"):
        assert message.get(field) is None or isinstance(message[field], str), message
    for call in message.get("tool_calls") or ():
        assert isinstance(call["function"].get("arguments", ""), str), call
        assert isinstance(call["function"].get("name", ""), str), call


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_an_answer_with_a_surprise_in_it(name: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(ANSWERS[name])))
    document = changed(ANSWERS[name], path, data.draw(VALUES), drop=data.draw(st.booleans()))
    try:
        encoded = FORMATS[name].answer(document).encode()
    except ALLOWED:
        return
    check(json.loads(encoded)["choices"][0]["message"])


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_stream_with_a_surprise_in_it(name: str, data: st.DataObject) -> None:
    events = documents(name)
    at = data.draw(st.integers(0, len(events) - 1))
    path = data.draw(st.sampled_from(places(events[at][1]) or [("x",)]))
    if path != ("x",):
        document = changed(events[at][1], path, data.draw(VALUES), drop=data.draw(st.booleans()))
        events[at] = (events[at][0], document)
    chunks = Chunks(usage=True)
    translator = FORMATS[name].translator(chunks)
    try:
        for event, document in events:
            translator.event(event, document)
            if chunks.failed:
                break
        else:
            chunks.end()
    except ALLOWED:
        pass
    lines = [line[6:] for line in chunks.take().split(b"\n") if line.startswith(b"data: {")]
    for line in lines:
        for choice in json.loads(line).get("choices", ()):
            check(choice["delta"])


@settings(max_examples=40, deadline=None)
@given(framing=st.sampled_from(["sse", "ndjson", "eventstream"]), pieces=st.lists(st.binary(max_size=40), max_size=5))
def test_bytes_that_are_no_stream(framing: Any, pieces: list[bytes]) -> None:
    found = cutter(framing)
    try:
        for piece in pieces:
            for name, document in found.feed(piece):
                assert isinstance(name, str) and isinstance(document, dict)
    except UpstreamError:
        pass


@settings(max_examples=60, deadline=None)
@given(status=st.integers(300, 599), body=st.binary(max_size=50) | VALUES.map(lambda v: json.dumps(v).encode())
       | VALUES.map(lambda v: json.dumps({"error": v}).encode()))  # fmt: skip
def test_any_error_is_one(status: int, body: bytes) -> None:
    found = problem(status, body)
    assert 400 <= found.status < 600
    assert isinstance(found.message, str) and found.message
    json.dumps(found.document())


def test_what_is_caught_is_what_may_come() -> None:
    assert set(MALFORMED) <= set(NO_ANSWER)
