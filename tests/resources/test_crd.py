"""The generated definitions: committed, accepted by the API server's own checks, and useful to `kubectl explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from quarterdeck.apiserver.crd.definitions import validate_crd
from quarterdeck.apiserver.crd.kind import CustomSchema, kinds_from
from quarterdeck.resources import crd

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/quarterdeck-crds/files"
SEED = sorted((ROOT / "examples/seed").glob("*.yaml"))
DOCUMENTS = {document["spec"]["names"]["kind"]: document for document in crd.crds()}
GATEWAY = {kind.kind: crd.crd(kind) for kind in crd.GATEWAY_KINDS}
GENERATED = DOCUMENTS | GATEWAY


def schema_of(kind: str, version: str) -> CustomSchema:
    for item in DOCUMENTS[kind]["spec"]["versions"]:
        if item["name"] == version:
            return CustomSchema(item["schema"]["openAPIV3Schema"], status=True)
    raise AssertionError(f"{kind} has no version {version}")


@pytest.mark.parametrize("kind", GENERATED)
def test_the_committed_definitions_are_the_generated_ones(kind: str) -> None:
    document = GENERATED[kind]
    folder = CHART / crd.KGATEWAY_FOLDER if kind in GATEWAY else CHART
    committed = (folder / f"{document['metadata']['name']}.yaml").read_text()
    assert committed == crd.render(document), "run: python -m quarterdeck.resources.crd charts/quarterdeck-crds/files"


@pytest.mark.parametrize("kind", GENERATED)
def test_the_api_server_accepts_the_definitions(kind: str) -> None:
    assert validate_crd(GENERATED[kind]) == []


@pytest.mark.parametrize("kind", GENERATED)
def test_columns_of_type_date_are_of_the_past(kind: str) -> None:
    """kubectl shows how long ago such a time was, and ``<invalid>`` for one to come."""
    past = {".metadata.creationTimestamp", ".status.lastFiringTime"}
    columns = [c for v in GENERATED[kind]["spec"]["versions"] for c in v.get("additionalPrinterColumns", ())]
    assert {column["jsonPath"] for column in columns if column["type"] == "date"} <= past


@pytest.mark.parametrize("kind", GENERATED)
def test_every_field_of_ours_is_described(kind: str) -> None:
    missing: list[str] = []

    def walk(node: dict[str, Any], path: str) -> None:
        for name, child in (node.get("properties") or {}).items():
            if not child.get("description") and (path, name) != ("", "metadata"):
                missing.append(f"{path}.{name}")
            walk(child, f"{path}.{name}")
        if isinstance(node.get("items"), dict):
            walk(node["items"], f"{path}[]")

    for version in GENERATED[kind]["spec"]["versions"]:
        walk(version["schema"]["openAPIV3Schema"], "")
    assert missing == []


@pytest.mark.parametrize("path", SEED, ids=lambda p: p.stem)
def test_seed_manifests_are_valid_and_lose_nothing(path: Path) -> None:
    for obj in yaml.safe_load_all(path.read_text()):
        schema = schema_of(obj["kind"], obj["apiVersion"].split("/")[1])
        assert schema.unknown_fields(obj) == []
        schema.default(obj)
        assert schema.validate(obj, None, "") == []


AGENT = {"apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "metadata": {"name": "a", "namespace": "n"}}
MODEL = {"apiVersion": "kagent.dev/v1alpha2", "kind": "ModelConfig", "metadata": {"name": "m", "namespace": "n"}}
REMOTE = {"apiVersion": "kagent.dev/v1alpha2", "kind": "RemoteMCPServer", "metadata": {"name": "r", "namespace": "n"}}


@pytest.mark.parametrize(
    ("base", "spec", "message"),
    [
        (AGENT, {"type": "BYO"}, "declarative must be specified if type is Declarative"),
        (
            AGENT,
            {"declarative": {"systemMessage": "x", "systemMessageFrom": {"type": "Secret", "name": "s", "key": "k"}}},
            "systemMessage and systemMessageFrom are mutually exclusive",
        ),
        (
            AGENT,
            {
                "declarative": {
                    "tools": [
                        {"type": "McpServer", "mcpServer": {"name": "s", "toolNames": ["a"], "requireApproval": ["b"]}}
                    ]
                }
            },
            "each tool in requireApproval must also appear in toolNames",
        ),
        (
            AGENT,
            {"declarative": {"deployment": {"serviceAccountName": "x", "serviceAccountConfig": {}}}},
            "serviceAccountName and serviceAccountConfig are mutually exclusive",
        ),
        (MODEL, {"model": "m", "provider": "OpenAI", "anthropic": {}}, "provider.anthropic must be nil"),
        (MODEL, {"model": "m", "apiKeySecret": "s"}, "apiKeySecretKey must be set if apiKeySecret is set"),
        (MODEL, {"model": "m", "apiKeySecretKey": "s"}, "apiKeySecret must be set if apiKeySecretKey is set"),
        (MODEL, {"model": "m", "tls": {"disableSystemCAs": True}}, "disableSystemCAs requires"),
        (
            REMOTE,
            {"description": "d", "url": "http://x", "tls": {}},
            "tls must be unset when url uses the http:// scheme",
        ),
    ],
)
def test_rules_refuse_with_kagents_words(base: dict[str, Any], spec: dict[str, Any], message: str) -> None:
    obj = base | {"spec": spec}
    schema = schema_of(obj["kind"], "v1alpha2")
    schema.default(obj)
    causes = schema.validate(obj, None, "")
    assert any(message in cause.message for cause in causes), causes


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_is_stored_only_says_so(kind: str) -> None:
    """As a deprecation: the one warning a definition can give to somebody who applies a file."""
    document = DOCUMENTS[kind]
    stored_only = kind in ("ToolServer", "Memory", "SandboxAgent", "AgentHarness")
    for version in document["spec"]["versions"]:
        assert version.get("deprecated", False) is stored_only
    for served in kinds_from(document):
        assert any("stored but not acted on" in text for text in served.warnings) is stored_only
