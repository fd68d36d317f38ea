"""An API server alone, ours or the real one, for tests of what both must do the same way."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.kube.client import ClientConfig, KubeClient

from .plane import available, running

COMMANDS, WHY = available()
NEEDS_REAL = pytest.mark.skipif(COMMANDS is None, reason=f"kube-apiserver: {WHY}")
BOTH = (pytest.param("embedded"), pytest.param("real", marks=NEEDS_REAL))
_BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class ServedApi:
    """One server, its administrator's client, and kubectl set up for it."""

    kind: str
    client: KubeClient
    kubeconfig: Path

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Output of a kubectl that succeeds; AssertionError with what it said when it does not."""
        return await command(str(_BIN / "kubectl"), *arguments, kubeconfig=self.kubeconfig, stdin=stdin)


async def command(*words: str, kubeconfig: Path, stdin: str = "") -> str:
    """Run a client without holding up this event loop, in which a server may run."""
    process = await asyncio.create_subprocess_exec(
        words[0], *words[1:], stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={"KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent)},
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode == 0, f"{' '.join(words)}: {err.decode()}{out.decode()}"
    return out.decode()


@contextlib.asynccontextmanager
async def serving(kind: str, folder: Path) -> AsyncGenerator[ServedApi]:
    """``kind`` is embedded or real; ``folder`` is for files of this server."""
    if kind == "embedded":
        server = ApiServer(ApiServerConfig(folder / "server", port=0))
        await server.start()
        try:
            async with _client(kind, server.client_config(), folder) as api:
                yield api
        finally:
            await server.stop()
        return
    assert COMMANDS is not None
    peer = running(COMMANDS)
    real = await asyncio.to_thread(peer.__enter__)
    try:
        async with _client(kind, dict(real.config), folder) as api:
            yield api
    finally:
        await asyncio.to_thread(peer.__exit__, None, None, None)


@contextlib.asynccontextmanager
async def _client(kind: str, config: dict[str, Any], folder: Path) -> AsyncGenerator[ServedApi]:
    authority = base64.b64encode(Path(config["ca_file"]).read_bytes()).decode()
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": config["base_url"], "certificate-authority-data": authority}}],
        "users": [{"name": "test", "user": {"token": config["token"]}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    async with KubeClient(ClientConfig(**config)) as client:
        yield ServedApi(kind, client, path)
