"""Revisions, pauses, restarts, replicas and what rolls a workload: on both API servers."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from quarterdeck.controllers.rollout import HANDOVER
from quarterdeck.controllers.scaling import LEFT
from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.resource import Key, Object, Resource
from quarterdeck.kube.template import RESTARTED_AT
from quarterdeck.translate import revision
from quarterdeck.translate.objects import PAUSED

from .servers import World, quiet

pytestmark = pytest.mark.timeout(240)
REPLICAS = "f:replicas"


class Team:
    """One namespace, its operator running."""

    def __init__(self, world: World, namespace: str, controllers: ControllerSet) -> None:
        self.world = world
        self.client = world.client
        self.namespace = namespace
        self.controllers = controllers

    async def agent(self, **spec: Any) -> Object:
        body = {"description": "d", "declarative": {"systemMessage": "Help."}} | spec
        return await self.world.create(k.AGENT, {"metadata": self.named("a"), "spec": body})

    def named(self, name: str) -> Object:
        return {"name": name, "namespace": self.namespace}

    async def secret(self, name: str, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        await self.client.apply(k.SECRET, {"metadata": self.named(name), "data": data}, field_manager="test")

    async def change(self, spec: Object, res: Resource = k.AGENT, name: str = "a") -> None:
        await self.client.patch(res, name, {"spec": spec}, self.namespace)

    async def annotate(self, res: Resource = k.AGENT, name: str = "a", **values: str | None) -> None:
        marks = {{"paused": PAUSED, "restarted": RESTARTED_AT, "cause": revision.CHANGE_CAUSE,
                  "limit": revision.HISTORY_LIMIT}[key]: value for key, value in values.items()}  # fmt: skip
        await self.client.patch(res, name, {"metadata": {"annotations": marks}}, self.namespace)

    async def deployment(self, name: str = "a") -> Object:
        """The Deployment once everything is quiet, the server's own controllers included."""
        await self.world.condition(k.AGENT if name == "a" else k.MCP_SERVER, self.namespace, name, "Programmed", "True")
        await quiet(self.controllers)

        async def observed() -> Object | None:
            found = await self.client.get(k.DEPLOYMENT, name, self.namespace)
            seen = (found.get("status") or {}).get("observedGeneration")
            return found if seen == found["metadata"]["generation"] else None

        return await self.world.eventually(observed, f"Deployment {name} is observed")

    async def sets(self) -> int:
        """How many templates were rolled out."""
        await self.deployment()
        found = (await self.client.list(k.REPLICA_SET, self.namespace)).items
        return len([item for item in found if item["metadata"]["ownerReferences"][0]["name"] == "a"])

    async def history(self) -> list[tuple[int, str | None]]:
        await quiet(self.controllers)
        listed = (await self.client.list(k.CONTROLLER_REVISION, self.namespace)).items
        found = sorted((revision.read(item) for item in listed), key=lambda r: r.number)
        assert all(item["revision"] == revision.read(item).number for item in listed)
        return [(each.number, each.cause) for each in found]

    async def scale(self, replicas: int, res: Resource = k.AGENT) -> None:
        body = {"spec": {"replicas": replicas}}
        await self.client.patch(res, "a", body, self.namespace, subresource="scale", field_manager="kubectl")

    async def events(self) -> list[str]:
        found = (await self.client.list(k.EVENT, self.namespace)).items
        own = [event for event in found if event["involvedObject"]["name"] == "a"]
        return [f"{event['type']} {event['reason']}: {event['message']}" for event in own]


@pytest.fixture
async def team(world: World) -> AsyncIterator[Team]:
    namespace = await world.namespace()
    await world.model(namespace)
    async with world.operator() as (controllers, _):
        yield Team(world, namespace, controllers)


def stamp(deployment: Object) -> str | None:
    return deployment["spec"]["template"]["metadata"].get("annotations", {}).get(RESTARTED_AT)


def managers(deployment: Object) -> set[str]:
    entries = deployment["metadata"]["managedFields"]
    return {e["manager"] for e in entries if REPLICAS in ((e.get("fieldsV1") or {}).get("f:spec") or {})}


