"""What fires, fires once: schedules, Events and requests, by one control plane or two, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import base64
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.errors import ConfigError, Conflict, Forbidden
from quarterdeck.kube import resource as k
from quarterdeck.server.database import Database
from quarterdeck.server.runs_again import Again
from quarterdeck.server.runs_store import RunStore
from quarterdeck.server.triggers import Outcome, rules_of
from quarterdeck.server.triggers_store import KEPT, Firing, TriggerStore
from quarterdeck.translate.triggers import Input
from support.trigger_world import NOON, USER, Clock, Controller

HOUR = 3600.0
HOURLY = {"schedule": "0 * * * *"}


@pytest.fixture
async def two(database_url: str) -> AsyncIterator[tuple[Controller, Controller]]:
    """Two control planes that both think they lead: each has its own connections to one database."""
    clock = Clock()
    databases = [await Database.open(database_url) for _ in range(2)]
    yield Controller(databases[0], clock), Controller(databases[1], clock)
    for database in databases:
        await database.close()


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Controller]:
    database = await Database.open(str(tmp_path / "server.db"))
    yield Controller(database, Clock())
    await database.close()


async def fire(one: Controller, body: Any = None, key: str = "", name: str = "t") -> Outcome:
    given = Input({"body": body, "headers": {}}, body)
    return await one.engine.fire(one.triggers.get("kagent", name), given, key)


# -- schedules


async def test_a_schedule_starts_one_run_each_time_whoever_looks(two: tuple[Controller, Controller]) -> None:
    for each in two:
        each.trigger(cron=HOURLY)
        each.trigger("other", cron=HOURLY, suspend=True)
    for _ in range(4):
        await asyncio.gather(*(each.engine.look() for each in two for _ in range(2)))
        two[0].clock.now += HOUR
    runs = await two[0].all()
    assert len(runs) == 4
    assert {run["user_id"] for run in runs} == {USER} and {run["source"] for run in runs} == {"trigger:t"}
    assert [f["key"] for f in await two[1].store.history("uid-Trigger-kagent-t", 9)] == [
        f"cron/2026-06-01T{hour}:00:00Z" for hour in (15, 14, 13, 12)
    ]


async def test_many_requests_at_two_control_planes_start_one_run_each(two: tuple[Controller, Controller]) -> None:
    for each in two:
        each.trigger(webhook={"bearer": {"secretRef": {"name": "hook", "key": "key"}}}, rateLimit={"runs": 100})
    keys = [f"id/{n}" for n in range(6)] * 3
    came = await asyncio.gather(*(fire(two[n % 2], {"n": key}, key) for n, key in enumerate(keys)))
    assert sorted(each.outcome for each in came) == ["Duplicate"] * 12 + ["Started"] * 6
    assert len(await two[0].all()) == 6
    assert len({each.run for each in came}) == 6, "who comes second is told of the first one's run"


async def test_two_control_planes_keep_to_one_rate_and_one_run_at_a_time(two: tuple[Controller, Controller]) -> None:
    for each in two:
        hook = {"bearer": {"secretRef": {"name": "hook", "key": "key"}}}
        each.trigger(webhook=hook, rateLimit={"runs": 3, "per": "1m"})
        each.trigger("alone", webhook=hook, concurrencyPolicy="Forbid")
    came = await asyncio.gather(*(fire(two[n % 2], n) for n in range(10)))
    assert [each.outcome for each in came].count("Started") == 3
    assert {each.retry_after for each in came if each.outcome == "Limited"} == {60.0}
    two[0].clock.now += 61
    assert (await fire(two[1])).outcome == "Started"
    came = await asyncio.gather(*(fire(two[n % 2], n, name="alone") for n in range(6)))
    assert [each.outcome for each in came].count("Started") == 1
    await two[0].finish(await two[0].runs.run(next(each.run for each in came if each.run)))
    assert (await fire(two[1], name="alone")).outcome == "Started"


async def test_who_takes_over_makes_up_for_what_was_missed_by_policy(one: Controller) -> None:
    one.trigger(cron=HOURLY)
    one.trigger("all", cron=HOURLY | {"missedRunPolicy": "RunAll"})
    one.trigger("none", cron=HOURLY | {"missedRunPolicy": "Skip"})
    one.trigger("soon", cron=HOURLY | {"startingDeadlineSeconds": 600})
    await one.engine.look()
    assert len(await one.all()) == 4  # noon itself
    one.api.leads = False
    one.clock.now += 3 * HOUR + 1800
    await one.engine.look()
    assert len(await one.all()) == 4, "another one leads"
    one.api.leads = True
    await one.engine.look()
    await one.engine.look()
    count = {name: 0 for name in ("t", "all", "none", "soon")}
    for run in await one.all():
        count[run["source"].removeprefix("trigger:")] += 1
    assert count == {"t": 2, "all": 4, "none": 1, "soon": 1}
    numbers = await one.store.numbers()
    assert [numbers[f"uid-Trigger-kagent-{name}"]["skipped"] for name in count] == [2, 0, 3, 3]


async def test_a_changed_schedule_begins_anew_and_a_suspended_one_waits(one: Controller) -> None:
    one.trigger(cron={"schedule": "0 0 1 1 *"})
    await one.engine.look()
    one.trigger(cron={"schedule": "0 11 * * *"})  # an hour ago
    await one.engine.look()
    assert await one.all() == []
    one.trigger(cron=HOURLY, suspend=True)
    one.clock.now += 2 * HOUR
    await one.engine.look()
    assert await one.all() == []
    one.trigger(cron=HOURLY)
    await one.engine.look()
    one.clock.now += HOUR
    await one.engine.look()
    assert len(await one.all()) == 1


async def test_the_database_is_asked_when_something_is_due_only(one: Controller) -> None:
    one.trigger(cron=HOURLY)
    await one.engine.look()
    asked = one.api.asked
    for _ in range(5):
        one.clock.now += 60
        await one.engine.look()
    assert one.api.asked == asked and len(await one.all()) == 1


@pytest.mark.parametrize("moment", ["begin", "begun"])
async def test_a_control_plane_killed_while_it_fires_leaves_one_run(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "server.db"
    child = subprocess.run([sys.executable, "-c", _KILLED, str(path), moment], timeout=120, check=False)
    assert child.returncode == -signal.SIGKILL
    database = await Database.open(str(path))
    one = Controller(database, Clock())
    one.trigger(cron=HOURLY)
    assert len(await one.all()) == (1 if moment == "begun" else 0)
    await one.engine.look()
    runs = await one.all()
    assert len(runs) == 1 and len(await one.store.history("uid-Trigger-kagent-t", 9)) == 1
    await one.finish(runs[0])
    await database.close()


_KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, "tests")
from quarterdeck.server.database import Database
from support.trigger_world import Clock, Controller

async def main(path, moment):
    one = Controller(await Database.open(path), Clock())
    one.trigger(cron={"schedule": "0 * * * *"})
    real = getattr(one.runs, moment)
    def dies(*given):
        real(*given)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(one.runs, moment, dies)
    await one.engine.look()

asyncio.run(main(*sys.argv[1:]))
"""


