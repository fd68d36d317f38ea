"""What cannot work is said exactly, affects nothing else, and is over as soon as its cause is: on both API servers."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from quarterdeck.controllers.holders import Holders
from quarterdeck.errors import Invalid, NameConflict
from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.owner import owner_reference
from quarterdeck.kube.resource import Object, Resource

from .servers import World, quiet

pytestmark = pytest.mark.timeout(240)


def agent(name: str, namespace: str, tools: list[Object] | None = None, **declarative: Any) -> Object:
    spec = {"description": "d", "declarative": {"systemMessage": "Help.", "tools": tools or []} | declarative}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def calls(name: str, namespace: str | None = None) -> Object:
    return {"type": "Agent", "agent": {"name": name} | ({"namespace": namespace} if namespace else {})}


def uses(kind: str, name: str, namespace: str | None = None, **more: Any) -> Object:
    group = "" if kind == "Service" else "kagent.dev"
    server = {"kind": kind, "apiGroup": group, "name": name} | ({"namespace": namespace} if namespace else {})
    return {"type": "McpServer", "mcpServer": server} | more


def mcp_server(name: str, namespace: str, **deployment: Any) -> Object:
    spec = {"transportType": "stdio", "deployment": {"cmd": "uvx", "args": ["x"]} | deployment}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def remote(name: str, namespace: str, **more: Any) -> Object:
    spec = {"description": "d", "url": "http://127.0.0.1:9/mcp"} | more
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


async def change(world: World, res: Resource, namespace: str, name: str, spec: Object) -> None:
    await world.client.patch(res, name, {"spec": spec}, namespace, kind="merge")


async def test_names_that_services_and_labels_cannot_carry(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    async with world.operator() as (controllers, _):
        longest = "a" * 63
        for name in (longest, "b" * 64, "dotted.name"):
            await world.create(k.AGENT, agent(name, team))
        await world.create(k.MCP_SERVER, mcp_server("c" * 253, team))
        await world.condition(k.AGENT, team, longest, "Programmed", "True")
        for name, words in (("b" * 64, "has 64 characters"), ("dotted.name", "cannot name a Service")):
            found = await world.condition(k.AGENT, team, name, "Accepted", "False", "InvalidName")
            assert words in found["message"], found
            await world.warned(team, name, "InvalidName")
        found = await world.condition(k.MCP_SERVER, team, "c" * 253, "Accepted", "False", "InvalidName")
        assert "at most 63" in found["message"]
        await quiet(controllers)
        for res in (k.DEPLOYMENT, k.SERVICE, k.SECRET, k.SERVICE_ACCOUNT):
            there = {obj["metadata"]["name"] for obj in (await world.client.list(res, team)).items}
            assert not there & {"b" * 64, "dotted.name", "c" * 253}, f"{res.kind} of an invalid name"


async def test_a_prompt_of_1_mb_works_and_what_a_secret_cannot_hold_is_said(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    async with world.operator():
        await world.create(k.AGENT, agent("large", team, systemMessage="x" * 1_000_000))
        await world.condition(k.AGENT, team, "large", "Programmed", "True")
        await world.create(k.AGENT, agent("huge", team, systemMessage="x" * 1_050_000))
        found = await world.condition(k.AGENT, team, "huge", "Accepted", "False", "ConfigTooLarge")
        assert "a Secret holds 1048576" in found["message"]
        assert "shorten the system message" in found["message"]
        await world.warned(team, "huge", "ConfigTooLarge")
        if world.plane is not None:  # etcd takes 1.5 MiB: this leaves no room for a status, so the Event has to do
            await world.create(k.AGENT, agent("full", team, systemMessage="x" * 1_572_000))
            await world.warned(team, "full", "ConfigTooLarge")
        assert await world.find(k.DEPLOYMENT, team, "huge") is None
        await change(world, k.AGENT, team, "huge", {"declarative": {"systemMessage": "Short."}})
        await world.condition(k.AGENT, team, "huge", "Programmed", "True")


async def test_agents_in_a_circle_are_refused_and_whoever_only_calls_them_is_not(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    async with world.operator():
        for name, called in (("a", "b"), ("b", "c"), ("c", "a"), ("outside", "a"), ("self", "self")):
            await world.create(k.AGENT, agent(name, team, [calls(called)]))
        for name in "abc":
            found = await world.condition(k.AGENT, team, name, "Accepted", "False", "CircularReference")
            assert found["message"].count(f"{team}/{name}") == 2, "the way round is shown"
            await world.warned(team, name, "CircularReference")
        await world.condition(k.AGENT, team, "self", "Accepted", "False", "CircularReference")
        await world.condition(k.AGENT, team, "outside", "Accepted", "True")
        await change(world, k.AGENT, team, "c", {"declarative": {"tools": []}})
        for name in "abc":
            await world.condition(k.AGENT, team, name, "Accepted", "True")


async def test_many_ways_to_the_same_agents_cost_nothing(embedded_world: World) -> None:
    """Seven layers of five agents, each calling all of the next: 5^7 ways."""
    world = embedded_world
    team = await world.namespace()
    await world.model(team)
    layers = [[f"l{depth}-{n}" for n in range(5)] for depth in range(7)]
    for layer, below in zip(layers, [*layers[1:], []], strict=True):
        for name in layer:
            await world.create(k.AGENT, agent(name, team, [calls(called) for called in below]))
    async with world.operator():
        for name in (layers[0][0], layers[-1][-1]):
            await world.condition(k.AGENT, team, name, "Programmed", "True")


async def test_agents_nested_too_deep(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    async with world.operator():
        for n in range(13):
            await world.create(k.AGENT, agent(f"n{n}", team, [calls(f"n{n + 1}")] if n < 12 else []))
        found = await world.condition(k.AGENT, team, "n0", "Accepted", "False", "ReconcileFailed")
        assert "nested deeper than 10" in found["message"]
        await world.condition(k.AGENT, team, "n3", "Accepted", "True")
        await change(world, k.AGENT, team, "n5", {"declarative": {"tools": []}})
        await world.condition(k.AGENT, team, "n0", "Accepted", "True")


async def test_missing_objects_and_keys_are_named_and_their_coming_is_enough(world: World) -> None:
    team = await world.namespace()
    client = world.client

    def meta(name: str) -> Object:
        return {"metadata": {"name": name, "namespace": team}}

    secret = {"type": "Secret", "name": "s", "key": "token"}
    header = {"name": "X-Key", "valueFrom": secret}
    agents = {
        "no-server": agent("no-server", team, [uses("MCPServer", "m")]),
        "no-remote": agent("no-remote", team, [uses("RemoteMCPServer", "r")]),
        "no-service": agent("no-service", team, [uses("Service", "svc")]),
        "no-agent": agent("no-agent", team, [calls("later")]),
        "no-model": agent("no-model", team, modelConfig="mine"),
        "no-prompt": agent("no-prompt", team, systemMessage=None, systemMessageFrom=secret | {"type": "ConfigMap"}),
        "no-key": agent("no-key", team, [uses("RemoteMCPServer", "r", headersFrom=[header])]),
        "no-env": agent("no-env", team, deployment={"envFrom": [{"secretRef": {"name": "vars"}}]}),
        "no-env-key": agent(
            "no-env-key",
            team,
            deployment={"env": [{"name": "B", "valueFrom": {"secretKeyRef": {"name": "there", "key": "b"}}}]},
        ),
    }
    words = {
        "no-server": "MCPServer {}/m not found", "no-remote": "RemoteMCPServer {}/r not found",
        "no-service": "Service {}/svc not found", "no-agent": "Agent {}/later not found",
        "no-model": "ModelConfig {}/mine not found", "no-prompt": "ConfigMap {}/s not found",
        "no-key": "", "no-env": "not found: Secret {}/vars", "no-env-key": "not found: Secret {}/there (no key b)",
    }  # fmt: skip
    await world.model(team)
    await world.create(k.SECRET, meta("there") | {"stringData": {"a": "1"}})
    async with world.operator() as (controllers, _):
        for body in agents.values():
            await world.create(k.AGENT, body)
        for name, text in words.items():
            found = await world.condition(k.AGENT, team, name, "ResolvedRefs", "False", "RefNotFound")
            assert text.format(team) in found["message"], found
            await world.warned(team, name, "RefNotFound")
        await world.condition(k.AGENT, team, "no-env", "Accepted", "True")
        await quiet(controllers)
        await world.create(k.SECRET, meta("s") | {"stringData": {"other": "x"}})
        await world.create(k.REMOTE_MCP_SERVER, remote("r", team))
        found = await world.condition(k.AGENT, team, "no-key", "ResolvedRefs", "False", "RefNotFound")

        async def keyed() -> bool:
            found = await world.condition(k.AGENT, team, "no-key", "ResolvedRefs", "False", "RefNotFound")
            return "has no key token; it has other" in found["message"]

        await world.eventually(keyed, "the key is named")
        await world.create(k.MCP_SERVER, mcp_server("m", team))
        await world.create(k.SERVICE, meta("svc") | {"spec": {"ports": [{"port": 80}]}})
        await world.create(k.AGENT, agent("later", team))
        await world.create(k.MODEL_CONFIG, meta("mine") | {"spec": {"provider": "Scripted", "model": "x"}})
        await world.create(k.CONFIG_MAP, meta("s") | {"data": {"token": "Prompt."}})
        await world.create(k.SECRET, meta("vars") | {"stringData": {"A": "1"}})
        await client.patch(k.SECRET, "s", {"stringData": {"token": "t"}}, team, kind="merge")
        await client.patch(k.SECRET, "there", {"stringData": {"b": "2"}}, team, kind="merge")
        for name in words:
            await world.condition(k.AGENT, team, name, "ResolvedRefs", "True")
            await world.condition(k.AGENT, team, name, "Programmed", "True")


async def test_a_model_config_whose_secret_or_key_is_missing(world: World) -> None:
    team = await world.namespace()
    spec = {"provider": "OpenAI", "model": "m", "apiKeySecret": "key", "apiKeySecretKey": "OPENAI_API_KEY"}
    async with world.operator():
        await world.create(k.MODEL_CONFIG, {"metadata": {"name": "m", "namespace": team}, "spec": spec})
        found = await world.condition(k.MODEL_CONFIG, team, "m", "ResolvedRefs", "False", "RefNotFound")
        assert f"Secret {team}/key not found; create it with key OPENAI_API_KEY" in found["message"]
        await world.condition(k.MODEL_CONFIG, team, "m", "Accepted", "False", "ModelConfigReconcileFailed")
        await world.warned(team, "m", "RefNotFound")
        secret = {"metadata": {"name": "key", "namespace": team}, "stringData": {"OPENAI_API_KEY": "sk"}}
        await world.create(k.SECRET, secret)
        await world.condition(k.MODEL_CONFIG, team, "m", "Ready", "True")
        await world.condition(k.MODEL_CONFIG, team, "m", "ResolvedRefs", "True")
        spec = {"provider": "Bedrock", "model": "m", "bedrock": {"region": "eu-west-1"}}
        await world.create(k.MODEL_CONFIG, {"metadata": {"name": "role", "namespace": team}, "spec": spec})
        found = await world.condition(k.MODEL_CONFIG, team, "role", "Accepted", "False", "ProviderNotSupported")
        assert "the gateway has no cloud identity of its own" in found["message"]


async def test_images_and_pods_that_no_cluster_takes(world: World) -> None:
    team = await world.namespace()
    async with world.operator() as (controllers, _):
        byo = {"type": "BYO", "byo": {"deployment": {"image": "Not An Image"}}}
        await world.create(k.AGENT, {"metadata": {"name": "byo", "namespace": team}, "spec": byo})
        found = await world.condition(k.AGENT, team, "byo", "Accepted", "False", "ReconcileFailed")
        assert "spec.byo.deployment.image: 'Not An Image' is not an image reference" in found["message"]
        await change(world, k.AGENT, team, "byo", {"byo": {"deployment": {"image": "ghcr.io/acme/agent:1"}}})
        await world.condition(k.AGENT, team, "byo", "Programmed", "True")

        bad = mcp_server("bad", team, volumes=[{"name": "UPPER case", "emptyDir": {}}])
        await world.create(k.MCP_SERVER, bad)
        found = await world.condition(k.MCP_SERVER, team, "bad", "Programmed", "False", "InvalidObject")
        assert "spec.template.spec.volumes" in found["message"], found
        await world.condition(k.MCP_SERVER, team, "bad", "Accepted", "True")
        await world.warned(team, "bad", "InvalidObject")
        before, reconciles = controllers.client.writes, _reconciles(controllers, "mcpserver")
        await asyncio.sleep(1)  # what is measured is how little happens in a second
        assert controllers.client.writes - before < 10, "tried again with growing pauses"
        assert _reconciles(controllers, "mcpserver") - reconciles < 10
        await change(world, k.MCP_SERVER, team, "bad", {"deployment": {"volumes": None}})
        await world.condition(k.MCP_SERVER, team, "bad", "Programmed", "True")


async def test_a_refused_change_leaves_what_runs_as_it_was(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    async with world.operator():
        await world.create(k.AGENT, agent("a", team))
        await world.condition(k.AGENT, team, "a", "Programmed", "True")
        before = await world.find(k.SECRET, team, "a") or {}
        volume = {"volumes": [{"name": "UPPER case", "emptyDir": {}}]}
        await change(world, k.AGENT, team, "a", {"declarative": {"systemMessage": "New.", "deployment": volume}})
        await world.condition(k.AGENT, team, "a", "Programmed", "False", "InvalidObject")
        assert (await world.find(k.SECRET, team, "a") or {})["data"] == before["data"], (
            "Pods that start get the old one"
        )
        await change(world, k.AGENT, team, "a", {"declarative": {"deployment": None}})
        await world.condition(k.AGENT, team, "a", "Programmed", "True")
        assert (await world.find(k.SECRET, team, "a") or {})["data"] != before["data"]


def _reconciles(controllers: ControllerSet, name: str) -> int:
    return next(c.stats.reconciles for c in controllers.controllers if c.name == name)


async def test_an_agent_and_a_server_of_one_name(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    async with world.operator() as (controllers, _):
        await asyncio.gather(
            world.create(k.AGENT, agent("twin", team)),
            world.create(k.MCP_SERVER, mcp_server("twin", team)),
        )

        async def settled() -> tuple[Resource, Resource] | None:
            for winner, loser in ((k.AGENT, k.MCP_SERVER), (k.MCP_SERVER, k.AGENT)):
                states = [await _programmed(world, res, team, "twin") for res in (winner, loser)]
                if states == ["Programmed", "NameConflict"]:
                    return winner, loser
            return None

        winner, loser = await world.eventually(settled, "one has the name and the other says so")
        await quiet(controllers)
        await world.warned(team, "twin", "NameConflict")
        owners: set[str] = set()
        for res in (k.DEPLOYMENT, k.SERVICE, k.SERVICE_ACCOUNT):
            found = await world.find(res, team, "twin")
            assert found is not None
            owners |= {reference["kind"] for reference in found["metadata"]["ownerReferences"]}
        assert owners == {winner.kind}, "nothing was taken over"
        await world.client.delete(winner, "twin", team)
        # a real garbage collector looks for new definitions every 30 s only
        await world.condition(loser, team, "twin", "Programmed", "True", seconds=90)


async def _programmed(world: World, res: Resource, namespace: str, name: str) -> str:
    obj = await world.find(res, namespace, name) or {}
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((c["reason"] for c in conditions if c["type"] == "Programmed"), "")


FOREIGN: dict[str, tuple[Resource, Object]] = {
    "Deployment": (k.DEPLOYMENT, {"spec": {"selector": {"matchLabels": {"app": "f"}}, "template": {
        "metadata": {"labels": {"app": "f"}}, "spec": {"containers": [{"name": "f", "image": "f"}]}}}}),
    "Service": (k.SERVICE, {"spec": {"selector": {"app": "f"}, "ports": [{"port": 80}]}}),
    "Secret": (k.SECRET, {"stringData": {"theirs": "x"}}),
    "ServiceAccount": (k.SERVICE_ACCOUNT, {}),
}  # fmt: skip


async def test_unrelated_objects_of_the_name_are_left_alone(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    before: dict[str, Object] = {}
    for kind, (res, body) in FOREIGN.items():
        name = f"held-{kind.lower()}"
        await world.create(res, {"metadata": {"name": name, "namespace": team}} | body)
        before[kind] = await world.find(res, team, name) or {}
    async with world.operator():
        for name in (*(f"held-{kind.lower()}" for kind in FOREIGN), "other"):
            await world.create(k.AGENT, agent(name, team))
        await world.condition(k.AGENT, team, "other", "Programmed", "True")
        for kind, (res, _) in FOREIGN.items():
            name = f"held-{kind.lower()}"
            found = await world.condition(k.AGENT, team, name, "Programmed", "False", "NameConflict")
            assert f"{kind} {team}/{name} exists and belongs to nobody" in found["message"], found
            await world.warned(team, name, "NameConflict")
            ready = await world.condition(k.AGENT, team, name, "Ready", "Unknown")
            assert ready["reason"] == "DeploymentNotFound", "another's Deployment is not the agent's"
            assert _written(await world.find(res, team, name) or {}) == _written(before[kind])
            made = [r for r in (k.DEPLOYMENT, k.SERVICE, k.SECRET) if await world.find(r, team, name) is not None]
            assert made == [r for r in made if r is res], "nothing is made by halves"
            await world.client.delete(res, name, team)
            await world.condition(k.AGENT, team, name, "Programmed", "True")


def _written(obj: Object) -> Object:
    """What people wrote, without what a cluster's own controllers add."""
    metadata = obj["metadata"]
    own = {key: metadata.get(key) for key in ("uid", "labels", "ownerReferences")}
    return {"metadata": own, "data": obj.get("data"), "spec": obj.get("spec"), "annotations": {
        key: value for key, value in (metadata.get("annotations") or {}).items() if "quarterdeck" in key}}  # fmt: skip


