"""The rehearsal of docs/operate.md: its commands back up one cluster, conversations too, and restore it in another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import sqlite3
import textwrap
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import yaml
from sqlalchemy import DDL
from sqlalchemy.ext.asyncio import create_async_engine

from quarterdeck import errors
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.conditions import get_condition
from quarterdeck.resources.crd import crds, gateway_crds
from quarterdeck.server.operator import Operator
from quarterdeck.server.operator_options import parse
from support import postgresql

from .plane import Plane, available, plane
from .servers import command

COMMANDS, WHY = available()
pytestmark = [
    pytest.mark.skipif(COMMANDS is None, reason=f"kube-apiserver: {WHY}"),
    pytest.mark.skipif(shutil.which("jq") is None, reason="the documented commands need jq"),
    pytest.mark.timeout(300),
]
DOCUMENT = Path(__file__).parents[2] / "docs" / "operate.md"
SYSTEM, TEAM = "quarterdeck-system", "team-a"
OBJECTS = """
{kind: Secret, apiVersion: v1, metadata: {name: key}, stringData: {KEY: s3cr3t}}
---
{kind: ConfigMap, apiVersion: v1, metadata: {name: prompt}, data: {text: Be brief.}}
---
{kind: ModelConfig, apiVersion: kagent.dev/v1alpha2, metadata: {name: m},
 spec: {provider: OpenAI, model: x, apiKeySecret: key, apiKeySecretKey: KEY}}
---
{kind: MCPServer, apiVersion: kagent.dev/v1alpha1, metadata: {name: clock},
 spec: {transportType: stdio, deployment: {cmd: uvx, args: [mcp-server-time], secretRefs: [{name: key}]}}}
---
{kind: Agent, apiVersion: kagent.dev/v1alpha2, metadata: {name: keeper}, spec: {type: Declarative, description: d,
 declarative: {modelConfig: m, systemMessageFrom: {type: ConfigMap, name: prompt, key: text},
  tools: [{type: McpServer, mcpServer: {kind: MCPServer, name: clock, toolNames: [get_current_time]}}]}}}
---
{kind: VirtualServer, apiVersion: quarterdeck.dev/v1alpha1, metadata: {name: menu},
 spec: {servers: [{ref: {kind: MCPServer, name: clock}}]}}
---
{kind: Gateway, apiVersion: gateway.networking.k8s.io/v1, metadata: {name: front},
 spec: {gatewayClassName: somebody-elses, listeners: [{name: http, port: 8080, protocol: HTTP}]}}
---
{kind: HTTPRoute, apiVersion: gateway.networking.k8s.io/v1, metadata: {name: clock},
 spec: {parentRefs: [{name: front}], rules: [{backendRefs: [{group: agentgateway.dev, kind: AgentgatewayBackend,
  name: clock}]}]}}
---
{kind: AgentgatewayBackend, apiVersion: agentgateway.dev/v1alpha1, metadata: {name: clock},
 spec: {mcp: {targets: [{name: clock, static: {host: clock, port: 3000}}]}}}
