"""``qd gateway -f`` as a process: SIGHUP, and its end by force."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quarterdeck.wire.client import Pool

QD = Path(sys.executable).with_name("qd")
TINY = str(Path(__file__).with_name("tiny_server.py"))


def text(body: str) -> str:
    return f"""
binds:
- port: 0
  listeners:
  - routes:
    - {{matches: [{{path: {{exact: /}}}}], policies: {{directResponse: {{status: 200, body: {body}}}}}}}
    - backends: [{{mcp: {{targets: [{{name: tiny, stdio: {{cmd: {sys.executable}, args: [{TINY}]}}}}]}}}}]
"""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name: below longer ones the children's are elsewhere."""
    with tempfile.TemporaryDirectory(prefix="qd-") as folder:
        yield Path(folder)


def bridges(directory: Path) -> list[int]:
    """Processes whose command line names a file below ``directory``."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"quarterdeck.bridge" in words and any(os.fsencode(directory) in word for word in words):
                found.append(int(entry.name))
    return found


async def test_sighup_reloads_and_children_end_with_a_killed_gateway(tmp_path: Path, short: Path) -> None:
    file, endpoints, data = tmp_path / "c.yaml", tmp_path / "e.json", short
    file.write_text(text("one"))
    flags = [f"--{name}=127.0.0.1:0" for name in ("admin", "stats", "ready")]
    process = subprocess.Popen(
        [QD, "gateway", "-f", file, "--data-dir", data, "--endpoints-file", endpoints, *flags],
        stderr=subprocess.DEVNULL, env={**os.environ, "QUARTERDECK_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    pool = Pool()
    try:
        await until(endpoints.exists)
        port = int(json.loads(endpoints.read_bytes())["bind/0/listener0"].rpartition(":")[2])

        async def body() -> bytes:
            return await (await pool.request("GET", ("127.0.0.1", port, False), "/", [], b"")).read()

        assert await body() == b"one"
        file.write_text(text("two"))
        process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(30):
            while await body() != b"two":
                await asyncio.sleep(0.02)
        await until(lambda: bool(bridges(data)))
        process.kill()
        await until(lambda: not bridges(data))
    finally:
        pool.close()
        process.kill()
        process.wait()
