"""docs/migrate-agentgateway.md: every row has a test, and every test of a difference has its row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PAGE = ROOT / "docs" / "migrate-agentgateway.md"
ABOUT_TELLING = {
    "test_refused_fields_tell_the_generation_too",
    "test_a_told_generation_is_no_warning",
    "test_fields_of_both_generations_in_one_file_are_told_apart",
}
"""Tests of test_generations.py about how a generation is told, not about what differs."""


def rows() -> list[tuple[str, list[str]]]:
    """What each row is about, and the tests that it names."""
    found: list[tuple[str, list[str]]] = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[0] != "what":
            found.append((cells[0], re.findall(r"`([^`]+)`", cells[-1])))
    return found


def defined_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_names_tests_that_exist() -> None:
    assert len(rows()) > 35
    for what, named in rows():
        assert named, what
        for name in named:
            path, _, test = name.partition("::")
            file = (ROOT if path.startswith("tests/") else HERE) / path
            assert file.is_file() and test in defined_in(file), (what, name)


def test_no_difference_is_left_out() -> None:
    named = {name.partition("::")[2] for _, tests in rows() for name in tests}
    assert defined_in(HERE / "test_generations.py") - named - ABOUT_TELLING == set()


def test_rows_are_told_once() -> None:
    told = [what for what, _ in rows()]
    assert sorted(set(told)) == sorted(told)
