"""Teams in namespaces of one cluster: what crosses between them, what limits them, who may do what, what stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.errors import Forbidden, Invalid
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.resources.roles import cluster_roles

from .servers import World, embedded, quiet
from .test_bad_input import FOREIGN, agent, calls, change, mcp_server, remote, uses

pytestmark = pytest.mark.timeout(330)
_ADMISSION = "admissionregistration.k8s.io"
POLICY = Resource(_ADMISSION, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False)
BINDING = Resource(_ADMISSION, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", False)


async def granted(world: World, gateway: GatewayConfig, namespace: str, name: str, expected: list[str]) -> None:
    """Until the gateway lets the agent reach exactly ``expected`` (``namespace/name`` of servers and agents)."""

    async def read() -> bool:
        policies = gateway.snapshot.policies if gateway.snapshot is not None else ()
        found = [p for p in policies if (p.namespace, p.name) == (namespace, name)]
        tools = [f"{grant.namespace}/{grant.name}" for policy in found for grant in policy.tools]
        return bool(found) and sorted([*tools, *(a for policy in found for a in policy.agents)]) == sorted(expected)

    await world.eventually(read, f"{name} may reach {expected}")


async def test_other_namespaces_are_closed_until_their_owner_opens_them(world: World) -> None:
    ours, theirs = await world.namespace("ours"), await world.namespace("theirs")
    for team in (ours, theirs):
        await world.model(team)
    async with world.operator() as (_, gateway):
        await world.create(k.AGENT, agent("shared", theirs))
        await world.create(k.REMOTE_MCP_SERVER, remote("shared", theirs))
        await world.create(k.AGENT, agent("by-agent", ours, [calls("shared", theirs)]))
        await world.create(k.AGENT, agent("by-server", ours, [uses("RemoteMCPServer", "shared", theirs)]))
        for name, kind in (("by-agent", "Agent"), ("by-server", "RemoteMCPServer")):
            found = await world.condition(k.AGENT, ours, name, "ResolvedRefs", "False", "RefNotPermitted")
            assert f"{kind} {theirs}/shared is not there, or does not allow namespace {ours}" in found["message"]
            await world.warned(ours, name, "RefNotPermitted")
            await granted(world, gateway, ours, name, [])
        for res, name in ((k.AGENT, "by-agent"), (k.REMOTE_MCP_SERVER, "by-server")):
            await change(world, res, theirs, "shared", {"allowedNamespaces": {"from": "All"}})
            await world.condition(k.AGENT, ours, name, "Accepted", "True")
            await granted(world, gateway, ours, name, [f"{theirs}/shared"])
            await change(world, res, theirs, "shared", {"allowedNamespaces": {"from": "Same"}})
            await world.condition(k.AGENT, ours, name, "Accepted", "False")
            await granted(world, gateway, ours, name, [])


async def test_a_selector_follows_the_labels_of_namespaces(world: World) -> None:
    ours, theirs = await world.namespace("ours", {"stage": "dev"}), await world.namespace("theirs")
    for team in (ours, theirs):
        await world.model(team)
    shared = agent("shared", theirs)
    selector = {"matchExpressions": [{"key": "stage", "operator": "In", "values": ["prod"]}]}
    shared["spec"]["allowedNamespaces"] = {"from": "Selector", "selector": selector}
    async with world.operator() as (_, gateway):
        await world.create(k.AGENT, shared)
        await world.create(k.AGENT, agent("caller", ours, [calls("shared", theirs)]))
        await world.condition(k.AGENT, ours, "caller", "ResolvedRefs", "False", "RefNotPermitted")
        for stage, status, reachable in (("prod", "True", [f"{theirs}/shared"]), ("dev", "False", [])):
            await world.client.patch(k.NAMESPACE, ours, {"metadata": {"labels": {"stage": stage}}}, kind="merge")
            await world.condition(k.AGENT, ours, "caller", "ResolvedRefs", status)
            await granted(world, gateway, ours, "caller", reachable)


async def test_what_has_no_allowed_namespaces_does_not_cross(world: World) -> None:
    ours, theirs = await world.namespace("ours"), await world.namespace("theirs")
    for team in (ours, theirs):
        await world.model(team)
    await world.model(theirs, "costly")
    port = {"spec": {"ports": [{"port": 80}]}}
    async with world.operator() as (_, gateway):
        await world.create(k.MCP_SERVER, mcp_server("m", theirs))
        await world.create(k.SERVICE, {"metadata": {"name": "svc", "namespace": theirs}} | port)
        await world.create(k.AGENT, agent("by-server", ours, [uses("MCPServer", "m", theirs)]))
        await world.create(k.AGENT, agent("by-service", ours, [uses("Service", "svc", theirs)]))
        await world.create(k.AGENT, agent("by-model", ours, modelConfig=f"{theirs}/costly"))
        for name, words in (
            ("by-server", f"MCPServer {theirs}/m: a MCPServer is used in its own namespace only"),
            ("by-service", f"Service {theirs}/svc: a Service is used in its own namespace only"),
            ("by-model", "an Agent uses ModelConfigs of its own namespace"),
        ):
            found = await world.condition(k.AGENT, ours, name, "ResolvedRefs", "False", "RefNotPermitted")
            assert words in found["message"], found
            await granted(world, gateway, ours, name, [])


async def test_the_url_of_another_teams_server_is_no_way_around(world: World) -> None:
    ours, theirs = await world.namespace("ours"), await world.namespace("theirs")
    async with world.operator() as (_, gateway):
        await world.create(k.MCP_SERVER, mcp_server("m", theirs))
        await world.condition(k.MCP_SERVER, theirs, "m", "Programmed", "True")
        service = await world.find(k.SERVICE, theirs, "m") or {}
        for name, host in (("by-name", f"m.{theirs}"), ("by-address", service["spec"]["clusterIP"])):
            await world.create(k.REMOTE_MCP_SERVER, remote(name, ours, url=f"http://{host}:3000/mcp"))
            found = await world.condition(k.REMOTE_MCP_SERVER, ours, name, "ResolvedRefs", "False", "RefNotPermitted")
            assert f"leads to a MCPServer of another namespace, which is closed to {ours}" in found["message"], found
        await world.create(k.REMOTE_MCP_SERVER, remote("own", theirs, url=f"http://m.{theirs}:3000/mcp"))
        await world.condition(k.REMOTE_MCP_SERVER, theirs, "own", "ResolvedRefs", "True")

        async def served() -> bool:
            names = {s.name for s in gateway.snapshot.mcp} if gateway.snapshot is not None else set[str]()
            return "own" in names and not names & {"by-name", "by-address"}

        await world.eventually(served, "the gateway has the team's own server only")


async def in_force(world: World, namespace: str, quota: str) -> None:
    """kube-apiserver enforces a quota once its usage was counted, the embedded server at once."""

    async def counted() -> bool:
        found = await world.find(k.RESOURCE_QUOTA, namespace, quota) or {}
        return world.plane is None or bool((found.get("status") or {}).get("hard"))

    await world.eventually(counted, "the quota is in force")


async def test_an_endpoint_slice_of_ones_own_does_not_lead_to_another_teams_pod(world: World) -> None:
    """The Pod's address is what its kubelet says; here, the administrator in its place."""
    ours, theirs, address = await world.namespace("ours"), await world.namespace("theirs"), "10.97.201.7"
    async with world.operator() as (_, gateway):
        await world.create(k.MCP_SERVER, mcp_server("m", theirs))

        async def pod() -> str | None:
            found = (await world.client.list(k.POD, theirs, label_selector="app.kubernetes.io/instance=m")).items
            return found[0]["metadata"]["name"] if found else None

        name = await world.eventually(pod, "a Pod of the server")
        status = {"podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.0.0.1", "phase": "Running"}
        await world.client.patch(k.POD, name, {"status": status}, theirs, subresource="status")
        labels = {"kubernetes.io/service-name": "mine"}
        await world.create(
            k.SERVICE, {"metadata": {"name": "mine", "namespace": ours}, "spec": {"ports": [{"port": 80}]}}
        )
        piece = {
            "metadata": {"name": "mine-1", "namespace": ours, "labels": labels}, "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}, {"addresses": ["198.51.100.7"]}], "ports": [{"port": 80}],
        }  # fmt: skip
        await world.create(k.ENDPOINT_SLICE, piece)
        await world.create(k.REMOTE_MCP_SERVER, remote("by-slice", ours, url="http://mine/mcp"))
        await world.create(k.REMOTE_MCP_SERVER, remote("by-ip", ours, url=f"http://{address}/mcp"))
        found = await world.condition(k.REMOTE_MCP_SERVER, ours, "by-ip", "ResolvedRefs", "False", "RefNotPermitted")
        assert "of another namespace, which is closed to" in found["message"]

        async def endpoints() -> bool:
            servers = gateway.snapshot.mcp if gateway.snapshot is not None else ()
            hosts = {s.name: [endpoint.host for endpoint in s.endpoints] for s in servers if s.namespace == ours}
            return hosts == {"by-slice": ["198.51.100.7"]}

        await world.eventually(endpoints, "only what is nobody's workload is dialled")
        assert gateway.snapshot is not None and address in gateway.snapshot.closed
        await world.client.patch(k.POD, name, {"status": {"phase": "Failed"}}, theirs, subresource="status")

        async def open_again() -> bool:
            return gateway.snapshot is not None and address not in gateway.snapshot.closed

        await world.eventually(open_again, "an address that a Pod has left is free")