async def test_every_accepted_spec_is_a_revision(team: Team) -> None:
    await team.agent()
    assert await team.history() == [(1, None)]
    await team.annotate(cause="a better description")
    await team.change({"description": "two"})
    assert await team.history() == [(1, "a better description"), (2, "a better description")]
    await team.change({"replicas": 3})
    assert len(await team.history()) == 2, "a number of Pods is no revision"
    await team.change({"declarative": {"modelConfig": "missing"}})
    await team.world.condition(k.AGENT, team.namespace, "a", "Accepted", "False")
    assert len(await team.history()) == 2, "what is not accepted is no revision"
    await team.change({"description": "d", "declarative": {"modelConfig": None}})
    await team.world.condition(k.AGENT, team.namespace, "a", "Accepted", "True")
    assert [number for number, _ in await team.history()] == [2, 3], "an earlier spec is the newest revision"
    owner = (await team.client.get(k.AGENT, "a", team.namespace))["metadata"]["uid"]
    for item in (await team.client.list(k.CONTROLLER_REVISION, team.namespace)).items:
        assert item["metadata"]["ownerReferences"][0]["uid"] == owner
        assert "replicas" not in item["data"]["spec"]


async def test_history_is_bounded_survives_the_operator_and_goes_with_its_owner(world: World) -> None:
    namespace = await world.namespace()
    await world.model(namespace)
    async with world.operator() as (controllers, _):
        team = Team(world, namespace, controllers)
        await team.agent()
        await team.deployment()
        await team.annotate(limit="2")
        for number in range(4):
            await team.change({"description": f"text {number}"})
            await team.deployment()
        assert [number for number, _ in await team.history()] == [3, 4, 5]
    async with world.operator() as (controllers, _):
        again = Team(world, namespace, controllers)
        await again.deployment()
        assert [number for number, _ in await again.history()] == [3, 4, 5]
        assert controllers.client.writes == 0, "a restarted operator writes nothing"
        await again.change({"description": "text 5"})
        await again.deployment()
        assert [number for number, _ in await again.history()] == [4, 5, 6]
    await world.client.delete(k.AGENT, "a", namespace)

    async def gone() -> bool:
        return not (await world.client.list(k.CONTROLLER_REVISION, namespace)).items

    await world.eventually(gone, "the history is gone with its owner", 150)


async def test_a_paused_roll_out_is_accepted_and_held_back(team: Team) -> None:
    await team.agent()
    assert await team.sets() == 1
    secret = await team.client.get(k.SECRET, "a", team.namespace)
    await team.annotate(paused="true")
    await team.change({"description": "two", "replicas": 2})
    await team.world.condition(k.AGENT, team.namespace, "a", "RolloutPaused", "True", "Paused")
    deployment = await team.deployment()
    assert deployment["spec"]["paused"] is True
    assert deployment["spec"]["replicas"] == 2, "a paused roll-out can be scaled"
    assert await team.sets() == 1
    assert (await team.client.get(k.SECRET, "a", team.namespace))["data"] == secret["data"]
    assert len(await team.history()) == 2
    await team.annotate(paused=None)
    await team.world.condition(k.AGENT, team.namespace, "a", "RolloutPaused", "False", "Resumed")
    assert "paused" not in (await team.deployment())["spec"] or not (await team.deployment())["spec"]["paused"]
    assert await team.sets() == 2
    assert (await team.client.get(k.SECRET, "a", team.namespace))["data"] != secret["data"]


