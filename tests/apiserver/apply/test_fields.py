from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.apply.fields import difference, intersection, paths, union

PATHS = st.lists(st.lists(st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}']), min_size=1, max_size=3), max_size=6)


def build(members: list[list[str]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for path in members:
        one: dict[str, Any] = {}
        for element in reversed(path):
            one = {element: one}
        result = union(result, one)
    return result


def as_set(fields: dict[str, Any]) -> set[str]:
    return set(paths(fields))


@given(PATHS, PATHS)
def test_set_algebra_is_that_of_the_paths(left: list[list[str]], right: list[list[str]]) -> None:
    a, b = build(left), build(right)
    assert as_set(union(a, b)) == as_set(a) | as_set(b)
    assert as_set(difference(a, b)) == as_set(a) - as_set(b)
    assert as_set(intersection(a, b)) == as_set(a) & as_set(b)


def test_paths_are_printed_as_upstream() -> None:
    fields = {"f:spec": {"f:containers": {'k:{"name":"x"}': {".": {}, "f:image": {}}},
                         "f:ports": {'k:{"port":80,"protocol":"TCP"}': {}}},
              "f:metadata": {"f:finalizers": {'v:"a.b/c"': {}}}}  # fmt: skip
    assert list(paths(fields)) == [
        '.metadata.finalizers[="a.b/c"]',
        '.spec.containers[name="x"]',
        '.spec.containers[name="x"].image',
        '.spec.ports[port=80,protocol="TCP"]',
    ]