async def test_quota_for_the_objects_themselves(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    quota = {"metadata": {"name": "q", "namespace": team}, "spec": {"hard": {"count/deployments.apps": "0"}}}
    await world.create(k.RESOURCE_QUOTA, quota)

    await in_force(world, team, "q")
    async with world.operator():
        await world.create(k.AGENT, agent("a", team))
        found = await world.condition(k.AGENT, team, "a", "Programmed", "False", "QuotaExceeded")
        assert "exceeded quota: q" in found["message"], found
        assert f"kubectl describe quota -n {team}" in found["message"], found
        await world.condition(k.AGENT, team, "a", "Accepted", "True")
        await world.warned(team, "a", "QuotaExceeded")
        await change(world, k.RESOURCE_QUOTA, team, "q", {"hard": {"count/deployments.apps": "5"}})
        await world.condition(k.AGENT, team, "a", "Programmed", "True")


RULES: dict[str, tuple[Resource, Object, str, str]] = {
    "quota": (k.RESOURCE_QUOTA, {"spec": {"hard": {"pods": "0"}}}, "QuotaExceeded", "exceeded quota: rule"),
    "limits": (k.LIMIT_RANGE, {"spec": {"limits": [{"type": "Container", "max": {"cpu": "100m"}}]}},
               "LimitRangeViolated", "maximum cpu usage per Container is 100m"),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
async def test_pods_that_the_namespace_does_not_allow(world: World, rule: str) -> None:
    team = await world.namespace()
    await world.model(team)
    res, body, reason, words = RULES[rule]
    await world.create(res, {"metadata": {"name": "rule", "namespace": team}} | body)
    if res is k.RESOURCE_QUOTA:
        await in_force(world, team, "rule")
    async with world.operator() as (controllers, _):
        await world.create(k.AGENT, agent("a", team))
        found = await world.condition(k.AGENT, team, "a", "Ready", "False", reason)
        assert found["message"].startswith("Pods cannot be created: "), found
        assert words in found["message"], found
        await world.condition(k.AGENT, team, "a", "Programmed", "True")
        await quiet(controllers)
        await world.client.delete(res, "rule", team)
        await world.condition(k.AGENT, team, "a", "Ready", "False", "DeploymentNotReady")


async def test_pods_that_pod_security_refuses(world: World) -> None:
    team = await world.namespace("strict", {"pod-security.kubernetes.io/enforce": "restricted"})
    async with world.operator():
        root = mcp_server("root", team, podSecurityContext={"runAsNonRoot": False})
        await world.create(k.MCP_SERVER, root)
        found = await world.condition(k.MCP_SERVER, team, "root", "Ready", "False", "AdmissionDenied")
        assert "violates PodSecurity" in found["message"], found
        await world.warned(team, "root", "AdmissionDenied")


async def test_an_admission_policy_refuses_the_deployment_itself(real_world: World) -> None:
    world = real_world
    team = await world.namespace("guarded")
    await world.model(team)
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["deployments"],
    }
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "has(object.metadata.labels.cost)", "message": "say who pays"}],
    }
    await world.create(POLICY, {"metadata": {"name": team}, "spec": spec})
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": team}}}
    binding = {"policyName": team, "validationActions": ["Deny"], "matchResources": selector}
    await world.create(BINDING, {"metadata": {"name": team}, "spec": binding})
    body = {"spec": FOREIGN["Deployment"][1]["spec"], "apiVersion": "apps/v1", "kind": "Deployment"}

    async def in_force() -> bool:
        probe = body | {"metadata": {"name": "probe", "namespace": team}}
        try:
            await world.client.apply(k.DEPLOYMENT, probe, dry_run=True)
        except (Forbidden, Invalid):
            return True
        return False

    await world.eventually(in_force, "the policy is in force")
    async with world.operator():
        await world.create(k.AGENT, agent("a", team))
        found = await world.condition(k.AGENT, team, "a", "Programmed", "False", "AdmissionDenied")
        assert "say who pays" in found["message"], found
        await world.warned(team, "a", "AdmissionDenied")
        await world.client.delete(BINDING, team)
        await world.client.delete(POLICY, team)
        await world.condition(k.AGENT, team, "a", "Programmed", "True")


