"""While kagent's or kmcp's own controller runs, ours write one condition and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.controllers.rivals import PAUSED, REASON, Gate, is_running, product_of
from quarterdeck.controllers.write_access import SECONDS
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.controller import Controller, ControllerSet, Result
from quarterdeck.kube.resource import Key

from .servers import World, quiet

KAGENT = "ghcr.io/kagent-dev/kagent/controller:0.9.12"


def deployment(
    name: str, image: str, labels: dict[str, str] | None = None, replicas: int | None = 1, account: str = ""
) -> dict[str, Any]:
    pod: dict[str, Any] = {"metadata": {"labels": {"x": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    if account:
        pod["spec"]["serviceAccountName"] = account
    spec: dict[str, Any] = {"selector": {"matchLabels": {"x": name}}, "template": pod}
    if replicas is not None:
        spec["replicas"] = replicas
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec}


@pytest.mark.parametrize(
    ("name", "image", "labels", "product"),
    [
        ("kagent-controller", KAGENT, {}, "kagent"),
        ("any", "mirror.example.com:5000/kagent/controller@sha256:00", {}, "kagent"),
        ("any", "ghcr.io/kagent-dev/kmcp/controller:0.3.0", {}, "kmcp"),
        ("kagent-controller", "custom", {"app.kubernetes.io/name": "kagent"}, "kagent"),
        ("any", "custom", {"app.kubernetes.io/name": "kmcp", "control-plane": "controller-manager"}, "kmcp"),
        ("any", "custom", {"app.kubernetes.io/name": "kagent", "app.kubernetes.io/component": "controller"}, "kagent"),
        ("kagent-ui", "ghcr.io/kagent-dev/kagent/ui:0.9.12", {"app.kubernetes.io/name": "kagent"}, ""),
        ("kagent", "ghcr.io/kagent-dev/kagent/app:0.9.12", {"app": "kagent", "app.kubernetes.io/name": "kagent"}, ""),
        ("quarterdeck-controller", "ghcr.io/x/quarterdeck:1", {"app.kubernetes.io/name": "quarterdeck"}, ""),
        ("controller", "controller", {}, ""),
    ],
)
def test_which_deployments_are_theirs(name: str, image: str, labels: dict[str, str], product: str) -> None:
    assert product_of(deployment(name, image, labels)) == product


def test_what_runs() -> None:
    assert is_running(deployment("a", KAGENT)) and is_running(deployment("a", KAGENT, replicas=None))
    stopped = deployment("a", KAGENT, replicas=0)
    assert not is_running(stopped)
    assert is_running(stopped | {"status": {"replicas": 1}}), "its Pods are still there"


async def test_nothing_is_done_while_kagent_runs_and_everything_afterwards(world: World) -> None:
    namespace = await world.namespace()
    await world.model(namespace)
    await world.create(k.DEPLOYMENT, _in(namespace, deployment("kagent-controller", KAGENT)))
    agent = {"metadata": {"name": "a", "namespace": namespace}, "spec": {"declarative": {"systemMessage": "x"}}}
    server = {"deployment": {"image": "i", "cmd": "c"}, "transportType": "stdio"}
    async with world.operator() as (controllers, _):
        await world.create(k.AGENT, agent)
        await world.create(k.MCP_SERVER, {"metadata": {"name": "m", "namespace": namespace}, "spec": server})
        condition = await world.condition(k.AGENT, namespace, "a", PAUSED, "True", REASON)
        assert f"{namespace}/kagent-controller" in condition["message"]
        await world.warned(namespace, "a", REASON)
        await world.condition(k.MCP_SERVER, namespace, "m", "Programmed", "True")  # that was kmcp's
        await quiet(controllers)
        assert await world.find(k.DEPLOYMENT, namespace, "a") is None
        shown = (await world.client.get(k.AGENT, "a", namespace))["status"]
        assert [c["type"] for c in shown["conditions"]] == [PAUSED] and "observedGeneration" not in shown

        await world.client.patch(k.DEPLOYMENT, "kagent-controller", {"spec": {"replicas": 0}}, namespace)
        await world.condition(k.AGENT, namespace, "a", "Accepted", "True")
        assert await world.find(k.DEPLOYMENT, namespace, "a") is not None
        shown = (await world.client.get(k.AGENT, "a", namespace))["status"]
        assert get_condition(shown["conditions"], PAUSED) is None

        await world.client.patch(k.DEPLOYMENT, "kagent-controller", {"spec": {"replicas": 1}}, namespace)
        await world.condition(k.AGENT, namespace, "a", PAUSED, "True", REASON)
        conditions = (await world.client.get(k.AGENT, "a", namespace))["status"]["conditions"]
        assert get_condition(conditions, "Accepted"), "what was said before stays"
        await quiet(controllers)


async def test_who_counts_where_and_how_many_are_asked_about(embedded_world: World) -> None:
    await bind(embedded_world, "everywhere", "kagent")
    async with KubeClient(embedded_world.config) as client:
        gate = Gate(ControllerSet(client))
        for number in range(9):
            fake = deployment(f"fake-{number}", KAGENT, account=f"sa-{number}")
            see(gate, "team-a", fake, f"2026-01-01T00:00:0{number}Z")
        see(gate, "kagent", deployment("stopped", KAGENT, replicas=0), "2026-01-01T00:00:00Z")
        others, before = gate.running("Agent"), client.writes
        assert len(others) == 9 and gate.running("MCPServer") == []
        found = await gate.rival(others, k.AGENT, "team-a")
        assert found is not None and found["metadata"]["name"] == "fake-0"
        assert client.writes == before, "nobody has to be asked"
        assert await gate.rival(others, k.AGENT, "team-b") is None
        assert await gate.rival(others, k.AGENT, "team-b") is None
        assert client.writes - before == 8, "four ServiceAccounts: in all namespaces? in this one?"

        see(gate, "kagent", deployment("kagent-controller", KAGENT), "2026-01-02T00:00:00Z")
        found = await gate.rival(gate.running("Agent"), k.AGENT, "team-b")
        assert found is not None and found["metadata"]["name"] == "kagent-controller", "not crowded out"

        namespaced = Gate(ControllerSet(client, namespaces=("kagent", "team-b")))
        see(namespaced, "kagent", deployment("kagent-controller", KAGENT), "2026-01-02T00:00:00Z")
        before = client.writes
        assert await namespaced.rival(namespaced.running("Agent"), k.AGENT, "team-b") is None
        assert await namespaced.rival(namespaced.running("Agent"), k.AGENT, "kagent") is not None
        assert client.writes == before, "a Role does not let us ask"


async def test_rights_are_looked_at_again_as_long_as_there_is_such_a_deployment_and_the_object(
    embedded_world: World,
) -> None:
    later: list[float | None] = [None, 5.0, 300.0]

    async def reconcile(key: Key) -> Result | None:
        seconds = later.pop(0)
        return None if seconds is None else Result(seconds)

    async with KubeClient(embedded_world.config) as client:
        gate = Gate(ControllerSet(client))
        guarded = gate.guard(Controller("agent", k.AGENT, reconcile)).reconcile
        here = Key("team-b", "a")
        gate.set.informer(k.AGENT).observe({"metadata": {"name": "a", "namespace": "team-b", "resourceVersion": "1"}})
        assert await guarded(here) is None, "no such Deployment"
        see(gate, "team-a", deployment("mine", KAGENT), "2026-01-01T00:00:00Z")
        assert await guarded(here) == Result(5.0)
        assert await guarded(here) == Result(SECONDS)
        later.append(None)
        assert await guarded(Key("team-b", "gone")) is None


async def test_a_tenant_stops_his_own_namespace_and_a_controller_with_rights_the_others_too(world: World) -> None:
    team, other = await world.namespace(), await world.namespace()
    agent: dict[str, Any] = {"spec": {"declarative": {"systemMessage": "x"}}}
    for namespace in (team, other):
        await world.model(namespace)
    await world.create(k.DEPLOYMENT, _in(team, deployment("mine", KAGENT)))
    async with world.operator():
        for namespace in (team, other):
            await world.create(k.AGENT, agent | {"metadata": {"name": "a", "namespace": namespace}})
        await world.condition(k.AGENT, team, "a", PAUSED, "True", REASON)
        await world.condition(k.AGENT, other, "a", "Accepted", "True")
        assert await world.find(k.DEPLOYMENT, other, "a") and not await world.find(k.DEPLOYMENT, team, "a")

    binding = await bind(world, f"rival-{team}", team)
    try:
        async with world.operator():
            paused = await world.condition(k.AGENT, other, "a", PAUSED, "True", REASON)
            assert f"{team}/mine" in paused["message"]
    finally:
        await world.client.delete(k.CLUSTER_ROLE_BINDING, binding)
    async with world.operator():

        async def resumed() -> bool:
            shown = (await world.client.get(k.AGENT, "a", other))["status"]["conditions"]
            return get_condition(shown, PAUSED) is None

        await world.eventually(resumed, "no longer paused")


def see(gate: Gate, namespace: str, obj: dict[str, Any], created: str) -> None:
    """The informer has it."""
    metadata = obj["metadata"] | {"namespace": namespace, "creationTimestamp": created, "resourceVersion": "1"}
    gate.set.informer(k.DEPLOYMENT).observe(obj | {"metadata": metadata})


async def bind(world: World, name: str, namespace: str) -> str:
    """ServiceAccount ``default`` of the namespace may do what kagent's controller may, everywhere."""
    rules = [{"apiGroups": ["kagent.dev"], "resources": ["*/status"], "verbs": ["get", "patch", "update"]}]
    await world.client.apply(k.CLUSTER_ROLE, {"metadata": {"name": name}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subjects = [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}]
    binding = {"metadata": {"name": name}, "roleRef": role, "subjects": subjects}
    await world.client.apply(k.CLUSTER_ROLE_BINDING, binding)
    return name


def _in(namespace: str, obj: dict[str, Any]) -> dict[str, Any]:
    return obj | {"metadata": obj["metadata"] | {"namespace": namespace}}
