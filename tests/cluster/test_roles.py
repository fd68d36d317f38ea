"""The control plane with exactly the Roles of the chart, at a real API server: nothing is missing, nothing is idle.

The audit log tells which permission each request used. What only the API server asks itself on the way (owner
references that block deletion) is not in it; those few are marked in the table.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from quarterdeck import errors
from quarterdeck.cli.chart import Release, load
from quarterdeck.controllers import rbac
from quarterdeck.controllers.rbac import Grant
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import Object
from quarterdeck.server.operator import Operator
from quarterdeck.server.operator_options import parse

from .plane import Plane, available, plane

COMMANDS, WHY = available()
pytestmark = [
    pytest.mark.skipif(COMMANDS is None, reason=f"kube-apiserver: {WHY}"),
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]
SYSTEM, TEAM = "quarterdeck-system", "kagent"
Used = set[tuple[str, str, str, str]]
"""(namespace or '', group, resource/subresource, verb)"""
OBJECTS = (Path(__file__).parent / "testdata" / "everything.yaml").read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[tuple[Plane, KubeClient]]:
    with plane(controllers=False) as started:
        admin = KubeClient(started.client_config())
        await admin.create(k.NAMESPACE, {"metadata": {"name": SYSTEM}})  # the operator makes the other one
        gateways = {"gatewayApi": {"install": True}, "kgateway": {"install": True}}
        for manifest in load("quarterdeck-crds").render(Release("quarterdeck-crds", SYSTEM), gateways):
            await admin.apply(k.CRD, manifest.body)
        yield started, admin
        await admin.close()


async def test_the_cluster_role_is_enough_and_nothing_in_it_is_idle(
    server: tuple[Plane, KubeClient], tmp_path: Path
) -> None:
    started, admin = server
    await _install(admin, SYSTEM, {})
    webhook = f"--webhook=127.0.0.1:{_free_port()}"
    await _served(started, tmp_path, (webhook,), lambda operator: _live(admin, operator))
    await admin.patch(k.SECRET, "quarterdeck-webhook", {"data": {"tls.crt": ""}}, SYSTEM)  # as if it were damaged
    model = '--default-model={"provider": "Ollama", "model": "m"}'
    await _served(started, tmp_path, (webhook, model, "--network-policies=off"), lambda _: _without_policies(admin))
    everywhere = (*rbac.WATCHED, *rbac.CLUSTER, *rbac.DEFAULT_NAMESPACE)
    granted = _granted("", everywhere) | _granted(SYSTEM, rbac.OWN)
    wanted = _granted("", everywhere, implied=False) | _granted(SYSTEM, rbac.OWN, implied=False)
    used = _used(started, SYSTEM)
    assert _denied(started, SYSTEM) == []
    assert {entry for entry in used if not _covered(entry, granted)} == set(), "used, but granted by other means"
    assert {entry for entry in wanted if not _seen(entry, used)} == set(), "never used: take it out of rbac.py"


async def test_roles_are_enough_without_anything_cluster_wide(server: tuple[Plane, KubeClient], tmp_path: Path) -> None:
    started, admin = server
    system, team = "roles-only", "team-a"
    for namespace in (system, team):
        await admin.create(k.NAMESPACE, {"metadata": {"name": namespace}})
    await _install(admin, system, {"watchNamespaces": [team], "defaultNamespace": team})
    flags = (f"--watch-namespaces={team}", f"--default-namespace={team}", "--webhook=off")

    async def during(operator: Operator) -> None:
        await _until(lambda: _exists(admin, k.MODEL_CONFIG, team, "default-model-config"))
        agent = {"metadata": {"name": "solo", "namespace": team}, "spec": {"type": "Declarative", "declarative": {}}}
        agent["spec"]["declarative"] = {"systemMessage": "alone"}
        await admin.apply(k.AGENT, agent, field_manager="test")
        await _until(lambda: _exists(admin, k.DEPLOYMENT, team, "solo"))
        token = await _token(admin, team, "quarterdeck")
        assert await _asked(operator, "kagent", "/api/me", token) == 403, "known, but no agent's Pod"
        assert await _asked(operator, "kagent", "/api/me", await _token(admin, team, "other")) == 401
        assert await _asked(operator, "kagent", "/api/me", token[:-4] + "AAAA") == 401
        assert await _asked(operator, "api", "/v1/status", await _token(admin, team)) == 403
        assert await _asked(operator, "api", "/v1/status", "nonsense") == 401
        await _may(admin, team, "get", "status")
        assert await _asked(operator, "api", "/v1/status", await _token(admin, team, "", "permitted")) == 200
        await _a_gateway(admin, team)

    await _served(started, tmp_path, flags, during, system)
    assert _denied(started, system) == []
    assert {namespace for namespace, *_ in _used(started, system)} <= {system, team}


async def test_only_the_watched_namespaces_are_looked_at_each_by_itself(
    server: tuple[Plane, KubeClient], tmp_path: Path
) -> None:
    started, admin = server
    system, teams, other = "two-teams", ("two-a", "two-b"), "two-none"
    for namespace in (system, *teams, other):
        await admin.create(k.NAMESPACE, {"metadata": {"name": namespace}})
    await _install(admin, system, {"watchNamespaces": list(teams), "defaultNamespace": teams[0]})
    flags = (f"--watch-namespaces={','.join(teams)}", f"--default-namespace={teams[0]}", "--webhook=off")
    for namespace in (*teams, other):
        spec = {"transportType": "stdio", "deployment": {"cmd": "uvx", "args": ["x"]}}
        server_object = {"metadata": {"name": "clock", "namespace": namespace}, "spec": spec}
        await admin.apply(k.MCP_SERVER, server_object, field_manager="test")

    async def during(operator: Operator) -> None:
        del operator
        for namespace in teams:
            await _until(lambda namespace=namespace: _exists(admin, k.DEPLOYMENT, namespace, "clock"))

    await _served(started, tmp_path, flags, during, system)
    assert _denied(started, system) == []
    looks = [e for e in _events(started, system) if e["verb"] in ("list", "watch") and e["stage"] != "RequestReceived"]
    where: dict[tuple[str, str], set[str]] = {}
    for event in looks:
        ref = event["objectRef"]
        where.setdefault((ref["resource"], event["verb"]), set()).add(ref.get("namespace", ""))
    assert {resource for resource, _ in where} >= {"agents", "mcpservers", "secrets", "pods", "deployments", "services"}
    assert {frozenset(found) for found in where.values()} == {frozenset(teams)}, where
    assert not await _exists(admin, k.DEPLOYMENT, other, "clock")
    assert "status" not in await admin.get(k.MCP_SERVER, "clock", other), "not even a condition"


async def _a_gateway(admin: KubeClient, team: str) -> None:
    """Gateway API within one namespace: no class is looked at, ours goes by its name, nobody else's is touched."""
    for name, cls in (("edge", "quarterdeck"), ("foreign", "agentgateway")):
        listener = {"name": "http", "port": 8080, "protocol": "HTTP"}
        spec: Object = {"gatewayClassName": cls, "listeners": [listener]}
        await admin.apply(k.GATEWAY, {"metadata": {"name": name, "namespace": team}, "spec": spec}, field_manager="t")
    virtual = {"metadata": {"name": "all", "namespace": team}, "spec": {"servers": [{"selector": {}}]}}
    await admin.apply(k.VIRTUAL_SERVER, virtual, field_manager="t")
    backend = {"group": "quarterdeck.dev", "kind": "VirtualServer", "name": "all"}
    rules = [{"backendRefs": [backend]}]
    route = {"metadata": {"name": "all", "namespace": team}, "spec": {"parentRefs": [{"name": "edge"}], "rules": rules}}
    await admin.apply(k.HTTP_ROUTE, route, field_manager="t")

    async def served() -> bool:
        status = (await admin.get(k.GATEWAY, "edge", team)).get("status") or {}
        said = {c["type"]: c["status"] for c in status.get("conditions") or ()}
        return said.get("Accepted") == "True" and bool(status.get("listeners"))

    async def routed() -> bool:
        parents = ((await admin.get(k.HTTP_ROUTE, "all", team)).get("status") or {}).get("parents") or ()
        return any(c["type"] == "ResolvedRefs" and c["status"] == "True" for p in parents for c in p["conditions"])

    for check in (served, routed, lambda: _exists(admin, k.DEPLOYMENT, team, "edge")):
        await _until(check)
    assert not await _exists(admin, k.DEPLOYMENT, team, "foreign")