async def test_nothing_is_created_in_a_namespace_that_goes(world: World) -> None:
    """A ConfigMap with a finalizer keeps the namespace; the agent's model comes when it is too late."""
    team = await world.namespace()
    async with world.operator() as (controllers, _):
        held = {"metadata": {"name": "held", "namespace": team, "finalizers": ["example.com/hold"]}}
        await world.create(k.CONFIG_MAP, held)
        body = agent("late", team)
        body["metadata"]["finalizers"] = ["example.com/hold"]
        await world.create(k.AGENT, body)
        await world.create(k.AGENT, agent("other", "kagent"))
        await world.condition(k.AGENT, team, "late", "Accepted", "False", "ReconcileFailed")
        await world.client.delete(k.NAMESPACE, team)
        await world.model("kagent")
        await world.condition(k.AGENT, "kagent", "other", "Programmed", "True")
        await quiet(controllers)
        assert await world.find(k.DEPLOYMENT, team, "late") is None
        for res, name in ((k.AGENT, "late"), (k.CONFIG_MAP, "held")):
            await world.client.patch(res, name, {"metadata": {"finalizers": None}}, team, kind="merge")
        await world.gone(k.NAMESPACE, "", team)


async def test_a_namespace_that_is_going_says_so_and_is_left_in_peace(tmp_path: Path) -> None:
    """Without a namespace controller it stays in that state for as long as the test wants."""
    async with embedded(tmp_path, workloads=False) as world, world.operator() as (controllers, _):
        team = await world.namespace()
        await world.create(k.AGENT, agent("late", team))
        await world.condition(k.AGENT, team, "late", "Accepted", "False")
        await world.client.delete(k.NAMESPACE, team)
        await world.model("kagent")
        found = await world.condition(k.AGENT, team, "late", "Programmed", "False", "NamespaceTerminating")
        assert f"namespace {team} is being deleted" in found["message"]
        await quiet(controllers)
        before = controllers.client.writes
        controllers.enqueue("agent", k.key_of(await world.find(k.AGENT, team, "late") or {}))
        await quiet(controllers)
        assert controllers.client.writes == before
        assert await world.find(k.SECRET, team, "late") is None


