from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.kube.template import RESTARTED_AT, additions, with_restart

POD = {"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]}]}
DESIRED = {"spec": {"template": {"metadata": {"labels": {"app": "x"}}, "spec": POD}}}


def live(fields: Any, template: Any, manager: str = "kubectl-set") -> Any:
    entry = {"manager": manager, "fieldsV1": {"f:spec": {"f:template": fields}}}
    return {"metadata": {"managedFields": [entry]}, "spec": {"template": template}}


def container(**more: Any) -> Any:
    return {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{**POD["containers"][0], **more}]}}


IN_C = 'k:{"name":"c"}'


@pytest.mark.parametrize(
    ("fields", "template", "found"),
    [
        (
            {"f:spec": {"f:containers": {IN_C: {"f:env": {'k:{"name":"B"}': {".": {}, "f:name": {}, "f:value": {}}}}}}},
            container(env=[{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]),
            ["template.spec.containers[c].env[B]"],
        ),
        (
            {"f:spec": {"f:terminationGracePeriodSeconds": {}}},
            {"spec": {**POD, "terminationGracePeriodSeconds": 5}},
            ["template.spec.terminationGracePeriodSeconds"],
        ),
        (
            {"f:metadata": {"f:annotations": {".": {}, f"f:{RESTARTED_AT}": {}}}},
            {"metadata": {"annotations": {RESTARTED_AT: "now"}}, "spec": POD},
            [],
        ),
        (
            {"f:metadata": {"f:annotations": {".": {}, "f:a": {}}}},
            {"metadata": {"annotations": {"a": "b"}}, "spec": POD},
            ["template.metadata.annotations.a"],
        ),
        # the same value by another manager is no addition, nor is a key that has its default
        ({"f:spec": {"f:containers": {IN_C: {"f:env": {'k:{"name":"A"}': {"f:value": {}}}}}}}, container(), []),
        (
            {"f:spec": {"f:containers": {IN_C: {"f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}}}}}}},
            container(ports=[{"containerPort": 80, "protocol": "TCP"}]),
            [],
        ),
        ({"f:spec": {"f:tolerations": {}}}, {"spec": {**POD, "tolerations": [{"key": "t"}]}},
         ["template.spec.tolerations"]),
        ({"f:spec": {"f:securityContext": {}}}, {"spec": {**POD, "securityContext": {}}}, []),
    ],
)  # fmt: skip
def test_additions(fields: Any, template: Any, found: list[str]) -> None:
    assert additions(DESIRED, live(fields, template)) == found
    assert additions(DESIRED, live(fields, template, "quarterdeck")) == []


def test_a_restart_survives_the_replacement() -> None:
    stamped = {"metadata": {"annotations": {RESTARTED_AT: "now", "foreign": "x"}}}
    replaced = with_restart(DESIRED["spec"]["template"], stamped)
    assert replaced["metadata"] == {"labels": {"app": "x"}, "annotations": {RESTARTED_AT: "now"}}
    assert with_restart(DESIRED["spec"]["template"], {}) == DESIRED["spec"]["template"]
