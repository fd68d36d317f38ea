"""What a person types: real kubectl of three releases over TLS."""

from __future__ import annotations

import json
from typing import Any

import pytest

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {type: string, description: When it runs.}
              replicas: {type: integer, default: 1, minimum: 0}
          status: {type: object, properties: {replicas: {type: integer}}}
"""
CRON = """
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: nightly}
spec: {cronSpec: "0 3 * * *"}
"""


def test_version_and_api_resources(kubectl: Any, request: pytest.FixtureRequest) -> None:
    shown = kubectl("version").stdout
    assert f"Client Version: v{request.node.callspec.params['kubectl']}\n" in shown
    assert "v1.36.3+quarterdeck" in shown
    found = kubectl("api-resources").stdout
    assert "deployments                 deploy" in found or "deploy " in found


def test_apply_diff_and_server_side_apply(kubectl: Any) -> None:
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata: {a: '%s'}\n"
    assert "configmap/one created" in kubectl("apply", "-f", "-", input=manifest % 1).stdout
    assert "configmap/one unchanged" in kubectl("apply", "-f", "-", input=manifest % 1).stdout
    differs = kubectl("diff", "-f", "-", input=manifest % 2, ok=False)
    assert differs.returncode == 1 and '+  a: "2"' in differs.stdout
    assert "configured" in kubectl("apply", "-f", "-", input=manifest % 2).stdout
    other = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    refused = kubectl(*other, input=manifest % 3, ok=False)
    assert "conflict" in refused.stderr and ".data.a" in refused.stderr
    kubectl(*other, "--force-conflicts", input=manifest % 3)
    assert kubectl("get", "cm", "one", "-o", "jsonpath={.data.a}").stdout == "3"


def test_create_scale_label_annotate_delete(kubectl: Any) -> None:
    kubectl("create", "deployment", "web", "--image=nginx", "--replicas=2")
    wide = kubectl("get", "deploy", "web", "-o", "wide").stdout.splitlines()
    assert wide[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    assert wide[1].split()[:2] == ["web", "0/2"]
    kubectl("scale", "deploy", "web", "--replicas=3")
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas} {.metadata.generation}").stdout == "3 2"
    kubectl("label", "deploy", "web", "tier=front")
    kubectl("annotate", "deploy", "web", "note=x")
    assert "web" in kubectl("get", "deploy", "-l", "tier in (front,back)").stdout
    assert "No resources found" in kubectl("get", "deploy", "-l", "tier!=front,app=web").stderr
    assert "web" in kubectl("describe", "deploy", "web").stdout
    assert 'deployment.apps "web" deleted' in kubectl("delete", "deploy", "web").stdout
    assert 'deployments.apps "web" not found' in kubectl("get", "deploy", "web", ok=False).stderr


def test_deployments_change_by_typed_commands(kubectl: Any) -> None:
    kubectl("create", "deployment", "changed", "--image=x")
    kubectl("set", "image", "deploy/changed", "x=y")
    patch = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}
    kubectl("patch", "deploy", "changed", "-p", json.dumps(patch))
    pod = json.loads(kubectl("get", "deploy", "changed", "-o", "json").stdout)["spec"]["template"]["spec"]
    assert (pod["containers"][0]["image"], pod["terminationGracePeriodSeconds"]) == ("y", 1)
    assert "terminationGracePeriodSeconds" in kubectl("explain", "pod.spec").stdout
    assert "Replicas:" in kubectl("describe", "deploy", "changed").stdout
    kubectl("delete", "deploy", "--all")
    assert "No resources found" in kubectl("get", "deploy").stderr


def test_strict_validation_names_the_field(kubectl: Any) -> None:
    bad = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\ndatum: {}\n"
    refused = kubectl("create", "-f", "-", input=bad, ok=False)
    assert 'strict decoding error: unknown field "datum"' in refused.stderr
    warned = kubectl("create", "--validate=warn", "-f", "-", input=bad)
    assert 'Warning: unknown field "datum"' in warned.stderr


def test_stale_update_is_a_conflict(kubectl: Any) -> None:
    kubectl("create", "cm", "three", "--from-literal=a=1")
    stale = json.loads(kubectl("get", "cm", "three", "-o", "json").stdout)
    kubectl("patch", "cm", "three", "--type=merge", "-p", '{"data":{"a":"2"}}')
    refused = kubectl("replace", "-f", "-", input=json.dumps(stale), ok=False)
    assert (
        'Operation cannot be fulfilled on configmaps "three": the object has been modified; please apply your changes '
        "to the latest version and try again" in refused.stderr
    )
    kubectl("patch", "cm", "three", "--type=json", "-p", '[{"op":"replace","path":"/data/a","value":"9"}]')
    assert kubectl("get", "cm", "three", "-o", "jsonpath={.data.a}").stdout == "9"


def test_dry_run_writes_nothing(kubectl: Any) -> None:
    kubectl("create", "cm", "never", "--dry-run=server")
    assert kubectl("get", "cm", "never", ok=False).returncode == 1


def test_custom_resources(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", input=CRD)
    kubectl("wait", "--for=condition=Established", "crd/crontabs.stable.example.com", "--timeout=90s")
    kubectl("apply", "-f", "-", input=CRON)
    lines = kubectl("get", "ct").stdout.splitlines()
    assert lines[0].split() == ["NAME", "SPEC", "AGE"] and lines[1].startswith("nightly")
    assert "When it runs." in kubectl("explain", "crontab.spec.cronSpec").stdout
    kubectl("scale", "ct/nightly", "--replicas=4")
    assert kubectl("get", "ct", "nightly", "-o", "jsonpath={.spec.replicas}").stdout == "4"
    bad = kubectl("create", "-f", "-", input=CRON.replace('"0 3 * * *"', "5").replace("nightly", "bad"), ok=False)
    assert 'The CronTab "bad" is invalid: spec.cronSpec: Invalid value: "integer"' in bad.stderr
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=CRON.replace("0 3", "0 4"))
    kubectl("delete", "crd", "crontabs.stable.example.com", "--timeout=90s")
    assert "the server could not find the requested resource" in kubectl("get", "crontabs", ok=False).stderr


def test_client_side_apply_changes_a_custom_resource(kubectl: Any) -> None:
    other = CRD.replace("crontab", "jobtab").replace("CronTab", "JobTab").replace("[ct]", "[jt]")
    kubectl("apply", "-f", "-", input=other)
    kubectl("wait", "--for=condition=Established", "crd/jobtabs.stable.example.com", "--timeout=90s")
    manifest = CRON.replace("CronTab", "JobTab")
    kubectl("apply", "-f", "-", input=manifest)
    kubectl("apply", "-f", "-", input=manifest.replace("0 3", "0 5"))


def test_who_may_what(kubectl: Any) -> None:
    assert kubectl("auth", "can-i", "create", "pods").stdout.strip() == "yes"
    assert "kubernetes-admin" in kubectl("auth", "whoami").stdout
    asked = kubectl("auth", "can-i", "list", "secrets", "--as", "system:serviceaccount:default:bob", ok=False)
    assert asked.stdout.strip() == "no"
    refused = kubectl("get", "secrets", "--as", "eve", ok=False).stderr
    assert 'secrets is forbidden: User "eve" cannot list resource "secrets" in API group "" in the namespace' in refused


def test_namespace_must_exist(kubectl: Any) -> None:
    assert 'namespaces "nowhere" not found' in kubectl("create", "cm", "x", "-n", "nowhere", ok=False).stderr


def test_watch_shows_rows(kubectl: Any) -> None:
    kubectl("create", "cm", "seen", "--from-literal=a=1")
    rows = kubectl("get", "cm", "seen", "-w", "--request-timeout=2s", ok=False).stdout
    assert rows.split()[:3] == ["NAME", "DATA", "AGE"] and "seen" in rows


def test_chunked_list_is_complete(kubectl: Any) -> None:
    kubectl("create", "ns", "many")
    docs = "---\n".join(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n:02d}}}\n" for n in range(25))
    kubectl("create", "-n", "many", "-f", "-", input=docs)
    names = kubectl("get", "cm", "-n", "many", "--chunk-size=7", "-o", "name").stdout.split()
    assert names == [f"configmap/c{n:02d}" for n in range(25)]
