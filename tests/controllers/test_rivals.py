"""While kagent's or kmcp's own controller runs, ours write one condition and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.controllers.rivals import PAUSED, REASON, is_running, product_of
from quarterdeck.kube import resource as k
from quarterdeck.kube.conditions import get_condition

from .servers import World, quiet

KAGENT = "ghcr.io/kagent-dev/kagent/controller:0.9.12"


def deployment(name: str, image: str, labels: dict[str, str] | None = None, replicas: int | None = 1) -> dict[str, Any]:
    pod = {"metadata": {"labels": {"x": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}
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


def _in(namespace: str, obj: dict[str, Any]) -> dict[str, Any]:
    return obj | {"metadata": obj["metadata"] | {"namespace": namespace}}