"""
KEPT = (k.VIRTUAL_SERVER, k.GATEWAY, k.HTTP_ROUTE, k.AGENTGATEWAY_BACKEND)
"""Kinds of which only the object itself is kept."""


def documented(title: str) -> str:
    """The block of commands that begins with that comment."""
    found = re.search(rf"(?m)^    # {re.escape(title)}.*\n((?:    .*\n)+)", DOCUMENT.read_text())
    assert found is not None, f"{DOCUMENT} has no block {title!r}"
    return textwrap.dedent(found.group(1))


@pytest.fixture(scope="module")
def clusters() -> Generator[tuple[Plane, Plane]]:
    with plane(nodes=0) as first, plane(nodes=0) as second:
        yield first, second


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
async def databases(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[tuple[str, str]]:
    """URLs of the old database and of a place for the new one."""
    if request.param == "sqlite":
        yield str(tmp_path / "old" / "server.db"), str(tmp_path / "new" / "server.db")
        return
    pytest.importorskip("asyncpg")
    if postgresql.commands() is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    with postgresql.running() as url:
        names = [f"{kind}_{uuid4().hex}" for kind in ("old", "new")]
        engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
        async with engine.connect() as connection:
            admin = await connection.execution_options(isolation_level="AUTOCOMMIT")
            for name in names:
                await admin.execute(DDL(f"CREATE DATABASE {name}"))
        await engine.dispose()
        old, new = (url.removesuffix("postgres") + name for name in names)
        yield old, new


@contextlib.asynccontextmanager
async def operating(cluster: Plane, database: str) -> AsyncGenerator[Operator]:
    operator = Operator(
        parse(
            [
                f"--namespace={SYSTEM}", f"--kubeconfig={cluster.kubeconfig}", "--api=127.0.0.1:0", "--webhook=off",
                "--kagent=127.0.0.1:0", "--health=127.0.0.1:0", f"--database-url={database}",
            ],
            {"POD_NAME": uuid4().hex},
        )
    )  # fmt: skip
    try:
        await operator.start()
        yield operator
    finally:
        await operator.stop()


class Agent:
    """The agent's Pod, which talks to the control plane; nothing runs in it."""

    def __init__(self, operator: Operator, admin: KubeClient) -> None:
        self._operator, self._admin = operator, admin
        self._headers: dict[str, str] = {}

    async def begin(self) -> None:
        """Get the token of the Pod that its Deployment has made."""
        pods: list[Any] = []

        async def there() -> bool:
            pods[:] = (await self._admin.list(k.POD, TEAM, label_selector="kagent=keeper")).items
            return bool(pods)

        await until(there)
        metadata = pods[0]["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                "spec": {"audiences": ["quarterdeck"], "boundObjectRef": bound}}  # fmt: skip
        account = pods[0]["spec"]["serviceAccountName"]
        made = await self._admin.create(k.SERVICE_ACCOUNT, body, TEAM, name=account, subresource="token")
        self._headers = {"authorization": f"Bearer {made['status']['token']}", "x-user-id": "alice"}

        async def known() -> bool:
            return (await self._send("GET", "/api/me"))[0] == 200

        await until(known)

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        status, said = await self._send(method, path, body)
        assert status < 300, said
        return said["data"]

    async def _send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        host, port = self._operator.addresses["kagent"]
        async with (
            aiohttp.ClientSession(headers=self._headers) as session,
            session.request(method, f"http://{host}:{port}{path}", json=body) as answer,
        ):
            return answer.status, await answer.json(content_type=None)


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.1)


async def works(admin: KubeClient) -> None:
    """Everything is accepted, refers to what is there, and has its objects."""

    async def good() -> bool:
        for res, name in ((k.AGENT, "keeper"), (k.MCP_SERVER, "clock")):
            try:
                status = (await admin.get(res, name, TEAM)).get("status") or {}
            except errors.NotFound:
                return False
            for kind in ("Accepted", "ResolvedRefs", "Programmed"):
                found = get_condition(status.get("conditions"), kind) or {}
                unheard = (kind, found.get("reason")) == ("ResolvedRefs", "ToolsNotFound")  # no Pod to ask for tools
                if found.get("status") != "True" and not unheard:
                    return False
        return True

    await until(good)


async def shell(cluster: Plane, folder: Path, script: str, database: str) -> None:
    """Run documented commands; without PostgreSQL but for those of PostgreSQL."""
    if not database.startswith("postgresql"):
        script = "".join(line for line in script.splitlines(True) if not line.startswith(("pg_dump", "psql")))
    path = f"{Path(__file__).parents[2] / '.venv' / 'bin'}:{os.environ['PATH']}"
    exports = f"cd '{folder}'; export PATH='{path}' TEAMS='kagent {TEAM}' DATABASE_URL='{database}'\n"
    await command("/bin/bash", "-euo", "pipefail", "-c", exports + script, kubeconfig=cluster.kubeconfig)


