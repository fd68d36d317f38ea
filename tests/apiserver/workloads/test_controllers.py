"""All workload controllers together against an API over HTTP, with a stand-in kubelet that runs every bound Pod."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from quarterdeck import errors
from quarterdeck.apiserver.workloads import controllers
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.resource import (
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    Object,
    Resource,
)  # fmt: skip

sys.path.insert(0, str(Path(__file__).parents[2]))
from kube.fake_api import NOW, FakeApi

LABELS = {"app": "web"}


class Kubelet:
    """Marks bound Pods Running and Ready, ends those of Jobs, and lets deleted ones go."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        self.pods = Informer(client, POD)
        self.broken: set[str] = set()
        self.job_outcome = "Succeeded"
        self.running = 0
        self.peak = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.pods.on_change(self.changed)

    def changed(self, kind: str, old: Object | None, new: Object | None) -> None:
        if new is not None:
            task = asyncio.create_task(self.step(new))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def step(self, pod: Object) -> None:
        metadata = pod["metadata"]
        try:
            if "deletionTimestamp" in metadata:
                if metadata.get("deletionGracePeriodSeconds"):
                    await self.client.delete(POD, metadata["name"], metadata["namespace"], grace_seconds=0)
            elif pod["spec"].get("nodeName") and pod["status"].get("phase") == "Pending":
                is_job = (metadata.get("ownerReferences") or [{}])[0].get("kind") == "Job"
                image = pod["spec"]["containers"][0]["image"]
                phase = self.job_outcome if is_job else "Running"
                ready = "False" if image in self.broken or is_job else "True"
                status = {"phase": phase, "podIP": f"10.244.0.{len(self.pods.list()) + 1}",
                          "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": NOW}]}  # fmt: skip
                await self.client.patch(POD, metadata["name"], {"status": status}, metadata["namespace"],
                                        subresource="status")  # fmt: skip
        except (errors.NotFound, errors.Conflict):
            return


class World:
    def __init__(self, api: FakeApi, client: KubeClient, set_: ControllerSet, kubelet: Kubelet) -> None:
        self.api, self.client, self.set, self.kubelet = api, client, set_, kubelet

    def all(self, res: Resource) -> list[Object]:
        return [obj for key, obj in self.api.objects.items() if key[:2] == (res.group, res.plural)]

    def one(self, res: Resource, name: str, namespace: str = "default") -> Any:
        return self.api.objects.get((res.group, res.plural, namespace, name))

    async def until(self, check: Callable[[], Any], seconds: float = 90) -> Any:
        async with asyncio.timeout(seconds):
            while not (value := check()):
                await asyncio.sleep(0.02)
            return value

    async def quiet(self) -> None:
        """No write for a while although everything is in sync."""
        while True:
            before = self.api.version
            await asyncio.sleep(0.3)
            if self.api.version == before and self.set.idle:
                return


@pytest.fixture
async def world() -> AsyncIterator[World]:
    api = FakeApi()
    config = await api.start()
    client, kubelet_client = KubeClient(config), KubeClient(config)
    set_ = controllers(client, ca_pem="-----BEGIN CERTIFICATE-----")
    kubelet = Kubelet(kubelet_client)
    kubelet.pods.start()
    node = {"metadata": {"name": "n1"}, "spec": {}, "status": {
        "conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "8", "memory": "8Gi", "pods": "50"}
    }}  # fmt: skip
    await kubelet_client.create(NODE, node)
    await kubelet_client.create(NAMESPACE, {"metadata": {"name": "default"}, "spec": {"finalizers": ["kubernetes"]}})
    await set_.start()
    yield World(api, kubelet_client, set_, kubelet)
    await set_.stop()
    await kubelet.pods.stop()
    await asyncio.gather(*kubelet.tasks, return_exceptions=True)
    await client.close()
    await kubelet_client.close()
    await api.stop()


def template(image: str = "web:1", **spec: Any) -> Object:
    containers = [{"name": "main", "image": image, "ports": [{"name": "http", "containerPort": 80}]}]
    return {"metadata": {"labels": LABELS}, "spec": {"containers": containers, **spec}}


def deployment(name: str = "web", replicas: int = 3, image: str = "web:1", **spec: Any) -> Object:
    body = {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template(image), **spec}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": body}