# -- what holds for all


async def test_the_same_told_again_starts_nothing_for_a_while(one: Controller) -> None:
    hook = {"bearer": {"secretRef": {"name": "hook", "key": "key"}}}
    one.trigger(webhook=hook, deduplicate={"key": "body.id", "window": "10m"})
    first = await fire(one, {"id": 1})
    assert first.outcome == "Started"
    again = await fire(one, {"id": 1, "more": True})
    assert (again.outcome, again.run) == ("Deduplicated", first.run)
    assert (await fire(one, {"id": 2})).outcome == "Started"
    assert (await fire(one, {"none": 1})).outcome == (await fire(one, {"none": 1})).outcome == "Started"
    one.clock.now += 601
    assert (await fire(one, {"id": 1})).outcome == "Started"


async def test_replace_ends_what_goes_on(one: Controller) -> None:
    one.trigger(cron=HOURLY, concurrencyPolicy="Replace")
    await one.engine.look()
    await one.runs.claim("kagent/helper", "pod/boot", 9)
    one.clock.now += HOUR
    await one.engine.look()
    new, old = await one.all()
    assert (new["cancel"], old["cancel"]) == (0, 1)
    assert (await one.runs.events(old))[-1].data == {"by": "trigger kagent/t"}
    assert await one.runs.beat("kagent/helper", "pod/boot", {old["id"]: old["fence"]}) == ([], [old["id"]])
    assert [run["id"] for run, _ in await one.runs.claim("kagent/helper", "pod/boot", 9)] == [new["id"]]


