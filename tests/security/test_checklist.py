"""The checklist is complete: every line of it has a test here, or a reason why it has none."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from .checklist import LINES

FOLDER = Path(__file__).parent
NAME = re.compile(r"test_s(\d\d)_\w+")


def by_line() -> dict[int, list[str]]:
    """Line → its tests."""
    found: dict[int, list[str]] = {}
    for path in FOLDER.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            match = NAME.fullmatch(getattr(node, "name", ""))
            if match is not None:
                found.setdefault(int(match[1]), []).append(match[0])
    return found


def test_the_checklist_has_all_lines() -> None:
    assert list(LINES) == list(range(1, 30))


@pytest.mark.parametrize("number", LINES)
def test_a_line_is_tested_or_is_not_the_gateways(number: int) -> None:
    line = LINES[number]
    if line.duty:
        assert by_line().get(number), f"line {number}, {line.threat}: no test_s{number:02}_… in {FOLDER}"
    else:
        assert line.elsewhere and number not in by_line()


def test_no_test_is_of_a_line_that_is_not_there() -> None:
    assert by_line().keys() <= LINES.keys()