async def test_the_unrelated_object_outlives_the_agent_of_its_name(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    res, body = FOREIGN["Deployment"]
    await world.create(res, {"metadata": {"name": "held", "namespace": team}} | body)
    async with world.operator():
        await world.create(k.AGENT, agent("held", team))
        await world.condition(k.AGENT, team, "held", "Programmed", "False", "NameConflict")
        await world.client.delete(k.AGENT, "held", team)
        await world.gone(k.SECRET, team, "held")
        assert await world.find(res, team, "held") is not None


@pytest.mark.parametrize("kind", ["Secret", "Deployment"])
async def test_a_cache_that_lags_takes_nothing_over(world: World, kind: str) -> None:
    """The informer is not started: it shows nothing, as one that is far behind."""
    team = await world.namespace()
    res, body = FOREIGN[kind]
    await world.create(res, {"metadata": {"name": "held", "namespace": team}} | body)
    before = await world.find(res, team, "held")
    assert before is not None
    made = await world.create(k.MCP_SERVER, mcp_server("held", team))
    owner = made | {"apiVersion": "kagent.dev/v1alpha1", "kind": "MCPServer"}
    holders = Holders(ControllerSet(world.client))
    reference = owner_reference(owner)
    desired: Object = {"apiVersion": res.api_version, "kind": kind, "metadata": {
        "name": "held", "namespace": team, "labels": {"ours": "x"}, "ownerReferences": [reference]}}  # fmt: skip
    if kind == "Deployment":
        desired |= {"spec": {"selector": {"matchLabels": {"app": "o"}}, "template": {
            "metadata": {"labels": {"app": "o"}}, "spec": {"containers": [{"name": "o", "image": "o"}]}}}}  # fmt: skip
    with pytest.raises(NameConflict, match="exists"):
        await holders.create(owner, res, desired)
    after = await world.find(res, team, "held")
    assert after is not None
    assert _written(after) == _written(before)


async def test_children_left_of_an_earlier_owner_of_the_name(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    async with world.operator():
        await world.create(k.AGENT, agent("again", team))
        first = await world.condition(k.AGENT, team, "again", "Programmed", "True")
        old = await world.find(k.DEPLOYMENT, team, "again")
        assert first
        assert old is not None
        await world.client.delete(k.AGENT, "again", team)
        await world.create(k.AGENT, agent("again", team))

        async def replaced() -> bool:
            new = await world.find(k.DEPLOYMENT, team, "again")
            return new is not None and new["metadata"]["uid"] != old["metadata"]["uid"]

        await world.eventually(replaced, "the new agent has a Deployment of its own")
        await world.condition(k.AGENT, team, "again", "Programmed", "True")


async def test_servers_of_several_kinds_may_share_a_name(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    async with world.operator() as (_, gateway):
        await world.create(k.MCP_SERVER, mcp_server("m", team))
        await world.create(k.REMOTE_MCP_SERVER, remote("m", team))
        await world.create(k.AGENT, agent("a", team, [uses("MCPServer", "m"), uses("RemoteMCPServer", "m")]))
        await world.condition(k.AGENT, team, "a", "Programmed", "True")
        config = await world.find(k.SECRET, team, "a") or {}
        tools = json.loads(base64.b64decode(config["data"]["config.json"]))["http_tools"]
        paths = [tool["params"]["url"].partition("/mcp/")[2] for tool in tools]
        assert paths == [f"{team}/m", f"{team}/remotemcpserver.m"]

        async def granted() -> bool:
            policies = gateway.snapshot.policies if gateway.snapshot is not None else ()
            return [grant.kind for p in policies for grant in p.tools] == ["MCPServer", "RemoteMCPServer"]

        await world.eventually(granted, "the gateway tells them apart")


async def test_lists_that_are_too_long_are_refused_by_the_server(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    thousands = uses("MCPServer", "m")
    thousands["mcpServer"]["toolNames"] = [f"tool-{n}" for n in range(3000)]
    for tools, words in (([calls("x")] * 21, "must have at most 20 items"), ([thousands], "at most 50 items")):
        with pytest.raises(Invalid, match=words):
            await world.create(k.AGENT, agent("a", team, tools))


async def test_unknown_fields_are_warned_of_and_change_nothing(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    body = agent("typo", team)
    body["spec"]["declaratve"] = {"systemMessage": "Lost."}
    async with world.operator():
        created = await world.create(k.AGENT, body)
        assert "declaratve" not in created["spec"]
        await world.condition(k.AGENT, team, "typo", "Accepted", "True")