async def test_what_ends_by_itself_while_it_is_replaced_is_no_obstacle(tmp_path: Path) -> None:
    """Where others write at the same time, as PostgreSQL lets them, it may have ended since it was looked for."""
    database = await Database.open(str(tmp_path / "server.db"))
    one = Controller(database, Clock())
    one.trigger(cron=HOURLY, concurrencyPolicy="Replace")

    class Late(RunStore):
        def end(self, connection: Any, number: int, by: str) -> Any:
            raise Conflict("it is completed already")

    await one.engine.look()
    one.engine.store = TriggerStore(database, Late(database, clock=one.clock.time), one.clock.time)
    one.clock.now += HOUR
    await one.engine.look()
    assert len(await one.all()) == 2
    await database.close()


async def test_a_dry_run_is_noted_down_and_starts_nothing(one: Controller) -> None:
    one.trigger(
        webhook={"bearer": {"secretRef": {"name": "hook", "key": "key"}}}, dryRun=True, message="see {{ body.n }}"
    )
    came = await fire(one, {"n": 7}, "id/1")
    assert came.outcome == "DryRun" and came.message.startswith("see 7\n")
    assert (await fire(one, {"n": 7}, "id/1")).outcome == "Duplicate"
    assert await one.all() == []
    noted = (await one.store.history("uid-Trigger-kagent-t", 9))[0]
    assert noted["outcome"] == "DryRun" and noted["message"] == came.message


async def test_a_rehearsal_leaves_no_trace(one: Controller) -> None:
    one.trigger(cron=HOURLY, rateLimit={"runs": 1})
    found = one.triggers.get("kagent", "t")
    for _ in range(2):
        assert (await one.engine.rehearse(found, Input())).outcome == "Started"
    assert await one.all() == [] and await one.store.numbers() == {}
    await one.engine.look()
    assert (await one.engine.rehearse(found, Input())).outcome == "Limited"


async def test_who_may_not_is_not_acted_for(one: Controller) -> None:
    one.trigger(cron=HOURLY)
    one.api.allowed.clear()
    with pytest.raises(Forbidden, match=f"{USER} may not create runs"):
        await fire(one)
    await one.engine.look()
    assert await one.all() == []
    one.clock.now += 60
    one.api.allowed.add((USER, "kagent", "runs"))
    await one.engine.look()
    assert len(await one.all()) == 1, "it is looked at again"


async def test_who_is_revoked_is_not_acted_for(one: Controller) -> None:
    one.trigger(cron=HOURLY)
    one.revoked = f"user {USER} is revoked"
    with pytest.raises(Forbidden, match="is revoked"):
        await fire(one)
    await one.engine.look()
    assert await one.all() == []
    one.revoked = ""
    one.clock.now += 11
    await one.engine.look()
    assert len(await one.all()) == 1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"agent": "elsewhere"}, "Agent kagent/elsewhere does not exist"),
        ({"agent": "other/helper"}, "Agent kagent/other/helper does not exist"),
        ({"serviceAccountName": "admin"}, "ServiceAccount kagent/admin does not exist"),
        ({"agent": "byo"}, "is of type BYO"),
    ],
)
async def test_nothing_of_another_namespace_is_used(one: Controller, spec: dict[str, str], said: str) -> None:
    one.put(k.AGENT, "elsewhere", {"type": "Declarative"}, "other")
    one.put(k.AGENT, "byo", {"type": "BYO"})
    one.put(k.SERVICE_ACCOUNT, "admin", namespace="other")
    one.trigger(cron=HOURLY, **spec)
    with pytest.raises(ConfigError, match=said):
        await fire(one)
    assert await one.all() == []


