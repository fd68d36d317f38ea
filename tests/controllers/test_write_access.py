"""Whether a ServiceAccount may write, as the embedded server's RBAC decides it for the controllers' own identity."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.apiserver.security.controllers import QUARTERDECK_CONTROLLER
from quarterdeck.controllers.write_access import SECONDS, Account, WriteAccess, account_of
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.resource import Object, Resource

ROLE = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDING = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
MINE = Account("team-a", "mine")
RULES = [{"apiGroups": ["kagent.dev"], "resources": ["agents/status"], "verbs": ["update"]}]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    started = ApiServer(ApiServerConfig(tmp_path, port=0))
    await started.start()
    yield started
    await started.stop()


def client(server: ApiServer, user: str) -> KubeClient:
    return KubeClient(ClientConfig(**server.client_config(user)))


def binding(kind: str, name: str, subject: Object, namespace: str = "") -> Object:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    return {"metadata": metadata, "roleRef": role, "subjects": [subject]}


@pytest.mark.parametrize(
    ("pod", "name"),
    [
        ({}, "default"),
        ({"serviceAccount": "old"}, "old"),
        ({"serviceAccountName": "new", "serviceAccount": "x"}, "new"),
    ],
)
def test_the_account_of_a_deployment(pod: dict[str, Any], name: str) -> None:
    deployment = {"metadata": {"name": "d", "namespace": "team-a"}, "spec": {"template": {"spec": pod}}}
    assert account_of(deployment) == Account("team-a", name)


async def test_rights_in_a_namespace_everywhere_and_by_group(server: ApiServer) -> None:
    now = 0.0
    async with client(server, "admin") as admin, client(server, QUARTERDECK_CONTROLLER.name) as ours:
        access = WriteAccess(ours, lambda: now)
        for namespace in ("team-a", "team-b"):
            await admin.create(k.NAMESPACE, {"metadata": {"name": namespace}})
        metadata = {"name": "writer", "namespace": "team-b"}
        await admin.create(ROLE, {"metadata": metadata, "rules": RULES})
        account = {"kind": "ServiceAccount", "name": "mine", "namespace": "team-a"}
        await admin.create(ROLE_BINDING, binding("Role", "writer", account, "team-b"))
        assert await access.allowed(MINE, k.AGENT, "team-b") and not await access.allowed(MINE, k.AGENT, "team-a")
        assert not await access.allowed(MINE, k.MCP_SERVER, "team-b")

        await admin.create(k.CLUSTER_ROLE, {"metadata": {"name": "all"}, "rules": RULES})
        group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts:team-a"}
        await admin.create(k.CLUSTER_ROLE_BINDING, binding("ClusterRole", "all", group))
        assert not await access.allowed(MINE, k.AGENT, "team-a"), "the answer is kept"
        now += SECONDS
        asked = ours.writes
        for namespace in ("team-a", "team-b", "team-c"):
            assert await access.allowed(MINE, k.AGENT, namespace)
        assert ours.writes - asked == 1, "one answer for all namespaces"
        assert not await access.allowed(Account("team-b", "mine"), k.AGENT, "team-b")


async def test_without_the_right_to_ask_it_is_no_and_said_once(
    server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(server, "nobody") as nobody:
        access = WriteAccess(nobody, lambda: 0.0)
        with caplog.at_level(logging.WARNING):
            for namespace in ("team-a", "team-b"):
                assert not await access.allowed(MINE, k.AGENT, namespace)
        assert nobody.writes == 1
    (line,) = [record.getMessage() for record in caplog.records if record.name.endswith("write_access")]
    assert "system:serviceaccount:team-a:mine may update agents/status in all namespaces cannot be asked" in line
    assert "holds us back in its own namespace only" in line and "subjectaccessreviews" in line


async def test_an_answer_outlives_the_server_that_gave_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    server = ApiServer(ApiServerConfig(tmp_path, port=0))
    await server.start()
    try:
        async with client(server, "admin") as admin:
            access = WriteAccess(admin, lambda: now)
            await admin.create(k.CLUSTER_ROLE, {"metadata": {"name": "all"}, "rules": RULES})
            account = {"kind": "ServiceAccount", "name": "mine", "namespace": "team-a"}
            await admin.create(k.CLUSTER_ROLE_BINDING, binding("ClusterRole", "all", account))
            assert await access.allowed(MINE, k.AGENT, "team-b")
            await server.stop()
            now += SECONDS
            assert await access.allowed(MINE, k.AGENT, "team-b")
            assert "still holds us back there, as before" in caplog.text
    finally:
        await server.stop()
