"""Custom kinds: pruning, defaults, validation messages, rules, generation."""

# ruff: noqa: E501 - tables read best with one case a line
from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.crd import accept, default_crd, kinds_from, validate_crd

TOOL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["McpServer", "Agent"]},
        "mcpServer": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "kind": {"type": "string"},
                "name": {"type": "string"},
                "namespace": {"type": "string"},
                "toolNames": {"type": "array", "maxItems": 50, "items": {"type": "string"}},
                "requireApproval": {"type": "array", "maxItems": 50, "items": {"type": "string"}},
            },
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.requireApproval) || self.requireApproval.all(x, has(self.toolNames) && x in self.toolNames)",
                    "message": "each item in requireApproval must be in toolNames",
                },
                {"rule": "!has(self.__namespace__) || self.__namespace__ != 'forbidden'"},
            ],
        },
    },
    "x-kubernetes-validations": [
        {"rule": "!(has(self.mcpServer) && self.type != 'McpServer')", "message": "type.mcpServer must be nil"},
        {"rule": "!(!has(self.mcpServer) && self.type == 'McpServer')", "message": "type.mcpServer must be specified"},
    ],
}
SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["Declarative", "BYO"], "default": "Declarative"},
        "description": {"type": "string", "maxLength": 20, "minLength": 1, "pattern": "^[a-z ]*$"},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 9},
        "iconUrl": {"type": "string", "format": "uri"},
        "port": {"x-kubernetes-int-or-string": True},
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
        "ratio": {"type": "number", "x-kubernetes-validations": [{"rule": "self < 2.5", "messageExpression": "'ratio is ' + string(self)"}]},
        "env": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "value": {"type": "string", "default": "v"}}},
        },
        "declarative": {
            "type": "object",
            "properties": {
                "runtime": {"type": "string", "enum": ["python", "go"], "default": "python"},
                "systemMessage": {"type": "string"},
                "systemMessageFrom": {"type": "object", "properties": {"name": {"type": "string"}}},
                "stream": {"type": "boolean", "default": False},
                "tools": {"type": "array", "maxItems": 20, "items": TOOL},
            },
            "x-kubernetes-validations": [
                {"rule": "!has(self.systemMessage) || !has(self.systemMessageFrom)", "message": "systemMessage and systemMessageFrom are mutually exclusive"}
            ],
        },
        "byo": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "x-kubernetes-validations": [
        {
            "rule": "(self.type == 'Declarative' && has(self.declarative)) || (self.type == 'BYO' && has(self.byo))",
            "message": "declarative must be specified if type is Declarative, or byo must be specified if type is BYO",
        }
    ],
}  # fmt: skip
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}, "spec": SPEC,
                   "status": {"type": "object", "properties": {"count": {"type": "integer"}, "conditions": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}}},
}  # fmt: skip


def crd(schema: dict[str, Any] = SCHEMA, **version: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "agents.kagent.dev"},
        "spec": {
            "group": "kagent.dev",
            "scope": "Namespaced",
            "names": {"plural": "agents", "kind": "Agent", "categories": ["kagent"], "shortNames": ["ag"]},
            "versions": [
                {
                    "name": "v1alpha2", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": "Type", "type": "string", "jsonPath": ".spec.type"},
                        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                    **version,
                }
            ],
        },
    }  # fmt: skip
    default_crd(made)
    return made


KIND = kinds_from(crd())[0]


def agent(**spec: Any) -> dict[str, Any]:
    obj = {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "Agent",
        "metadata": {"name": "a"},
        "spec": {"declarative": {}, **spec},
    }
    KIND.schema.default(obj)
    return obj


def errors(obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    return [f"{cause.field}: {cause.message}" for cause in KIND.schema.validate(obj, old, "")]


BLOCKED = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)


