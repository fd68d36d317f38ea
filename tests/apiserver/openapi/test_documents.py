from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.apiserver import openapi
from quarterdeck.apiserver.builtin import kind_schema
from quarterdeck.apiserver.schema import SchemaNode
from quarterdeck.kube import resource as res


@dataclass
class Custom:
    root: SchemaNode


@dataclass
class Served:
    resource: res.Resource
    schema: Any
    subresources: frozenset[str] = frozenset({"status"})
    list_name: str = field(init=False)

    def __post_init__(self) -> None:
        self.list_name = f"{self.resource.kind}List"


AGENT_SCHEMA = {"description": "An agent.", "type": "object", "properties": {"spec": {"type": "object"}}}
BUILTIN = [Served(kind, kind_schema(kind)) for kind in (res.POD, res.DEPLOYMENT, res.NAMESPACE)]
KINDS = [*BUILTIN, Served(res.AGENT, Custom(SchemaNode(type="object", raw=AGENT_SCHEMA)))]


def document(group: str, version: str) -> Any:
    return json.loads(openapi.v3_document(group, version, KINDS))


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set[str]()
        return own.union(*(references(item) for item in value.values()))
    return set[str]().union(*(references(item) for item in value)) if isinstance(value, list) else set()


def test_the_index_names_each_group_and_version_once_and_hashes_its_content() -> None:
    paths = json.loads(openapi.v3_index(KINDS))["paths"]
    assert sorted(paths) == ["api/v1", "apis/apps/v1", "apis/kagent.dev/v1alpha2"]
    url = paths["apis/apps/v1"]["serverRelativeURL"]
    assert url.startswith("/openapi/v3/apis/apps/v1?hash=")
    changed = [*BUILTIN, Served(res.AGENT, Custom(SchemaNode(raw={"type": "object"})))]
    other = json.loads(openapi.v3_index(changed))["paths"]
    assert other["apis/apps/v1"] == paths["apis/apps/v1"]
    assert other["apis/kagent.dev/v1alpha2"] != paths["apis/kagent.dev/v1alpha2"]


def test_patch_operations_say_which_kind_and_parameters() -> None:
    patch = document("apps", "v1")["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert {"dryRun", "fieldValidation", "fieldManager", "force"} <= {item["name"] for item in patch["parameters"]}


def test_schemas_are_complete_and_carry_their_kind() -> None:
    content = document("apps", "v1")
    schemas = content["components"]["schemas"]
    deployment = schemas["io.k8s.api.apps.v1.Deployment"]
    assert deployment["x-kubernetes-group-version-kind"] == [{"group": "apps", "version": "v1", "kind": "Deployment"}]
    assert deployment["type"] == "object"
    assert deployment["properties"]["spec"]["allOf"] == [
        {"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}
    ]
    assert references(content) <= {f"#/components/schemas/{name}" for name in schemas}


def test_custom_resources_are_described_by_their_crd() -> None:
    content = document("kagent.dev", "v1alpha2")
    agent = content["components"]["schemas"]["dev.kagent.v1alpha2.Agent"]
    assert agent["description"] == "An agent."
    assert set(agent["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
    assert references(content) <= {f"#/components/schemas/{name}" for name in content["components"]["schemas"]}
    assert "/apis/kagent.dev/v1alpha2/namespaces/{namespace}/agents/{name}/status" in content["paths"]
    assert "metadata" not in AGENT_SCHEMA["properties"]


def test_v2_holds_everything_in_one_document() -> None:
    content = json.loads(openapi.v2_document(KINDS))
    assert content["swagger"] == "2.0"
    assert {"io.k8s.api.core.v1.Pod", "dev.kagent.v1alpha2.Agent"} <= set(content["definitions"])
    assert references(content) <= {f"#/definitions/{name}" for name in content["definitions"]}
    assert "/api/v1/namespaces/{name}" in content["paths"]
