"""What ``qd rollout status`` says of a state."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.cli.rollouts import progress
from quarterdeck.errors import ConfigError


def agent(observed: int = 2, conditions: list[dict[str, Any]] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "a", "generation": 2},
        "status": {"observedGeneration": observed, "conditions": conditions or []} | status,
    }


def deployment(updated: int, total: int, available: int, wanted: int = 3, observed: int = 5) -> dict[str, Any]:
    counts = {"updatedReplicas": updated, "replicas": total, "availableReplicas": available}
    return {
        "metadata": {"name": "a", "generation": 5},
        "spec": {"replicas": wanted},
        "status": {"observedGeneration": observed} | counts,
    }


WAITING = 'Waiting for agent "a" rollout to finish: '
NOT_SEEN = "Waiting for agent spec update to be observed..."


@pytest.mark.parametrize(
    ("obj", "live", "text"),
    [
        (agent(observed=1), deployment(3, 3, 3), NOT_SEEN),
        (agent(), None, NOT_SEEN),
        (agent(), deployment(3, 3, 3, observed=4), NOT_SEEN),
        (agent(), deployment(1, 3, 3), f"{WAITING}1 out of 3 new replicas have been updated..."),
        (agent(), deployment(3, 4, 3), f"{WAITING}1 old replicas are pending termination..."),
        (agent(), deployment(3, 3, 2), f"{WAITING}2 of 3 updated replicas are available..."),
        (
            agent(rollout={"phase": "Progressing", "message": "step 2 of 3: 25%"}),
            deployment(3, 3, 3),
            f"{WAITING}step 2 of 3: 25%",
        ),
    ],
)
def test_what_it_waits_for(obj: dict[str, Any], live: dict[str, Any] | None, text: str) -> None:
    assert progress("agent", obj, live) == (text, False)


def test_the_end() -> None:
    done = ('agent "a" successfully rolled out', True)
    assert progress("agent", agent(), deployment(3, 3, 3)) == done
    assert progress("agent", agent(), deployment(0, 0, 0, wanted=0)) == done
    assert progress("agent", agent(rollout={"phase": "Stable"}), deployment(3, 3, 3)) == done


def test_what_will_not_end_by_itself_is_an_error() -> None:
    refused = {"type": "Accepted", "status": "False", "reason": "ReconcileFailed", "message": "no such model"}
    with pytest.raises(ConfigError, match="ReconcileFailed: no such model"):
        progress("agent", agent(conditions=[refused]), deployment(3, 3, 3))
    with pytest.raises(ConfigError, match="not rolled out: too many errors"):
        progress("agent", agent(rollout={"phase": "Aborted", "message": "too many errors"}), deployment(3, 3, 3))
    late = deployment(1, 3, 3)
    late["status"]["conditions"] = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    with pytest.raises(ConfigError, match='agent "a" exceeded its progress deadline'):
        progress("agent", agent(), late)
