"""What a migration would change, decided from what was found; Helm's records read and written."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import ConfigError
from quarterdeck.migrate.handover import Survey, Target, kept, plan
from quarterdeck.migrate.release import Release, decode, encode
from quarterdeck.migrate.storage import due
from quarterdeck.resources.crd import PART_OF

TARGET = Target("quarterdeck-crds", "quarterdeck-system")
CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "agents.kagent.dev"},
    "spec": {"group": "kagent.dev", "scope": "Namespaced", "names": {"kind": "Agent", "plural": "agents"},
             "versions": [{"name": "v1alpha1", "storage": False}, {"name": "v1alpha2", "storage": True}]},
}  # fmt: skip
AGENT = {
    "apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "metadata": {"name": "a"},
    "spec": {"declarative": {"promptTemplate": {"dataSources": [{"name": "prompts"}]}}},
}  # fmt: skip
MODEL = {
    "apiVersion": "kagent.dev/v1alpha2", "kind": "ModelConfig", "metadata": {"name": "m"},
    "spec": {"model": "x", "apiKeySecret": "key"},
}  # fmt: skip


def plain(kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}


def release(*documents: dict[str, Any], name: str = "kagent", status: str = "deployed") -> Release:
    manifest = "".join(f"---\n# Source: {name}/templates/x.yaml\n{yaml.safe_dump(d)}" for d in documents)
    payload = {"name": name, "namespace": "kagent", "version": 1, "info": {"status": status}, "manifest": manifest}
    metadata = {"name": f"sh.helm.release.v1.{name}.v1", "namespace": "kagent", "resourceVersion": "7"}
    return decode({"metadata": metadata, "type": "helm.sh/release.v1", "data": {"release": encode(payload)}})


@given(st.dictionaries(st.text(min_size=1), st.text()), st.text(), st.text())
def test_a_record_is_read_as_it_was_written(labels: dict[str, str], name: str, namespace: str) -> None:
    payload = {"name": name, "namespace": namespace, "labels": labels, "manifest": ""}
    assert decode({"metadata": {"name": "s"}, "data": {"release": encode(payload)}}).payload == payload


def test_a_record_that_is_not_compressed_is_read_too() -> None:
    raw = base64.b64encode(base64.b64encode(json.dumps({"name": "a", "namespace": "b"}).encode())).decode()
    assert decode({"metadata": {"name": "s"}, "data": {"release": raw}}).name == "a"


@pytest.mark.parametrize("data", [{}, {"release": "%"}, {"release": "e30="}, {"release": ""}])
def test_what_is_no_record_is_named(data: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="Secret n/s is labelled as a Helm release"):
        decode({"metadata": {"name": "s", "namespace": "n"}, "data": data})


def test_a_truncated_record_is_named() -> None:
    raw = base64.b64encode(base64.b64encode(gzip.compress(b'{"name": "a", "namespace": "b"}')[:-9])).decode()
    with pytest.raises(ConfigError, match="cannot be read"):
        decode({"metadata": {"name": "s", "namespace": "n"}, "data": {"release": raw}})


def test_objects_of_kagent_dev_and_what_they_name_outlive_the_release() -> None:
    documents = [CRD, AGENT, MODEL, plain("Secret", "key"), plain("Secret", "database"), plain("ConfigMap", "prompts")]
    found = release(*documents, plain("Service", "key"))
    names = [(d["kind"], d["metadata"]["name"]) for d in kept(found)]
    assert names[3:] == [("Secret", "key"), ("ConfigMap", "prompts")] and len(names) == 5


def test_keeping_changes_those_documents_only_and_once() -> None:
    found = release(CRD, plain("Service", "s"))
    payload = found.keeping(lambda d: d["kind"] == "CustomResourceDefinition")
    assert payload is not None
    parts = payload["manifest"].split("---\n")
    assert yaml.safe_load(parts[2]) == plain("Service", "s") and parts[1].startswith("\n# Source:") is False
    assert "# Source: kagent/templates/x.yaml" in payload["manifest"]
    again = decode({"metadata": {"name": "s"}, "data": {"release": encode(payload)}})
    assert again.documents[0]["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert again.keeping(lambda d: d["kind"] == "CustomResourceDefinition") is None


def test_the_plan_marks_records_first_and_definitions_then() -> None:
    owned = AGENT | {"metadata": {"name": "a", "namespace": "kagent"}}
    changes = plan(Survey([CRD], [release(CRD, AGENT)], [owned], []), TARGET)
    assert [change.resource.kind for change in changes] == ["Secret", "CustomResourceDefinition", "Agent"]
    assert changes[0].patch["metadata"] == {"resourceVersion": "7"}, "nobody else has upgraded the release meanwhile"
    annotations = changes[1].patch["metadata"]["annotations"]
    assert annotations["meta.helm.sh/release-name"] == "quarterdeck-crds"
    assert changes[2].patch["metadata"]["labels"] == {"app.kubernetes.io/managed-by": None}


def test_nothing_is_due_after_it_has_been_done() -> None:
    (change,) = plan(Survey([CRD]), TARGET)
    done = CRD | {"metadata": CRD["metadata"] | change.patch["metadata"]}
    assert plan(Survey([done]), TARGET) == []


OURS = CRD | {"metadata": CRD["metadata"] | {"labels": dict(PART_OF)}}
WEBHOOK = {"strategy": "Webhook", "webhook": {"clientConfig": {"caBundle": "eA=="}}}


@pytest.mark.parametrize(
    ("definition", "conversion", "obstacle"),
    [
        (CRD, {"strategy": "None"}, "still kagent's"),
        (OURS, {"strategy": "None"}, "no conversion webhook"),
        (OURS, {"strategy": "Webhook", "webhook": {"clientConfig": {}}}, "no conversion webhook"),
        (OURS, WEBHOOK, ""),
    ],
)
def test_objects_are_rewritten_only_where_they_can_be_converted(
    definition: dict[str, Any], conversion: dict[str, Any], obstacle: str
) -> None:
    spec = definition["spec"] | {"conversion": conversion}
    status = {"storedVersions": ["v1alpha1", "v1alpha2"]}
    (found,) = due([definition | {"spec": spec, "status": status}])
    assert (found.stored, found.older) == ("v1alpha2", ("v1alpha1",))
    assert obstacle in found.obstacle and bool(obstacle) == bool(found.obstacle)
    assert due([definition | {"spec": spec, "status": {"storedVersions": ["v1alpha2"]}}]) == []
