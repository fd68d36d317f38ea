from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.apiserver.schema import kind_node
from quarterdeck.apiserver.schema.decode import decode, unknown_fields
from quarterdeck.errors import BadRequest

PREFIX = 'Deployment in version "v1" cannot be handled as a Deployment: '
NODE = kind_node("apps", "v1", "Deployment")


def deployment(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    pod = {"spec": {"containers": [{"name": "c", **(container or {})}]}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"template": pod, **spec}}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (deployment({"foo": 1}), ["spec.template.spec.containers[0].foo"]),
        (deployment(foo=1, bar={"x": 1}), ["spec.foo", "spec.bar"]),
        ({**deployment(), "sepc": {}}, ["sepc"]),
        ({**deployment(), "metadata": {"labels": {"any": "x"}, "label": {}}}, ["metadata.label"]),
        (deployment(), []),
    ],
)
def test_unknown_fields_are_named_by_path(obj: dict[str, Any], expected: list[str]) -> None:
    assert unknown_fields(NODE, obj) == [f'unknown field "{path}"' for path in expected]


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (deployment(replicas="3"),
         "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (deployment(replicas=1.5),
         "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (deployment({"image": 5}), "json: cannot unmarshal number into Go struct field "
         "Container.spec.template.spec.containers.image of type string"),
        (deployment({"ports": {}}), "json: cannot unmarshal object into Go struct field "
         "Container.spec.template.spec.containers.ports of type []v1.ContainerPort"),
        (deployment(template=[]), "json: cannot unmarshal array into Go struct field "
         "DeploymentSpec.spec.template of type v1.PodTemplateSpec"),
        (deployment(paused="yes"),
         "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool"),
        (deployment(selector={"matchLabels": {"a": 1}}), "json: cannot unmarshal number into Go struct field "
         "LabelSelector.spec.selector.matchLabels of type string"),
        (deployment({"resources": {"limits": {"cpu": "lots"}}}), "quantities must match the regular expression "
         "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
    ],
)  # fmt: skip
def test_wrong_types_are_refused_in_the_decoders_words(obj: dict[str, Any], text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(NODE, obj, "v1", "Deployment")
    assert caught.value.message == PREFIX + text


def test_what_go_would_write_differently() -> None:
    obj = deployment({"args": [], "image": None, "foo": 1, "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}})
    obj["spec"]["template"]["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    obj["spec"]["replicas"] = 2.0
    decode(NODE, obj, "v1", "Deployment")
    pod = obj["spec"]["template"]["spec"]
    assert pod["containers"] == [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]
    assert pod["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert isinstance(obj["spec"]["replicas"], int)


def test_times_and_base64() -> None:
    secret = {"metadata": {"name": "x"}, "data": {"a": "not base64!"}}
    with pytest.raises(BadRequest, match="illegal base64 data at input byte 3"):
        decode(kind_node("", "v1", "Secret"), secret, "v1", "Secret")
    lease = {"spec": {"renewTime": "yesterday"}}
    with pytest.raises(BadRequest, match='parsing time "yesterday" as "2006-01-02T15:04:05Z07:00"'):
        decode(kind_node("coordination.k8s.io", "v1", "Lease"), lease, "v1", "Lease")


def test_custom_resource_definitions_keep_free_form_parts() -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "default": {"x": [1, None]}}}}
    crd = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}
    node = kind_node("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    assert unknown_fields(node, crd) == []
    decode(node, crd, "v1", "CustomResourceDefinition")
    assert crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] == schema
