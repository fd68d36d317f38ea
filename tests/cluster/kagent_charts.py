"""Stand-ins for kagent's two Helm charts, for a machine that cannot fetch the real ones.

``kagent-crds`` carries definitions with kagent's names and versions, generated from our models without what is ours
(labels, keep policy, conversion, scale); ``kagent`` a controller Deployment with its rights (never run: nothing runs
Pods here), a default Agent with its ModelConfig, tool server, prompts and key, and a Service that is nobody's but
kagent's.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from quarterdeck.resources.crd import crds

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_BRACES = ("{{", '{{ "{{" }}')


@cache
def _ours() -> list[dict[str, Any]]:
    return crds()


def definitions(storage: str) -> list[dict[str, Any]]:
    """As kagent has them; ``storage`` is the stored version of kinds that have it (0.5 stored v1alpha1)."""
    found: list[dict[str, Any]] = []
    for document in copy.deepcopy(_ours()):
        document["metadata"] = {"name": document["metadata"]["name"]}
        document["spec"]["names"]["categories"] = ["kagent"]
        versions = document["spec"]["versions"]
        for version in versions:
            version["subresources"].pop("scale", None)
            if any(v["name"] == storage for v in versions):
                version["storage"] = version["name"] == storage
        found.append(document)
    return found


def write_definitions(folder: Path, storage: str) -> Path:
    chart = folder / f"kagent-crds-{storage}"
    _chart(chart, "kagent-crds", "0.9.12" if storage == "v1alpha2" else "0.5.0")
    for document in definitions(storage):
        text = yaml.dump(document, Dumper=_DUMPER, sort_keys=False, width=1000).replace(*_BRACES)
        (chart / "templates" / f"{document['metadata']['name']}.yaml").write_text(text)
    return chart


def write_kagent(folder: Path) -> Path:
    chart = folder / "kagent"
    _chart(chart, "kagent", "0.9.12")
    labels = {"app.kubernetes.io/name": "kagent", "app.kubernetes.io/component": "controller"}
    for name, document in {
        "controller": {
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "kagent-controller", "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "serviceAccountName": "kagent-controller",
                    "containers": [{"name": "controller", "image": "ghcr.io/kagent-dev/kagent/controller:0.9.12"}]}},
            },
        },
        "account": {
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "kagent-controller"},
        },
        "role": {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "kagent-getter"},
            "rules": [{"apiGroups": ["kagent.dev"], "resources": ["*/status"], "verbs": ["get", "patch", "update"]}],
        },
        "binding": {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "kagent-getter"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kagent-getter"},
            "subjects": [{"kind": "ServiceAccount", "name": "kagent-controller",
                          "namespace": "{{ .Release.Namespace }}"}],
        },
        "service": {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kagent-ui"},
            "spec": {"ports": [{"port": 80}], "selector": labels},
        },
        "key": {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kagent-openai"},
            "stringData": {"OPENAI_API_KEY": "k"},
        },
        "unrelated": {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kagent-postgresql"}, "stringData": {"p": "q"},
        },
        "prompts": {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kagent-builtin-prompts"}, "data": {"a": "b"},
        },
        "model": {
            "apiVersion": "kagent.dev/v1alpha2", "kind": "ModelConfig", "metadata": {"name": "default-model-config"},
            "spec": {"model": "gpt-4.1-mini", "apiKeySecret": "kagent-openai", "apiKeySecretKey": "OPENAI_API_KEY"},
        },
        "agent": {
            "apiVersion": "kagent.dev/v1alpha2", "kind": "Agent",
            "metadata": {"name": "k8s-agent", "labels": {"a": "b"}},
            "spec": {"declarative": {"systemMessage": "You know Kubernetes.", "modelConfig": "default-model-config",
                                     "promptTemplate": {"dataSources": [{"name": "kagent-builtin-prompts"}]}}},
        },
    }.items():  # fmt: skip
        (chart / "templates" / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return chart


def _chart(folder: Path, name: str, version: str) -> None:
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": name, "version": version}))