async def wiped(admin: KubeClient) -> None:
    """The clusters are shared by both databases: each begins with nothing."""
    for name in (SYSTEM, TEAM, "kagent"):
        with contextlib.suppress(errors.NotFound):
            await admin.delete(k.NAMESPACE, name)
    names = {SYSTEM, TEAM, "kagent"}

    async def gone() -> bool:
        return not names & {item["metadata"]["name"] for item in (await admin.list(k.NAMESPACE)).items}

    await until(gone, 180)
    for document in [*crds(), *gateway_crds()]:
        await admin.apply(k.CRD, document)


async def test_a_backup_becomes_a_working_installation(
    clusters: tuple[Plane, Plane], databases: tuple[str, str], tmp_path: Path
) -> None:
    first, second = clusters
    old, new = databases
    async with KubeClient(first.client_config()) as admin, KubeClient(second.client_config()) as other:
        for each in (admin, other):
            await wiped(each)
        for name in (SYSTEM, TEAM):
            metadata = {"name": name, "labels": {"stage": "prod"}}
            await admin.create(k.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        for url in databases:
            if not url.startswith("postgresql"):
                Path(url).parent.mkdir()
        async with operating(first, old) as operator:
            objects = json.dumps({"kind": "List", "apiVersion": "v1", "items": list(yaml.safe_load_all(OBJECTS))})
            await command("kubectl", "apply", "-n", TEAM, "-f", "-", kubeconfig=first.kubeconfig, stdin=objects)
            await works(admin)
            agent = Agent(operator, admin)
            await agent.begin()
            await agent.ask("POST", "/api/sessions", {"id": "s1", "name": "holidays"})
            await agent.ask("POST", "/api/sessions/s1/events", {"id": "e1", "data": {"text": "Where to?"}})
            task = {"id": "t1", "contextId": "s1", "status": {"state": "TASK_STATE_COMPLETED"}, "history": ["…"]}
            await agent.ask("POST", "/api/tasks", task)
        await shell(first, tmp_path, documented("back up"), old)
        if not old.startswith("postgresql"):
            _copied(old, new)
        token = (await admin.get(k.SECRET, "quarterdeck-access-token", SYSTEM))["data"]

        await shell(second, tmp_path, documented("restore"), new)
        async with operating(second, new) as operator:
            await works(other)
            agent = Agent(operator, other)
            await agent.begin()
            (session,) = await agent.ask("GET", "/api/sessions")
            assert (session["name"], session["agent_id"]) == ("holidays", f"{TEAM}/keeper")
            assert await agent.ask("GET", "/api/sessions/s1/tasks") == [task]
            (event,) = (await agent.ask("GET", "/api/sessions/s1"))["events"]
            assert event["id"] == "e1" and "Where to?" in str(event["data"])
            await agent.ask("POST", "/api/sessions/s1/events", {"id": "e2", "data": "and back"})
            assert (await other.get(k.SECRET, "quarterdeck-access-token", SYSTEM))["data"] == token
            assert (await other.get(k.NAMESPACE, TEAM))["metadata"]["labels"]["stage"] == "prod"
            assert await _kept_by_the_collector(other)
            for res in KEPT:
                (was,), (found,) = (await admin.list(res, TEAM)).items, (await other.list(res, TEAM)).items
                assert found["spec"] == was["spec"]


def _copied(old: str, new: str) -> None:
    """The file and what was not yet merged into it, and it is whole."""
    for path in Path(old).parent.glob(f"{Path(old).name}*"):
        shutil.copy(path, Path(new).parent / path.name)
    with contextlib.closing(sqlite3.connect(new)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


async def _kept_by_the_collector(admin: KubeClient) -> bool:
    """Nothing that was restored waits for an owner that is gone."""
    secrets = [s for ns in (SYSTEM, TEAM) for s in (await admin.list(k.SECRET, ns)).items]
    owners = {obj["metadata"]["uid"] for res in (k.AGENT, k.MCP_SERVER) for obj in (await admin.list(res, TEAM)).items}
    named = {ref["uid"] for s in secrets for ref in s["metadata"].get("ownerReferences") or ()}
    assert {"quarterdeck-gateway-key", "quarterdeck-access-token", "key"} <= {s["metadata"]["name"] for s in secrets}
    return named <= owners
