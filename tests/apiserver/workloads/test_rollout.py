"""Rolling updates as a simulation: any interleaving of controller steps and Pods becoming ready keeps the promises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.apiserver.workloads import rollout, rollout_status
from quarterdeck.kube.resource import Object


def make_deployment(replicas: int, surge: Any, unavailable: Any) -> Object:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    return {"metadata": {"name": "d", "namespace": "ns"}, "spec": {"replicas": replicas, "strategy": strategy}}


def make_set(name: str, replicas: int, available: int = 0, age: int = 0, maximum: int = 0) -> Object:
    annotations = {rollout.MAX: str(maximum)} if maximum else {}
    metadata = {"name": name, "creationTimestamp": f"2026-01-01T00:00:{age:02d}Z", "annotations": annotations}
    return {"metadata": metadata, "spec": {"replicas": replicas}, "status": {"availableReplicas": available}}


def apply(scaling: rollout.Scaling, sets: list[Object]) -> None:
    for rs in sets:
        rs["spec"]["replicas"] = scaling.of(rs)
        # A ReplicaSet deletes Pods that are not ready first.
        status = rs["status"]
        status["availableReplicas"] = min(status["availableReplicas"], rs["spec"]["replicas"])


percent_or_number = st.one_of(st.integers(0, 6), st.integers(0, 100).map(lambda n: f"{n}%"))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 12), percent_or_number, percent_or_number, st.data())
def test_a_rolling_update_keeps_its_bounds_and_ends(replicas: int, surge: Any, unavailable: Any, data: Any) -> None:
    deployment = make_deployment(replicas, surge, unavailable)
    old, new = make_set("old", replicas, replicas), make_set("new", 0, age=1)
    max_surge, max_unavailable = rollout.fenceposts(deployment)
    assert max_surge > 0 or max_unavailable > 0 or replicas == 0
    for step in range(200):
        apply(rollout.roll(deployment, new, [old]), [old, new])
        total = old["spec"]["replicas"] + new["spec"]["replicas"]
        ready = old["status"]["availableReplicas"] + new["status"]["availableReplicas"]
        assert total <= replicas + max_surge
        assert ready >= replicas - max_unavailable
        starting = new["spec"]["replicas"] - new["status"]["availableReplicas"]
        if starting:
            at_least = 1 if step > 50 else 0  # Pods may take their time, not for ever
            new["status"]["availableReplicas"] += data.draw(st.integers(at_least, starting))
        elif not old["spec"]["replicas"] and new["spec"]["replicas"] == replicas:
            break
    assert (old["spec"]["replicas"], new["spec"]["replicas"]) == (0, replicas)


@given(st.integers(0, 30), st.lists(st.integers(1, 10), min_size=2, max_size=4))
def test_resizing_spreads_exactly(want: int, sizes: list[int]) -> None:
    deployment = make_deployment(want, 2, 1)
    before = sum(sizes)
    sets = [make_set(f"s{i}", size, size, age=i, maximum=before + 2) for i, size in enumerate(sizes)]
    new, old = sets[-1], sets[:-1]
    saturated = new["spec"]["replicas"] == want
    apply(rollout.resize(deployment, new, old), sets)
    total = sum(rs["spec"]["replicas"] for rs in sets)
    assert total == (want if saturated else (want + 2 if want else 0))


@pytest.mark.parametrize(
    ("value", "total", "up", "expected"),
    [
        ("25%", 3, True, 1),
        ("25%", 3, False, 0),
        ("25%", 4, False, 1),
        ("100%", 7, True, 7),
        (2, 10, True, 2),
        (None, 5, True, 0),
    ],
)
def test_percentages(value: Any, total: int, up: bool, expected: int) -> None:
    assert rollout.int_or_percent(value, total, up=up) == expected


def test_broken_pods_are_replaced_first() -> None:
    deployment = make_deployment(10, 3, 2)
    new, broken, good = make_set("new", 3, 0, 2), make_set("broken", 4, 0, 1), make_set("good", 6, 6, 0)
    scaling = rollout.roll(deployment, new, [good, broken])
    assert scaling.sizes == {"broken": 2}


def progressing(deployment: Object, now: float, **status: int) -> dict[str, Any]:
    new = make_set("new", 1)
    new["status"] |= {"replicas": 1, **status}
    counts = rollout_status.counts(deployment, new, [new])
    conditions = rollout_status.conditions_of(deployment, new, [new], counts, now, made_new=False)
    deployment["status"] = counts | {"conditions": conditions}
    return next(c for c in conditions if c["type"] == "Progressing")


def test_progress_deadline_and_recovery() -> None:
    deployment = make_deployment(1, 1, 0)
    deployment["spec"]["progressDeadlineSeconds"] = 60
    progressing(deployment, 1000)
    assert progressing(deployment, 1030)["status"] == "True"
    late = progressing(deployment, 1061)
    assert (late["status"], late["reason"]) == ("False", "ProgressDeadlineExceeded")
    done = progressing(deployment, 1100, availableReplicas=1, readyReplicas=1)
    assert (done["status"], done["reason"]) == ("True", "NewReplicaSetAvailable")
    assert rollout_status.seconds_to_deadline(deployment, [done], 5000) is None


def test_the_hash_label_does_not_make_a_template_new() -> None:
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}}}
    deployment = {"metadata": {"name": "d", "namespace": "ns"}, "spec": spec}
    made = rollout.new_replica_set(deployment, {"uid": "u"})
    assert rollout.find_new(deployment, [made]) is made
    other = rollout.new_replica_set(deployment | {"status": {"collisionCount": 1}}, {"uid": "u"})
    assert other["metadata"]["name"] != made["metadata"]["name"]
