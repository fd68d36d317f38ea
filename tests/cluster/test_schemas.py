"""What kagent's files may say, and what is refused: a real API server and ours give the same answers, word by word."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
import yaml

from quarterdeck import errors
from quarterdeck.kube import resource as k
from quarterdeck.resources.crd import KINDS, crds
from quarterdeck.server.conversion import ConversionWebhook, WebhookOptions

from .servers import NEEDS_REAL, ServedApi, serving

pytestmark = [NEEDS_REAL, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]
DATA = Path(__file__).parent / "testdata"
VALID: list[dict[str, Any]] = list(yaml.safe_load_all((DATA / "constructs.yaml").read_text()))
REJECTIONS: dict[str, list[Any]] = yaml.safe_load((DATA / "rejections.yaml").read_text())
DOCUMENTS = {document["spec"]["names"]["kind"]: document for document in crds()}
NEWEST = {kind.kind: f"{kind.group}/{kind.versions[0].name}" for kind in KINDS}
AT_ONCE = 16


class Answer(NamedTuple):
    """What a server said to one object; ``causes`` sorted, as a real server walks maps in any order."""

    code: int
    reason: str
    message: str
    causes: tuple[tuple[str, str, str], ...]
    spec: Any


class Servers(NamedTuple):
    real: ServedApi
    ours: ServedApi


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Servers, None]:
    folders = [tmp_path_factory.mktemp(name) for name in ("real", "embedded")]
    async with serving("real", folders[0]) as real, serving("embedded", folders[1]) as ours:
        for api in (real, ours):
            for document in DOCUMENTS.values():
                await api.client.create(k.CRD, document)
            await api.client.create(k.NAMESPACE, {"metadata": {"name": "kagent"}})
        options = WebhookOptions("kagent", port=0, host="127.0.0.1", address="127.0.0.1")
        hooks = [ConversionWebhook(api.client, options) for api in (real, ours)]
        for hook in hooks:
            await hook.start()
        yield Servers(real, ours)
        for hook in hooks:
            await hook.stop()


def resource(obj: dict[str, Any]) -> k.Resource:
    group, version = obj["apiVersion"].split("/")
    return k.Resource(group, version, obj["kind"], DOCUMENTS[obj["kind"]]["spec"]["names"]["plural"])


def schema(obj: dict[str, Any]) -> dict[str, Any]:
    versions = DOCUMENTS[obj["kind"]]["spec"]["versions"]
    name = obj["apiVersion"].split("/")[1]
    return next(v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == name)


async def asked(api: ServedApi, obj: dict[str, Any]) -> Answer:
    """Create without storing; unknown fields are errors."""
    path, params = resource(obj).path("kagent"), {"dryRun": "All", "fieldValidation": "Strict"}
    async with asyncio.timeout(60):
        while True:
            try:
                made = await api.client.request("POST", path, params=params, body=obj)
            except errors.ApiError as error:
                if error.status_code == 404:  # the definition is not established yet
                    await asyncio.sleep(0.1)
                    continue
                causes = tuple(sorted((c.field, c.message, c.reason) for c in error.causes))
                return Answer(error.status_code, error.status_reason, error.message, causes, None)
            else:
                return Answer(201, "", "", (), made["spec"])


async def differences(servers: Servers, objects: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Where the two answers differ, told so that the cause can be seen."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, obj: dict[str, Any]) -> str:
        async with limit:
            real, ours = [await asked(api, copy.deepcopy(obj)) for api in servers]
        if len(real.causes) > 1:  # then the message lists them in any order
            real, ours = real._replace(message=""), ours._replace(message="")
        return "" if real == ours else f"{name}\n  real {real}\n  ours {ours}"

    return [text for text in await asyncio.gather(*(one(*item) for item in objects)) if text]


def titled(obj: dict[str, Any]) -> str:
    return f"{obj['apiVersion']} {obj['kind']} {obj['metadata']['name']}"


async def test_everything_kagent_accepts_is_accepted_and_defaulted_alike(servers: Servers) -> None:
    found = await differences(servers, [(titled(obj), obj) for obj in VALID])
    assert not found, "\n".join(found)
    refused = [titled(obj) for obj in VALID if (await asked(servers.real, obj)).code != 201]
    assert refused == []


def rejected() -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for kind, specs in REJECTIONS.items():
        for at, spec in enumerate(specs):
            obj = {"apiVersion": NEWEST[kind], "kind": kind, "metadata": {"name": f"r{at}"}, "spec": spec}
            found.append((f"{kind}[{at}] {spec}", obj))
    return found


async def test_every_rule_speaks_and_says_the_same(servers: Servers) -> None:
    cases = rejected()
    found = await differences(servers, cases)
    assert not found, "\n".join(found)
    answers = [(name, await asked(servers.real, obj)) for name, obj in cases]
    assert [name for name, answer in answers if answer.code != 422] == []
    said = {message.removeprefix("Invalid value: ") for _, answer in answers for _, message, _ in answer.causes}
    silent = {rule for kind in REJECTIONS for rule in rules(schema({"kind": kind, "apiVersion": NEWEST[kind]}))}
    assert {rule for rule in silent if not any(rule in message for message in said)} <= UNREACHABLE


UNREACHABLE = {
    "type must be specified",  # the field has a default
    "type must be either Declarative or BYO",  # an enum speaks first, and then no rule does
    "provider.pinecone must be nil if the provider is not Pinecone",  # likewise
}


def rules(node: dict[str, Any]) -> Iterator[str]:
    for rule in node.get("x-kubernetes-validations") or ():
        yield rule["message"]
    for below in children(node):
        yield from rules(below)


def children(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (node.get("properties") or {}).values()
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield node[key]


async def test_wrong_values_of_single_fields_are_told_the_same_way(servers: Servers) -> None:
    """Each construct with one field wrong: its type, its enum, its bounds, its pattern, absent, unknown."""
    cases: dict[str, dict[str, Any]] = {}
    for obj in VALID:
        for place, spec in wrong(obj["spec"], schema(obj)["properties"]["spec"], "spec"):
            cases.setdefault(f"{obj['apiVersion']} {obj['kind']} {place}", obj | {"spec": spec})
    assert len(cases) > 500
    found = await differences(servers, list(cases.items()))
    assert not found, "\n".join([f"{len(found)} of {len(cases)} differ", *found])


def wrong(value: Any, node: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """(what is wrong where, the whole value with that)."""
    for what, bad in faults(value, node):
        yield f"{path} {what}", bad
    if isinstance(value, dict):
        for key, item in value.items():
            below = (node.get("properties") or {}).get(key) or node.get("additionalProperties")
            if isinstance(below, dict):
                for place, bad in wrong(item, below, f"{path}.{key}"):
                    yield place, value | {key: bad}
    elif isinstance(value, list) and value and isinstance(node.get("items"), dict):
        for place, bad in wrong(value[0], node["items"], f"{path}[]"):
            yield place, [bad, *value[1:]]


def faults(value: Any, node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    kinds = {"string": 7, "integer": "seven", "number": "seven", "boolean": "yes", "object": ["x"], "array": {"x": 1}}
    if node.get("type") in kinds:
        yield "type", kinds[node["type"]]
    if node.get("type") == "integer":
        yield "fraction", 1.5
    if "enum" in node:
        yield "enum", "Unheard"
    if "minimum" in node:
        yield "minimum", node["minimum"] - 1
    if "maximum" in node:
        yield "maximum", node["maximum"] + 1
    if "maxLength" in node:
        yield "maxLength", "x" * (node["maxLength"] + 1)
    if node.get("minLength"):
        yield "minLength", ""
    if "pattern" in node:
        yield "pattern", "~"
    if node.get("minItems"):
        yield "minItems", []
    if "maxItems" in node and value:
        yield "maxItems", [*value, *([value[-1]] * node["maxItems"])]
    if isinstance(value, dict):
        for key in node.get("required") or ():
            yield f"without {key}", {name: item for name, item in value.items() if name != key}
        if node.get("properties") and not node.get("x-kubernetes-preserve-unknown-fields"):
            yield "unknown", value | {"unheardOf": 1}


async def test_the_constructs_cover_every_field() -> None:
    """Down to the Pod types, which are Kubernetes' own."""
    missing = sorted(
        f"{kind} {path}"
        for kind, document in DOCUMENTS.items()
        for path in fields(next(v for v in document["spec"]["versions"] if v["storage"]))
        if not any(path in present(obj["spec"], "spec") for obj in VALID if obj["kind"] == kind)
    )
    # a SandboxAgent is an Agent in all but name, and both kinds of Agent share their Deployment's settings
    same = ("SandboxAgent", "Agent spec.byo.deployment")
    missing = [name for name in missing if not name.startswith(same)]
    assert not missing, "\n".join(missing)


CORE = {
    "env[]", "envFrom[]", "resources", "tolerations[]", "affinity", "topologySpreadConstraints[]", "selector",
    "securityContext", "podSecurityContext", "volumes[]", "volumeMounts[]", "extraContainers[]", "sidecars[]",
}  # fmt: skip


def fields(version: dict[str, Any]) -> set[str]:
    def walk(node: dict[str, Any], path: str) -> Iterator[str]:
        yield path
        if path.rsplit(".", 1)[-1] in CORE:
            return
        for name, below in (node.get("properties") or {}).items():
            yield from walk(below, f"{path}.{name}")
        if isinstance(node.get("items"), dict):
            yield from walk(node["items"], f"{path}[]")

    return set(walk(version["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec"))


def present(value: Any, path: str) -> set[str]:
    found = {path}
    if isinstance(value, dict):
        for key, item in value.items():
            found |= present(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            found |= present(item, f"{path}[]")
    return found
