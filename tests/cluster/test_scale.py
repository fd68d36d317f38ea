"""``kubectl scale agent`` and what an autoscaler reads, on a real API server and ours: the schema's part alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quarterdeck.kube import resource as k
from quarterdeck.resources.crd import crds

from .servers import BOTH, serving


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", BOTH)
async def test_kubectl_scales_what_never_was(kind: str, tmp_path: Path) -> None:
    async with serving(kind, tmp_path) as api:
        for document in crds():
            if document["spec"]["names"]["kind"] in ("Agent", "MCPServer"):
                await api.client.create(k.CRD, document)
        await api.client.create(k.NAMESPACE, {"metadata": {"name": "kagent"}})
        for res, spec in ((k.AGENT, {"declarative": {}}), (k.MCP_SERVER, {"deployment": {}})):
            name, body = res.kind.lower(), {"metadata": {"name": "a", "namespace": "kagent"}, "spec": spec}
            text = json.dumps({"apiVersion": res.api_version, "kind": res.kind} | body)
            crd = f"crd/{res.plural}.kagent.dev"
            # kubectl cannot wait for a condition of an object that has no conditions yet
            await api.kubectl("wait", "--for=jsonpath={.status.acceptedNames.kind}", crd, "--timeout=90s")
            await api.kubectl("wait", "--for=condition=Established", crd, "--timeout=90s")
            await api.kubectl("apply", "-f", "-", stdin=text)
            scale = ("get", name, "a", "-n", "kagent", "--subresource=scale", "-o", "jsonpath={.spec.replicas}")
            assert await api.kubectl(*scale) == "1", "an autoscaler can read it at once"
            await api.kubectl("scale", name, "a", "-n", "kagent", "--replicas=3")
            assert await api.kubectl(*scale) == "3"
            await api.kubectl("scale", name, "a", "-n", "kagent", "--current-replicas=3", "--replicas=0")
            assert (await api.client.get(res, "a", "kagent"))["spec"]["replicas"] == 0
            assert "unchanged" in await api.kubectl("apply", "-f", "-", stdin=text), "the file does not undo it"
            await api.kubectl("autoscale", name, "a", "--name", name, "-n", "kagent", "--max=5", "--cpu=50%")
            status = {"metadata": {"name": "a"}, "status": {"replicas": 2, "selector": "kagent=a"}}
            await api.client.apply(res, status, "kagent", subresource="status")
            shown = await api.client.request("GET", res.path("kagent", "a", "scale"))
            assert shown["status"] == {"replicas": 2, "selector": "kagent=a"}
