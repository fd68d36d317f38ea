"""The conversion webhook asked by a real kube-apiserver, and by ours: both versions, storage, certificates, outages."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from quarterdeck import errors
from quarterdeck.kube import resource as k
from quarterdeck.resources.crd import crds
from quarterdeck.server.certificates import AUTHORITY_LIFE, decode
from quarterdeck.server.conversion import DEFINITIONS, ConversionWebhook, WebhookOptions

from .servers import BOTH, ServedApi, serving

pytestmark = pytest.mark.timeout(120)
OLD_AGENT = k.Resource("kagent.dev", "v1alpha1", "Agent", "agents")
OLD_MODEL = k.Resource("kagent.dev", "v1alpha1", "ModelConfig", "modelconfigs")
SPEC = {
    "description": "d",
    "systemMessage": "Old.",
    "modelConfig": "m",
    "memory": ["vectors"],
    "tools": [
        {"type": "McpServer", "mcpServer": {"toolServer": "tools/clock", "toolNames": ["get_time"]}},
        {"type": "Agent", "agent": {"ref": "helper"}},
    ],
}
SYSTEM = "quarterdeck-system"


class Timepiece:
    """The system's clock moved by ``ahead`` seconds; timers never run: a test looks when it wants to."""

    def __init__(self) -> None:
        self.ahead = dt.timedelta()

    def time(self) -> float:
        return (dt.datetime.now(dt.UTC) + self.ahead).timestamp()

    def monotonic(self) -> float:
        return self.time()

    def call_later(self, delay: float, callback: Any) -> Any:
        del delay, callback
        return asyncio.get_running_loop().call_later(3600, lambda: None)


@pytest_asyncio.fixture(scope="module", params=BOTH, loop_scope="module")
async def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedApi]:
    async with serving(request.param, tmp_path_factory.mktemp(request.param)) as served:
        for document in crds():
            if document["metadata"]["name"] in DEFINITIONS:
                await served.client.create(k.CRD, document)
        for namespace in (SYSTEM, "kagent"):
            await served.client.create(k.NAMESPACE, {"metadata": {"name": namespace}})
        yield served


def webhook(api: ServedApi, clock: Timepiece | None = None) -> ConversionWebhook:
    options = WebhookOptions(SYSTEM, port=0, host="127.0.0.1", address="127.0.0.1")
    return ConversionWebhook(api.client, options, clock)


async def established(api: ServedApi, name: str = "agents.kagent.dev") -> None:
    """Until the API server serves what the definition says."""
    async with asyncio.timeout(20):
        while True:
            found = await api.client.get(k.CRD, name)
            conditions = (found.get("status") or {}).get("conditions") or ()
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return
            await asyncio.sleep(0.05)


