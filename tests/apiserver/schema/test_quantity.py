from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.schema.quantity import canonical, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000m", "1"), ("0.5", "500m"), ("1024Mi", "1Gi"), ("1023", "1023"), ("1.5Gi", "1536Mi"), ("1Ki", "1Ki"),
        ("0", "0"), ("0Mi", "0"), ("2000", "2k"), ("1e3", "1e3"), ("0.0005", "500u"), ("-1", "-1"), ("100Ki", "100Ki"),
        ("0.5Ki", "512"), ("1500m", "1500m"), ("128974848", "128974848"), (" 1 ", "1"),
    ],
)  # fmt: skip
def test_canonical(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1 Gi", "1KB", "--1", "1ee3", "0x10", "."])
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match the regular expression"):
        canonical(text)


@given(st.integers(-(10**9), 10**9), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi", "e3", "u", "n"]))
def test_the_canonical_form_is_the_same_number_and_stays(number: int, suffix: str) -> None:
    text = canonical(f"{number}{suffix}")
    assert parse(text) == parse(f"{number}{suffix}")
    assert canonical(text) == text


def test_numbers() -> None:
    assert (parse("1Gi"), parse("250m"), parse("1e3")) == (1073741824, Decimal("0.25"), 1000)
