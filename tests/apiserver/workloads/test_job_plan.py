from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.apiserver.workloads.job_plan import Progress, format_indexes, parse_indexes, plan
from quarterdeck.kube.resource import Object


def job(**spec: Any) -> Object:
    return {"metadata": {"name": "j", "namespace": "ns"}, "spec": {"parallelism": 2, "completions": 3, **spec}}


def pod(name: str, phase: str = "Running") -> Object:
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"nodeName": "n"}, "status": {"phase": phase}}


@given(st.sets(st.integers(0, 60)))
def test_indexes_round_trip(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == indexes


@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_never_more_than_parallelism_or_what_is_left(parallel: int, total: int, succeeded: int, active: int) -> None:
    pods = [pod(f"p{i}") for i in range(active)]
    wanted = plan(job(parallelism=parallel, completions=total), pods, Progress(succeeded, 0), 0.0)
    after = active + len(wanted.create) - len(wanted.delete)
    assert after == (0 if succeeded >= total else min(parallel, total - succeeded))


def test_back_off_after_failures() -> None:
    waiting = plan(job(), [], Progress(0, 2, last_failure=100.0), 110.0)
    assert (waiting.create, waiting.wait) == ([], 10.0)
    assert len(plan(job(), [], Progress(0, 2, last_failure=100.0), 121.0).create) == 2


def test_indexed_fills_the_gaps() -> None:
    indexed = job(completionMode="Indexed", completions=5, parallelism=3)
    assert plan(indexed, [], Progress(2, 0, frozenset({0, 2})), 0.0).create == [1, 3, 4]


def test_deadline_suspend_and_decided_outcome() -> None:
    late = job(activeDeadlineSeconds=10) | {"status": {"startTime": "1970-01-01T00:01:40Z"}}
    finish = plan(late, [pod("a")], Progress(0, 0), 111.0).finish
    assert finish is not None
    assert finish[1] == "DeadlineExceeded"
    suspended = plan(job(suspend=True), [pod("a")], Progress(0, 0), 0.0)
    assert (len(suspended.delete), suspended.create, suspended.finish) == (1, [], None)
    decided = job() | {"status": {"conditions": [{"type": "FailureTarget", "status": "True", "reason": "X"}]}}
    assert plan(decided, [], Progress(3, 0), 0.0).finish == ("Failed", "X", "")


def test_pod_failure_policy() -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    failed = pod("a", "Failed")
    failed["status"]["containerStatuses"] = [{"name": "main", "state": {"terminated": {"exitCode": 42}}}]
    finish = plan(job(podFailurePolicy={"rules": [rule]}), [failed], Progress(0, 1), 0.0).finish
    assert finish == (
        "Failed", "PodFailurePolicy",
        "Container main for pod ns/a failed with exit code 42 matching FailJob rule at index 0",
    )  # fmt: skip
