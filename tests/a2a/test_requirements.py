"""One test per row of requirements.yaml and binding; what HTTP carries directly and through the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import a2a_checks_bindings  # noqa: F401  # registers its checks
import pytest
import yaml
from a2a_checks import CHECKS, WORLDS, Peer

ROWS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "requirements.yaml").read_text())
BINDINGS = {"jsonrpc", "http_json", "grpc", "card", "push", "gateway"}
CARRIED = ("jsonrpc", "http_json", "card")


def cases() -> list[Any]:
    found: list[Any] = []
    for row in ROWS:
        for binding in row["bindings"]:
            if binding != "gateway":
                found.append(pytest.param(row["id"], binding, False, id=f"{row['id']}-{binding}"))
            if binding in CARRIED or binding == "gateway":
                found.append(pytest.param(row["id"], binding, True, id=f"{row['id']}-{binding}-through-gateway"))
    return found


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("ident", "binding", "via_gateway"), cases())
async def test_requirement(ident: str, binding: str, via_gateway: bool, worlds: Any) -> None:
    check = CHECKS[ident]
    world = await worlds.get(check.world, WORLDS.get(check.world, {}), via_gateway)
    driver = world.drivers.get(binding, world.drivers["jsonrpc"])
    await check.run(Peer(world, driver, token=world.token))


def test_every_row_has_a_check_and_every_check_a_row() -> None:
    ids = [row["id"] for row in ROWS]
    assert len(ids) == len(set(ids))
    assert set(ids) == set(CHECKS)
    for row in ROWS:
        assert row["section"] and row["text"] and row["bindings"] and set(row["bindings"]) <= BINDINGS, row
