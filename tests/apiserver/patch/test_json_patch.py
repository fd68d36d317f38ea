from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.patch import json_patch
from quarterdeck.apiserver.patch.json_patch import copy_json
from quarterdeck.errors import BadRequest, Invalid

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab/~", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~-", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("doc", "ops", "expected"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": [1]}], {"a": 1, "b": [1]}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a/b": 1, "m~n": 2}, [{"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/m~0n"}], {}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1}),
        ({}, [{"op": "test", "path": "/a", "value": None}], {}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    ],
)
def test_operations(doc: Any, ops: Any, expected: Any) -> None:
    before = copy_json(doc)
    assert json_patch(doc, ops) == expected
    assert doc == before


@pytest.mark.parametrize(
    ("ops", "error", "text"),
    [
        ([{"op": "test", "path": "/a", "value": True}], Invalid, "testing value /a failed: test failed"),
        ([{"op": "remove", "path": "/x"}], Invalid, "unable to remove nonexistent key: /x"),
        ([{"op": "replace", "path": "/x/y", "value": 1}], Invalid, "doc is missing path: /x/y"),
        ([{"op": "add", "path": "/l/9", "value": 1}], Invalid, "invalid index"),
        ([{"op": "move", "from": "/o", "path": "/o/p"}], Invalid, "lies inside"),
        ([{"op": "jump", "path": "/a"}], BadRequest, "Unexpected kind: jump"),
        ({"a": 1}, BadRequest, "jsonpatch.Patch"),
    ],
)
def test_refused(ops: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        json_patch({"a": 1, "l": [], "o": {"p": 1}}, ops)


@given(st.dictionaries(st.text("ab/~", max_size=3), JSON, max_size=4), JSON)
def test_add_then_remove_gives_the_document_back(doc: dict[str, Any], value: Any) -> None:
    ops = [{"op": "add", "path": "/new", "value": value}, {"op": "test", "path": "/new", "value": value},
           {"op": "remove", "path": "/new"}]  # fmt: skip
    assert json_patch(doc, ops) == doc


@given(st.dictionaries(st.text("ab/~-", max_size=3), JSON, max_size=4))
def test_every_path_can_be_replaced_by_itself(doc: dict[str, Any]) -> None:
    for key, value in doc.items():
        path = "/" + key.replace("~", "~0").replace("/", "~1")
        assert json_patch(doc, [{"op": "replace", "path": path, "value": value}]) == doc
