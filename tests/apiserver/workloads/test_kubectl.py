"""The controllers on the embedded API server, driven by real kubectl; Pods are run by a stand-in kubelet."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.apiserver.workloads import controllers
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.resource import NODE, POD

from .test_controllers import Kubelet

KUBECTL = Path(sys.executable).with_name("kubectl")


class Cluster:
    def __init__(self, kubeconfig: Path, client: KubeClient) -> None:
        self.kubeconfig, self.client = kubeconfig, client

    async def kubectl(self, *args: str, ok: bool = True) -> str:
        env = os.environ | {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)}
        process = await asyncio.create_subprocess_exec(
            str(KUBECTL), *args, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(25):
            output = (await process.communicate())[0].decode()
        assert (process.returncode == 0) is ok, f"kubectl {' '.join(args)}: {output}"
        return output

    async def create(self, *args: str) -> None:
        """``kubectl create`` by way of a file: the typed command sends protobuf, which is another test's business."""
        manifest = self.kubeconfig.with_name("manifest.yaml")
        manifest.write_text(await self.kubectl("create", *args, "--dry-run=client", "-o", "yaml"))
        await self.kubectl("apply", "-f", str(manifest))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    server = ApiServer(ApiServerConfig(tmp_path / "data", port=0))
    await server.start()
    client, other = (KubeClient(ClientConfig(**server.client_config())) for _ in range(2))
    set_ = controllers(client, ca_pem=server.ca_pem.decode())
    kubelet = Kubelet(other)
    kubelet.pods.start()
    made = await other.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok"}]
    made["status"] = {"conditions": conditions, "allocatable": {"cpu": "8", "memory": "8Gi", "pods": "50"}}
    await other.replace(NODE, made, subresource="status")
    await set_.start()
    yield Cluster(server.kubeconfig, client)
    await set_.stop()
    await kubelet.pods.stop()
    await asyncio.gather(*kubelet.tasks, return_exceptions=True)
    await client.close()
    await other.close()
    await server.stop()


async def test_rollouts(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await cluster.create("deployment", "web", "--image=web:1", "--replicas=3", "--port=80")
    assert "successfully rolled out" in await kubectl("rollout", "status", "deploy/web", "--timeout=90s")
    await kubectl("expose", "deploy/web")
    await kubectl("set", "image", "deploy/web", "web=web:2")
    await kubectl("rollout", "status", "deploy/web", "--timeout=90s")
    history = await kubectl("rollout", "history", "deploy/web")
    assert [line.split()[0] for line in history.splitlines()[2:] if line.strip()] == ["1", "2"]
    await kubectl("rollout", "undo", "deploy/web")
    await kubectl("rollout", "status", "deploy/web", "--timeout=90s")
    assert "web:1" in await kubectl("get", "deploy", "web", "-o", "wide")
    await kubectl("rollout", "pause", "deploy/web")
    await kubectl("set", "image", "deploy/web", "web=web:3")
    await kubectl("rollout", "resume", "deploy/web")
    await kubectl("rollout", "restart", "deploy/web")
    await kubectl("rollout", "status", "deploy/web", "--timeout=90s")
    await kubectl("scale", "deploy/web", "--replicas=5")
    await kubectl("wait", "--for=jsonpath={.status.availableReplicas}=5", "deploy/web", "--timeout=90s")
    assert (await kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "name")).count(
        "web-"
    ) == 1
    while (writes := cluster.client.writes) >= 0:
        await asyncio.sleep(1)  # nothing changes any more, so nothing may be written
        if cluster.client.writes == writes:
            break
    assert "ScalingReplicaSet" in await kubectl("describe", "deploy", "web")
    await kubectl("delete", "deploy", "web", "--cascade=foreground", "--timeout=90s")
    assert "No resources found" in await kubectl("get", "rs,pods")


async def test_orphan_namespace_and_jobs(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await cluster.create("namespace", "team")
    await cluster.create("deployment", "web", "--image=web:1", "-n", "team")
    await kubectl("rollout", "status", "deploy/web", "-n", "team", "--timeout=90s")
    await kubectl("delete", "deploy", "web", "-n", "team", "--cascade=orphan", "--timeout=90s")
    assert "replicaset" in await kubectl("get", "rs", "-n", "team", "-o", "name")
    await cluster.create("job", "work", "--image=job:1", "-n", "team")
    await kubectl("wait", "--for=condition=Complete", "job/work", "-n", "team", "--timeout=90s")
    await cluster.create("cronjob", "tick", "--image=job:1", "--schedule=@yearly", "-n", "team")
    await cluster.create("job", "now", "--from=cronjob/tick", "-n", "team")
    await kubectl("wait", "--for=condition=Complete", "job/now", "-n", "team", "--timeout=90s")
    assert "kube-root-ca.crt" in await kubectl("get", "configmaps", "-n", "team", "-o", "name")
    await kubectl("delete", "namespace", "team", "--timeout=90s")


async def test_a_budget_follows_its_pods(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await cluster.create("pdb", "web", "--selector=app=web", "--min-available=1")
    expected = "jsonpath={.status.expectedPods}"
    await kubectl("wait", "pdb/web", "--for=jsonpath={.status.observedGeneration}=1", "--timeout=90s")
    assert await kubectl("get", "pdb", "web", "-o", expected) == "0", "without Pods the zeros are there too"
    await cluster.create("deployment", "web", "--image=web:1", "--replicas=3")
    await kubectl("wait", "pdb/web", "--for=jsonpath={.status.disruptionsAllowed}=2", "--timeout=90s")
    await kubectl("scale", "deploy/web", "--replicas=1")
    await kubectl("wait", "pdb/web", "--for=jsonpath={.status.disruptionsAllowed}=0", "--timeout=90s")
    pod = (await kubectl("get", "pods", "-o", "name")).split()[0].removeprefix("pod/")
    await cluster.client.patch(POD, pod, {"metadata": {"labels": {"app": "other"}}}, "default")
    await kubectl("delete", "deploy", "web")
    await kubectl("wait", "pdb/web", "--for=jsonpath={.status.expectedPods}=0", "--timeout=90s")
