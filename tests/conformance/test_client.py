"""The conformance suite's client scenarios, on the gateway's own upstream client and its OAuth client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from . import suite

SCORED = {"2025-11-25": 18, "2026-07-28": 32}
"""Scenarios that count, per revision."""
UNSCORED = {
    "auth/client-credentials-basic",
    "auth/client-credentials-jwt",
    "auth/enterprise-managed-authorization",
    "json-schema-2020-12-preservation",
}
"""Extensions and later scenarios that pass, too; for DPoP and workload identity there is no SDK that passes."""
NOT_THERE = {"auth/dpop", "auth/dpop-nonce", "auth/wif-jwt-bearer"}


@dataclass(slots=True)
class Result:
    """Checks that passed by scenario; ``failed`` holds ``scenario: check: message``."""

    passed: dict[str, int] = field(default_factory=dict[str, int])
    failed: list[str] = field(default_factory=list[str])


async def run(directory: Path, *arguments: str, timeout: float) -> Result:
    """Run ``conformance client``; what each check said is read from the files it writes."""
    command = f"{sys.executable} -m tests.conformance.client_under_test"
    process = await asyncio.create_subprocess_exec(
        suite.NODE, suite.SUITE, "client", "--command", command, "-o", directory, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=suite.ROOT, env=os.environ | {"PYTHONPATH": str(suite.ROOT)},
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout)
    finally:
        if process.returncode is None:
            process.kill()
    result = Result()
    for file in sorted(directory.rglob("checks.json")):
        name = re.sub(r"-\d{4}-\d\d-\d\dT.*", "", str(file.parent.relative_to(directory)))
        checks = json.loads(file.read_text())
        result.passed[name] = sum(check["status"] == "SUCCESS" for check in checks)
        result.failed += [
            f"{name}: {check['id']}: {check.get('errorMessage') or check['description']}"
            for check in checks
            if check["status"] in ("FAILURE", "WARNING")
        ]
    assert result.passed, output.decode(errors="replace")[-2000:]
    return result


@pytest.mark.timeout(180)
@pytest.mark.parametrize("revision", [pytest.param("2025-11-25", marks=pytest.mark.slow), "2026-07-28"])
async def test_every_client_scenario_passes(revision: str, tmp_path: Path) -> None:
    result = await run(tmp_path / "all", "--requirements", revision, timeout=150)
    again = {text.partition(": ")[0] for text in result.failed} - NOT_THERE
    failed: list[str] = []
    for name in sorted(again):  # the suite waits briefly, the machine may be busy
        once = await run(tmp_path / "again", "--scenario", name, "--spec-version", revision, timeout=60)
        failed += once.failed
    assert "\n".join(failed) == ""
    assert all(result.passed.values())
    assert result.passed.keys() >= UNSCORED
    assert len(result.passed.keys() - UNSCORED - NOT_THERE) == SCORED[revision]