async def _may(admin: KubeClient, namespace: str, verb: str, resource: str) -> None:
    """ServiceAccount ``permitted`` may do that with our own resources."""
    name = "permitted"
    rules = [{"apiGroups": ["quarterdeck.dev"], "resources": [resource], "verbs": [verb]}]
    await admin.apply(k.CLUSTER_ROLE, {"metadata": {"name": name}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}
    await admin.apply(k.CLUSTER_ROLE_BINDING, binding)


async def _served(
    started: Plane,
    tmp_path: Path,
    flags: tuple[str, ...],
    during: Callable[[Operator], Awaitable[None]],
    system: str = SYSTEM,
) -> None:
    """An operator that is the ServiceAccount of the chart in ``system``."""
    account, group = _account(system), f"system:serviceaccounts:{system}"
    kubeconfig = started.kubeconfig_of(account, ("system:serviceaccounts", group, "system:authenticated"))
    common = [
        f"--namespace={system}", f"--kubeconfig={kubeconfig}", f"--database-url={tmp_path / 'server.db'}",
        "--api=127.0.0.1:0", "--kagent=127.0.0.1:0", "--health=127.0.0.1:0", "--owner=quarterdeck-controller",
    ]  # fmt: skip
    operator = Operator(parse([*common, *flags], {}))
    try:
        await operator.start()
        await during(operator)
    finally:
        await operator.stop()


def _account(system: str) -> str:
    return f"system:serviceaccount:{system}:quarterdeck-controller"


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def _install(admin: KubeClient, system: str, values: Object) -> None:
    """Only the Roles of the chart; and a Deployment for the operator's Secrets to belong to."""
    kinds = {res.kind: res for res in (k.ROLE, k.ROLE_BINDING, k.CLUSTER_ROLE, k.CLUSTER_ROLE_BINDING, k.DEPLOYMENT)}
    for manifest in load("quarterdeck").render(Release("quarterdeck", system), values):
        res = kinds.get(manifest.body["kind"])
        if res is not None:
            await admin.apply(res, manifest.body)


async def _live(admin: KubeClient, operator: Operator) -> None:
    """Everything that makes the control plane ask for something."""
    await _until(lambda: _exists(admin, k.MODEL_CONFIG, TEAM, "default-model-config"))
    for body in yaml.safe_load_all(OBJECTS):
        await admin.apply(_KINDS[body["kind"]], body, field_manager="test")
    await _until(lambda: _exists(admin, k.DEPLOYMENT, TEAM, "worker"))
    await _until(lambda: _all_told(admin))
    await _until(lambda: _looked_at(admin))
    await _question(admin, operator)
    await _meddled_with(admin)
    await _edited(admin)
    await _canary(admin)
    await _quota(admin)


async def _all_told(admin: KubeClient) -> bool:
    """Whether Gateway, routes, backends and policies have a word of ours in their statuses."""
    ours = {"edge", "tools", "calls", "hosts", "slow"}
    kinds = (k.GATEWAY, k.HTTP_ROUTE, k.GRPC_ROUTE, k.BACKEND, k.AGENTGATEWAY_BACKEND, k.TRAFFIC_POLICY,
             k.AGENTGATEWAY_POLICY)  # fmt: skip
    found = [obj for res in kinds for obj in (await admin.list(res, TEAM)).items if obj["metadata"]["name"] in ours]
    said = [obj for obj in found if "lastTransitionTime" in str(obj.get("status"))]
    return len(found) == len(kinds) == len(said)


async def _looked_at(admin: KubeClient) -> bool:
    """Whether it was asked what the trigger's ServiceAccount may do."""
    status = (await admin.get(k.TRIGGER, "falling", TEAM)).get("status") or {}
    return any(c["type"] == "Authorized" for c in status.get("conditions") or ())


async def _question(admin: KubeClient, operator: Operator) -> None:
    """Somebody asks the management API, a Pod the other one."""
    assert await _asked(operator, "api", "/v1/status", await _token(admin, TEAM)) == 403
    assert await _asked(operator, "kagent", "/api/me", await _token(admin, TEAM, "quarterdeck")) == 403


async def _token(admin: KubeClient, namespace: str, audience: str = "", name: str = "person") -> str:
    spec = {"audiences": [audience]} if audience else {}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    await admin.apply(k.SERVICE_ACCOUNT, {"metadata": {"name": name, "namespace": namespace}})
    made = await admin.create(k.SERVICE_ACCOUNT, request, namespace, name=name, subresource="token")
    return made["status"]["token"]


async def _asked(operator: Operator, api: str, path: str, token: str) -> int:
    host, port = operator.addresses[api]
    headers = {"authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"http://{host}:{port}{path}") as answer:
        return answer.status


async def _meddled_with(admin: KubeClient) -> None:
    """Twice somebody changes a Deployment of ours: an Event, and the same one counted."""
    for image in ("example.org/a:1", "example.org/b:1"):
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "mcp-server", "image": image}]}}}}
        await admin.patch(k.DEPLOYMENT, "clock", patch, TEAM, kind="strategic")

        async def restored(changed: str = image) -> bool:
            pod = (await admin.get(k.DEPLOYMENT, "clock", TEAM))["spec"]["template"]["spec"]
            return pod["containers"][0]["image"] != changed

        await _until(restored)

    async def told_twice() -> bool:
        events = (await admin.list(k.EVENT, TEAM)).items
        return any(e["reason"] == "Restored" and e.get("count", 1) > 1 for e in events)

    await _until(told_twice)


