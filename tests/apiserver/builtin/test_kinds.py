from __future__ import annotations

import copy
from typing import Any

import pytest

from quarterdeck.apiserver.builtin import allocate, kind_schema
from quarterdeck.kube import resource as res

TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
SPEC = {
    "Deployment": {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
    "Pod": TEMPLATE["spec"],
    "Service": {"ports": [{"port": 80}]},
    "Job": {"template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}},
    "CronJob": {"schedule": "0 * * * *",
                "jobTemplate": {"spec": {"template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}}}},
}  # fmt: skip


def made(kind: res.Resource, **more: Any) -> dict[str, Any]:
    obj: dict[str, Any] = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}}
    if kind.namespaced:
        obj["metadata"]["namespace"] = "n"
    if kind.kind in SPEC:
        obj["spec"] = copy.deepcopy(SPEC[kind.kind])
    for key, value in more.items():
        target, *path = [obj, *key.split("__")]
        for part in path[:-1]:
            target = target[int(part) if part.isdigit() else part]
        target[path[-1]] = value
    return obj


def problems(kind: res.Resource, obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[tuple[str, str, str]]:
    schema = kind_schema(kind)
    schema.prune(obj)
    schema.default(obj)
    schema.prepare_create(obj)
    return [(c.field, c.message, c.reason) for c in schema.validate(obj, old, "")]


@pytest.mark.parametrize(
    "kind", [res.DEPLOYMENT, res.POD, res.SERVICE, res.JOB, res.CRON_JOB, res.CONFIG_MAP, res.SECRET]
)
def test_a_plain_object_is_fine(kind: res.Resource) -> None:
    assert problems(kind, made(kind)) == []


C = "spec__template__spec__containers__0__"
CASES: list[tuple[res.Resource, dict[str, Any], str, str, str]] = [
    (res.DEPLOYMENT, {C + "image": ""}, "spec.template.spec.containers[0].image", "Required value", "Required"),
    (res.DEPLOYMENT, {"spec__template__metadata": {"labels": {"z": "y"}}}, "spec.template.metadata.labels",
     'Invalid value: {"z":"y"}: `selector` does not match template `labels`', "Invalid"),
    (res.DEPLOYMENT, {"spec__template__spec__restartPolicy": "Never"}, "spec.template.spec.restartPolicy",
     'Unsupported value: "Never": supported values: "Always"', "NotSupported"),
    (res.DEPLOYMENT, {C + "imagePullPolicy": "Sometimes"}, "spec.template.spec.containers[0].imagePullPolicy",
     'Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"', "NotSupported"),
    (res.DEPLOYMENT, {"spec__replicas": -1}, "spec.replicas",
     "Invalid value: -1: must be greater than or equal to 0", "Invalid"),
    (res.DEPLOYMENT, {C + "ports": [{"containerPort": 70000}]}, "spec.template.spec.containers[0].ports[0].containerPort",  # noqa: E501
     "Invalid value: 70000: must be between 1 and 65535, inclusive", "Invalid"),
    (res.DEPLOYMENT, {C + "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
     "spec.template.spec.containers[0].volumeMounts[0].name", 'Not found: "v"', "NotFound"),
    (res.DEPLOYMENT, {"spec__template__spec__containers": [{"name": "c", "image": "i"}] * 2},
     "spec.template.spec.containers[1].name", 'Duplicate value: "c"', "Duplicate"),
    (res.DEPLOYMENT, {C + "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
     "spec.template.spec.containers[0].resources.requests",
     'Invalid value: "2": must be less than or equal to cpu limit of 1', "Invalid"),
    (res.POD, {"spec__containers": []}, "spec.containers", "Required value", "Required"),
    (res.POD, {"spec__volumes": [{"name": "v", "emptyDir": {}, "configMap": {"name": "c"}}]}, "spec.volumes[0].configMap",  # noqa: E501
     "Forbidden: may not specify more than 1 volume type", "Forbidden"),
    (res.SERVICE, {"spec__type": "Nope"}, "spec.type", 'Unsupported value: "Nope": supported values: "ClusterIP", '
     '"ExternalName", "LoadBalancer", "NodePort"', "NotSupported"),
    (res.SERVICE, {"spec__ports": []}, "spec.ports", "Required value", "Required"),
    (res.JOB, {"spec__template__spec__restartPolicy": "Always"}, "spec.template.spec.restartPolicy",
     'Unsupported value: "Always": supported values: "OnFailure", "Never"', "NotSupported"),
    (res.CRON_JOB, {"spec__schedule": "* * *"}, "spec.schedule",
     'Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]', "Invalid"),
    (res.SECRET, {"type": "kubernetes.io/tls"}, "data[tls.crt]", "Required value", "Required"),
    (res.CONFIG_MAP, {"data": {"a b": "c"}}, "data[a b]", 'Invalid value: "a b": a valid config key', "Invalid"),
    (res.CONFIG_MAP, {"metadata__labels": {"a": "-"}}, "metadata.labels", 'Invalid value: "-": a valid label', "Invalid"),  # noqa: E501
    (res.CONFIG_MAP, {"metadata__name": "A"}, "metadata.name",
     'Invalid value: "A": a lowercase RFC 1123 subdomain must consist', "Invalid"),
    (res.SERVICE, {"metadata__name": "1x"}, "metadata.name", 'Invalid value: "1x": a DNS-1035 label must', "Invalid"),
    (res.ROLE, {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": []}]}, "rules[0].verbs",
     "Required value: verbs must contain at least one value", "Required"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "field", "message", "reason"), CASES)
def test_what_people_get_wrong(
    kind: res.Resource, change: dict[str, Any], field: str, message: str, reason: str
) -> None:
    found = {cause[0]: cause for cause in problems(kind, made(kind, **change))}
    assert field in found
    assert found[field][1].startswith(message)
    assert found[field][2] == f"FieldValue{reason}"


@pytest.mark.parametrize(
    ("kind", "old", "new", "field", "message"),
    [
        (res.DEPLOYMENT, {}, {"spec__selector": {"matchLabels": {"a": "b", "q": "r"}}}, "spec.selector",
         'Invalid value: {"matchLabels":{"a":"b","q":"r"}}: field is immutable'),
        (res.SECRET, {"type": "a/b"}, {"type": "c/d"}, "type", 'Invalid value: "c/d": field is immutable'),
        (res.CONFIG_MAP, {"immutable": True, "data": {"a": "b"}}, {"immutable": True, "data": {"a": "c"}}, "data",
         "Forbidden: field is immutable when `immutable` is set"),
        (res.ROLE_BINDING, {"roleRef": {"kind": "Role", "name": "a"}}, {"roleRef": {"kind": "Role", "name": "b"}},
         "roleRef", 'Invalid value: {"kind":"Role","name":"b","apiGroup":"rbac.authorization.k8s.io"}: cannot change'),
        (res.POD, {}, {"spec__hostname": "h"}, "spec", "Forbidden: pod updates may not change fields other than"),
        (res.SERVICE, {"spec__clusterIP": "10.0.0.1"}, {"spec__clusterIP": "10.0.0.2"}, "spec.clusterIPs[0]",
         'Invalid value: ["10.0.0.2"]: may not change once set'),
    ],
)  # fmt: skip
def test_immutable_fields(kind: res.Resource, old: Any, new: Any, field: str, message: str) -> None:
    before = made(kind, **old)
    problems(kind, before)
    found = {cause[0]: cause[1] for cause in problems(kind, made(kind, **new), before)}
    assert field in found
    assert found[field].startswith(message)


def test_a_new_image_is_allowed_on_a_pod() -> None:
    before = made(res.POD)
    problems(res.POD, before)
    after = copy.deepcopy(before)
    after["spec"]["containers"][0]["image"] = "i2"
    assert kind_schema(res.POD).validate(after, before, "") == []


def test_spec_and_status_are_written_apart() -> None:
    schema = kind_schema(res.DEPLOYMENT)
    old = made(res.DEPLOYMENT, status={"replicas": 1}, metadata__resourceVersion="7")
    schema.default(old)
    old["metadata"]["generation"] = 3
    new = copy.deepcopy(old)
    new["spec"]["replicas"] = 5
    new["status"] = {"replicas": 9}
    as_spec, as_status = copy.deepcopy(new), copy.deepcopy(new)
    schema.prepare_update(as_spec, old)
    assert (as_spec["spec"]["replicas"], as_spec["status"], as_spec["metadata"]["generation"]) == (
        5,
        {"replicas": 1},
        4,
    )
    schema.prepare_update(as_status, old, "status")
    assert as_status == {**old, "status": {"replicas": 9}}
    schema.prepare_create(new)
    assert "status" not in new
    assert new["metadata"]["generation"] == 1


class Addresses:
    """Hands out the next address or port."""

    def cluster_ip(self, requested: str = "") -> str:
        return requested or "10.96.0.9"

    def node_port(self, requested: int = 0) -> int:
        return requested or 30001


def test_services_get_their_addresses() -> None:
    service = made(res.SERVICE, spec__type="NodePort")
    kind_schema(res.SERVICE).default(service)
    allocate(service, None, Addresses())
    spec = service["spec"]
    assert (spec["clusterIP"], spec["clusterIPs"], spec["ipFamilies"]) == ("10.96.0.9", ["10.96.0.9"], ["IPv4"])
    assert spec["ports"][0]["nodePort"] == 30001
    again = made(res.SERVICE, spec__type="ClusterIP")
    kind_schema(res.SERVICE).default(again)
    allocate(again, service, Addresses())
    assert again["spec"]["clusterIP"] == "10.96.0.9"
    assert "nodePort" not in again["spec"]["ports"][0]
    headless = made(res.SERVICE, spec__clusterIP="None")
    allocate(headless, None, Addresses())
    assert headless["spec"]["clusterIPs"] == ["None"]