async def test_secrets_are_the_triggers_own(one: Controller) -> None:
    one.put(k.SECRET, "theirs", namespace="other", data={"key": "eA=="})
    one.trigger(webhook={"bearer": {"secretRef": {"name": "theirs", "key": "key"}}})
    with pytest.raises(ConfigError, match="Secret kagent/theirs does not exist"):
        await one.triggers.secret(one.triggers.get("kagent", "t"))


@pytest.mark.parametrize(
    ("data", "key"), [(b"text\n", b"text"), (b"text\r\n", b"text"), (b"\x20key\x0b ", b"\x20key\x0b ")]
)
async def test_the_line_end_of_a_file_is_no_part_of_a_key(one: Controller, data: bytes, key: bytes) -> None:
    one.put(k.SECRET, "hook", data={"key": base64.b64encode(data).decode()})
    one.trigger(webhook={"hmac": {"secretRef": {"name": "hook", "key": "key"}}})
    assert await one.triggers.secret(one.triggers.get("kagent", "t")) == key


# -- Events


async def test_events_start_runs_once_each_and_the_same_object_is_told_once(
    two: tuple[Controller, Controller],
) -> None:
    for each in two:
        each.trigger(kubernetesEvents={"kinds": ["Pod"], "reasons": ["BackOff"], "names": ["web-*"]})
        await each.engine.look()
        each.event("e1", 1)
        each.event("normal", type="Normal")
        each.event("other", reason="Pulled")
        each.event("elsewhere", namespace="other")
    await asyncio.gather(*(each.engine.look() for each in two))
    assert len(await two[0].all()) == 1
    for each in two:
        each.event("e1", 2)  # again, within the window
        about = {"kind": "Pod", "namespace": "kagent", "name": "web-2"}
        each.event("e2", 1, involvedObject=about)
    await asyncio.gather(*(each.engine.look() for each in two))
    assert len(await two[0].all()) == 2
    two[0].clock.now += 601
    for each in two:
        each.event("e1", 3)
    await asyncio.gather(*(each.engine.look() for each in two))
    assert len(await two[0].all()) == 3
    assert '"reason":"BackOff"' in await two[0].message((await two[0].all())[0])


async def test_events_of_before_are_not_looked_at_and_those_of_a_pause_are(one: Controller) -> None:
    one.event("old", lastTimestamp="2026-06-01T11:00:00Z")
    one.trigger(kubernetesEvents={"kinds": ["Pod"]}, deduplicate={"window": "0s"})
    await one.engine.look()
    assert await one.all() == []
    one.api.leads = False
    one.clock.now += 1200
    one.event("meanwhile")
    await one.engine.look()
    assert await one.all() == []
    one.api.leads = True
    await one.engine.look()
    await one.engine.look()
    assert len(await one.all()) == 1


async def test_events_of_other_namespaces_count_where_the_identity_may_see_them(one: Controller) -> None:
    one.put(k.NAMESPACE, "shop", namespace="", labels={"watch": "yes"})
    one.put(k.NAMESPACE, "bank", namespace="", labels={"watch": "yes"})
    selector = {"matchLabels": {"watch": "yes"}}
    one.trigger(kubernetesEvents={"namespaceSelector": selector}, deduplicate={"window": "0s"})
    one.api.allowed.add((USER, "shop", "events"))
    await one.engine.look()
    for namespace in ("shop", "bank", "kagent"):
        one.event("e", namespace=namespace)
    await one.engine.look()
    runs = await one.all()
    assert len(runs) == 1 and '"namespace":"shop"' in await one.message(runs[0])


