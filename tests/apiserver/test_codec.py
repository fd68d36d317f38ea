"""YAML bodies that are larger, deeper or more entangled than they look."""

from __future__ import annotations

import pytest

from quarterdeck.apiserver.codec import decode_yaml
from quarterdeck.errors import BadRequest

_LEVELS = b"".join(b"%c: &%c [%b]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 10)) for i in range(9))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"a: &a [x]\n" + _LEVELS, "excessive aliasing"),
        (b"a: &a {x: 1}\n" + _LEVELS.replace(b"[", b"{<<: [").replace(b"]", b"]}"), "excessive aliasing"),
        (b"a: &a [*a]\n", "excessive aliasing"),
        (b"a: &a {b: *a}\n", "excessive aliasing"),
        (b"[" * 100_000, "max depth"),
        (b"- " * 50_000, "max depth"),
    ],
)
def test_bombs_are_refused(body: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        decode_yaml(body)


def test_honest_aliases_and_merges_are_read() -> None:
    assert decode_yaml(b"a: &x {z: 1}\nb: {<<: *x, y: *x}\n")[0] == {"a": {"z": 1}, "b": {"z": 1, "y": {"z": 1}}}