def test_the_definition_itself_is_valid():
    assert validate_crd(crd()) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"type": "x"}, ['spec.type: Unsupported value: "x": supported values: "Declarative", "BYO"', BLOCKED]),
        ({"replicas": "3"}, ['spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"', BLOCKED]),
        ({"replicas": 0}, ["spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1"]),
        ({"replicas": 10}, ["spec.replicas: Invalid value: 10: spec.replicas in body should be less than or equal to 9"]),
        ({"replicas": True}, ['spec.replicas: Invalid value: "boolean": spec.replicas in body must be of type integer: "boolean"', BLOCKED]),
        ({"description": ""}, ['spec.description: Invalid value: "": spec.description in body should be at least 1 chars long']),
        ({"description": "A"}, ["spec.description: Invalid value: \"A\": spec.description in body should match '^[a-z ]*$'"]),
        ({"description": "a" * 21}, ["spec.description: Too long: may not be more than 20 bytes", BLOCKED]),
        ({"iconUrl": "123"}, ['spec.iconUrl: Invalid value: "123": spec.iconUrl in body must be of type uri: "123"', BLOCKED]),
        ({"port": 1.5}, ['spec.port: Invalid value: "number": spec.port in body must be of type integer,string: "number"', BLOCKED]),
        ({"env": [{"value": "x"}]}, ["spec.env[0].name: Required value", BLOCKED]),
        ({"env": [{"name": "a"}, {"name": "a"}]}, ['spec.env[1]: Duplicate value: {"name":"a"}']),
        ({"type": "BYO"}, ["spec: Invalid value: declarative must be specified if type is Declarative, or byo must be specified if type is BYO"]),
        ({"ratio": 3}, ["spec.ratio: Invalid value: ratio is 3"]),
        ({"declarative": {"systemMessage": "a", "systemMessageFrom": {}}}, ["spec.declarative: Invalid value: systemMessage and systemMessageFrom are mutually exclusive"]),
        ({"declarative": {"tools": [{"type": "McpServer"}]}}, ["spec.declarative.tools[0]: Invalid value: type.mcpServer must be specified"]),
        ({"declarative": {"tools": [{"type": "McpServer", "mcpServer": {"name": "n", "namespace": "forbidden"}}]}},
         ["spec.declarative.tools[0].mcpServer: Invalid value: failed rule: !has(self.__namespace__) || self.__namespace__ != 'forbidden'"]),
        ({"declarative": {"tools": [{"type": "McpServer", "mcpServer": {"name": "n", "toolNames": ["a"], "requireApproval": ["b"]}}]}},
         ["spec.declarative.tools[0].mcpServer: Invalid value: each item in requireApproval must be in toolNames"]),
        ({"declarative": {"tools": [{}]}}, [
            "spec.declarative.tools[0]: Invalid value: no such key: type evaluating rule: type.mcpServer must be specified"]),
        ({"port": "http", "ratio": 1}, []),
    ],
)  # fmt: skip
def test_messages(spec: dict[str, Any], expected: list[str]):
    assert errors(agent(**spec)) == expected


def test_transition_rules_and_ratcheting():
    old = agent(fixed="a", replicas=0)
    assert errors(agent(fixed="b", replicas=2), agent(fixed="a")) == ['spec.fixed: Invalid value: "b": is immutable']
    assert errors(agent(fixed="a", replicas=0, description="x"), old) == []


def test_defaults_and_unknown_fields():
    obj = agent(colour=1, env=[{"name": "a", "x": 1}], byo={"any": {"thing": 1}}, replicas=None)
    assert obj["spec"]["type"] == "Declarative" and obj["spec"]["declarative"] == {"runtime": "python", "stream": False}
    assert obj["spec"]["env"][0]["value"] == "v" and "replicas" not in obj["spec"]
    assert KIND.schema.unknown_fields(obj) == ['unknown field "spec.colour"', 'unknown field "spec.env[0].x"']
    KIND.schema.prune(obj)
    assert KIND.schema.unknown_fields(obj) == [] and obj["spec"]["byo"] == {"any": {"thing": 1}}


