"""The policy cookbook of docs/gateway.md: every recipe is loaded as it stands and does what its table says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .cookbook import Kitchen

DOCS = Path(__file__).parents[3] / "docs/gateway.md"
USES = (
    "Tools by user and group", "The token lists its tools", "Keys of teams", "So many calls for each user",
    "One expensive tool", "So many requests at a time", "A server that fails", "Repeat what may be repeated",
    "A web page as client", "Client certificates", "An authorizer of your own", "Headers made of claims", "A canary",
    "A share of the sessions", "A choice of tools as one server",
    "Approved tools only", "Records to a collector", "Lock somebody out",
    "More scopes for some tools, asked for when they are called", "A token for the backend",
)  # fmt: skip
"""What people come for: these recipes stay."""


@dataclass(frozen=True)
class Recipe:
    title: str
    text: str
    rows: list[tuple[str, str, str]]


def recipes() -> list[Recipe]:
    text = DOCS.read_text().partition("## Policy cookbook")[2].partition("\n## ")[0]
    found: list[Recipe] = []
    for part in text.split("\n### ")[1:]:
        code = re.search(r"```yaml\n(.*?)```", part, re.S)
        if code is None:
            continue
        rows = [
            tuple(c.strip() for c in line.strip("|").split("|")) for line in part.splitlines() if line.startswith("| ")
        ]
        found.append(Recipe(part.splitlines()[0], code.group(1), rows[1:]))  # type: ignore[arg-type]
    return found


RECIPES = recipes()


@pytest.fixture
async def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kitchen]:
    monkeypatch.chdir(tmp_path)
    made = Kitchen(tmp_path)
    yield made
    await made.stop()


def test_there_is_a_cookbook() -> None:
    assert all(recipe.rows for recipe in RECIPES)
    assert set(USES) - {recipe.title for recipe in RECIPES} == set()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.title)
async def test_recipe(kitchen: Kitchen, recipe: Recipe) -> None:
    await kitchen.serve(recipe.text)
    for caller, does, expected in recipe.rows:
        if not caller.startswith("-"):
            assert await kitchen.does(caller, does) == expected, (caller, does)
