"""The policy cookbook of docs/gateway.md: every recipe is loaded as it stands and does what its table says."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from quarterdeck import snapshot as s
from quarterdeck.gateway.config.standalone import FileOptions, load

from ..conftest import Rig
from .rig import KEY, jwks, token

DOCS = Path(__file__).parents[3] / "docs/gateway.md"
FOREVER = 4_000_000_000


@dataclass(frozen=True)
class Recipe:
    title: str
    policies: Any
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
        found.append(Recipe(part.splitlines()[0], yaml.safe_load(code.group(1)), rows[1:]))  # type: ignore[arg-type]
    return found


RECIPES = recipes()


def snapshot(recipe: Recipe, port: int, directory: Path) -> s.Snapshot:
    """The recipe's policies on a route in front of the demo server, through the loader of files."""
    (directory / "jwks.json").write_bytes(msgspec.json.encode(jwks(KEY)))
    config = {
        "binds": [
            {
                "port": 3000,
                "listeners": [
                    {
                        "name": "web",
                        "routes": [
                            {
                                "matches": [{"path": {"pathPrefix": "/mcp"}}],
                                "policies": recipe.policies,
                                "backends": [
                                    {
                                        "mcp": {
                                            "targets": [
                                                {"name": "demo", "mcp": {"host": f"http://127.0.0.1:{port}/mcp"}}
                                            ]
                                        }
                                    }
                                ],
                            }
                        ],
                    }
                ],
            }
        ]
    }
    loaded = load(FileOptions(inline=yaml.safe_dump(config), compat="now"), {}, directory).snapshot
    listeners = tuple(
        msgspec.structs.replace(each, name="web", port=0, address="127.0.0.1") for each in loaded.listeners
    )
    return msgspec.structs.replace(loaded, version="v1", listeners=listeners)


def headers_of(caller: str) -> dict[str, str]:
    kind, *rest = caller.split()
    headers = {"accept": "application/json, text/event-stream"}
    if kind == "nobody":
        return headers
    if kind == "key":
        return {**headers, "x-api-key": rest[0]}
    if kind == "password":
        return {**headers, "authorization": "Basic " + base64.b64encode(rest[0].encode()).decode()}
    if kind == "page":
        return {**headers, "origin": rest[0], "access-control-request-method": "POST"}
    claims: dict[str, Any] = dict(pair.split("=") for pair in rest)
    if "groups" in claims:
        claims["groups"] = claims["groups"].split("+")
    if "scope" in claims:
        claims["scope"] = claims["scope"].replace("+", " ")
    return {**headers, "authorization": f"Bearer {token(sub=kind, exp=FOREVER, **claims)}"}


async def answer(rig: Rig, caller: str, does: str) -> str:
    headers = headers_of(caller)
    verb, *rest = does.split()
    if verb not in ("lists", "calls"):
        body = {"jsonrpc": "2.0", "id": 1, "method": "ping"} if verb == "POST" else None
        response = await rig.request(rest[0], body, method=verb, listener="web", headers=headers)
        await response.read()
        return str(response.status)
    headers["mcp-session-id"] = await rig.initialize("/mcp", listener="web", headers=headers)
    if verb == "lists":
        told = await rig.rpc("/mcp", "tools/list", listener="web", headers=headers)
        return ", ".join(sorted(tool["name"] for tool in told["result"]["tools"]))
    arguments = {"a": 1, "b": 2} if rest[0] == "add" else {"text": "x"}
    params = {"name": rest[0], "arguments": arguments}
    told = await rig.rpc("/mcp", "tools/call", params, listener="web", headers=headers)
    if "error" not in told:
        return "result"
    if told["error"]["code"] == 403:
        return "403"
    assert told["error"] == {"code": -32602, "message": f"Unknown tool: {rest[0]}"}
    return "unknown tool"


def test_there_is_a_cookbook() -> None:
    assert len(RECIPES) >= 7 and all(recipe.rows for recipe in RECIPES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.title)
async def test_recipe(bare: Rig, peer: int, tmp_path: Path, recipe: Recipe) -> None:
    bare.gateway.use(snapshot(recipe, peer, tmp_path))
    await bare.gateway.listeners.settled()
    for caller, does, expected in recipe.rows:
        if caller.startswith("-"):
            continue
        assert await answer(bare, caller, does) == expected, (caller, does)
