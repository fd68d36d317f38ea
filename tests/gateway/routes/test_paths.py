"""One form of every path: what is matched is what is sent on."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.gateway.http.paths import BadPath, parse


@pytest.mark.parametrize(
    ("target", "raw", "text"),
    [
        ("/", "/", "/"),
        ("/a/b?c=%2e%2e", "/a/b", "/a/b"),
        ("/a//b///", "/a/b/", "/a/b/"),
        ("/a/./b/../c", "/a/c", "/a/c"),
        ("/a/%2e%2E/admin", "/admin", "/admin"),
        ("/%61dmin", "/admin", "/admin"),
        ("/a%2Fb", "/a%2Fb", "/a/b"),
        ("/a%2fb%3f", "/a%2Fb%3F", "/a/b?"),
        ("/a/..", "/", "/"),
        ("/a/b/..", "/a/", "/a/"),
        ("/caf%C3%A9", "/caf%C3%A9", "/café"),
        ("/...", "/...", "/..."),
        ("/.hidden", "/.hidden", "/.hidden"),
        ("/a;v=1/b", "/a;v=1/b", "/a;v=1/b"),
    ],
)
def test_paths_are_normalised(target: str, raw: str, text: str) -> None:
    path = parse(target.encode())
    assert (path.raw.decode(), path.text) == (raw, text)


@pytest.mark.parametrize(
    "target",
    [
        "/..", "/a/../../b", "/%2e%2e", "/a%2f..%2fadmin", "/a/..%2fadmin", "/a/..;/admin", "/a/%2e%2e;x/b",
        "/a\\..\\b", "/a%5c..%5cadmin", "/a%00b", "/a%0d%0ab", "/a%7f", "/%zz", "/a%2", "/a%", "a/b", "", "/a b",
        "/\xe9", "/a#b/%2f.%2f",
    ],
)  # fmt: skip
def test_what_can_only_deceive_is_refused(target: str) -> None:
    with pytest.raises(BadPath):
        parse(target.encode("latin-1"))


@given(st.binary(max_size=60))
def test_any_bytes_give_a_normal_path_or_a_refusal(noise: bytes) -> None:
    try:
        path = parse(b"/" + noise)
    except BadPath:
        return
    again = parse(path.raw)
    assert (again.raw, again.text) == (path.raw, path.text)
    assert "//" not in path.text
    assert not {".", ".."} & set(unquote(path.raw.decode("ascii")).split("/"))


@pytest.mark.parametrize(
    ("target", "prefix", "rest"),
    [("/a/b", "/a", "/b"), ("/a%2Fb/c%2Fd", "/a/b", "/c%2Fd"), ("/caf%C3%A9/x", "/café", "/x"), ("/a", "/a", "")],
)
def test_the_rest_after_a_prefix_is_as_it_came(target: str, prefix: str, rest: str) -> None:
    assert parse(target.encode()).after(len(prefix)).decode() == rest
