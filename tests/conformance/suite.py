"""The official conformance suite (npm), run against a URL."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / ".cache" / "node" / "node_modules"
NODE = MODULES / ".bin" / "node"
"""Node 22 from npm: the suite does not start on Node 20."""
SUITE = MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
EXTENSION = "tasks-"
"""Scenarios of an extension that neither SDK implements; the suite reports and never scores them."""


@dataclass(slots=True)
class Result:
    """Checks of a run by scenario; ``failed`` holds ``scenario: check: message``."""

    scenarios: dict[str, int] = field(default_factory=dict[str, int])
    failed: list[str] = field(default_factory=list[str])

    @property
    def checks(self) -> int:
        return sum(self.scenarios.values())


async def run(url: str, directory: Path, revision: str) -> Result:
    """All scenarios of a revision. Those that fail run once more: the suite waits briefly, the machine may be busy."""
    result = await _run(url, directory / "all", "--requirements", revision)
    again = sorted({failure.partition(": ")[0] for failure in result.failed})
    result.failed = []
    for name in again:
        once = await _run(url, directory / name, "--scenario", name, "--spec-version", revision)
        result.failed += once.failed
    return result


async def _run(url: str, directory: Path, *arguments: str, timeout: float = 120) -> Result:
    """Run ``conformance server``; what each check said is read from the files it writes."""
    process = await asyncio.create_subprocess_exec(
        NODE, SUITE, "server", "--url", url, "-o", directory, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout)
    finally:
        if process.returncode is None:
            process.kill()
    result = Result()
    for file in sorted(directory.rglob("checks.json")):
        scenario = json.loads(file.read_text())
        name = re.sub(r"-\d{4}-\d\d-\d\dT.*", "", file.parent.name.removeprefix("server-"))
        if name.startswith(EXTENSION):
            continue
        for check in scenario:
            if check["status"] in ("SUCCESS", "FAILURE", "WARNING"):
                result.scenarios[name] = result.scenarios.get(name, 0) + 1
            if check["status"] in ("FAILURE", "WARNING"):
                result.failed.append(f"{name}: {check['id']}: {check.get('errorMessage')}")
    assert result.scenarios, output.decode(errors="replace")[-2000:]
    return result
