"""The committed tables against upstream, where the Go modules are in the module cache (see the script's docstring)."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from quarterdeck.apiserver.catalogue import builtin_kinds
from quarterdeck.apiserver.crds import DefinitionSchema
from quarterdeck.apiserver.discovery import REVIEWS
from quarterdeck.apiserver.protobuf import decode
from quarterdeck.apiserver.protobuf.tables import tables
from quarterdeck.apiserver.protobuf.values import SCALARS, SPECIAL

SCRIPT = Path(__file__).parents[3] / "scripts" / "generate_protobuf_tables.py"


@cache
def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_protobuf_tables", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def modules() -> Path:
    try:
        return _script().module_cache()
    except (FileNotFoundError, subprocess.CalledProcessError) as missing:
        pytest.skip(f"no Kubernetes API modules to compare with: {missing}")


def test_the_tables_are_current(modules: Path) -> None:
    assert _script().generate(modules) == _script().TABLES.read_text(), f"run {SCRIPT.name}"


def test_upstreams_own_examples(modules: Path) -> None:
    """Every kind with every field set, as protobuf and as JSON, of this version and of the four before it."""
    version = _script().VERSION
    roots = [modules / f"api@{version}/testdata", modules / f"apiextensions-apiserver@{version}/pkg/apis/testdata"]
    compared: set[str] = set()
    for body in sorted(path for root in roots for path in root.glob("*/*.pb") if ".after_" not in path.name):
        later = body.with_name(f"{body.stem}.after_roundtrip.json")
        expected = json.loads((later if later.exists() else body.with_suffix(".json")).read_text())
        if expected.get("kind") in tables().kinds.get(expected.get("apiVersion", ""), {}):
            assert decode(body.read_bytes()) == expected, body
            compared.add(f"{expected['apiVersion']} {expected['kind']}")
    assert len(compared) > 45


def test_every_served_kind_can_be_sent() -> None:
    served = [
        (kind.resource.api_version, kind.resource.kind) for kind in builtin_kinds(lambda resource: DefinitionSchema())
    ]
    served += [(f"{review.group}/{review.version}", review.kind) for review in REVIEWS]
    served += [
        ("policy/v1", "Eviction"), ("v1", "Binding"), ("authentication.k8s.io/v1", "TokenRequest"),
        ("autoscaling/v1", "Scale"),
    ]  # fmt: skip
    missing = [names for names in served if names[1] not in tables().kinds.get(names[0], {})]
    assert missing == []


def test_every_type_is_known() -> None:
    known = tables()
    schema = "apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOr"
    named = {field.type for fields in known.messages.values() for field in fields.values()}
    named |= {message for kinds in known.kinds.values() for message in kinds.values()}
    unknown = {n for n in named if n not in SCALARS and n not in SPECIAL and n not in known.messages}
    assert {n for n in unknown if n not in known.lists and not n.startswith(schema)} == set()
