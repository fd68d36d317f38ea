"""JSONPath as kubectl evaluates it."""

# ruff: noqa: E501 - tables read best with one case a line
from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.apiserver.crd import jsonpath
from quarterdeck.errors import UsageError

LIST: dict[str, Any] = {
    "kind": "List",
    "items": [
        {
            "metadata": {"name": "127.0.0.1", "labels": {"a.b/c": "v"}},
            "status": {"capacity": {"cpu": "4"}, "ready": True},
        },
        {"metadata": {"name": "127.0.0.2"}, "status": {"capacity": {"cpu": "8"}, "n": 3}},
    ],
    "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"username": "admin", "password": "secret"}}],
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("kind is {.kind}", "kind is List"),
        ("{.kind}", "List"),
        (".kind", "List"),
        ("kind", "List"),
        ("{['kind']}", "List"),
        ("{$.kind}", "List"),
        ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.items[*]['metadata.name', 'status.capacity']}", ""),
        ('{.users[?(@.name=="e2e")].user.password}', "secret"),
        ("{.users[?(@.user.username)].name}", "e2e"),
        ("{.items[?(@.status.n>2)].metadata.name}", "127.0.0.2"),
        ("{.items[?(@.status.ready==true)].metadata.name}", "127.0.0.1"),
        ('{range .items[*]}{.metadata.name}{"\\t"}{.status.capacity}{"\\n"}{end}', '127.0.0.1\t{"cpu":"4"}\n127.0.0.2\t{"cpu":"8"}\n'),
        ("{.items[0].metadata.labels.a\\.b/c}", "v"),
        ("{.items[0].metadata.labels['a.b/c']}", "v"),
        ("{.items[-1].metadata.name}", "127.0.0.2"),
        ("{.items[0:1].metadata.name}", "127.0.0.1"),
        ("{.items[0,1].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.items[::2].metadata.name}", "127.0.0.1"),
        ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
        ("{.missing}", ""),
        ("{.items[9].metadata}", ""),
        ("{.items[0].status.ready}", "true"),
        ("{'a}b'}", "a}b"),
    ],
)  # fmt: skip
def test_render(template: str, expected: str):
    assert jsonpath.render(template, LIST) == expected


@pytest.mark.parametrize("template", ["{.a", "{range .items[*]}", "{end}", "{.a[}", "{.a[x]}", "{.a[::0]}", "{.a b}"])
def test_malformed(template: str):
    with pytest.raises(UsageError):
        jsonpath.render(template, {"a": []})
