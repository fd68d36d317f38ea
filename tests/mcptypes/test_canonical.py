"""RFC 8785: the vectors of its §3.2 and appendix B, and what must never share a hash."""

from __future__ import annotations

import hashlib
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.mcptypes.canonical import arguments_hash, canonical, number

NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}
SAMPLE = r"""{
  "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}"""
SAMPLE_BYTES = (
    '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
    r'"string":"€$\u000f\nA' + "'" + r'B\"\\\\\"/"}'
)
ORDER = ["\r", "1", "\x80", "ö", "€", "\U0001f600", "\ufb33"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_of_appendix_b(bits: str, text: str) -> None:
    assert number(struct.unpack(">d", bytes.fromhex(bits))[0]) == text


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_what_is_no_number_is_refused(bits: str) -> None:
    with pytest.raises(ValueError, match="no JSON number"):
        canonical([struct.unpack(">d", bytes.fromhex(bits))[0]])


def test_the_sample_of_the_rfc() -> None:
    assert canonical(msgspec.json.decode(SAMPLE)).decode() == SAMPLE_BYTES


def test_keys_are_sorted_by_their_utf16_units() -> None:
    written = canonical({name: 0 for name in sorted(ORDER)})
    assert list(msgspec.json.decode(written, type=dict[str, int])) == ORDER


def test_control_characters_are_written_as_ecmascript_does() -> None:
    assert canonical("\b\t\n\f\r\x00\x1f\x7f\u2028</>").decode() == '"\\b\\t\\n\\f\\r\\u0000\\u001f\x7f\u2028</>"'


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, {1: 2}, b"x", {1, 2}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"surrogate|no string|no JSON value"):
        canonical(value)


def test_depth_is_bounded() -> None:
    deep: object = 0
    for _ in range(201):
        deep = [deep]
    with pytest.raises(ValueError, match="deeper"):
        canonical(deep)


def test_numbers_that_are_equal_hash_alike_and_others_do_not() -> None:
    assert arguments_hash({"n": 1}) == arguments_hash({"n": 1.0}) != arguments_hash({"n": True})
    assert arguments_hash({"n": 2**53}) != arguments_hash({"n": 2**53 + 1})
    assert arguments_hash({"n": 1}) != arguments_hash({"n": "1"})


def test_the_hash_names_its_algorithm_and_no_arguments_are_an_empty_object() -> None:
    expected = "sha256:" + hashlib.sha256(b'{"a":1,"b":[]}').hexdigest()
    assert arguments_hash({"b": [], "a": 1}) == expected
    assert arguments_hash(None) == arguments_hash({}) == "sha256:" + hashlib.sha256(b"{}").hexdigest()


@given(json_values)
def test_written_once_and_read_it_is_written_the_same(value: object) -> None:
    once = canonical(value)
    assert canonical(msgspec.json.decode(once)) == once
