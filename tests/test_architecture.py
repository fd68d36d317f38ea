"""Rules of the house that no linter checks: file sizes, what the data path may load, one list of exits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
CEILING = 600


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src" / "quarterdeck")))
def test_no_module_is_longer_than_the_ceiling(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= CEILING, f"{path} has {lines} lines; split it along its nouns"


def test_the_median_module_is_short() -> None:
    sizes = sorted(len(p.read_text().splitlines()) for p in SOURCES if p.name != "__init__.py")
    assert sizes[len(sizes) // 2] < 200


def test_role_mains_stay_short() -> None:
    for path in SOURCES:
        if path.name == "__main__.py":
            assert len(path.read_text().splitlines()) <= 100, path


@pytest.mark.parametrize("package", ["quarterdeck.gateway.__main__", "quarterdeck.bridge.__main__"])
def test_the_data_path_loads_no_framework(package: str) -> None:
    """Import in a fresh interpreter and look at what came along."""
    code = (
        f"import sys, {package}\n"
        "heavy = {'sqlalchemy', 'pydantic', 'lightkube', 'langgraph', 'fastapi', 'starlette', 'aiohttp', 'mcp'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