async def _edited(admin: KubeClient) -> None:
    """More revisions than are kept, and the one before the last again."""
    for text in [f"version {number}" for number in range(13)] + ["version 11"]:
        spec: Object = {"declarative": {"systemMessage": text, "systemMessageFrom": None}}
        await admin.patch(k.AGENT, "worker", {"spec": spec}, TEAM)

        async def seen() -> bool:
            agent = await admin.get(k.AGENT, "worker", TEAM)
            return agent.get("status", {}).get("observedGeneration") == agent["metadata"]["generation"]

        await _until(seen)


async def _canary(admin: KubeClient) -> None:
    """A spec on trial, and taken back."""
    agent: Object = {
        "metadata": {"name": "trial", "namespace": TEAM},
        "spec": {
            "type": "Declarative",
            "declarative": {"systemMessage": "one"},
            "rollout": {"strategy": "Canary", "steps": [{"weight": 20}]},
        },
    }
    await admin.apply(k.AGENT, agent, field_manager="test")
    await _available(admin, "trial")
    for text, there in (("two", True), ("one", False)):
        await admin.patch(k.AGENT, "trial", {"spec": {"declarative": {"systemMessage": text}}}, TEAM)

        async def done(wanted: bool = there) -> bool:
            return await _exists(admin, k.DEPLOYMENT, TEAM, "trial-canary") is wanted

        await _until(done, 60)
        if there:
            await _available(admin, "trial-canary")