async def test_an_event_that_could_not_fire_is_tried_again(one: Controller) -> None:
    one.trigger(kubernetesEvents={"kinds": ["Pod"]})
    one.trigger("other", kubernetesEvents={"reasons": ["Killed"]})
    await one.engine.look()
    one.api.allowed.clear()
    one.clock.now += 20
    one.event("e1")
    await one.engine.look()
    assert await one.all() == []
    one.api.allowed.add((USER, "kagent", "runs"))
    one.clock.now += 11
    one.event("e2", involvedObject={"kind": "Pod", "namespace": "kagent", "name": "web-2"})
    await one.engine.look()
    assert len(await one.all()) == 2
    await one.engine.look()
    assert len(await one.all()) == 2


async def test_events_that_no_trigger_looks_for_cost_the_database_nothing(one: Controller) -> None:
    one.trigger(kubernetesEvents={"kinds": ["Pod"]})
    await one.engine.look()
    since = (await one.store.numbers())["uid-Trigger-kagent-t"]["since"]
    one.clock.now += 1
    one.event("node", involvedObject={"kind": "Node", "name": "n"})
    await one.engine.look()
    assert (await one.store.numbers())["uid-Trigger-kagent-t"]["since"] == since


async def test_who_leads_no_more_is_not_kept_busy_by_events(one: Controller) -> None:
    one.trigger(kubernetesEvents={"kinds": ["Pod"]})
    await one.engine.look()
    one.api.leads = False
    one.event("e")
    assert one.triggers.on_event.is_set()
    await one.engine.look()
    assert not one.triggers.on_event.is_set()


# -- resources of MCP servers


async def test_a_resource_that_changes_back_is_another_one_then(one: Controller) -> None:
    """What ``when`` filters is seen, too: else the first alarm, and one that is as the last, would be no change."""
    one.put(k.MCP_SERVER, "m", {})
    one.put(k.AGENT, "helper", {"type": "Declarative", "declarative": {"tools": [{"mcpServer": {"name": "m"}}]}})
    watched = {"server": {"name": "m"}, "uris": ["memo://one"]}
    one.trigger(mcpResources=watched, when="resource.text == 'alarm'", deduplicate={"window": "0s"})
    found = one.triggers.get("kagent", "t")

    async def looked(text: str) -> str:
        given = Input({"resource": {"text": text}}, {"text": text}, "memo://one")
        return (await one.engine.fire(found, given, content=("memo://one", text))).outcome

    said = [await looked(text) for text in ("calm", "alarm", "alarm", "calm", "alarm")]
    assert said == ["Filtered", "Started", "Duplicate", "Filtered", "Started"]


# -- what is kept


async def test_journals_beyond_the_limits_go_and_firings_stay(one: Controller) -> None:
    one.trigger(cron=HOURLY)
    for n in range(6):
        await one.engine.look()
        await one.finish((await one.all())[0], "failed" if n % 2 else "completed")
        one.clock.now += HOUR
    found = one.triggers.get("kagent", "t")
    again = (await one.all())[-1]  # the oldest; somebody made it again
    await Again(one.runs, one.runs.database).retry(again, 1, "root")
    conversations = (await one.runs.database.count())["sessions"]
    assert await one.store.prune(found.uid, 2, 1) == 3
    assert (await one.runs.database.count())["sessions"] == conversations - 2, "that of the retried run is kept"
    assert sorted(run["state"] for run in await one.all()) == ["completed", "completed", "failed", "pending"]
    history = await one.store.history(found.uid, 99)
    assert len(history) == 6 and sum(firing["state"] is None for firing in history) == 3
    one.clock.now += KEPT
    await one.store.forget([found.uid])
    assert await one.store.history(found.uid, 99) == [] and found.uid in await one.store.numbers()
    await one.store.forget([])
    assert await one.store.numbers() == {}