async def test_restarts_of_either_side_roll_once_and_the_newer_stays(team: Team) -> None:
    await team.agent()
    assert stamp(await team.deployment()) is None
    await team.annotate(restarted="2026-01-01T12:00:00+02:00")
    assert stamp(await team.deployment()) == "2026-01-01T12:00:00+02:00"
    own = {"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: "2026-01-01T10:00:01Z"}}}}}
    await team.client.patch(
        k.DEPLOYMENT, "a", own, team.namespace, kind="strategic", field_manager="kubectl-rollout"
    )  # fmt: skip
    assert stamp(await team.deployment()) == "2026-01-01T10:00:01Z", "kubectl rollout restart deploy is not overruled"
    await team.annotate(restarted=None)
    assert stamp(await team.deployment()) == "2026-01-01T10:00:01Z", "taking the annotation away restarts nothing"
    await team.annotate(restarted="2026-01-01T10:00:02Z")
    assert stamp(await team.deployment()) == "2026-01-01T10:00:02Z"
    assert await team.sets() == 4
    assert len(await team.history()) == 1, "a restart is no revision"


async def test_the_resource_wins_until_an_autoscaler_owns_the_replicas(team: Team) -> None:
    await team.agent()
    await team.deployment()
    await team.scale(3)
    assert (await team.deployment())["spec"]["replicas"] == 3
    await team.scale(5, k.DEPLOYMENT)
    assert (await team.deployment())["spec"]["replicas"] == 3
    assert any("kubectl scale agent a" in event for event in await team.events()), await team.events()

    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 9}
    await team.world.create(k.HPA, {"metadata": team.named("h"), "spec": spec})

    async def released() -> Object | None:
        found = await team.client.get(k.DEPLOYMENT, "a", team.namespace)
        return found if "quarterdeck" not in managers(found) else None

    found = await team.world.eventually(released, "replicas are released")
    assert found["spec"]["replicas"] == 3, "letting go changes nothing"
    assert managers(found) == {HANDOVER}
    await team.scale(6, k.DEPLOYMENT)
    await team.change({"description": "two"})
    found = await team.deployment()
    assert found["spec"]["replicas"] == 6, "neither scaling nor a change of ours takes it back"
    assert managers(found) == {"kubectl"}
    assert any("ReplicasReleased" in event for event in await team.events())
    await team.client.delete(k.HPA, "h", team.namespace)

    async def taken() -> bool:
        found = await team.client.get(k.DEPLOYMENT, "a", team.namespace)
        return found["spec"]["replicas"] == 3 and managers(found) == {"quarterdeck"}

    await team.world.eventually(taken, "the resource has its replicas again")


async def test_who_insists_on_a_number_is_left_alone_until_the_resource_asks_for_another(team: Team) -> None:
    await team.agent(replicas=2)
    await team.deployment()
    written: list[str] = []
    team.controllers.client.on_write = lambda method, path: written.append(f"{method} {path}")

    async def number() -> int:
        return (await team.deployment())["spec"]["replicas"]

    await team.scale(5, k.DEPLOYMENT)
    assert await number() == 2, "once it is put back"
    await team.scale(5, k.DEPLOYMENT)
    assert await number() == 5, "insisted on"
    del written[:]  # the note that says so: more than one request where the server's own controllers write, too
    for replicas in (4, 6):
        await team.scale(replicas, k.DEPLOYMENT)
        assert await number() == replicas
    assert not [entry for entry in written if "/deployments/" in entry], "nothing more is written there"
    await team.change({"description": "two"})
    assert await number() == 6, "another change of the resource leaves it alone, too"
    said = [event for event in await team.events() if "ReplicasReleased" in event]
    assert len(said) == 1 and "kubectl scale agent a --replicas=N" in said[0], said

    async with team.world.operator() as (fresh, _):
        await quiet(fresh)
        assert fresh.client.writes == 0, "the next leader leaves it alone"

    await team.scale(3)
    found = await team.deployment()
    assert (found["spec"]["replicas"], LEFT in found["metadata"]["annotations"]) == (3, False)
    await team.scale(7, k.DEPLOYMENT)
    assert await number() == 3, "then the resource is heard again"


async def test_a_servers_number_is_left_alone_as_well(team: Team) -> None:
    server = {"transportType": "stdio", "deployment": {"cmd": "uvx", "args": ["x"]}}
    await team.world.create(k.MCP_SERVER, {"metadata": team.named("m"), "spec": server})
    await team.deployment("m")
    for replicas, expected in ((3, 1), (3, 3)):
        body = {"spec": {"replicas": replicas}}
        await team.client.patch(k.DEPLOYMENT, "m", body, team.namespace, subresource="scale", field_manager="kubectl")
        assert (await team.deployment("m"))["spec"]["replicas"] == expected


