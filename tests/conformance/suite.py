"""The official conformance suite (npm), run against a server's URL or a client."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / ".cache" / "node" / "node_modules"
NODE = MODULES / ".bin" / "node"
"""Node 22 from npm: the suite does not start on Node 20."""
SUITE = MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
EXTENSION = "tasks-"
"""Scenarios of an extension that neither SDK implements; the suite reports and never scores them."""


@dataclass(slots=True)
class Result:
    """Checks of a run by scenario, and how many of them passed; ``failed`` holds ``scenario: check: message``."""

    scenarios: dict[str, int] = field(default_factory=dict[str, int])
    passed: dict[str, int] = field(default_factory=dict[str, int])
    failed: list[str] = field(default_factory=list[str])

    @property
    def checks(self) -> int:
        return sum(self.scenarios.values())

    def add(self, name: str, checks: list[dict[str, Any]]) -> None:
        """What the suite has written of one scenario."""
        counted = [check for check in checks if check["status"] in ("SUCCESS", "FAILURE", "WARNING")]
        bad = [check for check in counted if check["status"] != "SUCCESS"]
        if counted:
            self.scenarios[name] = self.scenarios.get(name, 0) + len(counted)
        self.passed[name] = self.passed.get(name, 0) + len(counted) - len(bad)
        self.failed += [f"{name}: {c['id']}: {c.get('errorMessage') or c.get('description')}" for c in bad]


async def run_server(url: str, directory: Path, revision: str) -> Result:
    """All server scenarios of a revision against a URL. Those that fail run once more: the suite waits briefly, the
    machine may be busy."""
    command = ("server", "--url", url)
    result = await run(directory / "all", *command, "--requirements", revision, timeout=120)
    again = sorted({failure.partition(": ")[0] for failure in result.failed})
    result.failed = []
    for name in again:
        once = await run(directory / name, *command, "--scenario", name, "--spec-version", revision, timeout=120)
        result.failed += once.failed
    return result


async def run(directory: Path, *arguments: str, timeout: float) -> Result:
    """Run the suite once; what each check said is read from the files that it writes into ``directory``."""
    process = await asyncio.create_subprocess_exec(
        NODE, SUITE, *arguments, "-o", directory,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout)
    finally:
        if process.returncode is None:
            process.kill()
    result = Result()
    for file in sorted(directory.rglob("checks.json")):
        name = re.sub(r"-\d{4}-\d\d-\d\dT.*", "", str(file.parent.relative_to(directory))).removeprefix("server-")
        if not name.startswith(EXTENSION):
            result.add(name, json.loads(file.read_text()))
    assert result.scenarios, output.decode(errors="replace")[-2000:]
    return result