async def _available(admin: KubeClient, name: str) -> None:
    """Say of a Deployment that its Pods are up; nobody else does here."""
    await _until(lambda: _exists(admin, k.DEPLOYMENT, TEAM, name))
    found = await admin.get(k.DEPLOYMENT, name, TEAM)
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
    status = {"status": counts | {"observedGeneration": found["metadata"]["generation"]}}
    await admin.patch(k.DEPLOYMENT, name, status, TEAM, subresource="status")

    async def ready() -> bool:
        conditions = (await admin.get(k.AGENT, "trial", TEAM)).get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    await _until(ready)


async def _quota(admin: KubeClient) -> None:
    """A namespace that has no room, which is watched until it has."""
    await admin.create(k.NAMESPACE, {"metadata": {"name": "full"}})
    limit = {"count/configmaps": "0"}
    await admin.create(k.RESOURCE_QUOTA, {"metadata": {"name": "none", "namespace": "full"}, "spec": {"hard": limit}})
    status = {"status": {"hard": limit, "used": limit}}
    await admin.patch(k.RESOURCE_QUOTA, "none", status, "full", subresource="status")
    spec = {"transportType": "stdio", "deployment": {"cmd": "uvx", "args": ["mcp-server-time"]}}
    await admin.apply(k.MCP_SERVER, {"metadata": {"name": "denied", "namespace": "full"}, "spec": spec})

    async def told() -> bool:
        conditions = (await admin.get(k.MCP_SERVER, "denied", "full")).get("status", {}).get("conditions", [])
        return any(c["type"] == "Programmed" and c["status"] == "False" for c in conditions)

    await _until(told)
    await admin.delete(k.RESOURCE_QUOTA, "none", "full")
    await _until(lambda: _exists(admin, k.DEPLOYMENT, "full", "denied"))


