"""Other people's clients: lightkube, and the columns people know; kubectl has test_kubectl.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightkube
import pytest
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import ConfigMap as ConfigMapModel
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.apiserver.workloads import controllers
from quarterdeck.errors import NotFound
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.resource import CONFIG_MAP, DEPLOYMENT, POD, REPLICA_SET

TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}


@pytest.fixture
def light(running: Any) -> lightkube.Client:
    config = lightkube.KubeConfig.from_file(str(running.server.kubeconfig))
    return lightkube.Client(config=config, field_manager="light")


def config_map(name: str, namespace: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace, labels={"from": "light"}), data=data)


def test_lightkube_lists_watches_patches_and_applies(light: lightkube.Client, space: str) -> None:
    namespace = space.rpartition("/")[2]
    made = light.create(config_map("one", namespace, a="1"))
    light.patch(ConfigMap, "one", {"data": {"b": "2"}}, namespace=namespace)
    light.patch(
        ConfigMap,
        "one",
        [{"op": "add", "path": "/data/c", "value": "3"}],
        namespace=namespace,
        patch_type=PatchType.JSON,
    )
    with pytest.raises(ApiError, match="object has been modified"):
        light.replace(made)
    with pytest.raises(ApiError) as conflict:
        light.apply(ConfigMap(metadata=ObjectMeta(name="one", namespace=namespace), data={"a": "9"}), field_manager="z")
    assert conflict.value.status.code == 409
    light.apply(
        ConfigMap(metadata=ObjectMeta(name="one", namespace=namespace), data={"a": "9"}), field_manager="z", force=True
    )
    found = list(light.list(ConfigMap, namespace=namespace, labels={"from": "light"}, chunk_size=1))
    assert [item.data for item in found] == [{"a": "9", "b": "2", "c": "3"}]
    version = light.get(ConfigMap, "one", namespace=namespace).metadata.resourceVersion
    light.create(config_map("two", namespace))
    light.delete(ConfigMap, "one", namespace=namespace)
    events = light.watch(ConfigMap, namespace=namespace, resource_version=version, server_timeout=10)
    seen = [next(events), next(events)]
    assert [(kind, obj.metadata.name) for kind, obj in seen] == [("ADDED", "two"), ("DELETED", "one")]
    assert isinstance(seen[0][1], ConfigMapModel)


# `kubectl get` prints the first list, `-o wide` both; from the printers of Kubernetes 1.36.
COLUMNS = {
    "api/v1/namespaces": ("Name Status Age", ""),
    "api/v1/nodes": ("Name Status Roles Age Version",
                     "Internal-IP External-IP OS-Image Kernel-Version Container-Runtime"),
    "api/v1/pods": ("Name Ready Status Restarts Age", "IP Node Nominated-Node Readiness-Gates"),
    "api/v1/services": ("Name Type Cluster-IP External-IP Port(s) Age", "Selector"),
    "api/v1/endpoints": ("Name Endpoints Age", ""),
    "api/v1/configmaps": ("Name Data Age", ""),
    "api/v1/secrets": ("Name Type Data Age", ""),
    "api/v1/serviceaccounts": ("Name Secrets Age", ""),
    "api/v1/events": ("Last-Seen Type Reason Object Message", "Subobject Source First-Seen Count Name"),
    "apis/events.k8s.io/v1/events": ("Last-Seen Type Reason Object Message", "Subobject Source First-Seen Count Name"),
    "api/v1/persistentvolumeclaims": ("Name Status Volume Capacity Access-Modes StorageClass VolumeAttributesClass Age",
                                      "VolumeMode"),
    "api/v1/resourcequotas": ("Name Request Limit Age", ""),
    "api/v1/limitranges": ("Name Created-At", ""),
    "apis/apps/v1/deployments": ("Name Ready Up-to-date Available Age", "Containers Images Selector"),
    "apis/apps/v1/replicasets": ("Name Desired Current Ready Age", "Containers Images Selector"),
    "apis/apps/v1/controllerrevisions": ("Name Controller Revision Age", ""),
    "apis/batch/v1/jobs": ("Name Status Completions Duration Age", "Containers Images Selector"),
    "apis/batch/v1/cronjobs": ("Name Schedule Timezone Suspend Active Last-Schedule Age", "Containers Images Selector"),
    "apis/autoscaling/v2/horizontalpodautoscalers": ("Name Reference Targets MinPods MaxPods Replicas Age", ""),
    "apis/discovery.k8s.io/v1/endpointslices": ("Name AddressType Ports Endpoints Age", ""),
    "apis/coordination.k8s.io/v1/leases": ("Name Holder Age", ""),
    "apis/networking.k8s.io/v1/networkpolicies": ("Name Pod-Selector Age", ""),
    "apis/networking.k8s.io/v1/ingresses": ("Name Class Hosts Address Ports Age", ""),
    "apis/policy/v1/poddisruptionbudgets": ("Name Min-Available Max-Unavailable Allowed-Disruptions Age", ""),
    "apis/rbac.authorization.k8s.io/v1/roles": ("Name Created-At", ""),
    "apis/rbac.authorization.k8s.io/v1/clusterroles": ("Name Created-At", ""),
    "apis/rbac.authorization.k8s.io/v1/rolebindings": ("Name Role Age", "Users Groups ServiceAccounts"),
    "apis/rbac.authorization.k8s.io/v1/clusterrolebindings": ("Name Role Age", "Users Groups ServiceAccounts"),
    "apis/apiextensions.k8s.io/v1/customresourcedefinitions": ("Name Created-At", ""),
}  # fmt: skip


@pytest.mark.parametrize("path", COLUMNS)
def test_columns_are_those_of_kubernetes(api: Any, path: str) -> None:
    table = api.http.get(f"/{path}", headers=TABLE).json()
    narrow = [c["name"].replace(" ", "-") for c in table["columnDefinitions"] if not c["priority"]]
    wide = [c["name"].replace(" ", "-") for c in table["columnDefinitions"] if c["priority"]]
    assert (" ".join(narrow), " ".join(wide)) == COLUMNS[path]


async def test_the_garbage_collector_follows_propagation_policies(tmp_path: Path) -> None:
    server = ApiServer(ApiServerConfig(tmp_path, port=0))
    await server.start()
    client = KubeClient(ClientConfig(**server.client_config()))
    own = KubeClient(ClientConfig(**server.client_config("system:kube-controller-manager")))
    running = controllers(own)
    await running.start()
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    for name in ("fore", "back", "orphan"):
        spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b", "n": name}}, "template": template}
        spec["template"] = {**template, "metadata": {"labels": {"a": "b", "n": name}}}
        await client.create(DEPLOYMENT, {"metadata": {"name": name}, "spec": spec}, "default")

    async def names(res: Any, name: str) -> list[str]:
        found = await client.list(res, "default", label_selector=f"n={name}")
        return [item["metadata"]["name"] for item in found.items]

    async def until(condition: Any) -> None:
        import asyncio

        async with asyncio.timeout(20):
            while not await condition():
                await asyncio.sleep(0.02)

    async def gone(res: Any, name: str) -> bool:
        return not await names(res, name)

    for name in ("fore", "back", "orphan"):
        await until(lambda name=name: _there(names, name))
    await client.delete(DEPLOYMENT, "orphan", "default", propagation="Orphan")
    await client.delete(DEPLOYMENT, "back", "default", propagation="Background")
    await client.delete(DEPLOYMENT, "fore", "default", propagation="Foreground")
    for name in ("fore", "back"):
        await until(lambda name=name: gone(POD, name))
        await until(lambda name=name: gone(REPLICA_SET, name))
    for name in ("fore", "orphan"):
        await until(lambda name=name: _not_found(client, name))
    left = (await client.list(REPLICA_SET, "default", label_selector="n=orphan")).items
    assert len(left) == 1 and not left[0]["metadata"].get("ownerReferences") and await names(POD, "orphan")
    owner = await client.create(CONFIG_MAP, {"metadata": {"name": "owner"}}, "default")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    await client.create(
        CONFIG_MAP, {"metadata": {"name": "n", "labels": {"n": "n"}, "ownerReferences": [reference]}}, "default"
    )
    await client.delete(CONFIG_MAP, "owner", "default")
    await until(lambda: gone(CONFIG_MAP, "n"))
    await running.stop()
    for one in (client, own):
        await one.close()
    await server.stop()


async def _there(names: Any, name: str) -> bool:
    return bool(await names(POD, name))


async def _not_found(client: KubeClient, name: str) -> bool:
    try:
        await client.get(DEPLOYMENT, name, "default")
    except NotFound:
        return True
    return False
