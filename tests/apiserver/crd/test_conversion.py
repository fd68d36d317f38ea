"""Conversion between versions."""

# ruff: noqa: E501 - tables read best with one case a line
from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.apiserver.crd import InProcess, Webhook, default_crd, kinds_from
from quarterdeck.errors import InternalError

OPEN = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
OLD: dict[str, Any] = {"apiVersion": "g.io/v1", "kind": "T", "metadata": {"name": "a", "uid": "u"}, "spec": {"x": 1}}


def definition() -> dict[str, Any]:
    made: dict[str, Any] = {
        "metadata": {"name": "ts.g.io"},
        "spec": {
            "group": "g.io", "scope": "Cluster", "names": {"plural": "ts", "kind": "T"},
            "versions": [
                {"name": "v1", "served": True, "storage": False, "schema": OPEN, "deprecated": True},
                {"name": "v2", "served": True, "storage": True, "schema": OPEN,
                 "subresources": {"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                 "selectableFields": [{"jsonPath": ".spec.color"}]},
                {"name": "v0", "served": False, "storage": False, "schema": OPEN},
            ],
        },
    }  # fmt: skip
    default_crd(made)
    return made


def test_kinds_of_served_versions():
    first, second = kinds_from(definition())
    assert (first.resource.version, first.warnings) == ("v1", ("g.io/v1 T is deprecated",))
    assert second.storage_version == "v2" and second.list_kind == "TList" and second.singular == "t"
    assert (
        second.scale is not None and second.scale.spec_replicas == "spec.replicas" and second.subresources == {"scale"}
    )
    assert second.fields_of({"spec": {"color": "red"}}) == {"spec.color": "red"}
    assert [column.name for column in first.columns] == ["Name", "Age"]


def test_strategy_none_changes_the_version_only():
    kind = kinds_from(definition())[0]
    assert kind.convert is not None
    assert kind.convert(OLD, "g.io/v2") == {**OLD, "apiVersion": "g.io/v2"} and OLD["apiVersion"] == "g.io/v1"


def test_conversion_in_process():
    registry = InProcess()
    registry.register("g.io", "T", lambda obj, wanted: {**obj, "spec": {"y": obj["spec"]["x"]}})
    convert = kinds_from(definition(), registry)[0].convert
    assert convert is not None
    assert convert(OLD, "v2") == {**OLD, "apiVersion": "g.io/v2", "spec": {"y": 1}}


async def test_webhook():
    async def post(review: dict[str, Any]) -> dict[str, Any]:
        request = review["request"]
        converted = [
            {
                **obj,
                "apiVersion": request["desiredAPIVersion"],
                "metadata": {**obj["metadata"], "labels": {"a": "b"}, "generation": 9},
            }
            for obj in request["objects"]
        ]
        return {"response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}}

    already = {**OLD, "apiVersion": "g.io/v2"}
    first, second = await Webhook(post).convert([already, OLD], "g.io/v2")
    assert first is already
    assert second == {**already, "metadata": {"name": "a", "uid": "u", "labels": {"a": "b"}}}


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"uid": "x"}, "expected response.uid"),
        ({"result": {"status": "Failure", "message": "no way"}}, "no way"),
        ({"result": {"status": "Success"}, "convertedObjects": []}, "returned 0 objects, expected 1"),
        ({"result": {"status": "Success"}, "convertedObjects": [OLD]}, "returned g.io/v1, Kind=T, expected g.io/v2"),
    ],
)
async def test_webhook_that_breaks_its_contract(response: dict[str, Any], message: str):
    async def post(review: dict[str, Any]) -> dict[str, Any]:
        return {"response": {"uid": review["request"]["uid"], **response}}

    with pytest.raises(InternalError, match=message):
        await Webhook(post).convert([OLD], "g.io/v2")