def typed(res: k.Resource, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": res.api_version, "kind": res.kind, "metadata": {"name": name}, "spec": spec}


async def written(api: ServedApi, res: k.Resource, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Create, tolerating that the API server needs a moment to notice a changed definition."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await api.client.create(res, typed(res, name, spec), "kagent")
            except errors.ApiError as error:
                if error.status_code not in (404, 500):
                    raise
                await asyncio.sleep(0.1)


@pytest.mark.asyncio(loop_scope="module")
async def test_both_versions_of_one_object(api: ServedApi) -> None:
    hook = webhook(api)
    await hook.start()
    try:
        assert hook.ready
        await established(api)
        await written(api, OLD_AGENT, "both", SPEC)
        new = (await api.client.get(k.AGENT, "both", "kagent"))["spec"]
        assert new["declarative"]["systemMessage"] == "Old." and new["type"] == "Declarative"
        assert new["declarative"]["tools"][0]["mcpServer"]["kind"] == "ToolServer"
        old = (await api.client.get(OLD_AGENT, "both", "kagent"))["spec"]
        assert {key: old[key] for key in SPEC if key != "tools"} == {k: v for k, v in SPEC.items() if k != "tools"}
        assert (
            old["tools"][0]["mcpServer"]["toolServer"] == "tools/clock" and old["tools"][1]["agent"]["ref"] == "helper"
        )
        for version, path in (("v1alpha1", "{.spec.systemMessage}"), ("v1alpha2", "{.spec.declarative.systemMessage}")):
            shown = await api.kubectl(
                "get", f"agents.{version}.kagent.dev", "both", "-n", "kagent", "-o", f"jsonpath={path}"
            )
            assert shown == "Old."
        await written(api, OLD_MODEL, "m", {"model": "x", "apiKeySecretRef": "kagent/key", "apiKeySecretKey": "k"})
        model = (await api.client.get(k.MODEL_CONFIG, "m", "kagent"))["spec"]
        assert model["apiKeySecret"] == "key" and "apiKeySecretRef" not in model
    finally:
        await hook.stop()


@pytest.mark.asyncio(loop_scope="module")
async def test_kubectl_applies_changes_to_a_v1alpha1_file(api: ServedApi) -> None:
    hook = webhook(api)
    await hook.start()
    try:
        body: dict[str, Any] = {
            "apiVersion": "kagent.dev/v1alpha1", "kind": "Agent",
            "metadata": {"name": "applied", "namespace": "kagent"}, "spec": dict(SPEC),
        }  # fmt: skip
        await written(api, OLD_AGENT, "probe", SPEC)  # the definition of this webhook is in use
        await api.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        body["spec"]["systemMessage"] = "Newer."
        assert "configured" in await api.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        assert "unchanged" in await api.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        new = (await api.client.get(k.AGENT, "applied", "kagent"))["spec"]["declarative"]
        assert new["systemMessage"] == "Newer." and len(new["tools"]) == 2
        # what a controller does to it, in the version it was not written in
        status = {"metadata": {"name": "applied"}, "status": {"observedGeneration": 1, "replicas": 1}}
        await api.client.apply(k.AGENT, status, "kagent", subresource="status")
        await api.client.patch(k.AGENT, "applied", {"spec": {"replicas": 2}}, "kagent", subresource="scale")
        assert (await api.client.get(OLD_AGENT, "applied", "kagent"))["spec"]["replicas"] == 2
    finally:
        await hook.stop()


@pytest.mark.asyncio(loop_scope="module")
async def test_an_authority_is_replaced_without_one_failed_conversion(api: ServedApi) -> None:
    """Two replicas, a year: at every step a new connection of the API server is accepted."""
    clock = Timepiece()
    hooks = [webhook(api, clock), webhook(api, clock)]
    for hook in hooks:
        await hook.start()
    first = decode((await api.client.get(k.SECRET, "quarterdeck-webhook", SYSTEM))["data"])
    try:
        await written(api, OLD_AGENT, "rotated", SPEC)
        # the API server's clock stands still, so what is valid now must have been made before
        clock.ahead = -AUTHORITY_LIFE * 0.75
        await api.client.delete(k.SECRET, "quarterdeck-webhook", SYSTEM)
        for hook in hooks:
            await hook.look()
        seen: list[tuple[int, bytes]] = []
        for ahead in (dt.timedelta(days=-45), dt.timedelta(hours=-3), dt.timedelta(0)):
            clock.ahead, material = ahead, first
            for hook in hooks:
                await hook.look()
                await written(api, OLD_AGENT, f"rotated-{len(seen)}-{hook.port}", SPEC)
                material = decode((await api.client.get(k.SECRET, "quarterdeck-webhook", SYSTEM))["data"])
                definition = await api.client.get(k.CRD, DEFINITIONS[0])
                client = definition["spec"]["conversion"]["webhook"]["clientConfig"]
                assert base64.b64decode(client["caBundle"]) == material.bundle
            seen.append((len(material.authorities), material.certificate))
        (one, renewed), (two, same), (still, reissued) = seen
        assert (one, two, still) == (1, 2, 2)
        assert renewed not in (first.certificate, reissued) and same == renewed
    finally:
        for hook in hooks:
            await hook.stop()


@pytest.mark.asyncio(loop_scope="module")
async def test_while_no_webhook_answers_the_stored_version_goes_on_working(api: ServedApi) -> None:
    hook = webhook(api)
    await hook.start()
    await written(api, OLD_AGENT, "was-old", SPEC)
    await written(api, k.AGENT, "is-new", {"declarative": {"systemMessage": "New."}})
    await hook.stop()
    assert (await api.client.get(k.AGENT, "was-old", "kagent"))["spec"]["declarative"]["systemMessage"] == "Old."
    assert len((await api.client.list(k.AGENT, "kagent")).items) >= 2
    await api.client.patch(k.AGENT, "is-new", {"spec": {"description": "changed"}}, "kagent")
    status = {"metadata": {"name": "is-new"}, "status": {"observedGeneration": 1}}
    await api.client.apply(k.AGENT, status, "kagent", subresource="status")
    with pytest.raises(errors.ApiError, match=r"conversion webhook for kagent.dev/v1alpha1, Kind=Agent failed"):
        await api.client.create(OLD_AGENT, typed(OLD_AGENT, "refused", SPEC), "kagent")
    await api.client.delete(k.AGENT, "was-old", "kagent")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_certificate_of_cert_managers(api: ServedApi, tmp_path: Path) -> None:
    source = webhook(api)
    await source.start()
    await source.stop()
    data = (await api.client.get(k.SECRET, "quarterdeck-webhook", SYSTEM))["data"]
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).write_bytes(base64.b64decode(data[name]))
    options = WebhookOptions(SYSTEM, port=0, host="127.0.0.1", address="127.0.0.1", secret="none", directory=tmp_path)
    hook = ConversionWebhook(api.client, options)
    await hook.start()
    try:
        await written(api, OLD_AGENT, "by-cert-manager", SPEC)
        with pytest.raises(errors.NotFound):
            await api.client.get(k.SECRET, "none", SYSTEM)
    finally:
        await hook.stop()
