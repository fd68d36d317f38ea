"""NetworkPolicies come with what they are for, follow an environment's label, and go when they are switched off."""

from __future__ import annotations

from quarterdeck.kube import resource as k
from quarterdeck.kube.owner import is_controlled_by
from quarterdeck.translate.network import EGRESS, ENVIRONMENT, ENVIRONMENT_POLICY
from quarterdeck.translate.options import NetworkPolicies

from .servers import World, quiet
from .test_bad_input import agent, mcp_server

ON = {"network_policies": NetworkPolicies()}


async def test_policies_come_and_go_with_the_option(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    owner = await world.create(k.AGENT, agent("one", team))
    await world.create(k.MCP_SERVER, mcp_server("two", team))
    names = ("one", "two", "default-model-config")
    async with world.operator(**ON) as (controllers, _):
        for name in names:
            await world.eventually(lambda name=name: world.find(k.NETWORK_POLICY, team, name), name)
        policy = await world.client.get(k.NETWORK_POLICY, "one", team)
        assert is_controlled_by(policy, owner)
        await world.client.patch(k.NETWORK_POLICY, "one", {"spec": {"egress": [{}]}}, team)

        async def restored() -> bool:
            found = await world.client.get(k.NETWORK_POLICY, "one", team)
            return len(found["spec"]["egress"]) == 3

        await world.eventually(restored, "what somebody opened is closed again")
        await quiet(controllers)
    async with world.operator():
        for name in names:
            await world.gone(k.NETWORK_POLICY, team, name)


async def test_an_environment_is_a_label_of_the_namespace(world: World) -> None:
    team = await world.namespace(labels={ENVIRONMENT: "prod"})
    async with world.operator(**ON) as (controllers, _):
        found = await world.eventually(
            lambda: world.find(k.NETWORK_POLICY, team, ENVIRONMENT_POLICY), ENVIRONMENT_POLICY
        )
        wanted = {"namespaceSelector": {"matchLabels": {ENVIRONMENT: "prod"}}}
        assert wanted in found["spec"]["ingress"][0]["from"]
        await world.client.delete(k.NETWORK_POLICY, ENVIRONMENT_POLICY, team)
        await world.eventually(lambda: world.find(k.NETWORK_POLICY, team, ENVIRONMENT_POLICY), "made again")
        await world.client.patch(k.NAMESPACE, team, {"metadata": {"labels": {ENVIRONMENT: None}}})
        await world.gone(k.NETWORK_POLICY, team, ENVIRONMENT_POLICY)
        await quiet(controllers)


async def test_a_policy_of_somebody_else_is_not_taken(world: World) -> None:
    team = await world.namespace(labels={ENVIRONMENT: "prod"})
    theirs = {"metadata": {"name": ENVIRONMENT_POLICY, "namespace": team}, "spec": {"podSelector": {}}}
    await world.create(k.NETWORK_POLICY, theirs)
    async with world.operator(**ON) as (controllers, _):
        await quiet(controllers)
        found = await world.client.get(k.NETWORK_POLICY, ENVIRONMENT_POLICY, team)
        assert "ingress" not in found["spec"]


async def test_an_egress_nobody_knows_is_said(embedded_world: World) -> None:
    team = await embedded_world.namespace()
    server = mcp_server("two", team)
    server["metadata"]["annotations"] = {EGRESS: "some"}
    await embedded_world.create(k.MCP_SERVER, server)
    async with embedded_world.operator(**ON):
        found = await embedded_world.condition(k.MCP_SERVER, team, "two", "Accepted", "False")
        assert f"annotation {EGRESS}: 'some'" in found["message"]
