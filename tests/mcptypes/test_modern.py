"""Envelope and mirrored arguments of 2026-07-28."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.mcptypes import modern
from quarterdeck.mcptypes.jsonrpc import Message

SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "flags": {"type": "object", "properties": {"deep": {"type": "boolean", "x-mcp-header": "Deep"}}},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "query": {"type": "string"},
    },
}
MAPPING = {("region",): "region", ("flags", "deep"): "deep", ("count",): "count"}


def test_annotations_are_found_along_properties() -> None:
    assert modern.mirrored(SCHEMA) == MAPPING
    assert modern.mirrored({"type": "object"}) == {}


@pytest.mark.parametrize(
    "properties",
    [
        {"a": {"type": "number", "x-mcp-header": "A"}},
        {"a": {"type": "array", "x-mcp-header": "A"}},
        {"a": {"type": "string", "x-mcp-header": "not a token"}},
        {"a": {"type": "string", "x-mcp-header": 5}},
        {"a": {"type": "string", "x-mcp-header": "Same"}, "b": {"type": "string", "x-mcp-header": "same"}},
    ],
)
def test_a_tool_that_breaks_the_rules_has_no_mapping(properties: dict[str, Any]) -> None:
    assert modern.mirrored({"type": "object", "properties": properties}) is None


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "region": st.none() | st.text(max_size=30),
            "count": st.integers(-(2**53), 2**53),
            "flags": st.fixed_dictionaries({}, optional={"deep": st.booleans()}),
            "query": st.text(max_size=5),
        },
    )
)
def test_mirrored_headers_say_what_the_arguments_say(arguments: dict[str, Any]) -> None:
    headers = modern.param_headers(MAPPING, arguments)
    assert modern.param_problem(MAPPING, arguments, headers) == ""
    for left_out in range(len(headers)):
        fewer = headers[:left_out] + headers[left_out + 1 :]
        assert "is missing" in modern.param_problem(MAPPING, arguments, fewer)
    if headers:
        assert "sent twice" in modern.param_problem(MAPPING, arguments, [*headers, headers[0]])
    wrong = [(name, b"never-this-value") for name, _ in headers]
    assert not headers or "does not match" in modern.param_problem(MAPPING, arguments, wrong)


@pytest.mark.parametrize("value", [b"=?base64?!!?=", b"=?base64?YQ?=", b"\xff"])
def test_broken_values_are_named(value: bytes) -> None:
    problem = modern.param_problem(MAPPING, {"region": "a"}, [(b"mcp-param-region", value)])
    assert problem == "header Mcp-Param-region is not a valid value"


def test_a_header_without_its_argument_does_not_pass() -> None:
    assert "does not match" in modern.param_problem(MAPPING, {}, [(b"mcp-param-count", b"1")])


def test_what_the_envelope_misses_is_named() -> None:
    def message(meta: object) -> Message:
        return Message(method="tools/list", params=msgspec.Raw(msgspec.json.encode({"_meta": meta})))

    full = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    assert modern.envelope(message(full)).version == "2026-07-28"
    for missing in full:
        with pytest.raises(msgspec.ValidationError, match=missing):
            modern.envelope(message({k: v for k, v in full.items() if k != missing}))
    with pytest.raises(msgspec.ValidationError, match="_meta"):
        modern.envelope(Message(method="tools/list"))
