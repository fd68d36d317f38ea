"""The way through a proxy: ssh's, and what git says of one that refuses."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.errors import UpstreamError
from quarterdeck.skills import git
from quarterdeck.skills.sources import GitSource
from quarterdeck.skills.unpack import Target


class Proxy:
    """CONNECT to anything, or to nothing. ``asked`` are the targets."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuse = False
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split()[1].decode()
        self.asked.append(target)
        if self.refuse:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            writer.write((await reader.read(100)).upper())
        await writer.drain()
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    found = Proxy()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield found
    server.close()


async def tunnel(proxy: Proxy, said: bytes) -> tuple[int | None, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "quarterdeck.skills.tunnel", proxy.url, "git.example.com", "22",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, problem = await process.communicate(said)
    return process.returncode, out, problem


async def test_bytes_go_both_ways(proxy: Proxy) -> None:
    assert await tunnel(proxy, b"SSH-2.0-hello") == (0, b"SSH-2.0-HELLO", b"")
    assert proxy.asked == ["git.example.com:22"]


async def test_a_proxy_that_refuses(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.refuse = True
    code, out, problem = await tunnel(proxy, b"")
    assert (code, out) == (1, b"")
    assert b"403 Forbidden" in problem
    if shutil.which("git") is None:
        pytest.skip("no git")
    monkeypatch.setenv("https_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    (tmp_path / "work").mkdir()
    with pytest.raises(UpstreamError, match="the Pod's way out refused it: public addresses only"):
        source = GitSource("https://git.example.com/a.git")
        await git.fetch(source, Target(tmp_path / "out", "src"), tmp_path / "none", tmp_path / "work")
    assert proxy.asked[-1] == "git.example.com:443"
