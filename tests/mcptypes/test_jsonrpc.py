"""Framing: what is accepted, what is passed on untouched, what is written anew."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.mcptypes import jsonrpc, lists
from quarterdeck.mcptypes.headers import decode_value, encode_value
from quarterdeck.mcptypes.jsonrpc import FramingError

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b'{"jsonrpc":"2.0","method":"\xff"}', -32700),
        (b"[" * 100_000, -32600),
        (b'{"jsonrpc":"2.0","params":' + b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b'"x"', -32600),
        (b'{"method":"ping","id":1}', -32600),
        (b'{"jsonrpc":"2.0","method":"ping","id":null}', -32600),
        (b'{"jsonrpc":"2.0","method":"ping","id":1.5}', -32600),
        (b'{"jsonrpc":"2.0","method":"ping","id":{}}', -32600),
        (b'{"jsonrpc":"2.0","method":7,"id":1}', -32600),
    ],
)
def test_what_is_no_message_is_refused(body: bytes, code: int) -> None:
    with pytest.raises(FramingError) as caught:
        jsonrpc.parse(body)
    assert caught.value.code == code


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(body: bytes) -> None:
    with contextlib.suppress(FramingError):
        jsonrpc.parse(body)
    jsonrpc.probe(body)


@given(st.text(), values, values, st.text() | st.integers(-(2**53), 2**53))
def test_the_canonical_form_means_the_same(name: str, arguments: Any, meta: Any, ident: Any) -> None:
    message = {
        "jsonrpc": "2.0", "id": ident, "method": "tools/call",
        "params": {"name": name, "arguments": arguments, "_meta": meta},
    }  # fmt: skip
    body = json.dumps(message).encode()
    parsed = jsonrpc.parse(body)
    assert jsonrpc.call_params(parsed).name == name
    assert json.loads(jsonrpc.canonical(body)) == message
    assert json.loads(bytes(parsed.id)) == ident


def test_of_duplicates_the_decided_one_is_sent() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}'
    assert not jsonrpc.unambiguous(body, b'"name"')
    assert jsonrpc.call_params(jsonrpc.parse(body)).name == "b"
    assert jsonrpc.canonical(body).count(b'"name"') == 1
    assert json.loads(jsonrpc.canonical(body))["params"] == {"name": "b"}


@given(
    st.dictionaries(st.text(), values, max_size=4), st.lists(st.text(min_size=1), unique=True, max_size=5), st.data()
)
def test_filtered_lists_keep_what_they_do_not_look_at(extra: dict[str, Any], names: list[str], data: Any) -> None:
    extra.pop("tools", None)
    kept = set(data.draw(st.lists(st.sampled_from(names)) if names else st.just([])))
    tools = [{"name": n, "inputSchema": {"type": "object"}, "x": extra} for n in names]
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {**extra, "tools": tools}}).encode()
    shown = lists.filter_message(body, "tools", lambda item: lists.name_of(item) in kept, private=False)
    result = json.loads(shown)["result"]
    assert result == {**extra, "tools": [t for t in tools if t["name"] in kept]}


def test_a_filtered_list_is_private_and_an_error_is_untouched() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[],"cacheScope":"public"}}'
    assert b'"cacheScope":"private"' in lists.filter_message(body, "tools", bool, private=True)
    error = b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}'
    assert lists.filter_message(error, "tools", bool, private=True) is error
    with pytest.raises(msgspec.DecodeError):
        lists.filter_message(b"[]", "tools", bool, private=False)


@given(st.text())
def test_header_values_go_both_ways(text: str) -> None:
    try:
        value = encode_value(text)
    except UnicodeEncodeError:
        return
    assert value.isascii() and b"\r" not in value and b"\n" not in value
    assert decode_value(value) == text