def test_generation_and_status():
    old = agent()
    old["status"] = {"count": 1}
    KIND.schema.prepare_create(old)
    assert old["metadata"]["generation"] == 1 and "status" not in old
    old["status"] = {"count": 1}
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"a": "b"}
    new["status"] = {"count": 2}
    KIND.schema.prepare_update(new, old, "")
    assert new["metadata"]["generation"] == 1 and new["status"] == {"count": 1}
    new["spec"]["replicas"] = 3
    KIND.schema.prepare_update(new, old, "")
    assert new["metadata"]["generation"] == 2
    new["status"] = {"count": 5}
    KIND.schema.prepare_update(new, old, "status")
    assert new["status"] == {"count": 5} and new["spec"] == old["spec"] and "labels" not in new["metadata"]


def test_columns():
    obj = agent()
    obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    obj["status"] = {"conditions": [{"type": "Accepted", "status": "False"}, {"type": "Ready", "status": "True"}]}
    assert [column.name for column in KIND.columns] == ["Name", "Type", "Ready", "Age"]
    assert [column.value(obj, 1767225600 + 200) for column in KIND.columns] == ["a", "Declarative", "True", "3m20s"]


def test_names_conflict():
    first = crd()
    first["status"] = accept(first, [], "2026-01-01T00:00:00Z")
    assert [c["status"] for c in first["status"]["conditions"]] == ["True", "True"]
    assert first["status"]["acceptedNames"]["kind"] == "Agent" and first["status"]["storedVersions"] == ["v1alpha2"]
    second = crd()
    second["metadata"]["name"] = "others.kagent.dev"
    second["spec"]["names"]["plural"] = "others"
    status = accept(second, [first], "2026-01-01T00:00:00Z")
    named, established = status["conditions"]
    assert (named["status"], named["reason"]) == ("False", "ListKindConflict") and established["status"] == "False"


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"type": "x"}, "spec.versions[0].schema.openAPIV3Schema.properties[f].type", "Unsupported value"),
        ({}, "spec.versions[0].schema.openAPIV3Schema.properties[f].type", "Required value: must not be empty for specified object fields"),
        ({"type": "array"}, "spec.versions[0].schema.openAPIV3Schema.properties[f].items", "Required value: must be specified"),
        ({"type": "integer", "default": "a"}, "spec.versions[0].schema.openAPIV3Schema.properties[f].default", "must be of type integer"),
        ({"type": "string", "pattern": "("}, "spec.versions[0].schema.openAPIV3Schema.properties[f].pattern", "must be a valid regular expression"),
        ({"type": "string", "x-kubernetes-validations": [{"rule": "self.foo"}]},
         "spec.versions[0].schema.openAPIV3Schema.properties[f].x-kubernetes-validations[0].rule", "compilation failed"),
        ({"type": "string", "x-kubernetes-validations": [{"rule": "self + 1 == 'a'"}]},
         "spec.versions[0].schema.openAPIV3Schema.properties[f].x-kubernetes-validations[0].rule", "found no matching overload"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
         "spec.versions[0].schema.openAPIV3Schema.properties[f].additionalProperties", "Forbidden: additionalProperties and properties are mutual exclusive"),
    ],
)  # fmt: skip
def test_definitions_that_are_not_structural(change: dict[str, Any], field: str, message: str):
    found = validate_crd(crd({"type": "object", "properties": {"f": change}}))
    assert [cause.field for cause in found] == [field] and message in found[0].message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 20) | st.text("ab", max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from([*SPEC["properties"], "tools", "mcpServer", "name", "x"]), below, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(spec=_JSON)
def test_pruned_objects_have_no_unknown_fields_and_defaulting_is_idempotent(spec: Any):
    obj = {"apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "metadata": {"name": "a"}, "spec": spec}
    KIND.schema.prune(obj)
    assert KIND.schema.unknown_fields(obj) == []
    KIND.schema.default(obj)
    once = copy.deepcopy(obj)
    KIND.schema.default(obj)
    assert obj == once and KIND.schema.unknown_fields(obj) == []
    KIND.schema.validate(obj, None, "")
    assert obj == once
    assert KIND.schema.validate(obj, once, "") == []