async def test_deletion_leaves_nothing_even_without_the_operator(world: World) -> None:
    team = await world.namespace()
    await world.model(team)
    async with world.operator() as (controllers, _):
        await world.create(k.AGENT, agent("a", team))
        await world.create(k.MCP_SERVER, mcp_server("m", team))
        for res, name in ((k.AGENT, "a"), (k.MCP_SERVER, "m"), (k.MODEL_CONFIG, "default-model-config")):
            await world.condition(res, team, name, "Programmed", "True")
        await quiet(controllers)
    for res, name in ((k.AGENT, "a"), (k.MCP_SERVER, "m"), (k.MODEL_CONFIG, "default-model-config")):
        await world.client.delete(res, name, team)
    for name in ("a", "m", "default-model-config"):
        for res in (k.DEPLOYMENT, k.REPLICA_SET, k.SERVICE, k.SECRET, k.CONFIG_MAP, k.SERVICE_ACCOUNT):
            await world.gone(res, team, name)

    async def empty() -> bool:
        left = [
            f"{res.kind}/{obj['metadata']['name']}"
            for res in (k.DEPLOYMENT, k.REPLICA_SET, k.POD, k.SERVICE, k.SECRET, k.CONTROLLER_REVISION)
            for obj in (await world.client.list(res, team)).items
        ]
        return not left

    await world.eventually(empty, "nothing is left in the namespace")