async def test_a_run_that_waits_for_a_month_goes_on_still(one: Controller) -> None:
    one.trigger(webhook={"bearer": {"secretRef": {"name": "hook", "key": "key"}}}, concurrencyPolicy="Forbid")
    assert (await fire(one)).outcome == "Started"
    one.clock.now += KEPT + 1
    await one.engine.look()
    assert (await fire(one)).outcome == "Forbidden"
    await one.finish((await one.all())[0])
    one.clock.now += 60
    await one.engine.look()
    assert await one.store.history("uid-Trigger-kagent-t", 9) == []


async def test_statuses_and_metrics_say_what_the_database_does(one: Controller) -> None:
    one.trigger(webhook={"bearer": {"secretRef": {"name": "hook", "key": "key"}}}, rateLimit={"runs": 2})
    came = [await fire(one, n) for n in range(4)]
    await one.engine.tell()
    facts = one.triggers.facts("uid-Trigger-kagent-t")
    assert (facts.active, facts.started, facts.limited, facts.last_at) == (2, 2, 2, NOON)
    assert (facts.last_outcome, facts.last_run) == ("Limited", came[1].run)
    text = one.registry.render().decode()
    assert 'quarterdeck_trigger_firings_total{trigger="kagent/t",source="webhook",outcome="Limited"} 2' in text


async def test_a_status_says_what_it_said_until_the_database_was_asked(one: Controller) -> None:
    one.trigger(cron=HOURLY)
    before = {"started": 7, "limited": 2, "skipped": 1, "lastRun": "r7", "lastFiringTime": "2026-06-01T11:00:00Z"}
    one.put(k.TRIGGER, "t", one.triggers.object("kagent", "t")["spec"], status=before)  # type: ignore[index]
    assert (await one.status()).items() >= before.items()
    await one.engine.tell()
    assert (await one.status())["started"] == 0
    one.api.leads = False
    await one.engine.look()
    assert one.triggers.facts("uid-Trigger-kagent-t") is None, "another one writes it down now"


async def test_what_is_known_of_a_trigger_outlives_a_mistake_in_it(one: Controller) -> None:
    one.trigger(cron={"schedule": "0 0 1 1 *"})
    await one.engine.look()
    one.trigger(cron={"schedule": "* *"})
    one.clock.now += 2 * HOUR
    await one.engine.look()
    assert "uid-Trigger-kagent-t" in await one.store.numbers()
    one.trigger(cron={"schedule": "30 13 * * *"})
    await one.engine.look()
    assert await one.all() == [], "a changed schedule begins anew"


async def test_an_agent_that_sleeps_is_woken(one: Controller) -> None:
    one.trigger(cron=HOURLY)
    await one.engine.look()
    assert one.woken == ["kagent/helper"]


async def test_a_firing_and_its_run_are_one(tmp_path: Path) -> None:
    """When the run cannot be begun, the firing is not noted down either."""
    database = await Database.open(str(tmp_path / "server.db"))
    one = Controller(database, Clock())
    one.trigger(cron=HOURLY)

    class Full(RunStore):
        def begin(self, *given: Any, **more: Any) -> Any:
            super().begin(*given, **more)
            raise OSError("no space left on device")

    store = TriggerStore(database, Full(database), one.clock.time)
    found = one.triggers.get("kagent", "t")
    _, firing = await one.engine._prepared(found, Input(), "k", "", NOON)  # pyright: ignore[reportPrivateUsage]
    assert isinstance(firing, Firing)
    with pytest.raises(OSError, match="no space"):
        await store.fire(rules_of(found), firing)
    assert await one.all() == [] and await one.store.numbers() == {}
    await one.engine.look()
    assert len(await one.all()) == 1
    await database.close()
