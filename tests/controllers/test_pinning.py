"""The condition ToolsPinned, by mode, approvals and what a server lists."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.controllers.pinning import TYPE, verdicts
from quarterdeck.snapshot.pins import digest
from quarterdeck.translate.snapshot import pin_mode

ADD = {"name": "add", "description": "Adds."}
SUB = {"name": "sub", "description": "Subtracts."}
ODD = {"name": "odd", "description": "Fine\u200b."}


def server(pin: str | None = None, *conditions: dict[str, Any]) -> dict[str, Any]:
    annotations = {} if pin is None else {"quarterdeck.dev/pin": pin}
    metadata = {"name": "s", "namespace": "ns", "annotations": annotations}
    return {"metadata": metadata, "status": {"conditions": list(conditions)}}


@pytest.mark.parametrize(
    ("pin", "approved", "tools", "status", "reason", "says"),
    [
        (None, [ADD, SUB], [ADD, SUB], True, "Approved", "All 2 tools"),
        (None, [ADD], [ADD | {"description": "x"}, SUB], False, "Quarantined", "add (changed), sub (new) are neither"),
        ("warn", [ADD], [ADD, SUB], False, "Changed", "sub (new) differ"),
        ("enforce", [], [ADD], False, "Quarantined", "qd tools diff s -n ns"),
        ("bogus", [], [ADD], False, "Quarantined", "add (new)"),
        ("off", [ADD], [SUB, ODD], None, "SuspiciousDefinitions", "odd: description: zero-width"),
        (None, [ODD], [ODD], True, "Approved", "look at odd"),
    ],
)
def test_the_condition(
    pin: str | None, approved: list[Any], tools: list[Any], status: bool | None, reason: str, says: str
) -> None:
    found = verdicts(server(pin), {tool["name"]: digest(tool) for tool in approved}, tools)
    assert [(v.type, v.status, v.reason) for v in found] == [(TYPE, status, reason)]
    assert says in found[0].message


def test_nothing_is_said_of_servers_that_nobody_pins() -> None:
    assert verdicts(server(), {}, [ADD]) == []
    assert [v.reason for v in verdicts(server(None, {"type": TYPE}), {}, [ADD])] == ["NotPinned"]


@pytest.mark.parametrize(("pin", "mode"), [(None, ""), ("", ""), ("off", "off"), ("warn", "warn"), ("Off", "enforce")])
def test_a_mode_that_is_misspelt_is_the_strictest(pin: str | None, mode: str) -> None:
    assert pin_mode(server(pin)) == mode