async def test_a_model_that_is_scripted_no_more_leaves_no_pods(world: World) -> None:
    team = await world.namespace()
    await world.model(team, "m")
    await world.model(team, "other")
    async with world.operator():
        for name in ("m", "other"):
            await world.condition(k.MODEL_CONFIG, team, name, "Programmed", "True")
        await change(world, k.MODEL_CONFIG, team, "m", {"provider": "Ollama", "scripted": None})
        for res in (k.DEPLOYMENT, k.SERVICE):
            await world.gone(res, team, "m")
            assert await world.find(res, team, "other") is not None


@pytest.fixture
async def alice(world: World) -> AsyncIterator[tuple[KubeClient, str, str]]:
    """Somebody bound to ``admin`` in the first of two namespaces, and the two."""
    for role in cluster_roles():
        await world.client.apply(k.CLUSTER_ROLE, role)
    ours, theirs = await world.namespace("ours"), await world.namespace("theirs")
    binding = {
        "metadata": {"name": "alice", "namespace": ours},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}],
    }
    await world.create(k.ROLE_BINDING, binding)
    client = KubeClient(_as(world.config, "alice"))
    yield client, ours, theirs
    await client.close()


def _as(config: ClientConfig, user: str) -> ClientConfig:
    return replace(config, impersonate=user)


async def test_an_admin_of_one_team_manages_agents_there_and_nothing_elsewhere(
    world: World, alice: tuple[KubeClient, str, str]
) -> None:
    client, ours, theirs = alice
    await world.create(k.AGENT, agent("a", theirs))
    typed = {"apiVersion": k.AGENT.api_version, "kind": "Agent"}

    async def aggregated() -> bool:
        try:
            return (await client.list(k.AGENT, ours)).items == []
        except Forbidden:
            return False

    await world.eventually(aggregated, "admin includes quarterdeck-admin")
    await client.create(k.AGENT, typed | agent("a", ours))
    await client.patch(k.AGENT, "a", {"spec": {"replicas": 2}}, ours, subresource="scale")
    await client.create(
        k.MCP_SERVER, {"apiVersion": "kagent.dev/v1alpha1", "kind": "MCPServer"} | mcp_server("m", ours)
    )
    scale = await client.get(k.AGENT, "a", ours)
    assert scale["spec"]["replicas"] == 2
    with pytest.raises(Forbidden):
        await client.patch(k.AGENT, "a", {"status": {"replicas": 7}}, ours, subresource="status")
    await client.delete(k.MCP_SERVER, "m", ours)
    for attempt in (
        client.list(k.AGENT, theirs), client.get(k.AGENT, "a", theirs), client.list(k.AGENT),
        client.create(k.AGENT, typed | agent("b", theirs)), client.delete(k.AGENT, "a", theirs),
        client.patch(k.AGENT, "a", {"spec": {"replicas": 0}}, theirs), client.list(k.SECRET, theirs),
        client.patch(k.AGENT, "a", {"spec": {"replicas": 0}}, theirs, subresource="scale"),
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            await attempt


async def test_each_role_alone_gives_what_its_name_says(world: World) -> None:
    team = await world.namespace()
    await world.create(k.AGENT, agent("a", team))
    for role in cluster_roles():
        name = role["metadata"]["name"]
        await world.client.apply(k.CLUSTER_ROLE, role)
        binding = {
            "metadata": {"name": name, "namespace": team},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
        }
        await world.create(k.ROLE_BINDING, binding)
    may_write = {"quarterdeck-view": False, "quarterdeck-edit": True, "quarterdeck-admin": True}
    for name, writes in may_write.items():
        async with KubeClient(_as(world.config, name)) as client:
            await world.eventually(lambda client=client: _lists(client, team), f"{name} is bound")
            change_of_a = client.patch(k.AGENT, "a", {"spec": {"description": name}}, team)
            if writes:
                await change_of_a
            else:
                with pytest.raises(Forbidden):
                    await change_of_a
            with pytest.raises(Forbidden):
                await client.list(k.SECRET, team)


async def _lists(client: KubeClient, namespace: str) -> bool:
    try:
        await client.list(k.AGENT, namespace)
    except Forbidden:
        await asyncio.sleep(0)
        return False
    return True