async def test_a_rotated_secret_rolls_what_uses_it_exactly_once(team: Team) -> None:
    await team.secret("used", key="1", other="1")
    await team.secret("whole", key="1")
    await team.secret("model", key="1")
    model = {"provider": "OpenAI", "model": "m", "apiKeySecret": "model", "apiKeySecretKey": "key"}
    await team.client.patch(k.MODEL_CONFIG, "default-model-config", {"spec": model}, team.namespace)
    variable = {"name": "K", "valueFrom": {"secretKeyRef": {"name": "used", "key": "key"}}}
    sidecar = {"name": "s", "image": "s", "envFrom": [{"secretRef": {"name": "whole"}}]}
    settings = {"env": [variable], "extraContainers": [sidecar]}
    await team.agent(declarative={"systemMessage": "Help.", "deployment": settings})
    assert await team.sets() == 1
    await team.secret("used", key="2", other="1")
    assert await team.sets() == 2
    await team.secret("used", key="2", other="2")
    assert await team.sets() == 2, "a key that no Pod reads rolls nothing"
    await team.secret("model", key="2")
    assert await team.sets() == 2, "the model's key is the gateway's: no Pod has it"
    await team.secret("whole", key="2")
    assert await team.sets() == 3
    await team.client.delete(k.SECRET, "used", team.namespace)
    assert await team.sets() == 3, "without the Secret new Pods could not start: the running ones stay"
    await team.secret("used", key="3", other="3")
    assert await team.sets() == 4, "deleted and created again is one rotation"
    await team.client.delete(k.SECRET, "used", team.namespace)
    await team.deployment()
    await team.secret("used", key="3")
    assert await team.sets() == 4, "the same content is no change"


async def test_config_maps_and_prompts_roll_exactly_once(team: Team) -> None:
    async def config_map(name: str, **data: str) -> None:
        body = {"metadata": team.named(name), "data": data}
        await team.client.apply(k.CONFIG_MAP, body, field_manager="test")

    await config_map("mounted", a="1", b="1")
    await config_map("prompt", text="Be kind.")
    volume = {"name": "v", "configMap": {"name": "mounted", "items": [{"key": "a", "path": "a"}]}}
    source = {"type": "ConfigMap", "name": "prompt", "key": "text"}
    await team.agent(declarative={"systemMessageFrom": source, "deployment": {"volumes": [volume]}})
    assert await team.sets() == 1
    await config_map("mounted", a="2", b="1")
    assert await team.sets() == 2
    await config_map("mounted", a="2", b="2")
    assert await team.sets() == 2
    await config_map("prompt", text="Be brief.", other="unused")
    assert await team.sets() == 3
    assert len(await team.history()) == 1


async def test_100_looks_at_unchanged_inputs_write_nothing(team: Team) -> None:
    await team.secret("used", key="1")
    await team.agent(
        declarative={"systemMessage": "Help.", "deployment": {"envFrom": [{"secretRef": {"name": "used"}}]}}
    )
    server = {"transportType": "stdio", "deployment": {"cmd": "uvx", "args": ["x"], "secretRefs": [{"name": "used"}]}}
    await team.world.create(k.MCP_SERVER, {"metadata": team.named("m"), "spec": server})
    await team.deployment()
    await team.deployment("m")
    stats = {c.name: c.stats for c in team.controllers.controllers}
    for _ in range(10):  # a real controller manager may still be writing what it found: then it is looked at again
        await quiet(team.controllers)
        versions, writes = await _versions(team), team.controllers.client.writes
        for name, key in (("agent", "a"), ("mcpserver", "m")):
            before = stats[name].reconciles
            for wanted in range(1, 101):
                team.controllers.enqueue(name, Key(team.namespace, key))
                while stats[name].reconciles < before + wanted:
                    await quiet(team.controllers, turns=1)
        if await _versions(team) == versions:
            break
    assert team.controllers.client.writes == writes
    assert await _versions(team) == versions


async def _versions(team: Team) -> dict[str, str]:
    found: dict[str, str] = {}
    for res in (k.DEPLOYMENT, k.SECRET, k.CONFIG_MAP, k.SERVICE, k.SERVICE_ACCOUNT, k.CONTROLLER_REVISION):
        for item in (await team.client.list(res, team.namespace)).items:
            if res is not k.DEPLOYMENT:  # its status is the cluster's
                found[f"{res.plural}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
            else:
                found[f"{res.plural}/{item['metadata']['name']}"] = str(item["metadata"]["generation"])
    return found
