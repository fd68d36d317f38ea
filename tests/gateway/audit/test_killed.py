"""A gateway that is killed in the middle of its work: every answer that went out has its record."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import msgspec

from quarterdeck import snapshot as s
from quarterdeck.errors import UpstreamError
from quarterdeck.telemetry.audit import verify
from quarterdeck.telemetry.audit.sinks import last_hash
from quarterdeck.wire.client import Pool

from ..conftest import snapshot

CALLS = 150
BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"nope","arguments":{}}}'


async def test_no_answer_without_its_record(tmp_path: Path) -> None:
    config = tmp_path / "snapshot.json"
    config.write_bytes(s.encode(snapshot(9)))
    endpoints = tmp_path / "endpoints.json"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "quarterdeck.gateway", f"--config={config}", "--local=127.0.0.1:0", "--workloads=off",
            "--stats=off", "--ready=off", "--admin=off", f"--data-dir={tmp_path}", f"--endpoints-file={endpoints}",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while not endpoints.exists():
                await asyncio.sleep(0.05)
        port = int(msgspec.json.decode(endpoints.read_bytes())["local"].rpartition(":")[2])
        answered: set[str] = set()
        pool = Pool()

        async def caller(number: int) -> None:
            for call in range(CALLS):
                trace = f"{number:016x}{call:016x}"
                headers = [
                    (b"content-type", b"application/json"),
                    (b"traceparent", f"00-{trace}-{'b' * 16}-00".encode()),
                ]
                response = await pool.request("POST", ("127.0.0.1", port, False), "/mcp/kagent/peer", headers, BODY)
                await response.read()
                answered.add(trace)
                if len(answered) == 4 * CALLS:
                    process.kill()

        with contextlib.suppress(UpstreamError):
            await asyncio.gather(*(caller(number) for number in range(1, 9)))
        pool.close()
    finally:
        process.kill()
        process.wait()
    audit = tmp_path / "audit.jsonl"
    last_hash(audit)  # as the next start does: a line that was being written is cut off
    recorded = {msgspec.json.decode(line)["traceId"] for line in audit.read_bytes().splitlines()}
    assert len(answered) >= 4 * CALLS and answered <= recorded
    assert verify(audit).ok
