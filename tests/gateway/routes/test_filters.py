"""Redirects, rewrites and header rules as pure functions."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.http.filters import location, replaced, rewritten
from quarterdeck.gateway.http.headers import host_of, modifier, to_client
from quarterdeck.gateway.http.paths import parse
from quarterdeck.gateway.http.retry import Budget
from quarterdeck.snapshot.policies import HeaderModifier, Redirect, Rewrite


@pytest.mark.parametrize(
    ("path", "prefix", "part", "wanted"),
    [
        # the table of Gateway API's HTTPPathModifier
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/bar", "", "/xyz", "/xyz/bar"),
        ("/foo%2Fbar", "/foo", "/xyz", "/xyz%2Fbar"),
    ],
)
def test_a_prefix_is_replaced_by_whole_segments(path: str, prefix: str, part: str, wanted: str) -> None:
    assert replaced(parse(path.encode()), len(prefix), None, part).decode() == wanted


def test_a_rewrite_keeps_the_query() -> None:
    path = parse(b"/a/b?c=d&e=%2F")
    assert rewritten(Rewrite(path="/full path"), path, 2) == b"/full%20path?c=d&e=%2F"
    assert rewritten(None, path, 2) == b"/a/b?c=d&e=%2F"


@pytest.mark.parametrize(
    ("rule", "scheme", "port", "wanted"),
    [
        (Redirect(host="other.example"), "http", 80, "http://other.example/a/b"),
        (Redirect(host="other.example"), "http", 8080, "http://other.example:8080/a/b"),
        (Redirect(scheme="https"), "http", 8080, "https://x.example/a/b"),
        (Redirect(scheme="https", port=8443), "http", 80, "https://x.example:8443/a/b"),
        (Redirect(scheme="http", port=80), "https", 443, "http://x.example/a/b"),
        (Redirect(port=443), "https", 8443, "https://x.example/a/b"),
        (Redirect(port=443), "http", 80, "http://x.example:443/a/b"),
        (Redirect(path="/new"), "http", 80, "http://x.example/new"),
        (Redirect(prefix="/new"), "http", 80, "http://x.example/new/b"),
    ],
)
def test_locations(rule: Redirect, scheme: str, port: int, wanted: str) -> None:
    assert location(rule, parse(b"/a/b"), 2, scheme=scheme, host="x.example", port=port).decode() == wanted


def test_header_rules_set_add_and_remove() -> None:
    edit = modifier(HeaderModifier(add=(("X-A", "2"), ("New", "n")), set=(("X-S", "s"),), remove=("X-R",)), "here")
    assert edit is not None
    given = [(b"x-a", b"1"), (b"x-s", b"old"), (b"x-s", b"older"), (b"x-r", b"r"), (b"keep", b"k")]
    assert sorted(edit(given)) == [(b"keep", b"k"), (b"new", b"n"), (b"x-a", b"1,2"), (b"x-s", b"s")]
    assert modifier(HeaderModifier(), "here") is None


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Connection", "bad name", "b\u00e4d"])
def test_header_rules_must_not_touch_the_framing(name: str) -> None:
    with pytest.raises(ConfigError, match="here"):
        modifier(HeaderModifier(set=((name, "1"),)), "here")


def test_a_value_must_not_end_the_header() -> None:
    with pytest.raises(ConfigError):
        modifier(HeaderModifier(set=(("x", "1\r\ny: 2"),)), "here")


def test_what_belongs_to_the_backend_connection_stays_there() -> None:
    given = [(b"connection", b"close, X-Mine"), (b"x-mine", b"1"), (b"keep-alive", b"timeout=5"), (b"etag", b"e")]
    assert to_client(given) == [(b"etag", b"e")]


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"A.Example:80", "a.example"), (b"a.example.", "a.example"), (b"[::1]:8080", "[::1]"),
        (b"127.0.0.1", "127.0.0.1"),
        (b"a b", None), (b"user@host", None), (b"a/b", None), (b"a:b", None), (b"a,b", None), (b"", None),
    ],
)  # fmt: skip
def test_hosts(value: bytes, host: Any) -> None:
    assert host_of(value) == host


def test_retries_are_a_share_of_the_requests() -> None:
    now = [0.0]
    budget = Budget(lambda: now[0])
    taken = sum(budget.take() for _ in range(100))
    assert taken == 10
    for _ in range(100):
        budget.request()
    assert sum(budget.take() for _ in range(100)) == 20
    now[0] = 1.0
    assert sum(budget.take() for _ in range(100)) == 5
