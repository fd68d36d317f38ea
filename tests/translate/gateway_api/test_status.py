"""Entries of several controllers in one list, and times that say when a status changed."""

from __future__ import annotations

from typing import Any

from quarterdeck.translate.gateway_api.status import ParentStatus, Problem, Verdict, accepted, merge_entries, refused

OURS, NOW, THEN = "ours", "2026-02-02T00:00:00Z", "2026-01-01T00:00:00Z"
REF = {"kind": "Gateway", "name": "a"}


def merged(before: list[Any], *entries: ParentStatus) -> list[Any]:
    return merge_entries(before, list(entries), 7, NOW, OURS, "parentRef")


def test_a_time_stays_while_the_status_does() -> None:
    first = merge_entries([], [ParentStatus(REF, [accepted()])], 1, THEN, OURS, "parentRef")
    (entry,) = merged(first, ParentStatus(dict(REF), [Verdict("Accepted", "True", "Accepted", "other words")]))
    (condition,) = entry["conditions"]
    assert condition["lastTransitionTime"] == THEN
    assert (condition["observedGeneration"], condition["message"]) == (7, "other words")
    (entry,) = merged(first, ParentStatus(REF, [refused("Accepted", Problem("Invalid", "no"))]))
    assert entry["conditions"][0]["lastTransitionTime"] == NOW


def test_entries_of_others_stay_and_ours_that_are_over_go() -> None:
    theirs = {"parentRef": REF, "controllerName": "theirs", "conditions": []}
    before = [theirs, {"parentRef": {"name": "old"}, "controllerName": OURS, "conditions": []}]
    found = merged(before, ParentStatus(REF, [accepted()]))
    assert found[0] == theirs
    assert [entry["parentRef"] for entry in found[1:]] == [REF]
    assert merged(before) == [theirs]