async def _without_policies(admin: KubeClient) -> None:
    async def none() -> bool:
        """Of what is still there; nobody collects here what belonged to others."""
        policies = {policy["metadata"]["name"] for policy in (await admin.list(k.NETWORK_POLICY, TEAM)).items}
        model = await admin.get(k.MODEL_CONFIG, "default-model-config", TEAM)
        left = policies & {"worker", "clock", "trial", "trial-canary", "scripted"}
        return not left and model["spec"]["provider"] == "Ollama"

    await _until(none)


_KINDS = {
    res.kind: res
    for res in (
        k.SECRET, k.CONFIG_MAP, k.MODEL_CONFIG, k.MODEL_PROVIDER_CONFIG, k.REMOTE_MCP_SERVER, k.MCP_SERVER, k.AGENT,
        k.GATEWAY, k.HTTP_ROUTE, k.GRPC_ROUTE, k.BACKEND, k.AGENTGATEWAY_BACKEND, k.TRAFFIC_POLICY,
        k.AGENTGATEWAY_POLICY, k.VIRTUAL_SERVER, k.APPROVAL_POLICY, k.SERVICE_ACCOUNT, k.TRIGGER,
    )
}  # fmt: skip


async def _exists(admin: KubeClient, res: k.Resource, namespace: str, name: str) -> bool:
    try:
        await admin.get(res, name, namespace)
    except errors.NotFound:
        return False
    return True


async def _until(check: Any, seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.1)


def _events(started: Plane, system: str) -> list[Object]:
    return [e for e in started.audit(user=_account(system)) if e.get("objectRef", {}).get("resource")]


def _denied(started: Plane, system: str) -> list[str]:
    """Requests that a Role is missing for; in namespace full it is the quota that refuses."""
    refused = [e for e in _events(started, system) if e["responseStatus"]["code"] == 403]
    return sorted({f"{e['verb']} {e['requestURI']}" for e in refused if e["objectRef"].get("namespace") != "full"})


def _used(started: Plane, system: str) -> Used:
    found: Used = set()
    for event in _events(started, system):
        ref = event["objectRef"]
        path = "/".join(part for part in (ref["resource"], ref.get("subresource")) if part)
        verbs = [event["verb"]]
        if event["verb"] == "patch" and event["responseStatus"]["code"] == 201:
            verbs.append("create")  # server-side apply of what was not there asks for both
        found |= {(ref.get("namespace", ""), ref.get("apiGroup", ""), path, verb) for verb in verbs}
    return found


def _granted(namespace: str, grants: Iterable[Grant], *, implied: bool = True) -> Used:
    """``namespace`` empty: everywhere."""
    chosen = [g for g in grants if implied or not g.implied]
    return {(namespace, g.resource.group, g.path, verb) for g in chosen for verb in g.verbs}


def _covered(used: tuple[str, str, str, str], granted: Used) -> bool:
    return used in granted or ("", *used[1:]) in granted


def _seen(granted: tuple[str, str, str, str], used: Used) -> bool:
    return any(entry[1:] == granted[1:] and granted[0] in ("", entry[0]) for entry in used)
