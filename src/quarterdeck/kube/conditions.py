"""Conditions (metav1.Condition and its older forms): one entry per type, a time that says when the status flipped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

Condition = dict[str, Any]
Status = Literal["True", "False", "Unknown"]


def get_condition(conditions: Iterable[Condition] | None, kind: str) -> Condition | None:
    for condition in conditions or ():
        if condition.get("type") == kind:
            return condition
    return None


def condition_is(conditions: Iterable[Condition] | None, kind: str, status: Status = "True") -> bool:
    condition = get_condition(conditions, kind)
    return condition is not None and condition.get("status") == status


def set_condition(
    conditions: Iterable[Condition] | None,
    kind: str,
    status: Status,
    reason: str,
    message: str,
    generation: int | None,
    now: str,
) -> list[Condition]:
    """A new list with the condition set, in its old place. ``now`` (RFC 3339) is used only when the status flips.

    ``generation`` None leaves observedGeneration out: built-in kinds have none.
    """
    new: Condition = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}
    if generation is not None:
        new["observedGeneration"] = generation
    result: list[Condition] = []
    placed = False
    for condition in conditions or ():
        if condition.get("type") != kind:
            result.append(condition)
            continue
        if condition.get("status") == status:
            new["lastTransitionTime"] = condition.get("lastTransitionTime", now)
        result.append(new)
        placed = True
    return result if placed else [*result, new]


def remove_condition(conditions: Iterable[Condition] | None, kind: str) -> list[Condition]:
    return [c for c in conditions or () if c.get("type") != kind]
