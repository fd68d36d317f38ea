"""What runs used, by whom and with which model: while they go on and when their journals are gone."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.agents.observe.usage import Tokens, cost_of, tokens_of
from quarterdeck.server.database import Database
from quarterdeck.server.runs_again import Again
from quarterdeck.server.runs_metrics import RunMetrics
from quarterdeck.server.runs_store import Draft, NewRun, RunStore
from quarterdeck.server.usage import Usage, Used, Wanted, of_event, of_steps
from quarterdeck.telemetry.merge import Exposition
from quarterdeck.telemetry.metrics import Registry

DAY = 86400.0


class Clock:
    now = 10 * DAY

    def __call__(self) -> float:
        return self.now


def asked(step: int, model: str, given: int, made: int, cost: float = 0.0, **more: Any) -> Draft:
    usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    return Draft("model.result", step, {"model": model, "usage": usage, "cost": cost, "took": 0.2, **more})


FINAL = Draft("final", 0, {"state": "completed", "reason": "", "text": "done"})


async def made(store: RunStore, agent: str, user: str, task: str, *drafts: Draft) -> dict[str, Any]:
    row, _ = await store.create(NewRun(agent, user, task, task, {"parts": [{"text": "x"}]}, replica="p/1"))
    await store.append(agent, row["id"], 1, f"b-{task}", list(drafts))
    return row


async def test_usage_is_grouped_and_outlives_the_journal(database: Database) -> None:
    clock, registry = Clock(), Registry()
    store, usage = RunStore(database, clock=clock, monotonic=clock), Usage(database, clock=clock)
    store.wrote = RunMetrics(registry).wrote
    first = await made(
        store, "ns/a", "alice", "t1", asked(1, "big", 100, 10, 0.5, first=0.1),
        Draft("tool.result", 2, {"took": 0.01, "failed": True, "message": {"content": "no"}}),
        asked(3, "small", 7, 3), FINAL,
    )  # fmt: skip
    clock.now += DAY
    await made(store, "ns/a", "bob", "t2", asked(1, "big", 50, 5, 0.25))  # goes on
    await made(store, "other/b", "alice", "t3", asked(1, "small", 1, 1), FINAL)

    rows, total = await usage.grouped(["agent", "model"], Wanted())
    shown = [(row["agent"], row["model"], row["calls"], row["input"], row["output"], row["runs"]) for row in rows]
    assert shown == [
        ("ns/a", "big", 2, 150, 15, 2), ("ns/a", "small", 1, 7, 3, 1), ("other/b", "small", 1, 1, 1, 1),
    ]  # fmt: skip
    assert total == Used(4, 158, 19, 0, 0.75, 3), "a run of two models is one run"
    rows, _ = await usage.grouped(["user", "day"], Wanted(agent="ns/a"))
    assert [(row["user"], row["day"], row["cost"]) for row in rows] == [
        ("alice", "1970-01-11", 0.5), ("bob", "1970-01-12", 0.25),
    ]  # fmt: skip
    rows, total = await usage.grouped(["namespace"], Wanted(namespace="other", since=11 * DAY, until=12 * DAY))
    assert [row["namespace"] for row in rows] == ["other"] and total.runs == 1
    assert (await usage.grouped(["run"], Wanted(until=10.5 * DAY)))[0][0]["run"] == first["id"]
    assert [(row["step"], row["model"], row["input"]) for row in of_steps(await store.events(first))] == [
        (1, "big", 100), (3, "small", 7),
    ]  # fmt: skip

    again = await Again(store, database).retry(await store.run(first["id"]), 3, "alice")
    assert (await usage.grouped(["agent"], Wanted(run=again["id"])))[0] == [], "what is taken over was counted before"
    await Again(store, database).prune(clock.now + 1)
    assert (await usage.grouped([], Wanted(user="alice")))[1].runs == 2
    assert await usage.prune(clock.now) == 2 and (await usage.grouped([], Wanted(user="alice")))[1].runs == 1

    samples = {k: v for family in Exposition(registry.render().decode()).samples.values() for k, v in family.items()}
    assert samples['quarterdeck_runs_total{agent="ns/a",source="chat",outcome="completed",reason=""}'] == 1
    assert samples['quarterdeck_run_tokens_total{agent="ns/a",model="big",type="input"}'] == 150
    assert samples['quarterdeck_run_cost_total{agent="ns/a",model="big"}'] == 0.75
    assert samples['quarterdeck_run_step_duration_seconds_count{agent="ns/a",kind="tool",outcome="error"}'] == 1
    assert samples['quarterdeck_run_time_to_first_token_seconds_count{agent="ns/a",model="big"}'] == 1


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "cached_tokens": 3}, Tokens(5, 2, 3)),
        ({"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 1}, Tokens(5, 2, 1)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, Tokens(5, 0, 4)),
        ({"total_tokens": 9}, Tokens(9, 0, 0)),
        ({"prompt_tokens": "many", "completion_tokens": -1}, Tokens()),
        (None, Tokens()),
    ],
)
def test_tokens_have_one_form(usage: Any, tokens: Tokens) -> None:
    assert tokens_of(usage) == tokens


def test_what_an_agent_says_of_cost_is_bounded() -> None:
    assert cost_of(Tokens(1_000_000, 500_000), 2.0, 10.0) == 7.0
    for said in (float("nan"), float("inf"), -1, "lots", None):
        assert of_event({"cost": said, "model": "m" * 999, "usage": [1]}) == (
            "m" * 255, {"calls": 1, "input": 0, "output": 0, "cached": 0, "cost": 0.0},
        )  # fmt: skip


async def test_numbers_that_no_model_can_mean_do_not_keep_a_run_from_its_end(database: Database) -> None:
    store, usage = RunStore(database), Usage(database)
    await made(store, "ns/a", "alice", "t", *(asked(n, "m", 2**63, 2**62, 1e308) for n in range(3)), FINAL)
    assert (await store.run("t"))["state"] == "completed"
    _, total = await usage.grouped(["agent"], Wanted())
    assert (total.calls, total.input, total.cost) == (3, 3 * 10**12, 3e12)


async def test_an_answer_is_bounded_and_its_sum_is_of_all(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quarterdeck.server.usage._GROUPED", 2)
    store, usage = RunStore(database), Usage(database)
    for number in range(4):
        await made(store, "ns/a", "alice", f"t{number}", asked(1, "m", 10 + number, 1), FINAL)
    rows, total = await usage.grouped(["run"], Wanted())
    assert [row["input"] for row in rows] == [13, 12] and (total.input, total.runs) == (46, 4)
