"""``--set`` and merging as Helm's strvals and coalescing do."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.cli.chart.values import merged, parse_sets
from quarterdeck.errors import UsageError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a=1", {"a": 1}),
        ("a.b=x,a.c=true", {"a": {"b": "x", "c": True}}),
        ("a=null,b=", {"a": None, "b": ""}),
        ("a={x,2}", {"a": ["x", 2]}),
        ("a[0].b=1,a[0].c=2,a[1].b=3", {"a": [{"b": 1, "c": 2}, {"b": 3}]}),
        ("a=x\\,y", {"a": "x,y"}),
        ("a\\.b/c=d", {"a.b/c": "d"}),
        ("a=0123,b=1.5,c=-4", {"a": "0123", "b": "1.5", "c": -4}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_sets(text: str, wanted: dict[str, Any]) -> None:
    assert parse_sets([text]) == wanted


@pytest.mark.parametrize("text", ["a", "=1", "a[2]=1"])
def test_unusable_sets(text: str) -> None:
    with pytest.raises(UsageError):
        parse_sets([text])


def test_merging() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": [1], "c": 3}
    assert merged(base, {"a": {"y": None, "z": 4}, "b": [2]}) == {"a": {"x": 1, "z": 4}, "b": [2], "c": 3}
    assert merged(base, {"c": None}, keep_nulls=True)["c"] is None
    assert base == {"a": {"x": 1, "y": 2}, "b": [1], "c": 3}
