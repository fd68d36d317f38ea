"""The official SDK's clients of 0.3 talk to the agent of today, directly and through the gateway."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from fixtures.tck_agent.serving import gateway_in_front, pod_token, serving

CLIENT = Path(__file__).parent / "peers" / "client_03.py"
UV = (
    str(Path(sys.executable).with_name("uv")),
    "run",
    "--isolated",
    "--no-project",
    "--with",
    "a2a-sdk[http-server]==0.3.26",
    "python",
    str(CLIENT),
)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_the_client_of_0_3(binding: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as served, gateway_in_front(tmp_path, served) as front:
        for url, token in ((served.url, "alice"), (front.workloads, pod_token("pod-a"))):
            process = await asyncio.create_subprocess_exec(
                *UV, url, binding, token, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            assert json.loads(out) == {
                "streamed": ["chunk-1 ", "chunk-2"],
                "got": "completed",
                "waits": "input-required",
                "hook": "https://client.example.com/x",
                "resubscribed": 1,
                "went_on": "completed",
                "reply": "Direct message response",
            }
