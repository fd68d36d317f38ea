"""The second track of an Agent, pure: its objects, its part of the route, its grants."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.errors import ConfigError, InvalidName
from quarterdeck.resources.base import parse
from quarterdeck.resources.conversion import agent_spec
from quarterdeck.resources.rollout import Rollout
from quarterdeck.snapshot import AgentPolicy, Endpoint, ToolGrant
from quarterdeck.translate import canary
from quarterdeck.translate.agent import translate_agent
from quarterdeck.translate.agent_config import AgentInputs
from quarterdeck.translate.options import NetworkPolicies, Options
from quarterdeck.translate.revision import revision_name

HERE, THERE = (Endpoint("10.0.0.1", 8080),), (Endpoint("10.0.0.2", 8080),)
STARTED = "2026-11-21T12:00:00.000000Z"


def agent(text: str = "one", status: dict[str, Any] | None = None, name: str = "a", **spec: Any) -> dict[str, Any]:
    declarative = {"systemMessage": text, "modelConfig": "m"}
    return {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "Agent",
        "metadata": {"name": name, "namespace": "kagent", "uid": "u"},
        "spec": {"type": "Declarative", "declarative": declarative, "rollout": {"strategy": "Canary"}} | spec,
        "status": {"rollout": status} if status else {},
    }


def inputs(obj: dict[str, Any]) -> AgentInputs:
    return AgentInputs(obj, agent_spec(obj), instruction=obj["spec"]["declarative"]["systemMessage"])


def running(obj: dict[str, Any], **more: Any) -> dict[str, Any]:
    began = {"phase": "Paused", "stableRevision": "a-old", "canaryRevision": revision_name(obj)}
    return began | {"startedAt": STARTED, "stepStartedAt": STARTED, "weight": 30, "step": 1} | more


def test_a_canary_shares_what_makes_it_the_same_agent_and_nothing_else() -> None:
    options = Options(network_policies=NetworkPolicies())
    stable = translate_agent(inputs(agent("one")), options)
    trial = canary.canary_objects(inputs(agent("two")), options, 77, 2)
    both = canary.both_tracks(stable, trial)
    names = sorted((obj["kind"], obj["metadata"]["name"]) for obj in both)
    assert names == [
        ("Deployment", "a"), ("Deployment", "a-canary"), ("NetworkPolicy", "a"), ("Secret", "a"),
        ("Secret", "a-canary"), ("Service", "a"), ("Service", "a-canary"), ("ServiceAccount", "a"),
    ]  # fmt: skip
    of = {(obj["kind"], obj["metadata"]["name"]): obj for obj in both}
    assert of["Secret", "a"]["data"] != of["Secret", "a-canary"]["data"]
    assert of["Deployment", "a-canary"]["spec"]["replicas"] == 2
    env = of["Deployment", "a-canary"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "QUARTERDECK_TRACK_TAG", "value": "77"} in env
    kinds = [obj["kind"] for obj in both]
    assert kinds.index("Deployment") > kinds.index("Secret"), "what Pods mount is there before them"


def test_the_canary_has_its_own_account_when_only_its_spec_wants_one() -> None:
    given = {"type": "Declarative", "declarative": {"systemMessage": "one", "deployment": {"serviceAccountName": "x"}}}
    stable = translate_agent(inputs(agent() | {"spec": given}), Options())
    both = canary.both_tracks(stable, canary.canary_objects(inputs(agent("two")), Options(), 1, 1))
    assert [obj["metadata"]["name"] for obj in both if obj["kind"] == "ServiceAccount"] == ["a"]


def test_a_long_name_is_refused_with_the_room_there_is() -> None:
    with pytest.raises(InvalidName, match="at most 56"):
        canary.canary_objects(inputs(agent(name="n" * 57)), Options(), 1, 1)


@pytest.mark.parametrize(
    "change",
    [{"phase": "Stable"}, {"phase": "Aborted"}, {"stepStartedAt": None}],
    ids=lambda change: next(iter(change)),
)
def test_one_track_is_no_split(change: dict[str, Any]) -> None:
    obj = agent()
    assert canary.split(obj | {"status": {"rollout": running(obj, **change)}}, HERE, THERE) is None
    assert canary.split(agent(), HERE, THERE) is None


def test_the_route_has_the_step_in_its_epoch_and_the_matches_of_the_spec() -> None:
    match = [{"headers": [{"name": "X-Beta", "exact": "1"}], "claims": [{"name": "sub", "regex": "a.*"}]}]
    obj = agent(rollout={"strategy": "Canary", "match": match})
    found = canary.split(obj | {"status": {"rollout": running(obj)}}, HERE, THERE)
    assert found is not None and found.sticky and not found.strict
    stable, trial = found.backends
    assert (stable.weight, stable.tag, stable.epoch, stable.endpoints) == (70, 0, "", HERE)
    assert (trial.weight, trial.endpoints) == (30, THERE)
    assert trial.epoch == f"{trial.tag}.1"
    assert [(m.source, m.name, m.exact, m.regex) for m in trial.matches[0]] == [
        ("header", "x-beta", "1", ""),
        ("claim", "sub", None, "a.*"),
    ]


def test_matches_that_cannot_be_used_are_left_out_of_the_snapshot_and_refused_by_the_controller() -> None:
    match = [{"headers": [{"name": "a", "regex": "("}]}]
    obj = agent(rollout={"strategy": "Canary", "match": match})
    found = canary.split(obj | {"status": {"rollout": running(obj)}}, HERE, THERE)
    assert found is not None and found.backends[1].matches == ()
    with pytest.raises(ConfigError, match=r"rollout\.match: a"):
        canary.check_rollout(parse(Rollout, obj["spec"]["rollout"], "rollout"))


def test_the_specs_that_pods_run() -> None:
    obj, kept = agent("two"), agent("one")["spec"]
    trial = obj | {"status": {"rollout": running(obj)}}
    assert canary.served(obj, {}) == [obj]
    assert canary.wanted_revision(trial) == "a-old"
    assert [found["spec"] for found in canary.served(trial, {"a-old": kept})] == [kept, obj["spec"]]
    assert canary.served(trial, {}) == [trial], "what is not known yet grants nothing"
    given_up = obj | {"status": {"rollout": running(obj, phase="Aborted")}}
    assert [found["spec"] for found in canary.served(given_up, {"a-old": kept})] == [kept]
    fresh = agent("three") | {"status": given_up["status"]}
    assert len(canary.served(fresh, {"a-old": kept})) == 2, "a new spec is about to be tried"
    rolling = agent("two", rollout={"strategy": "RollingUpdate"})
    assert canary.served(rolling | {"status": trial["status"]}, {"a-old": kept})[0]["spec"] == rolling["spec"]


def test_grants_of_both_tracks() -> None:
    def policy(*tools: ToolGrant, models: tuple[str, ...] = ()) -> AgentPolicy:
        return AgentPolicy("kagent", "a", tools, models)

    old = policy(ToolGrant("kagent", "s", "MCPServer", ("x", "y"), ("y",)), models=("kagent/old",))
    new = policy(
        ToolGrant("kagent", "s", "MCPServer", ("y", "z")), ToolGrant("kagent", "t", "MCPServer"), models=("kagent/new",)
    )
    both = canary.union([old, new])
    assert both.models == ("kagent/new", "kagent/old")
    assert {grant.name: (grant.tools, grant.approval) for grant in both.tools} == {
        "s": (("x", "y", "z"), ("y",)),
        "t": (None, ()),
    }
    everything = canary.union([old, policy(ToolGrant("kagent", "s", "MCPServer"))])
    assert (everything.tools[0].tools, everything.tools[0].approval) == (None, ("y",))
