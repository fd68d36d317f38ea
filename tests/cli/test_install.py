"""``qd install`` without helm, ``qd uninstall`` and ``qd manifests`` as processes against an API server of ours.

tests/cluster/test_install.py does the same on a real control plane, with Pods.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
import yaml

from cluster.build import helm_path
from cluster.servers import ServedApi, command, serving
from quarterdeck.cli.chart import Release, load
from quarterdeck.errors import NotFound
from quarterdeck.kube import resource as k

pytestmark = pytest.mark.timeout(180)
QD = str(Path(sys.executable).parent / "qd")
SYSTEM = "quarterdeck-system"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedApi]:
    async with serving("embedded", tmp_path_factory.mktemp("install")) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fresh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedApi]:
    """One where nothing of ours has ever been installed."""
    async with serving("embedded", tmp_path_factory.mktemp("fresh")) as served:
        yield served


async def failing(*words: str) -> tuple[int, str]:
    """Exit code and what went to standard error."""
    process = await asyncio.create_subprocess_exec(QD, *words, stdout=-3, stderr=asyncio.subprocess.PIPE)
    _, err = await process.communicate()
    return process.returncode or 0, err.decode()


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_installed_is_changed_and_removed_again(api: ServedApi) -> None:
    async def qd(*words: str) -> str:
        return await command(QD, *words, kubeconfig=api.kubeconfig)

    planned = await qd("install", "--no-helm", "--dry-run")
    assert "deployment.apps/quarterdeck-controller created (dry run)" in planned
    with pytest.raises(NotFound):
        await api.client.get(k.NAMESPACE, SYSTEM)

    said = await qd("install", "--no-helm", "--no-wait")
    assert "deployment.apps/quarterdeck created" in said and "port-forward service/quarterdeck-gateway" in said
    said = await qd("install", "--no-helm", "--no-wait", "--set", "networkPolicy.enabled=false,gateway.replicas=4")
    assert 'networkpolicy.networking.k8s.io "quarterdeck" deleted' in said
    assert "service/quarterdeck-gateway unchanged" in said
    assert (await api.client.get(k.DEPLOYMENT, "quarterdeck", SYSTEM))["spec"]["replicas"] == 4
    assert not (await api.client.list(k.NETWORK_POLICY, SYSTEM)).items

    assert "(dry run)" in await qd("uninstall", "--dry-run")
    await api.client.get(k.DEPLOYMENT, "quarterdeck", SYSTEM)
    await qd("uninstall")
    for res in (k.DEPLOYMENT, k.SERVICE, k.ROLE, k.PDB, k.CONFIG_MAP):
        left = {obj["metadata"]["name"] for obj in (await api.client.list(res, SYSTEM)).items}
        assert left <= {"kube-root-ca.crt"}, res.kind
    await api.client.get(k.PERSISTENT_VOLUME_CLAIM, "quarterdeck-controller", SYSTEM)  # conversations stay
    await api.client.get(k.CRD, "agents.kagent.dev")
    with pytest.raises(AssertionError, match="not installed in namespace quarterdeck-system"):
        await qd("uninstall")


@pytest.mark.asyncio(loop_scope="module")
async def test_manifests_are_what_the_chart_renders(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("gateway: {replicas: 3}\n")
    out = await command(
        QD, "manifests", "-n", "elsewhere", "-f", str(values), "--set", "database.secretName=db", kubeconfig=values
    )
    documents = list(yaml.safe_load_all(out))
    assert documents[0] == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}}
    given = {"gateway": {"replicas": 3}, "database": {"secretName": "db"}}
    chart = [m.body for m in load("quarterdeck").render(Release("quarterdeck", "elsewhere"), given)]
    assert documents[-len(chart) :] == chart
    assert sum(d["kind"] == "CustomResourceDefinition" for d in documents) == len(documents) - len(chart) - 1


@pytest.mark.asyncio(loop_scope="module")
async def test_wrong_values_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("- a\n")
    for words, said in (
        (("--set", "gateway.replicas=many"), "gateway.replicas"),
        (("--set", "controller.replicas=2"), "SQLite serves one controller"),
        (("--set", "what"), "NAME=VALUE"),
        (("-f", str(broken)), "must be a mapping"),
        (("-f", str(tmp_path / "none.yaml")), "No such file"),
    ):
        code, error = await failing("manifests", *words)
        assert code in (1, 2) and said in error


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_dry_run_through_helm_changes_nothing(fresh: ServedApi, major: Literal[3, 4], tmp_path: Path) -> None:
    api = fresh
    if not helm_path(major).exists():
        pytest.skip(f"helm {major} is not built here: python tests/cluster/build.py (needs Go)")
    (tmp_path / "helm").symlink_to(helm_path(major))
    place = f"dry-{major}"

    async def qd(*words: str) -> str:
        path = f"PATH={tmp_path}:{Path(QD).parent}:/usr/bin:/bin"
        if words[0] == "install":
            words = (*words, "--set", "rbac.aggregatedRoles=false")  # our own server is born with these
        return await command("/usr/bin/env", path, QD, *words, "-n", place, kubeconfig=api.kubeconfig)

    async def there() -> set[str]:
        """Everything of these kinds, and which version of it."""
        kinds = (k.NAMESPACE, k.CRD, k.DEPLOYMENT, k.SECRET, k.CONFIG_MAP, k.CLUSTER_ROLE, k.SERVICE)
        found = [(res, obj) for res in kinds for obj in (await api.client.list(res)).items]
        marks = {f"{r.plural}/{o['metadata']['name']}@{o['metadata']['resourceVersion']}" for r, o in found}
        return {mark for mark in marks if "kube-root-ca.crt" not in mark}

    before = await there()
    planned = await qd("install", "--dry-run", "--set", "gateway.replicas=4")
    rendered = [d for part in planned.split("\n---\n") if (d := _document(part)) and d.get("kind") == "Deployment"]
    replicas = {d["metadata"]["name"]: d["spec"]["replicas"] for d in rendered}
    assert replicas == {"quarterdeck": 4, "quarterdeck-controller": 1}, "both charts' manifests, with the values given"
    alone = await qd("install", "--dry-run", "--no-definitions")
    assert ("kind: CustomResourceDefinition" in planned, "kind: CustomResourceDefinition" in alone) == (True, False)
    assert await there() == before
    with pytest.raises(AssertionError, match=f"not installed in namespace {place}"):
        await qd("uninstall", "--dry-run")
    with pytest.raises(AssertionError, match="gateway"):
        await qd("install", "--dry-run", "--set", "gateway.replicas=many")
    assert await there() == before


def _document(part: str) -> dict[str, Any] | None:
    """One manifest out of helm's report, which says more around them."""
    text = part[: part.index("\nNOTES:")] if "\nNOTES:" in part else part
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return found if isinstance(found, dict) else None
