"""The examples of docs/agents.md, "Talking to an agent", run as they are printed."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from fixtures.tck_agent.serving import gateway_in_front, serving

PAGE = Path(__file__).parents[2] / "docs" / "agents.md"
SECTION = PAGE.read_text().partition("## Talking to an agent\n")[2].partition("\n## ")[0]
EXAMPLES = re.findall(r"```(bash|python) run\n(.*?)```", SECTION, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_example(number: int, tmp_path: Path) -> None:
    language, text = EXAMPLES[number]
    async with serving(tmp_path, delay=0.05) as served, gateway_in_front(tmp_path, served) as front:
        command = ["bash", "-ec", f"set -o pipefail\n{text}"] if language == "bash" else [sys.executable, "-c", text]
        environment = os.environ | {"AGENT": front.url, "NO_PROXY": "*"}
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, (text, out.decode(), err.decode())
        assert out, text