def available(world: World, count: int, name: str = "web") -> Callable[[], bool]:
    def check() -> bool:
        found = world.one(DEPLOYMENT, name)
        status = found.get("status", {})
        return (
            status.get("observedGeneration") == found["metadata"]["generation"]
            and status.get("updatedReplicas", 0) == count
            and status.get("availableReplicas", 0) == count
            and status.get("replicas", 0) == count
        )

    return check


async def test_deployment_rolls_undoes_and_becomes_quiet(world: World) -> None:
    await world.client.create(DEPLOYMENT, deployment())
    await world.until(available(world, 3))
    first = world.all(REPLICA_SET)[0]
    assert first["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    body = {"spec": {"template": template("web:2")}}
    await world.client.patch(DEPLOYMENT, "web", body, "default")
    await world.until(available(world, 3))
    by_revision = {r["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: r for r in world.all(REPLICA_SET)}
    assert {k: r["spec"]["replicas"] for k, r in by_revision.items()} == {"1": 0, "2": 3}
    # kubectl rollout undo writes the old template back; the old ReplicaSet becomes revision 3
    await world.client.patch(DEPLOYMENT, "web", {"spec": {"template": template("web:1")}}, "default")
    await world.until(available(world, 3))
    undone = world.one(REPLICA_SET, first["metadata"]["name"])
    assert undone["spec"]["replicas"] == 3
    assert undone["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    await world.quiet()
    live = world.one(DEPLOYMENT, "web")
    assert live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    reasons = {c["type"]: c["reason"] for c in live["status"]["conditions"]}
    assert reasons == {"Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable"}
    assert len(world.all(POD)) == 3
    assert "ScalingReplicaSet" in {e["reason"] for e in world.all(EVENT)}


async def test_broken_image_leaves_the_old_pods_serving(world: World) -> None:
    world.kubelet.broken.add("web:bad")
    await world.client.create(DEPLOYMENT, deployment(replicas=4))
    await world.until(available(world, 4))
    await world.client.patch(DEPLOYMENT, "web", {"spec": {"template": template("web:bad")}}, "default")
    await world.until(lambda: len(world.all(REPLICA_SET)) == 2)
    await world.quiet()
    status = world.one(DEPLOYMENT, "web")["status"]
    assert status["availableReplicas"] == 3  # 25 % of 4 may be missing
    assert status["updatedReplicas"] == 2  # that one, and 25 % more


async def test_scale_pause_and_resume(world: World) -> None:
    await world.client.create(DEPLOYMENT, deployment(replicas=1))
    await world.until(available(world, 1))
    await world.client.patch(DEPLOYMENT, "web", {"spec": {"replicas": 4}}, "default")
    await world.until(available(world, 4))
    body = {"spec": {"paused": True, "template": template("web:2")}}
    await world.client.patch(DEPLOYMENT, "web", body, "default")
    await world.quiet()
    assert len(world.all(REPLICA_SET)) == 1
    await world.client.patch(DEPLOYMENT, "web", {"spec": {"paused": None}}, "default")
    await world.until(available(world, 4))
    assert len(world.all(REPLICA_SET)) == 2


async def test_recreate_never_mixes_versions(world: World) -> None:
    await world.client.create(DEPLOYMENT, deployment(replicas=2, strategy={"type": "Recreate"}))
    await world.until(available(world, 2))
    mixed: list[set[str]] = []

    def look(kind: str, old: Object | None, new: Object | None) -> None:
        images = {p["spec"]["containers"][0]["image"] for p in world.kubelet.pods.list()}
        if len(images) > 1:
            mixed.append(images)

    world.kubelet.pods.on_change(look)
    await world.client.patch(DEPLOYMENT, "web", {"spec": {"template": template("web:2")}}, "default")
    await world.until(available(world, 2))
    assert not mixed


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
async def test_garbage_collection(world: World, propagation: Any) -> None:
    await world.client.create(DEPLOYMENT, deployment(replicas=2))
    await world.until(available(world, 2))
    await world.client.delete(DEPLOYMENT, "web", "default", propagation=propagation)
    await world.until(lambda: not world.one(DEPLOYMENT, "web"))
    if propagation == "Orphan":
        await world.quiet()
        assert len(world.all(POD)) == 2
        assert "ownerReferences" not in world.all(REPLICA_SET)[0]["metadata"]
    elif propagation == "Foreground":
        assert not world.all(REPLICA_SET)
        assert not world.all(POD)
    else:
        await world.until(lambda: not world.all(REPLICA_SET) and not world.all(POD))


async def test_services_get_endpoints(world: World) -> None:
    ports = [{"name": "http", "port": 8080, "targetPort": "http"}]
    spec = {"selector": LABELS, "ports": ports, "clusterIP": "10.0.0.1"}
    await world.client.create(SERVICE, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
    await world.client.create(DEPLOYMENT, deployment(replicas=2))
    await world.until(lambda: [s for s in world.all(ENDPOINT_SLICE) if len(s["endpoints"]) == 2])
    await world.until(available(world, 2))
    await world.quiet()
    (found,) = world.all(ENDPOINT_SLICE)
    assert found["ports"] == [{"name": "http", "port": 80, "protocol": "TCP"}]
    assert all(e["conditions"]["ready"] for e in found["endpoints"])
    (legacy,) = world.all(ENDPOINTS)
    assert len(legacy["subsets"][0]["addresses"]) == 2


async def test_job_counts_each_pod_once(world: World) -> None:
    spec = {"completions": 3, "parallelism": 2, "template": template("job:1", restartPolicy="Never")}
    await world.client.create(JOB, {"metadata": {"name": "work", "namespace": "default"}, "spec": spec})
    await world.until(lambda: world.one(JOB, "work").get("status", {}).get("completionTime"))
    status = world.one(JOB, "work")["status"]
    assert status["succeeded"] == 3
    assert [c["type"] for c in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    await world.quiet()
    assert len(world.all(POD)) == 3
    assert not any(p["metadata"].get("finalizers") for p in world.all(POD))


async def test_job_gives_up_after_its_backoff_limit(world: World) -> None:
    world.kubelet.job_outcome = "Failed"
    spec = {"completions": 1, "parallelism": 1, "backoffLimit": 0, "template": template("job:1", restartPolicy="Never")}
    await world.client.create(JOB, {"metadata": {"name": "work", "namespace": "default"}, "spec": spec})
    await world.until(
        lambda: any(c["type"] == "Failed" for c in world.one(JOB, "work").get("status", {}).get("conditions", ()))
    )
    failed = world.one(JOB, "work")["status"]["conditions"][-1]
    assert failed["reason"] == "BackoffLimitExceeded"
    assert world.one(JOB, "work")["status"]["failed"] == 1


async def test_cronjob_starts_the_missed_run_once(world: World) -> None:
    spec = {"schedule": "* * * * *", "jobTemplate": {"spec": {"completions": 1, "parallelism": 1,
            "template": template("job:1", restartPolicy="Never")}}}  # fmt: skip
    await world.client.create(CRON_JOB, {"metadata": {"name": "tick", "namespace": "default"}, "spec": spec})
    await world.until(lambda: world.all(JOB))
    assert world.all(JOB)[0]["metadata"]["name"].startswith("tick-")
    await world.until(lambda: world.one(CRON_JOB, "tick").get("status", {}).get("lastSuccessfulTime"))


async def test_namespace_gets_and_loses_its_content(world: World) -> None:
    await world.client.create(NAMESPACE, {"metadata": {"name": "team"}, "spec": {"finalizers": ["kubernetes"]}})
    await world.until(lambda: world.one(SERVICE_ACCOUNT, "default", "team"))
    await world.until(lambda: world.one(CONFIG_MAP, "kube-root-ca.crt", "team"))
    body = deployment(replicas=2)
    body["metadata"]["namespace"] = "team"
    await world.client.create(DEPLOYMENT, body)
    await world.until(lambda: len([p for p in world.all(POD) if p["status"]["phase"] == "Running"]) == 2)
    await world.client.delete(NAMESPACE, "team")
    await world.until(lambda: not world.one(NAMESPACE, "team", ""), 15)
    assert not [k for k in world.api.objects if k[2] == "team" and k[1] != "events"]


async def test_pod_that_fits_nowhere_says_so(world: World) -> None:
    container = {"name": "main", "image": "x", "resources": {"requests": {"cpu": "64"}}}
    await world.client.create(
        POD, {"metadata": {"name": "big", "namespace": "default"}, "spec": {"containers": [container]}}
    )
    pod = await world.until(lambda: (p := world.one(POD, "big"))["status"].get("conditions") and p)
    condition = pod["status"]["conditions"][0]
    assert condition["reason"] == "Unschedulable"
    assert condition["message"] == "0/1 nodes are available: 1 Insufficient cpu."
