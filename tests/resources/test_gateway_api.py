"""Gateway API's definitions are the published ones, and our readings of them name fields that exist."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from quarterdeck.apiserver.crd.definitions import validate_crd
from quarterdeck.resources import crd
from quarterdeck.resources.gateway_api import GROUP, gateway, grant, route, upstream

PUBLISHED = {document["spec"]["names"]["kind"]: document for document in upstream.definitions()}
OURS = {kind.kind: crd.crd(kind) for kind in crd.GATEWAY_KINDS}


def test_the_definitions_are_those_of_one_release_and_outlive_the_chart() -> None:
    assert set(PUBLISHED) == {"GatewayClass", "Gateway", "HTTPRoute", "GRPCRoute", "ReferenceGrant"}
    for document in PUBLISHED.values():
        annotations = document["metadata"]["annotations"]
        assert annotations[upstream.BUNDLE] == upstream.VERSION
        assert annotations[f"{GROUP}/channel"] == "standard"
        assert annotations["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_api_server_accepts_the_definitions(kind: str) -> None:
    assert validate_crd(PUBLISHED[kind]) == []


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("GatewayClass", gateway.GatewayClassSpec),
        ("Gateway", gateway.GatewaySpec),
        ("HTTPRoute", route.HttpRouteSpec),
        ("GRPCRoute", route.GrpcRouteSpec),
        ("ReferenceGrant", grant.ReferenceGrantSpec),
    ],
)
def test_what_we_read_is_in_the_published_schema(kind: str, model: type[BaseModel]) -> None:
    versions = [v for v in PUBLISHED[kind]["spec"]["versions"] if v["served"]]
    for version in versions:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        assert _unknown(model.model_json_schema(by_alias=True), spec) == []


def _unknown(document: dict[str, Any], published: dict[str, Any]) -> list[str]:
    found: list[str] = []

    def walk(node: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        for option in (node, *node.get("anyOf", ())):
            if "$ref" in option:
                walk(document["$defs"][option["$ref"].rsplit("/", 1)[-1]], schema, path)
            if "items" in option:
                walk(option["items"], schema.get("items", {}), f"{path}[]")
            for name, child in option.get("properties", {}).items():
                if name not in schema.get("properties", {}):
                    found.append(f"{path}.{name}")
                else:
                    walk(child, schema["properties"][name], f"{path}.{name}")

    walk(document, published, "spec")
    return found


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("AgentgatewayBackend", {}, "exactly one of ai, mcp, static, a2a, aws or dynamicForwardProxy must be set"),
        (
            "AgentgatewayBackend",
            {"mcp": {"targets": [{"name": "t"}]}},
            "exactly one of static or selector must be set",
        ),
        (
            "Backend",
            {"type": "MCP", "mcp": {"targets": [{"name": "t", "static": {"port": 1}}]}},
            "exactly one of host or backendRef must be set",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(kind: str, spec: dict[str, Any], message: str) -> None:
    from quarterdeck.apiserver.crd.kind import CustomSchema

    schema = CustomSchema(OURS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"], status=True)
    obj = {"apiVersion": "v1alpha1", "kind": kind, "metadata": {"name": "b", "namespace": "n"}, "spec": spec}
    schema.default(obj)
    assert any(message in cause.message for cause in schema.validate(obj, None, ""))
