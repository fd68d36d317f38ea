"""Translated Pods under the restricted standard: defaults fill what is unset, a user's word stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.admission.pod_security import violations
from quarterdeck.translate.pod_security import UID, restricted

OUTPUTS = sorted((Path(__file__).parent / "testdata" / "outputs").glob("*.json"))


def pods(path: Path) -> list[tuple[str, dict[str, Any]]]:
    found = [obj for obj in json.loads(path.read_text()) if obj["kind"] == "Deployment"]
    return [(obj["metadata"]["name"], obj["spec"]["template"]["spec"]) for obj in found]


@pytest.mark.parametrize("path", OUTPUTS, ids=lambda p: p.stem)
def test_golden_pods_are_restricted(path: Path) -> None:
    for name, pod in pods(path):
        assert violations(pod, "restricted") == [], name


def made(pod: dict[str, Any] | None = None, container: dict[str, Any] | None = None) -> dict[str, Any]:
    main = {"name": "main", "image": "i"} | ({"securityContext": container} if container is not None else {})
    spec = {"containers": [main]} | ({"securityContext": pod} if pod is not None else {})
    return restricted(spec, ("main",))


def test_what_is_filled() -> None:
    pod = made()
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
    }  # fmt: skip
    assert pod["containers"][0]["volumeMounts"] == [{"name": "quarterdeck-tmp", "mountPath": "/tmp"}]
    assert pod["volumes"] == [{"name": "quarterdeck-tmp", "emptyDir": {"sizeLimit": "1Gi"}}]
    assert violations(pod, "restricted") == []


@pytest.mark.parametrize(
    ("pod", "container", "absent"),
    [
        ({"runAsUser": 0}, {}, ["runAsNonRoot", "runAsGroup"]),
        ({"runAsNonRoot": False}, {}, ["runAsUser"]),
        ({"runAsUser": 1000}, {}, ["runAsGroup"]),
    ],
)
def test_what_would_contradict_a_user_is_left_out(
    pod: dict[str, Any], container: dict[str, Any], absent: list[str]
) -> None:
    filled = made(pod, container)["securityContext"]
    assert not set(absent) & set(filled)
    assert pod.items() <= filled.items()


def test_privileges_that_a_user_asks_for() -> None:
    privileged = made({}, {"privileged": True})["containers"][0]["securityContext"]
    assert "allowPrivilegeEscalation" not in privileged, "the API refuses both together"
    admin = made({}, {"capabilities": {"add": ["SYS_ADMIN"]}})["containers"][0]["securityContext"]
    assert admin["capabilities"] == {"add": ["SYS_ADMIN"], "drop": ["ALL"]}
    assert "allowPrivilegeEscalation" not in admin
    root = made(None, {"runAsUser": 0})["containers"][0]["securityContext"]
    assert root["runAsNonRoot"] is False


def test_a_volume_of_the_user_at_tmp_stays() -> None:
    mounts = [{"name": "mine", "mountPath": "/tmp/"}]
    pod = restricted({"containers": [{"name": "main", "volumeMounts": mounts}]}, ("main",))
    assert pod["containers"][0]["volumeMounts"] == mounts
    assert "volumes" not in pod


_POD_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "runAsUser": st.sampled_from([0, 1, 1000]),
        "runAsGroup": st.sampled_from([0, 7]),
        "runAsNonRoot": st.booleans(),
        "fsGroup": st.just(9),
        "seccompProfile": st.just({"type": "Unconfined"}),
        "supplementalGroups": st.just([4]),
    },
)
_CONTAINER_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "runAsUser": st.sampled_from([0, 1000]),
        "privileged": st.booleans(),
        "allowPrivilegeEscalation": st.booleans(),
        "readOnlyRootFilesystem": st.booleans(),
        "capabilities": st.fixed_dictionaries(
            {}, optional={"drop": st.sampled_from([["ALL"], ["NET_RAW"], []]), "add": st.just(["NET_BIND_SERVICE"])}
        ),
        "seccompProfile": st.just({"type": "RuntimeDefault"}),
    },
)


@given(_POD_FIELDS, _CONTAINER_FIELDS)
def test_a_users_fields_always_stay(pod: dict[str, Any], container: dict[str, Any]) -> None:
    out = made(pod, container)
    assert pod.items() <= out["securityContext"].items()
    found = out["containers"][0]["securityContext"]
    for name, value in container.items():
        if name == "capabilities" and not container.get("privileged"):
            assert value.items() <= found[name].items()
        else:
            assert found[name] == value
    assert made(out["securityContext"], found) == out, "filling twice changes nothing"
    if not pod and not container:
        assert violations(out, "restricted") == []
