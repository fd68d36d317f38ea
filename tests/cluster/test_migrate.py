"""``qd migrate kagent`` with real helm on a real API server: kagent's charts go, every Agent stays.

The charts are stand-ins (kagent_charts.py); helm, kubectl, qd and the API server are the real things.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Literal

import pytest

from quarterdeck import errors
from quarterdeck.kube import resource as k
from quarterdeck.server.conversion import ConversionWebhook, WebhookOptions

from . import kagent_charts
from .build import helm_path
from .servers import NEEDS_REAL, ServedApi, command, serving

ROOT = Path(__file__).parents[2]
OURS = str(ROOT / "charts/quarterdeck-crds")
QD = str(Path(sys.executable).parent / "qd")
MAJORS: tuple[Literal[3, 4], ...] = (3, 4)
SYSTEM = "quarterdeck-system"
OLD_AGENT = k.Resource("kagent.dev", "v1alpha1", "Agent", "agents")


def helms(*slow: int) -> list[Any]:
    """Each release of helm as a parameter; ``slow`` ones are in the slow tier."""
    found: list[Any] = []
    for major in MAJORS:
        missing = pytest.mark.skipif(not helm_path(major).exists(), reason="helm: not built (tests/cluster/build.py)")
        marks = (missing, pytest.mark.slow) if major in slow else (missing,)
        found.append(pytest.param(major, id=f"helm{major}", marks=marks))
    return found


pytestmark = [NEEDS_REAL, pytest.mark.timeout(240)]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncGenerator[ServedApi, None]:
    async with serving("real", tmp_path) as served:
        for name in (SYSTEM, "kagent"):
            await served.client.create(k.NAMESPACE, {"metadata": {"name": name}})
        yield served


class Helm:
    """One release of helm against one server."""

    def __init__(self, major: Literal[3, 4], api: ServedApi) -> None:
        self.binary, self.api = str(helm_path(major)), api

    async def __call__(self, *words: str) -> str:
        return await command(self.binary, *words, kubeconfig=self.api.kubeconfig)


async def qd(api: ServedApi, *words: str) -> str:
    return await command(QD, *words, kubeconfig=api.kubeconfig)


async def established(api: ServedApi) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await api.client.list(k.AGENT)
                return await _served(api)
            except errors.ApiError:
                await asyncio.sleep(0.1)


async def _served(api: ServedApi) -> None:
    await api.client.list(OLD_AGENT)


async def install_kagent(helm: Helm, folder: Path) -> None:
    """kagent of old, with an Agent stored as v1alpha1, upgraded to 0.9 and given an Agent of its time."""
    api = helm.api
    await helm("install", "kagent-crds", str(kagent_charts.write_definitions(folder, "v1alpha1")), "-n", "kagent")
    await established(api)
    old = {"systemMessage": "Old.", "modelConfig": "default-model-config", "memory": ["vectors"]}
    await api.client.create(OLD_AGENT, agent(OLD_AGENT, "old", old))
    await helm("upgrade", "kagent-crds", str(kagent_charts.write_definitions(folder, "v1alpha2")), "-n", "kagent")
    await helm("install", "kagent", str(kagent_charts.write_kagent(folder)), "-n", "kagent")
    await api.client.create(k.AGENT, agent(k.AGENT, "mine", {"declarative": {"systemMessage": "Mine."}}))


def agent(res: k.Resource, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "kagent"}
    return {"apiVersion": res.api_version, "kind": "Agent", "metadata": metadata, "spec": spec}


async def versions(api: ServedApi) -> dict[str, str]:
    """resourceVersion of everything that a migration touches."""
    found: dict[str, str] = {}
    for res in (k.CRD, k.SECRET, k.CONFIG_MAP, k.AGENT, k.MODEL_CONFIG):
        for obj in (await api.client.list(res)).items:
            found[f"{res.kind} {obj['metadata']['name']}"] = obj["metadata"]["resourceVersion"]
    return found


@pytest.mark.parametrize("major", helms(4))
async def test_kagent_is_uninstalled_and_every_agent_is_still_there(
    major: Literal[3, 4], api: ServedApi, tmp_path: Path
) -> None:
    helm = Helm(major, api)
    await install_kagent(helm, tmp_path)
    uids = {a["metadata"]["name"]: a["metadata"]["uid"] for a in (await api.client.list(k.AGENT)).items}
    assert sorted(uids) == ["k8s-agent", "mine", "old"]

    before = await versions(api)
    said = await qd(api, "migrate", "kagent", "--dry-run")
    assert "would change: `helm uninstall kagent-crds` will keep 9 CustomResourceDefinitions" in said
    assert await versions(api) == before
    said = await qd(api, "migrate", "kagent")
    assert "1 Agent, 1 ConfigMap, 1 ModelConfig, 1 Secret" in said and "rewritten" not in said
    after = await versions(api)
    assert "everything is handed over" in await qd(api, "migrate", "kagent") and await versions(api) == after

    await helm("install", "quarterdeck-crds", OURS, "-n", SYSTEM, "--take-ownership")
    assert "CustomResourceDefinition" in await helm("uninstall", "kagent", "kagent-crds", "-n", "kagent")
    hook = ConversionWebhook(api.client, WebhookOptions(SYSTEM, port=0, host="127.0.0.1", address="127.0.0.1"))
    await hook.start()
    try:
        await established(api)
        remaining = {a["metadata"]["name"]: a["metadata"]["uid"] for a in (await api.client.list(k.AGENT)).items}
        assert remaining == uids, "the very same objects"
        old = (await api.client.get(k.AGENT, "old", "kagent"))["spec"]
        assert old["declarative"]["systemMessage"] == "Old.", "stored as v1alpha1 by kagent, converted by us"
        assert await api.kubectl("get", "secret", "kagent-openai", "-n", "kagent", "-o", "name")
        await api.kubectl("get", "modelconfig/default-model-config", "cm/kagent-builtin-prompts", "-n", "kagent")
        for gone in ("deploy/kagent-controller", "svc/kagent-ui", "secret/kagent-postgresql"):
            with pytest.raises(AssertionError, match="not found"):
                await api.kubectl("get", gone, "-n", "kagent")

        said = await qd(api, "migrate", "kagent")
        assert "rewritten: 3 objects of agents.kagent.dev; v1alpha1 is no longer stored" in said
        definition = await api.client.get(k.CRD, "agents.kagent.dev")
        assert definition["status"]["storedVersions"] == ["v1alpha2"]
    finally:
        await hook.stop()
    old = (await api.client.get(k.AGENT, "old", "kagent"))["spec"]
    assert old["declarative"]["systemMessage"] == "Old.", "readable without any webhook now"
    await helm("uninstall", "quarterdeck-crds", "-n", SYSTEM)
    assert len((await api.client.list(k.AGENT)).items) == 3, "our own chart keeps them, too"


@pytest.mark.parametrize("major", helms(3, 4))
async def test_what_take_ownership_alone_is_worth(major: Literal[3, 4], api: ServedApi, tmp_path: Path) -> None:
    """Helm 4 asks the live object who owns it; Helm 3 deletes what its own record says, and all Agents with it."""
    helm = Helm(major, api)
    chart = str(kagent_charts.write_definitions(tmp_path, "v1alpha2"))
    await helm("install", "kagent-crds", chart, "-n", "kagent")
    await established(api)
    await api.client.create(k.AGENT, agent(k.AGENT, "mine", {"declarative": {"systemMessage": "Mine."}}))
    await helm(
        "install", "quarterdeck-crds", OURS, "-n", SYSTEM, "--take-ownership", "--set", "conversion.enabled=false"
    )
    await helm("uninstall", "kagent-crds", "-n", "kagent")
    if major == 4:
        assert (await api.client.get(k.AGENT, "mine", "kagent"))["spec"]["declarative"]["systemMessage"] == "Mine."
        return
    async with asyncio.timeout(20):
        while (await api.client.list(k.CRD)).items:
            await asyncio.sleep(0.1)
