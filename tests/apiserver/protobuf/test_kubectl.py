"""Typed commands of real kubectl send protobuf; what is stored must be what the same manifest as JSON stores."""

from __future__ import annotations

import json
from typing import Any

import pytest

COMMANDS = [
    ("deployment", "proto", "--image=nginx", "--replicas=2", "--port=80"),
    ("secret", "generic", "proto", "--from-literal=a=b", "--from-literal=empty="),
    (
        "secret",
        "docker-registry",
        "proto-reg",
        "--docker-username=u",
        "--docker-password=p",
        "--docker-server=r.example",
    ),
    ("configmap", "proto", "--from-literal=a=1", "--from-literal=empty="),
    ("serviceaccount", "proto"),
    ("role", "proto", "--verb=get,list", "--resource=pods,deployments.apps", "--resource-name=x"),
    ("rolebinding", "proto", "--role=proto", "--serviceaccount=default:proto", "--user=u", "--group=g"),
    ("clusterrole", "proto", "--verb=get", "--non-resource-url=/healthz"),
    ("clusterrole", "proto-sum", "--aggregation-rule=a=b"),
    ("clusterrolebinding", "proto", "--clusterrole=proto", "--user=u"),
    ("job", "proto", "--image=x", "--", "true"),
    ("cronjob", "proto", "--image=x", "--schedule=*/5 * * * *", "--", "true"),
    ("ingress", "proto", "--rule=h.example/p=web:80,tls=reg", "--class=c", "--annotation=a=b"),
    ("pdb", "proto", "--selector=app=web", "--min-available=50%"),
    ("quota", "proto", "--hard=pods=100,cpu=1500m,memory=1Gi", "--scopes=NotTerminating"),
    ("service", "clusterip", "proto", "--tcp=80:8080"),
    ("service", "externalname", "proto-ext", "--external-name=h.example"),
]
_SERVER_SET = {"uid", "creationTimestamp", "resourceVersion", "managedFields"}
_ALLOCATED = {"clusterIP", "clusterIPs"}
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def _stored(kubectl: Any, kind: str, name: str) -> dict[str, Any]:
    text = kubectl("get", kind, name, "-o", "json").stdout
    found = json.loads(text.replace(json.loads(text)["metadata"]["uid"], "UID"))  # Jobs select by it
    metadata = found["metadata"]
    annotations = {k: v for k, v in metadata.pop("annotations", {}).items() if k != _APPLIED}
    found["metadata"] = {k: v for k, v in metadata.items() if k not in _SERVER_SET} | {"annotations": annotations}
    found["spec"] = {k: v for k, v in found.get("spec", {}).items() if k not in _ALLOCATED}
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command[0]} {command[-1].partition('=')[0]}")
def test_create_stores_what_apply_stores(kubectl: Any, command: tuple[str, ...]) -> None:
    words = list(command)
    name = next(word for word in words if word.startswith("proto"))
    kind = {"quota": "resourcequota"}.get(words[0], words[0])
    at = words.index("--") if "--" in words else len(words)
    printed = kubectl("create", *words[:at], "--dry-run=client", "-o", "yaml", *words[at:]).stdout

    kubectl("create", *words)
    sent = _stored(kubectl, kind, name)
    kubectl("delete", kind, name, "--timeout=90s")
    kubectl("apply", "-f", "-", input=printed)
    applied = _stored(kubectl, kind, name)
    kubectl("delete", kind, name, "--timeout=90s")

    assert sent == applied


def test_create_namespace(kubectl: Any) -> None:
    kubectl("create", "namespace", "proto-sent")
    kubectl("apply", "-f", "-", input=kubectl("create", "ns", "proto-applied", "--dry-run=client", "-o", "yaml").stdout)
    sent, applied = (json.dumps(_stored(kubectl, "namespace", f"proto-{how}")) for how in ("sent", "applied"))
    assert sent.replace("proto-sent", "proto-applied") == applied


def test_job_from_cronjob_copies_the_template(kubectl: Any) -> None:
    kubectl("create", "cronjob", "origin", "--image=x", "--schedule=0 * * * *", "--", "true")
    kubectl("create", "job", "copy", "--from=cronjob/origin")
    job = json.loads(kubectl("get", "job", "copy", "-o", "json").stdout)
    cron = json.loads(kubectl("get", "cronjob", "origin", "-o", "json").stdout)
    assert job["metadata"]["ownerReferences"][0]["uid"] == cron["metadata"]["uid"]
    assert job["spec"]["template"]["spec"] == cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    kubectl("delete", "job/copy", "cronjob/origin")


def test_autoscale(kubectl: Any) -> None:
    kubectl("create", "deployment", "scaled", "--image=x")
    kubectl("autoscale", "deployment", "scaled", "--min=1", "--max=3", "--cpu=50%")
    spec = json.loads(kubectl("get", "hpa", "scaled", "-o", "json").stdout)["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 3)
    assert spec["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 50}
    kubectl("delete", "hpa/scaled", "deployment/scaled")


def test_create_token(kubectl: Any) -> None:
    kubectl("create", "serviceaccount", "asker")
    assert kubectl("create", "token", "asker", "--duration=1h", "--audience=x").stdout.count(".") == 2
    kubectl("delete", "serviceaccount", "asker")


def test_reviews(kubectl: Any) -> None:
    assert kubectl("auth", "can-i", "create", "pods").stdout.strip() == "yes"
    assert kubectl("auth", "can-i", "get", "pods", "--subresource=log", "--as=eve", ok=False).stdout.strip() == "no"
    assert "*.*" in kubectl("auth", "can-i", "--list").stdout
    assert "kubernetes-admin" in kubectl("auth", "whoami").stdout


def test_auth_reconcile(kubectl: Any) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "reconciled", "namespace": "default"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }  # fmt: skip
    kubectl("auth", "reconcile", "-f", "-", input=json.dumps(role))
    role["rules"][0]["verbs"] = ["get", "list"]
    kubectl("auth", "reconcile", "-f", "-", input=json.dumps(role))
    rules = json.loads(kubectl("get", "role", "reconciled", "-o", "json").stdout)["rules"]
    assert [rule["verbs"] for rule in rules] == [["get"], ["list"]]  # what is missing becomes a rule of its own
    kubectl("delete", "role", "reconciled")


def test_invalid_objects_are_refused_as_with_json(kubectl: Any) -> None:
    refused = kubectl("create", "namespace", "Not_A_Name", ok=False)
    assert 'The Namespace "Not_A_Name" is invalid: metadata.name: Invalid value: "Not_A_Name"' in refused.stderr
