"""``qd gateway breakers`` against a gateway that runs."""

from __future__ import annotations

import asyncio
import json

import pytest
import typer
from typer.testing import CliRunner, Result

from quarterdeck.cli import breakers
from quarterdeck.errors import ConfigError, NotFound, UsageError
from quarterdeck.snapshot.policies import Breaker

from ..conftest import Rig


async def run(rig: Rig, *arguments: str) -> Result:
    app = typer.Typer()
    breakers.register(app)
    command = ["--admin", rig.gateway.endpoints["admin"], *arguments]
    return await asyncio.to_thread(CliRunner().invoke, app, command)


async def test_breakers_are_shown_and_closed(bare: Rig) -> None:
    kept = bare.gateway.limits.breakers
    assert (await run(bare)).output == "no circuit breaker is open or counts failures\n"
    for tool in ("read", "read", "read", "a/b", "other"):
        kept.report("team/files", tool, "failed", Breaker())
    table = (await run(bare)).output.splitlines()
    assert table[0].split() == ["SERVER", "TOOL", "STATE", "FAILURES", "OPENED", "SINCE", "RETRY", "IN"]
    assert table[3].split()[:5] == ["team/files", "read", "open", "3", "1"]
    found = json.loads((await run(bare, "-o", "json")).output)
    assert [view["tool"] for view in found] == ["a/b", "other", "read"]
    assert (await run(bare, "--reset", "team/files/a/b")).output == "1 circuit breaker(s) of team/files/a/b closed\n"
    assert "2 circuit breaker(s)" in (await run(bare, "--reset", "team/files")).output
    assert not kept.active
    assert isinstance((await run(bare, "--reset", "team/files")).exception, NotFound)


@pytest.mark.parametrize(
    "arguments", [("--reset", "files"), ("--reset", "a//b"), ("-o", "xml"), ("--admin", "https://x")]
)
async def test_what_makes_no_sense_is_said(bare: Rig, arguments: tuple[str, ...]) -> None:
    assert isinstance((await run(bare, *arguments)).exception, UsageError)


async def test_no_gateway_there(bare: Rig) -> None:
    result = await run(bare, "--admin", "http://127.0.0.1:1")
    assert isinstance(result.exception, ConfigError) and "--admin" in str(result.exception)
