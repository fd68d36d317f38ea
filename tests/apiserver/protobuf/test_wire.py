"""Fields of a message as bytes; nothing that arrives may do more than be refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.protobuf.decoder import MAGIC, decode
from quarterdeck.apiserver.protobuf.wire import MAX_FIELDS, VARINT, Malformed, RawField, Reader, varint
from quarterdeck.errors import BadRequest

from .encoding import field, number, text


@given(st.integers(0, 2**64 - 1))
def test_varint_gives_the_number_back(value: int) -> None:
    data = number(value)
    assert varint(memoryview(data), 0) == (value, len(data))


@given(st.integers(-(2**31), 2**31 - 1))
def test_negative_int32_comes_as_64_bits(value: int) -> None:
    assert RawField(1, VARINT, value & (2**64 - 1), memoryview(b"")).signed(32) == value


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\x80", "ends within a number"),
        (b"\xff" * 10 + b"\x01", "longer than ten bytes"),
        (b"\x0a\x05ab", "field 1 ends after the body does"),
        (b"\x09\x00", "field 1 ends after the body does"),
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "0 is not a field number"),
    ],
)
def test_malformed(data: bytes, fault: str) -> None:
    with pytest.raises(Malformed, match=fault):
        list(Reader().fields(memoryview(data)))


def test_the_number_of_fields_is_bounded() -> None:
    with pytest.raises(Malformed, match=f"more than {MAX_FIELDS} fields"):
        list(Reader().fields(memoryview(b"\x08\x00" * (MAX_FIELDS + 1))))


_KINDS = st.sampled_from([("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Secret"), ("v1", "DeleteOptions")])
_CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
_TREE = st.recursive(
    st.one_of(st.binary(max_size=12), st.text(max_size=6).map(str.encode)),
    lambda inner: st.lists(
        st.one_of(
            st.tuples(st.integers(1, 45), inner).map(lambda pair: field(*pair)),
            st.tuples(st.integers(1, 45), st.integers(0, 2**64 - 1)).map(lambda pair: field(*pair)),
        ),
        max_size=4,
    ).map(b"".join),
    max_leaves=12,
)


@given(st.one_of(_KINDS, st.just(_CRD)), _TREE)
def test_any_body_is_an_object_or_a_bad_request(kind: tuple[str, str], raw: bytes) -> None:
    body = MAGIC + field(1, text(1, kind[0]) + text(2, kind[1])) + field(2, raw)
    try:
        assert decode(body)["kind"] == kind[1]
    except BadRequest as error:
        assert "protobuf" in str(error)


@given(st.binary(max_size=64))
def test_any_envelope_is_refused_politely(data: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(MAGIC + data)
