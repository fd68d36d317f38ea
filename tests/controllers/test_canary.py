"""Canaries and resting workloads as the controllers run them: objects, status, snapshot, Events.

Without a cluster's own controllers: the tests say themselves how far a Deployment is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.controllers import GatewayConfig
from quarterdeck.controllers.canary import Contents
from quarterdeck.errors import BadRequest, Forbidden, NotFound
from quarterdeck.kube import resource as k
from quarterdeck.kube.resource import Object
from quarterdeck.snapshot.activity import Counted, Report, Used
from quarterdeck.translate.objects import ABORT, PROMOTE

from . import servers
from .servers import World, quiet

NS, NAME, TRIAL = "kagent", "greeter", "greeter-canary"
ROLLOUT: Object = {
    "strategy": "Canary",
    "steps": [{"weight": 20}, {"weight": 60}],
    "match": [{"headers": [{"name": "X-Beta", "exact": "1"}]}],
    "analysis": {"maxErrorRate": 0.1, "minRequests": 10},
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with servers.embedded(tmp_path, workloads=False) as found:
        await found.model(NS)
        yield found


def agent(text: str, *tools: str, **spec: Any) -> Object:
    used = [{"type": "McpServer", "mcpServer": {"kind": "MCPServer", "name": name}} for name in tools]
    declarative: Object = {"systemMessage": text} | ({"tools": used} if used else {})
    return {
        "metadata": {"name": NAME, "namespace": NS},
        "spec": {"type": "Declarative", "declarative": declarative} | spec,
    }


async def available(world: World, name: str) -> None:
    """Say of a Deployment, once it is there, that all its Pods are up."""

    async def there() -> Object | None:
        return await world.find(k.DEPLOYMENT, NS, name)

    found = await world.eventually(there, f"Deployment {name}")
    number = found["spec"].get("replicas", 1)
    counts = {key: number for key in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")}
    status = {"status": counts | {"observedGeneration": found["metadata"]["generation"]}}
    await world.client.patch(k.DEPLOYMENT, name, status, NS, subresource="status")


async def phase(world: World, wanted: str, step: int | None = None) -> Object:
    async def read() -> Object | None:
        found = ((await world.find(k.AGENT, NS, NAME)) or {}).get("status", {}).get("rollout") or {}
        return found if found.get("phase") == wanted and step in (None, found.get("step")) else None

    return await world.eventually(read, f"phase {wanted} {step}")


async def change(world: World, patch: Object) -> None:
    await world.client.patch(k.AGENT, NAME, patch, NS)


async def on_trial(world: World, *tools: str) -> Object:
    """A first spec that is served and a second one in its first step."""
    await world.create(k.AGENT, agent("one", rollout=ROLLOUT))
    await available(world, NAME)
    await phase(world, "Stable")
    await change(world, {"spec": agent("two", *tools)["spec"]})
    await available(world, TRIAL)
    return await phase(world, "Paused", 0)


async def snapshot_of(config: GatewayConfig, check: Any) -> Any:
    async with asyncio.timeout(30):
        while config.snapshot is None or not check(config.snapshot):
            await asyncio.sleep(0.02)
    return config.snapshot


def report(status: Object, requests: int, errors: int, boot: str = "b1") -> Report:
    from quarterdeck.snapshot.conversation import track_tag

    tag = track_tag(status["canaryRevision"], status["startedAt"])
    return Report(boot, (Counted("Agent", NS, NAME, f"{tag}.{status['step']}", requests, errors),))


async def test_two_tracks_while_a_spec_is_on_trial_and_one_afterwards(world: World) -> None:
    async with world.operator() as (controllers, config):
        status = await on_trial(world)
        assert status["weight"] == 20
        stable = await world.client.get(k.DEPLOYMENT, NAME, NS)
        trial = await world.client.get(k.DEPLOYMENT, TRIAL, NS)
        for deployment, name in ((stable, NAME), (trial, TRIAL)):
            assert deployment["spec"]["selector"]["matchLabels"]["kagent"] == name
            pod = deployment["spec"]["template"]
            assert pod["metadata"]["labels"]["kagent"] == name
            assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == NAME
            assert pod["spec"]["serviceAccountName"] == NAME
            assert {"name": "config", "secret": {"secretName": name, "defaultMode": 420}} in pod["spec"]["volumes"]
            assert {"name": "KAGENT_NAME", "value": NAME} in pod["spec"]["containers"][0]["env"], (
                "one agent, two tracks"
            )
        assert (await world.client.get(k.SERVICE, NAME, NS))["spec"]["selector"]["kagent"] == NAME
        assert (await world.client.get(k.SERVICE, TRIAL, NS))["spec"]["selector"]["kagent"] == TRIAL
        snapshot = await snapshot_of(config, lambda s: s.agents and s.agents[0].split is not None)
        backends = snapshot.agents[0].split.backends
        assert [(b.name, b.weight, bool(b.matches), bool(b.epoch)) for b in backends] == [
            ("stable", 80, False, False),
            ("canary", 20, True, True),
        ]
        await quiet(controllers)

        await change(world, {"metadata": {"annotations": {PROMOTE: f"{attempt(status)}/0"}}})
        assert (await phase(world, "Paused", 1))["weight"] == 60
        await change(world, {"metadata": {"annotations": {PROMOTE: f"{attempt(status)}/full"}}})
        await phase(world, "Promoting")
        promoted = await world.client.get(k.SECRET, NAME, NS)
        assert promoted["data"] == (await world.client.get(k.SECRET, TRIAL, NS))["data"]
        await available(world, NAME)
        await phase(world, "Stable")
        for res in (k.DEPLOYMENT, k.SERVICE, k.SECRET):
            await world.gone(res, NS, TRIAL)
        condition = await world.condition(k.AGENT, NS, NAME, "RolledOut", "True", "Promoted")
        assert status["canaryRevision"] in condition["message"]
        await snapshot_of(config, lambda s: s.agents[0].split is None)
        told = {e["reason"] for e in (await world.client.list(k.EVENT, NS)).items}
        assert {"CanaryStarted", "CanaryStep", "CanaryPromoting", "CanaryPromoted"} <= told


def attempt(status: Object) -> str:
    return f"{status['canaryRevision']}@{status['startedAt']}"


async def test_errors_counted_by_gateways_end_it_and_it_stays_ended_for_the_next_operator(world: World) -> None:
    async with world.operator() as (_, config):
        status = await on_trial(world)
        config.report("quarterdeck-system/quarterdeck", report(status, 6, 0, "one"))
        config.report("quarterdeck-system/quarterdeck", report(status, 6, 0, "two"))
        config.report("quarterdeck-system/quarterdeck", report(status, 6, 0, "two"))

        async def counted() -> bool:
            return ((await world.find(k.AGENT, NS, NAME)) or {})["status"]["rollout"].get("requests") == 12

        await world.eventually(counted, "twelve requests of two processes, one report told twice")
    async with world.operator() as (_, config):  # another leader, which knows nothing but the status
        assert (await phase(world, "Paused", 0))["startedAt"] == status["startedAt"]
        config.report("quarterdeck-system/quarterdeck", report(status, 12, 3, "one"))
        ended = await phase(world, "Aborted")
        assert "3 of 12 requests failed (25.0%)" in ended["message"]
        await world.warned(NS, NAME, "ErrorRateExceeded")
        await world.gone(k.DEPLOYMENT, NS, TRIAL)
    async with world.operator() as (controllers, _):
        await quiet(controllers)
        assert (await phase(world, "Aborted"))["canaryRevision"] == status["canaryRevision"]
        assert await world.find(k.DEPLOYMENT, NS, TRIAL) is None
        stable = await world.client.get(k.SECRET, NAME, NS)
        await change(world, {"spec": {"declarative": {"systemMessage": "three"}}})
        again = await phase(world, "Progressing")
        assert again["stableRevision"] == status["stableRevision"]
        assert (await world.client.get(k.SECRET, NAME, NS))["data"] == stable["data"]


async def test_what_an_agents_pods_may_reach_is_what_either_spec_grants(world: World) -> None:
    for name in ("old-tools", "new-tools"):
        spec = {"transportType": "http", "deployment": {"image": "x:1", "port": 3000}}
        await world.create(k.MCP_SERVER, {"metadata": {"name": name, "namespace": NS}, "spec": spec})
    async with world.operator() as (_, config):
        await world.create(k.AGENT, agent("one", "old-tools", rollout=ROLLOUT))
        await available(world, NAME)
        await phase(world, "Stable")
        await change(world, {"spec": agent("two", "new-tools")["spec"]})
        await available(world, TRIAL)
        status = await phase(world, "Paused", 0)
        await snapshot_of(config, lambda s: granted(s) == {"old-tools", "new-tools"})
        await change(world, {"metadata": {"annotations": {ABORT: attempt(status)}}})
        await phase(world, "Aborted")
        await snapshot_of(config, lambda s: granted(s) == {"old-tools"})
    async with world.operator() as (_, config):
        await snapshot_of(config, lambda s: granted(s) == {"old-tools"})


def granted(snapshot: Any) -> set[str]:
    return {grant.name for policy in snapshot.policies if policy.name == NAME for grant in policy.tools}


async def test_a_name_with_no_room_for_the_suffix_is_told_and_what_is_served_goes_on(world: World) -> None:
    name = "n" * 60
    async with world.operator():
        body = agent("one", rollout=ROLLOUT)
        body["metadata"]["name"] = name
        await world.create(k.AGENT, body)
        await available(world, name)
        await world.condition(k.AGENT, NS, name, "Accepted", "True")
        before = await world.client.get(k.SECRET, name, NS)
        await world.client.patch(k.AGENT, name, {"spec": {"declarative": {"systemMessage": "two"}}}, NS)
        found = await world.condition(k.AGENT, NS, name, "Accepted", "False", "InvalidName")
        assert "at most 56" in found["message"]
        assert (await world.client.get(k.SECRET, name, NS))["data"] == before["data"]


async def test_a_regular_expression_that_is_none_is_told(world: World) -> None:
    async with world.operator():
        match = [{"claims": [{"name": "groups", "regex": "("}]}]
        await world.create(k.AGENT, agent("one", rollout={"strategy": "Canary", "match": match}))
        found = await world.condition(k.AGENT, NS, NAME, "Accepted", "False")
        assert "rollout.match: groups: invalid regular expression" in found["message"]


async def test_what_nobody_calls_is_ended_and_a_call_starts_it(world: World) -> None:
    async with world.operator() as (controllers, config):
        await world.create(k.AGENT, agent("one", scaleToZero={"after": "200ms"}))
        await available(world, NAME)
        await world.condition(k.AGENT, NS, NAME, "Ready", "True", "DeploymentReady")
        config.report("g", Report("b", (), (Used("Agent", NS, NAME, calls=3),)))

        async def replicas(number: int) -> None:
            async def read() -> bool:
                return (await world.client.get(k.DEPLOYMENT, NAME, NS))["spec"]["replicas"] == number

            await world.eventually(read, f"{number} replicas")

        await change(world, {"metadata": {"labels": {"looked": "at"}}})
        await replicas(0)
        await available(world, NAME)
        await world.condition(k.AGENT, NS, NAME, "Ready", "True", "ScaledToZero")
        await change(world, {"spec": {"description": "changed while asleep"}})
        await quiet(controllers)
        await replicas(0)
        assert await config.wake(("Agent", NS, NAME)) == 1
        assert await config.wake(("Agent", NS, NAME)) == 1, "a second call starts nothing more"
        await replicas(1)
        spec = (await world.client.get(k.AGENT, NAME, NS))["spec"]
        assert spec["replicas"] == 1, "the spec is never written"


async def test_only_what_rests_by_its_own_spec_can_be_woken(world: World) -> None:
    async with world.operator() as (_, config):
        await world.create(k.AGENT, agent("one", replicas=0))
        await available(world, NAME)
        with pytest.raises(Forbidden, match=r"no spec\.scaleToZero"):
            await config.wake(("Agent", NS, NAME))
        with pytest.raises(NotFound):
            await config.wake(("MCPServer", NS, "nobody"))
        with pytest.raises(BadRequest, match="Agent or MCPServer"):
            await config.wake(("Deployment", NS, NAME))


async def test_somebody_elses_deployment_is_not_started_by_an_agent_of_its_name(world: World) -> None:
    labels = {"app": "theirs"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod}
    await world.create(k.DEPLOYMENT, {"metadata": {"name": NAME, "namespace": NS}, "spec": spec})
    async with world.operator() as (_, config):
        await world.create(k.AGENT, agent("one", scaleToZero={"after": "1h"}))
        await world.condition(k.AGENT, NS, NAME, "Programmed", "False", "NameConflict")
        with pytest.raises(NotFound, match="of its own"):
            await config.wake(("Agent", NS, NAME))


async def test_what_somebody_put_in_place_of_a_revision_is_not_served(world: World) -> None:
    async with world.operator():
        status = await on_trial(world)
    name = status["stableRevision"]
    obj = await world.client.get(k.AGENT, NAME, NS)
    kept = await Contents(world.client).get(obj, name)
    assert kept is not None and kept["declarative"]["systemMessage"] == "one"
    planted = await world.client.get(k.CONTROLLER_REVISION, name, NS)
    await world.client.delete(k.CONTROLLER_REVISION, name, NS)
    metadata = {key: planted["metadata"][key] for key in ("name", "namespace", "labels")}
    for data in ({"spec": agent("evil")["spec"]}, {"spec": "evil"}, {}):
        await world.create(k.CONTROLLER_REVISION, {"metadata": metadata, "data": data, "revision": 1})
        assert await Contents(world.client).get(obj, name) is None
        await world.client.delete(k.CONTROLLER_REVISION, name, NS)
