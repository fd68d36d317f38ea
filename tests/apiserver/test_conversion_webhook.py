"""Several versions of a custom kind, converted by a real HTTPS webhook."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.errors import InternalError
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.resource import CRD, Resource
from quarterdeck.wire.http import Exchange, Server

V1 = Resource("test.example", "v1", "Box", "boxes")
V2 = Resource("test.example", "v2", "Box", "boxes")


class Converter:
    """v1 has ``spec.size`` "3x4", v2 ``spec.width`` and ``spec.height``."""

    def __init__(self) -> None:
        self.reviews: list[int] = []
        self.broken = False

    def __call__(self, exchange: Exchange) -> None:
        request = json.loads(exchange.body)["request"]
        self.reviews.append(len(request["objects"]))
        result: dict[str, Any] = {"uid": request["uid"], "result": {"status": "Success"}}
        if self.broken:
            result["result"] = {"status": "Failed", "message": "out of order"}
        else:
            result["convertedObjects"] = [self.convert(o, request["desiredAPIVersion"]) for o in request["objects"]]
        review = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": result}
        exchange.respond(200, json.dumps(review).encode(), [(b"content-type", b"application/json")])

    def convert(self, obj: dict[str, Any], wanted: str) -> dict[str, Any]:
        spec = obj["spec"]
        if wanted.endswith("v2"):
            width, height = spec["size"].split("x")
            return {**obj, "apiVersion": wanted, "spec": {"width": int(width), "height": int(height)}}
        return {**obj, "apiVersion": wanted, "spec": {"size": f"{spec['width']}x{spec['height']}"}}


def definition(url: str, bundle: bytes) -> dict[str, Any]:
    def version(name: str, **properties: str) -> dict[str, Any]:
        spec = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
        schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
        return {"name": name, "served": True, "storage": name == "v1", "schema": schema}

    client = {"url": url, "caBundle": base64.b64encode(bundle).decode()}
    return {
        "metadata": {"name": "boxes.test.example"},
        "spec": {
            "group": "test.example", "scope": "Namespaced",
            "names": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"},
            "versions": [version("v1", size="string"), version("v2", width="integer", height="integer")],
            "conversion": {
                "strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]},
            },
        },
    }  # fmt: skip


@pytest.fixture
async def boxes(tmp_path: Path) -> AsyncIterator[tuple[KubeClient, Converter]]:
    server = ApiServer(ApiServerConfig(tmp_path, port=0))
    await server.start()
    assert server.pki is not None
    pair = server.pki.node_serving_pair("hook", ("127.0.0.1", "localhost"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(str(pair.certificate), str(pair.key))
    converter = Converter()
    hook = Server(converter)
    host, port = await hook.listen("127.0.0.1", 0, tls=context)
    client = KubeClient(ClientConfig(**server.client_config()))
    await client.create(CRD, definition(f"https://{host}:{port}/convert", server.ca_pem))
    yield client, converter
    await client.close()
    await server.stop()
    await hook.stop(0)


def box(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


async def test_reads_and_writes_in_both_versions(boxes: tuple[KubeClient, Converter]) -> None:
    client, converter = boxes
    await client.create(V1, box("a", size="3x4"), "default")
    assert converter.reviews == []  # stored as served: nobody is asked
    assert (await client.get(V2, "a", "default"))["spec"] == {"width": 3, "height": 4}
    await client.get(V2, "a", "default")
    assert converter.reviews == [1]  # the answer is kept with the object
    made = await client.create(V2, box("b", width=5, height=6), "default")
    assert made["apiVersion"] == "test.example/v2" and made["spec"] == {"width": 5, "height": 6}
    assert (await client.get(V1, "b", "default"))["spec"] == {"size": "5x6"}
    patched = await client.patch(V2, "a", {"spec": {"width": 9}}, "default")
    assert patched["spec"] == {"width": 9, "height": 4}
    assert (await client.get(V1, "a", "default"))["spec"] == {"size": "9x4"}
    converter.reviews.clear()
    listed = await client.list(V2, "default")
    assert [item["spec"]["width"] for item in listed.items] == [9, 5] and converter.reviews == [2]  # one review a list
    await client.delete(V2, "a", "default")


async def test_watches_convert(boxes: tuple[KubeClient, Converter]) -> None:
    client, _ = boxes
    await client.create(V1, box("a", size="1x1"), "default")
    events = client.watch(V2, "default", resource_version="0")
    assert (await anext(events)).object["spec"] == {"width": 1, "height": 1}
    await client.patch(V1, "a", {"spec": {"size": "2x1"}}, "default")
    changed = await anext(events)
    assert (changed.type, changed.object["spec"]["width"]) == ("MODIFIED", 2)


async def test_a_webhook_that_fails_names_itself(boxes: tuple[KubeClient, Converter]) -> None:
    client, converter = boxes
    await client.create(V1, box("a", size="1x1"), "default")
    converter.broken = True
    with pytest.raises(InternalError, match=r"conversion webhook for test.example/v1, Kind=Box failed: out of order"):
        await client.get(V2, "a", "default")
    assert (await client.get(V1, "a", "default"))["spec"] == {"size": "1x1"}
    await client.delete(CRD, "boxes.test.example")  # clean-up needs no conversion
