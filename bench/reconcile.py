"""1,000 Agents through the controllers: CPU of the controllers' process, and writes of a second pass.

API server and controllers run in processes of their own, without a node: nothing becomes Ready, everything is written.
The second pass is a restart of the controllers: every object is reconciled again and nothing must be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

from quarterdeck.controllers import bootstrap
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.resources.crd import crds

from .api_server import agent
from .measure import ROOT, Row, child, cpu, rss


@contextlib.asynccontextmanager
async def controllers(config: dict[str, Any], **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The controllers' process; ``env`` as bench/controllers_process.py says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.controllers_process", stdout=subprocess.PIPE, cwd=ROOT, stderr=subprocess.DEVNULL,
        env={**os.environ, "BENCH_CLIENT": json.dumps(config), **env},
    )  # fmt: skip
    try:
        await line(process)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def line(process: asyncio.subprocess.Process) -> str:
    """What it prints next. Raises RuntimeError when it has ended."""
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode().strip()
    if not line:
        raise RuntimeError(f"the controllers ended with {await process.wait()}")
    return line


async def settled(process: asyncio.subprocess.Process, at_least: int, limit: float) -> dict[str, Any]:
    """The state once ``at_least`` reconciles were made and nothing has changed for three seconds."""
    deadline = time.monotonic() + limit
    quiet, last = 0, {}
    while quiet < 3:
        state: dict[str, Any] = json.loads(await line(process))
        same = state["reconciles"] == last.get("reconciles") and state["idle"] and state["reconciles"] >= at_least
        quiet = quiet + 1 if same else 0
        last = state
        if time.monotonic() > deadline:
            raise RuntimeError(f"the controllers did not settle within {limit:g} s: {state}")
    return last


async def _prepare(client: KubeClient) -> None:
    for document in await asyncio.to_thread(crds):
        await client.create(k.CRD, document)
    for namespace in bootstrap.namespaces():
        await client.apply(k.NAMESPACE, namespace)
    await client.create(k.MODEL_CONFIG, bootstrap.default_model_config(bootstrap.scripted_model()))
    server = {
        "apiVersion": "kagent.dev/v1alpha1", "kind": "MCPServer", "metadata": {"name": "tools", "namespace": "kagent"},
        "spec": {"transportType": "stdio", "deployment": {"cmd": "uvx", "args": ["mcp-server-time"], "port": 3000}},
    }  # fmt: skip
    await client.create(k.MCP_SERVER, server)


async def bench(quick: bool) -> list[Row]:
    """Both passes."""
    count = 200 if quick else 1_000
    with tempfile.TemporaryDirectory(prefix="qd-bench-") as folder, child("bench.api_process", folder) as (api, line):
        config: dict[str, str] = json.loads(line)
        client = KubeClient(ClientConfig(**config))
        try:
            await _prepare(client)
            async with controllers(config) as process:
                await settled(process, 1, 60.0)
                before, api_before, start = cpu(process.pid), cpu(api), time.monotonic()
                for number in range(count):
                    await client.create(k.AGENT, agent(number, "kagent"))
                first = await settled(process, count, 300.0)
                elapsed = time.monotonic() - start - 3.0
                used, api_used, memory = cpu(process.pid) - before, cpu(api) - api_before, rss(process.pid)
            deployments = len((await client.list(k.DEPLOYMENT, "kagent")).items)
            if deployments < count:
                raise RuntimeError(f"{deployments} Deployments for {count} Agents: not everything was reconciled")
            async with controllers(config) as process:
                second = await settled(process, count, 300.0)
                again = cpu(process.pid)
        finally:
            await client.close()
    per = (
        f"{used / count * 1e3:.1f} ms each, {first['reconciles']} reconciles, {first['writes']} writes, {elapsed:.0f} s"
    )
    what = f"reconcile of {count:,} Agents: CPU of the controllers"
    return [
        Row(what, used, "s", 60.0 * count / 1_000, per),
        Row("the same: CPU of the API server", api_used, "s", None, f"{first['errors']} errors"),
        Row(
            f"second pass over {count:,} Agents: writes", second["writes"], "", 0.0, f"{again:.1f} s CPU with start-up"
        ),
        Row(f"memory of the controllers with {count:,} Agents", memory, "MB"),
    ]
