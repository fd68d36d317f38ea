"""The Pod state machine: tables, and properties of whole lives by Hypothesis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.node.core import Container, Finalize, Start, Stop, all_specs, decide


def pod(
    policy: str = "Always", *, inits: list[dict[str, Any]] | None = None, mains: int = 1, **spec: Any
) -> dict[str, Any]:
    containers = [{"name": f"m{i}"} for i in range(mains)]
    return {
        "metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {"restartPolicy": policy, "containers": containers, "initContainers": inits or [], **spec},
    }


def fresh(p: dict[str, Any]) -> dict[str, Container]:
    return {s["name"]: Container(s["name"]) for s, _ in all_specs(p)}


def run(container: Container, now: float = 0.0) -> None:
    container.attempt += 1
    container.begin("id", now, probed_ready=False, probed_start=False)


def names(p: dict[str, Any], containers: dict[str, Container], now: float = 0.0) -> list[tuple[str, str]]:
    actions = decide(p, containers, now, started_at=0.0).actions
    return [(type(a).__name__, getattr(a, "name", "")) for a in actions]


@pytest.mark.parametrize(
    ("policy", "code", "again", "finished"),
    [
        ("Always", 0, True, False), ("Always", 1, True, False), ("OnFailure", 0, False, True),
        ("OnFailure", 1, True, False), ("Never", 0, False, True), ("Never", 1, False, True),
    ],
)  # fmt: skip
def test_restart_policy(policy: str, code: int, again: bool, finished: bool) -> None:
    p = pod(policy)
    containers = fresh(p)
    run(containers["m0"])
    containers["m0"].end(code, 1.0)
    decision = decide(p, containers, 1000.0, started_at=0.0)
    assert any(isinstance(a, Start) for a in decision.actions) is again
    assert decision.finished is finished


def test_init_containers_run_one_after_another_then_the_mains() -> None:
    p = pod(inits=[{"name": "a"}, {"name": "b"}], mains=2)
    containers = fresh(p)
    assert names(p, containers) == [("Start", "a")]
    run(containers["a"])
    assert names(p, containers) == []
    containers["a"].end(0, 1.0)
    assert names(p, containers, 1.0) == [("Start", "b")]
    run(containers["b"])
    containers["b"].end(0, 2.0)
    assert names(p, containers, 2.0) == [("Start", "m0"), ("Start", "m1")]


@pytest.mark.parametrize(("policy", "failed"), [("Never", True), ("OnFailure", False), ("Always", False)])
def test_failed_init_container(policy: str, failed: bool) -> None:
    p = pod(policy, inits=[{"name": "a"}])
    containers = fresh(p)
    run(containers["a"])
    containers["a"].end(2, 1.0)
    decision = decide(p, containers, 100.0, started_at=0.0)
    assert (decision.failed is not None) is failed
    assert [a for a in decision.actions if isinstance(a, Start)] == ([] if failed else [Start("a", True)])


def test_sidecar_runs_beside_and_ends_last() -> None:
    p = pod("Never", inits=[{"name": "side", "restartPolicy": "Always"}])
    containers = fresh(p)
    assert names(p, containers) == [("Start", "side")]
    run(containers["side"])
    assert names(p, containers) == [("Start", "m0")]
    run(containers["m0"])
    containers["side"].end(1, 1.0)
    assert names(p, containers, 1.0) == [("Start", "side")], "it is restarted whatever the Pod's policy"
    run(containers["side"], 1.0)
    containers["m0"].end(0, 2.0)
    assert names(p, containers, 2.0) == [("Stop", "side")]
    containers["side"].end(143, 3.0)
    decision = decide(p, containers, 3.0, started_at=0.0)
    assert decision.finished
    assert not decision.actions


def test_sidecar_outlives_the_mains_when_the_pod_is_deleted() -> None:
    p = pod(inits=[{"name": "side", "restartPolicy": "Always"}])
    containers = fresh(p)
    run(containers["side"])
    run(containers["m0"])
    p["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 7}
    assert decide(p, containers, 0.0, started_at=0.0).actions == [Stop("m0", 7.0)]
    containers["m0"].end(0, 1.0)
    assert decide(p, containers, 1.0, started_at=0.0).actions == [Stop("side", 7.0)]
    containers["side"].end(0, 2.0)
    assert decide(p, containers, 2.0, started_at=0.0).actions == [Finalize()]


def test_active_deadline_fails_the_pod() -> None:
    p = pod("Never", activeDeadlineSeconds=10)
    containers = fresh(p)
    run(containers["m0"])
    early = decide(p, containers, 9.0, started_at=0.0)
    assert (early.wake_at, early.failed) == (10.0, None)
    late = decide(p, containers, 10.0, started_at=0.0)
    assert late.failed is not None
    assert late.failed[0] == "DeadlineExceeded"
    assert late.actions == [Stop("m0", 30.0)]


def test_back_off_doubles_to_five_minutes_and_starts_over_after_ten() -> None:
    container = Container("c")
    now, delays = 0.0, list[float]()
    for _ in range(8):
        run(container, now)
        container.end(1, now)
        delays.append(container.not_before - now)
        now = container.not_before
    assert delays == [0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    run(container, now)
    container.end(1, now + 601)
    assert container.not_before == now + 601


@given(
    st.sampled_from(["Always", "OnFailure", "Never"]),
    st.lists(st.sampled_from(["init", "sidecar"]), max_size=3),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["start", "end0", "end1", "delete", "wait"]), st.integers(0, 5)), max_size=40),
)
def test_whole_lives(policy: str, inits: list[str], mains: int, events: list[tuple[str, int]]) -> None:
    """Whatever happens: nothing running is started, nothing is started in a Pod being deleted, no main container starts
    before the init containers are complete, and a Pod is finalized only when nothing runs."""
    kinds = [{"name": f"i{n}", **({"restartPolicy": "Always"} if k == "sidecar" else {})} for n, k in enumerate(inits)]
    p = pod(policy, inits=kinds, mains=mains)
    containers = fresh(p)
    plain = [s["name"] for s in kinds if "restartPolicy" not in s]
    now = 0.0
    for what, pick in events:
        now += 1.0 if what != "wait" else 400.0
        decision = decide(p, containers, now, started_at=0.0)
        deleting = "deletionTimestamp" in p["metadata"]
        for action in decision.actions:
            if isinstance(action, Start):
                assert containers[action.name].state != "running"
                assert not deleting
                assert now >= containers[action.name].not_before
                if action.name.startswith("m"):
                    ends = [containers[n].terminated for n in plain]
                    assert all(e is not None and e.exit_code == 0 for e in ends)
            elif isinstance(action, Stop):
                assert containers[action.name].state == "running"
                containers[action.name].stopping = True
            else:
                assert all(c.state != "running" for c in containers.values())
        starts = [a for a in decision.actions if isinstance(a, Start)]
        running = [c for c in containers.values() if c.state == "running"]
        if what == "start" and starts:
            run(containers[starts[pick % len(starts)].name], now)
        elif what.startswith("end") and running:
            running[pick % len(running)].end(int(what[3:]), now)
        elif what == "delete":
            p["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 1}
