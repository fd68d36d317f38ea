from __future__ import annotations

import subprocess
import sys

from quarterdeck.apiserver.schema import kind_node


def test_lists_know_how_they_merge() -> None:
    pod = kind_node("", "v1", "Pod").properties["spec"]
    containers = pod.properties["containers"]
    assert (containers.list_type, containers.list_map_keys, containers.merge_key) == ("map", ("name",), "name")
    assert containers.items is not None
    ports = containers.items.properties["ports"]
    assert ports.list_map_keys == ("containerPort", "protocol")
    assert ports.items is not None and ports.items.properties["protocol"].default == "TCP"
    assert pod.properties["tolerations"].list_type == "atomic"
    assert pod.properties["nodeSelector"].map_type == "atomic"


def test_a_field_may_have_a_strategy_of_its_own() -> None:
    spec = kind_node("apps", "v1", "Deployment").properties["spec"]
    assert spec.properties["strategy"].patch_strategy == "retainKeys"
    assert spec.properties["selector"].map_type == "atomic"


def test_recursive_schemas_end() -> None:
    spec = kind_node("apiextensions.k8s.io", "v1", "CustomResourceDefinition").properties["spec"]
    versions = spec.properties["versions"].items
    assert versions is not None
    schema = versions.properties["schema"].properties["openAPIV3Schema"]
    assert schema.properties["properties"].additional is schema


def test_the_schemas_load_without_the_package_that_carries_them() -> None:
    code = (
        "import sys; from quarterdeck.apiserver.schema import kind_node; kind_node('', 'v1', 'Pod'); "
        "sys.exit('kubernetes_validate' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
