"""Example examples/agents/observe: what a run did, the other agent's run below it, and what they used."""

from __future__ import annotations

import json

import pytest

from support.platform import EXAMPLES, Platform

AGENTS = EXAMPLES / "agents" / "observe" / "agents.yaml"


@pytest.mark.slow
def test_a_run_is_shown_with_the_run_it_led_to_and_what_both_cost(seed: Platform) -> None:
    seed.kubectl("apply", "-f", str(AGENTS))
    for agent in ("clock", "desk"):
        seed.wait(f"agent/{agent}", seconds=120)
    answer = seed.qd("agent", "invoke", "desk", 'Ask clock with request "What time is it in Paris?"').out
    [run] = json.loads(seed.qd("run", "list", "--agent", "kagent/desk", "-o", "json").out)

    shown = seed.qd("run", "show", run["id"]).out
    assert "├─ 2. kagent__NS__clock" in shown and "of agent kagent/clock: completed" in shown
    assert "│    ├─ 2. get_time of kagent/datetime-agent-mcp" in shown and "with the runs below: " in shown
    assert answer.strip().splitlines()[0] in shown
    data = json.loads(seed.qd("run", "show", run["id"], "-o", "json").out)
    child = data["children"]["2"]["run"]
    assert child["agent"] == "kagent/clock" and child["user"] == run["user"]
    said = next(event["data"] for event in data["events"] if event["kind"] == "created")
    theirs = next(event["data"] for event in data["children"]["2"]["events"] if event["kind"] == "created")
    traces = [str(each["origin"]["traceparent"])[3:35] for each in (said, theirs)]
    assert traces[0] == traces[1], "one trace"

    used = json.loads(seed.qd("run", "usage", "--by", "agent,model", "-o", "json").out)
    rows = {row["agent"]: row for row in used["rows"] if row["agent"] in ("kagent/clock", "kagent/desk")}
    assert {row["model"] for row in rows.values()} == {"scripted"} and all(row["cost"] > 0 for row in rows.values())
    assert rows["kagent/desk"]["calls"] == 2 and rows["kagent/desk"]["runs"] == 1
    steps = json.loads(seed.qd("run", "usage", "--by", "step", "--run", run["id"], "-o", "json").out)["rows"]
    assert [row["step"] for row in steps] == [1, 3]
    assert sum(row["inputTokens"] for row in steps) == rows["kagent/desk"]["inputTokens"]
    seed.kubectl("delete", "agent", "clock", "desk", "-n", "kagent")
