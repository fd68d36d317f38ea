from __future__ import annotations

import asyncio

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.controller import Controller, ControllerSet
from quarterdeck.kube.lease import LeaderElector
from quarterdeck.kube.metrics import register
from quarterdeck.kube.resource import CONFIG_MAP, Key
from quarterdeck.telemetry.metrics import Registry


async def test_queue_reconciles_and_watches_are_told(client: KubeClient) -> None:
    calls: list[Key] = []

    async def reconcile(key: Key) -> None:
        calls.append(key)
        if len(calls) == 1:
            raise errors.ServiceUnavailable("not yet")

    await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns"}})
    controllers, registry = ControllerSet(client), Registry()
    controllers.add(Controller("test", CONFIG_MAP, reconcile))
    register(registry, controllers, LeaderElector(client, "ns", "qd", "one"))
    await controllers.start()
    async with asyncio.timeout(30):
        while len(calls) < 2 or not controllers.idle:
            await asyncio.sleep(0.005)
    lines = registry.render().decode().splitlines()
    await controllers.stop()
    for line in (
        'workqueue_depth{name="test"} 0',
        "# TYPE workqueue_retries_total counter",
        'workqueue_retries_total{name="test"} 1',
        'controller_runtime_reconcile_total{controller="test",result="success"} 1',
        'controller_runtime_reconcile_total{controller="test",result="error"} 1',
        'controller_runtime_reconcile_errors_total{controller="test"} 1',
        'controller_runtime_reconcile_time_seconds_count{controller="test"} 2',
        'quarterdeck_cached_objects{resource="configmaps"} 1',
        'quarterdeck_watch_lists_total{resource="configmaps"} 1',
        'rest_client_requests_total{method="POST",code="201"} 1',
        'leader_election_master_status{name="qd"} 0',
    ):
        assert line in lines
