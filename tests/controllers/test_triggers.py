"""Triggers where an API server says who may do what: its Events, its Roles, its word on what a Trigger may hold."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from time import time
from typing import Any

import pytest

from quarterdeck.controllers.triggers import Access
from quarterdeck.errors import ApiError
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import SystemClock, timestamp
from quarterdeck.server.database import Database
from quarterdeck.server.runs_store import RunStore
from quarterdeck.server.triggers import Engine
from quarterdeck.server.triggers_store import TriggerStore
from quarterdeck.telemetry.metrics import Registry

from .servers import World

BASE: dict[str, Any] = {"agent": "helper", "serviceAccountName": "starter", "message": "why?"}
RULE = {"apiGroups": ["quarterdeck.dev"], "resources": ["runs"], "verbs": ["create"]}


async def test_two_control_planes_start_one_run_of_an_event_where_a_role_lets_them(
    world: World, tmp_path: Path
) -> None:
    team = await world.namespace()
    await world.model(team)
    agent = {"type": "Declarative", "description": "d", "declarative": {"systemMessage": "Help."}}
    await world.create(k.AGENT, {"metadata": {"name": "helper", "namespace": team}, "spec": agent})
    account = {"metadata": {"name": "starter", "namespace": team}}
    await world.create(k.SERVICE_ACCOUNT, account)
    spec = BASE | {"kubernetesEvents": {"kinds": ["Pod"], "reasons": ["BackOff"]}}
    await world.create(k.TRIGGER, {"metadata": {"name": "pods", "namespace": team}, "spec": spec})
    databases = [await Database.open(str(tmp_path / "server.db")) for _ in range(2)]
    async with AsyncExitStack() as stack:
        engines: list[asyncio.Task[None]] = []
        for database in databases:
            _, config = await stack.enter_async_context(world.operator())
            client = await stack.enter_async_context(KubeClient(world.config))
            assert config.triggers is not None
            store, access = TriggerStore(database, RunStore(database)), Access(client, SystemClock())
            engine = Engine(config.triggers, store, access, Registry(), _nobody)
            engines.append(asyncio.create_task(engine.run()))
        await world.condition(k.TRIGGER, team, "pods", "Authorized", "False", "IdentityNotAllowed")
        await world.create(k.ROLE, {"metadata": {"name": "start", "namespace": team}, "rules": [RULE]})
        bound = {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "start"},
            "subjects": [{"kind": "ServiceAccount", "name": "starter", "namespace": team}],
        }
        await world.create(k.ROLE_BINDING, {"metadata": {"name": "start", "namespace": team}} | bound)
        await world.condition(k.TRIGGER, team, "pods", "Ready", "True")
        for name in ("web-1", "web-2"):
            about = {"kind": "Pod", "name": name, "namespace": team}
            said = {"type": "Warning", "reason": "BackOff", "message": "m", "count": 1}
            stamps = {"firstTimestamp": timestamp(time()), "lastTimestamp": timestamp(time())}
            metadata = {"name": f"{name}.1", "namespace": team}
            await world.create(k.EVENT, {"metadata": metadata, "involvedObject": about} | said | stamps)
        runs = RunStore(databases[0])

        async def started() -> bool:
            found = await world.client.get(k.TRIGGER, "pods", team)
            return (found.get("status") or {}).get("started") == 2 and bool(await runs.select())

        await world.eventually(started, "two runs")
        for task in engines:
            task.cancel()
        await asyncio.gather(*engines, return_exceptions=True)
    found = await runs.select()
    assert len(found) == 2 and {run["user_id"] for run in found} == {f"system:serviceaccount:{team}:starter"}
    for database in databases:
        await database.close()


async def _nobody(agent: str) -> None:
    """Nobody sleeps here."""


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "exactly one of cron, webhook, kubernetesEvents, alertmanager and mcpResources must be set"),
        ({"cron": {"schedule": "@daily"}, "kubernetesEvents": {}}, "exactly one of cron"),
        ({"webhook": {}}, "exactly one of github, hmac and bearer must be set"),
        ({"cron": {"schedule": "@daily", "missedRunPolicy": "Later"}}, "missedRunPolicy"),
        ({"mcpResources": {"server": {"name": "m"}, "uris": []}}, "uris"),
        ({"cron": {"schedule": "@daily"}, "rateLimit": {"runs": 0}}, "rateLimit.runs"),
    ],
)
async def test_the_server_refuses_what_no_trigger_holds(world: World, spec: dict[str, Any], said: str) -> None:
    body = {"metadata": {"name": "t", "namespace": "default"}, "spec": BASE | spec}
    with pytest.raises(ApiError, match=said):
        await world.create(k.TRIGGER, body)
