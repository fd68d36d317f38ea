from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.apiserver.builtin import kind_schema
from quarterdeck.apiserver.builtin.defaults import qos_class
from quarterdeck.kube import resource as res

POD_SPEC = {
    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
    "securityContext": {}, "schedulerName": "default-scheduler",
}  # fmt: skip
CONTAINER = {"resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}


def defaulted(kind: res.Resource, **obj: Any) -> dict[str, Any]:
    obj.setdefault("metadata", {"name": "x"})
    kind_schema(kind).default(obj)
    return obj


def test_pod() -> None:
    spec = {"containers": [{"name": "c", "image": "i:1", "resources": {"limits": {"cpu": "1"}}}]}
    made = defaulted(res.POD, spec=spec)["spec"]
    resources = {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
    container = {**CONTAINER, "name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent", "resources": resources}
    assert made == {**POD_SPEC, "enableServiceLinks": True, "containers": [container]}


@pytest.mark.parametrize(
    ("image", "policy"),
    [("i", "Always"), ("i:latest", "Always"), ("i:1", "IfNotPresent"), ("host:5000/i", "Always"),
     ("host:5000/i:2", "IfNotPresent"), ("i@sha256:0", "IfNotPresent")],
)  # fmt: skip
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    made = defaulted(res.POD, spec={"containers": [{"name": "c", "image": image}]})
    assert made["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_deployment() -> None:
    container = {
        "name": "c",
        "image": "i:1",
        "ports": [{"containerPort": 1}],
        "livenessProbe": {"httpGet": {"port": 1}},
    }
    template = {"spec": {"containers": [container], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]}}
    spec = defaulted(res.DEPLOYMENT, spec={"template": template})["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    rolling = {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}
    made = spec["template"]["spec"]
    assert "enableServiceLinks" not in made
    assert made["volumes"][0]["secret"]["defaultMode"] == 420
    assert made["containers"][0]["ports"] == [{"containerPort": 1, "protocol": "TCP"}]
    assert made["containers"][0]["livenessProbe"] == {
        "httpGet": {"port": 1, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
        "successThreshold": 1, "failureThreshold": 3,
    }  # fmt: skip


def test_job_gets_its_selector_from_its_uid() -> None:
    job = defaulted(res.JOB, metadata={"name": "j", "uid": "u1"}, spec={"template": {"spec": {"containers": []}}})
    kind_schema(res.JOB).prepare_create(job)
    spec = job["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 6)
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}
    assert spec["template"]["metadata"]["labels"] == {
        "controller-uid": "u1", "job-name": "j", "batch.kubernetes.io/controller-uid": "u1",
        "batch.kubernetes.io/job-name": "j",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (res.SERVICE, {"spec": {"ports": [{"port": 80}]}},
         {"spec": {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                   "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}}),
        (res.SECRET, {"stringData": {"a": "b"}, "data": {"c": "eA=="}},
         {"type": "Opaque", "data": {"a": "Yg==", "c": "eA=="}}),
        (res.NAMESPACE, {}, {"metadata": {"name": "x", "labels": {"kubernetes.io/metadata.name": "x"}}}),
        (res.NETWORK_POLICY, {"spec": {"podSelector": {}, "egress": [{}]}},
         {"spec": {"podSelector": {}, "egress": [{}], "policyTypes": ["Ingress", "Egress"]}}),
        (res.ROLE_BINDING, {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]},
         {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
          "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"}]}),
        (res.LIMIT_RANGE, {"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}},
         {"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "default": {"cpu": "2"},
                               "defaultRequest": {"cpu": "2"}}]}}),
        (res.CRON_JOB, {"spec": {"schedule": "* * * * *"}}, None),
    ],
)  # fmt: skip
def test_other_kinds(kind: res.Resource, given: dict[str, Any], expected: dict[str, Any] | None) -> None:
    made = defaulted(kind, **given)
    if expected is None:
        assert made["spec"]["concurrencyPolicy"] == "Allow"
    else:
        assert made == {"metadata": {"name": "x"}, **expected}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [({}, "BestEffort"), ({"requests": {"cpu": "1"}}, "Burstable"),
     ({"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "1", "memory": "1"}}, "Guaranteed")],
)  # fmt: skip
def test_qos(resources: dict[str, Any], expected: str) -> None:
    assert qos_class({"containers": [{"resources": resources}]}) == expected
