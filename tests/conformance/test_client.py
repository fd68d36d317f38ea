"""The conformance suite's client scenarios, on the gateway's own upstream client and its OAuth client."""

from __future__ import annotations

import sys
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


CLIENT = ("client", "--command", f"{sys.executable} -m tests.conformance.client_under_test")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("revision", [pytest.param("2025-11-25", marks=pytest.mark.slow), "2026-07-28"])
async def test_every_client_scenario_passes(revision: str, tmp_path: Path) -> None:
    result = await suite.run(tmp_path / "all", *CLIENT, "--requirements", revision, timeout=150)
    again = {text.partition(": ")[0] for text in result.failed} - NOT_THERE
    failed: list[str] = []
    for name in sorted(again):  # the suite waits briefly, the machine may be busy
        named = ("--scenario", name, "--spec-version", revision)
        once = await suite.run(tmp_path / "again" / name, *CLIENT, *named, timeout=60)
        failed += once.failed
    assert "\n".join(failed) == ""
    assert all(result.passed.values())
    assert result.passed.keys() >= UNSCORED
    assert len(result.passed.keys() - UNSCORED - NOT_THERE) == SCORED[revision]
