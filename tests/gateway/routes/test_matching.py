"""Gateway API's order of precedence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from quarterdeck.errors import ConfigError
from quarterdeck.gateway.http.matching import RouteTable
from quarterdeck.gateway.http.paths import parse
from quarterdeck.snapshot.routing import Match, PathMatch, Route, TextMatch


@dataclass
class Made:
    route: Route


class Asked:
    """The part of an Exchange that matching looks at."""

    def __init__(self, method: str, headers: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.headers = headers


def route(name: str, *matches: Match, hosts: tuple[str, ...] = (), order: int = 0) -> Made:
    return Made(Route(name, hostnames=hosts, matches=matches or (Match(),), order=order))


def find(
    table: RouteTable[Made],
    target: str = "/",
    *,
    host: str = "x.example",
    method: str = "GET",
    headers: list[tuple[bytes, bytes]] | None = None,
) -> str:
    given = headers or []
    exchange: Any = Asked(method, given)
    found = table.find(host, parse(target.encode()), exchange, dict(given))
    return found.route.route.name if found is not None else ""


def at(kind: str, value: str, **more: Any) -> Match:
    return Match(PathMatch(cast(Any, kind), value), **more)


def test_more_specific_paths_win_whatever_their_order() -> None:
    table = RouteTable([
        route("regex", at("regex", "/a/b/.*"), order=0),
        route("root", at("prefix", "/"), order=1),
        route("short", at("prefix", "/a"), order=2),
        route("long", at("prefix", "/a/b/"), order=3),
        route("exact", at("exact", "/a/b"), order=4),
    ])  # fmt: skip
    assert [find(table, p) for p in ("/a/b", "/a/b/", "/a/b/c", "/a/bc", "/a", "/ab", "/A/b")] == [
        "exact", "long", "long", "short", "short", "root", "root",
    ]  # fmt: skip


def test_a_regex_is_of_the_whole_path_and_comes_last() -> None:
    table = RouteTable([route("r", at("regex", "/v[0-9]+/x")), route("p", at("prefix", "/v1"))])
    assert [find(table, p) for p in ("/v1/x", "/v22/x", "/v22/xy", "/a/v22/x")] == ["p", "r", "", ""]


def test_method_then_headers_then_query_then_order_decide() -> None:
    one = (TextMatch("version", "one"),)
    two = (*one, TextMatch("color", "blue"))
    table = RouteTable([
        route("older", at("prefix", "/")),
        route("younger", at("prefix", "/"), order=1),
        route("query", at("prefix", "/", query=(TextMatch("q", "1"),)), order=2),
        route("one", at("prefix", "/", headers=one), order=3),
        route("two", at("prefix", "/", headers=two), order=4),
        route("method", at("prefix", "/", method="POST"), order=5),
    ])  # fmt: skip
    one_header, two_headers = [(b"version", b"one")], [(b"version", b"one"), (b"color", b"blue")]
    assert find(table) == "older"
    assert find(table, "/?q=1&q=2") == "query"
    assert find(table, "/?q=1", headers=one_header) == "one"
    assert find(table, headers=two_headers) == "two"
    assert find(table, headers=two_headers, method="POST") == "method"


def test_host_names_from_exact_over_long_wildcards_to_none() -> None:
    table = RouteTable([
        route("none", at("exact", "/only")),
        route("all", at("prefix", "/x")),
        route("wide", hosts=("*.example",)),
        route("long", at("prefix", "/w"), hosts=("*.w.example",)),
        route("exact", at("prefix", "/e"), hosts=("A.w.example",)),
    ])  # fmt: skip
    assert find(table, "/e", host="a.w.example") == "exact"
    assert find(table, "/w", host="a.w.example") == "long"
    assert find(table, "/z", host="a.w.example") == "wide"
    assert find(table, "/z", host="b.c.w.example") == "wide"
    assert find(table, "/only", host="a.w.example") == "wide"
    assert find(table, "/z", host="example") == ""
    assert find(table, "/x", host="example") == "all"
    assert find(table, "/x", host="") == "all"


def test_a_repeated_header_is_matched_as_one_list() -> None:
    table = RouteTable([route("a", Match(headers=(TextMatch("X-Who", "a"),)))])
    assert find(table, headers=[(b"x-who", b"a")]) == "a"
    assert find(table, headers=[(b"x-who", b"b"), (b"x-who", b"a")]) == ""


def test_regular_expressions_of_headers_and_query_hold_for_the_whole_value() -> None:
    table = RouteTable(
        [route("r", Match(headers=(TextMatch("v", "a|ab", True),), query=(TextMatch("q", "[0-9]+", True),)))]
    )
    assert find(table, "/?q=12", headers=[(b"v", b"ab")]) == "r"
    assert find(table, "/?q=12x", headers=[(b"v", b"ab")]) == ""
    assert find(table, "/?q=12", headers=[(b"v", b"abc")]) == ""


def test_a_bad_expression_names_its_route() -> None:
    with pytest.raises(ConfigError, match="route broken"):
        RouteTable([route("broken", at("regex", "(a"))])


def test_many_segments_cost_no_more_than_the_lengths_in_use() -> None:
    table = RouteTable([route("root"), route("a", at("prefix", "/a"))])
    assert find(table, "/a" * 20_000) == "a"


@pytest.mark.parametrize(("name", "same"), [("x-version", True), ("traceparent", False), ("X-Request-ID", False)])
def test_heads_alike_take_one_route_unless_it_looks_at_what_varies(name: str, same: bool) -> None:
    """Requests with the same head but for trace and id are let go one way only where no route looks at these."""
    match = Match(PathMatch("prefix", "/"), headers=(TextMatch(name, "1"),))
    assert RouteTable([route("r", match)]).by_head is same
