"""The journal in the database, SQLite and PostgreSQL: one order, one holder, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from weakref import ref

import pytest

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.errors import BadRequest, ConfigError, Conflict, NotFound
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.resource import CRD, RUN
from quarterdeck.resources.crd import crds
from quarterdeck.server.database import Database
from quarterdeck.server.runs_again import Again
from quarterdeck.server.runs_mirror import RunMirror
from quarterdeck.server.runs_retention import seconds_of
from quarterdeck.server.runs_store import LEASE, Draft, NewRun, RunStore, Stale
from quarterdeck.snapshot.permits import Verifier

MESSAGE = {"parts": [{"text": "hello"}]}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(database: Database, clock: Clock) -> RunStore:
    made = RunStore(database, lambda agent: agent == "ns/a", clock=clock, monotonic=clock)
    await made.open()
    return made


def new(number: int = 1, replica: str = "p1/x", session: str = "s", agent: str = "ns/a") -> NewRun:
    return NewRun(agent, "alice", session, f"task-{agent}-{number}-{session}", MESSAGE, replica=replica)


INTENT = Draft("tool.intent", 2, {"tool": "note", "server": "ns/s", "hash": "sha256:00", "attempt": 1})


async def test_a_message_begins_one_run_however_often_it_comes(store: RunStore) -> None:
    one = replace(new(), before="task-before")
    at_once = [replace(one, replica=f"p{n}/x", session=f"s{n}") for n in range(4)]
    made = await asyncio.gather(*(store.create(each) for each in at_once))
    assert len({run["id"] for run, _ in made}) == 1 and sum(leased for _, leased in made) == 1
    run = made[0][0]
    again, leased = await store.create(replace(one, replica=run["holder"]))
    assert again["id"] == run["id"] and leased, "the answer to who has it was lost"
    later, leased = await store.create(replace(new(2), replica="p9/x", before=one.task))
    assert later["id"] == run["id"] and not leased, "in the next window of time"
    with pytest.raises(Conflict, match="somebody else's"):
        await store.create(replace(one, user="bob"))
    assert len(await store.select()) == 1


async def test_a_summary_shows_the_beginning_of_a_message_and_the_journal_has_it_all(store: RunStore) -> None:
    text = "x" * 100_000
    run, _ = await store.create(replace(new(), message={"parts": [{"text": text}]}))
    assert len(run["summary"]) < 2000 and "xxx" in run["summary"]
    assert (await store.events(run))[0].data["message"]["parts"] == [{"text": text}]


async def test_events_have_one_order_and_a_batch_is_written_once(store: RunStore) -> None:
    run, leased = await store.create(new())
    assert leased and run["fence"] == 1
    first = await store.append("ns/a", run["id"], 1, "b1", [Draft("model.intent", 1), INTENT])
    again = await store.append("ns/a", run["id"], 1, "b1", [Draft("model.intent", 1), INTENT])
    assert (first.first, first.at) == (again.first, again.at) == (3, 1000.0)
    assert [e.kind for e in await store.events(run)] == ["created", "leased", "model.intent", "tool.intent"]
    both = await asyncio.gather(
        *(store.append("ns/a", run["id"], 1, f"c{n}", [Draft("note", 0, {"n": n})]) for n in range(8))
    )
    assert sorted(w.first for w in both) == list(range(5, 13))
    assert [e.seq for e in await store.events(run, after=3, limit=2)] == [4, 5]
    assert (await store.run(run["task_id"], "ns/a"))["seq"] == 12


async def test_an_intent_is_answered_with_a_permit_that_the_gateway_can_check(store: RunStore) -> None:
    run, _ = await store.create(new())
    written = await store.append("ns/a", run["id"], 1, "b", [Draft("model.intent", 1), INTENT])
    permit = Verifier((await store.open(),)).open(written.permits[2], 1000.0)
    assert (permit.run, permit.step, permit.fence, permit.agent, permit.tool) == (run["id"], 2, 1, "ns/a", "note")
    assert permit.expires == 1030.0 and list(written.permits) == [2]
    other, _ = await store.create(new(agent="ns/byo"))
    assert not (await store.append("ns/byo", other["id"], 1, "b", [INTENT])).permits, "gateways do not ask for it"


async def test_a_step_starts_once_under_the_fence_of_its_intent(store: RunStore) -> None:
    run, _ = await store.create(new())
    ident = run["id"]
    with pytest.raises(Stale, match="no open intent"):
        await store.start(ident, 2, 1, 1, "gw")
    await store.append("ns/a", ident, 1, "b", [INTENT])
    with pytest.raises(Stale, match="no open intent number 2"):
        await store.start(ident, 2, 1, 2, "gw")
    await store.start(ident, 2, 1, 1, "gw", "k1")
    await store.start(ident, 2, 1, 1, "gw", "k1")  # the answer to the first was lost
    with pytest.raises(Stale, match="started already"):
        await store.start(ident, 2, 1, 1, "gw", "k2")
    await store.append("ns/a", ident, 1, "c", [Draft("tool.result", 2, {"message": {"content": "x"}})])
    with pytest.raises(Stale):
        await store.start(ident, 2, 1, 1, "gw", "k1")
    with pytest.raises(Stale, match="fence"):
        await store.start(ident, 2, 9, 1, "gw")
    assert [e.kind for e in await store.events(run)].count("tool.started") == 1


async def test_a_lease_lapses_by_silence_and_the_fence_keeps_the_old_holder_out(store: RunStore, clock: Clock) -> None:
    run, _ = await store.create(new())
    assert await store.claim("ns/a", "p2/y", 9) == [], "it was seen for the first time"
    clock.now += LEASE / 2
    assert await store.beat("ns/a", "p1/x", {run["id"]: 1}) == ([], [])
    clock.now += LEASE - 1
    assert await store.claim("ns/a", "p2/y", 9) == [], "there was a sign of life"
    clock.now += LEASE
    [(taken, events)] = await store.claim("ns/a", "p2/y", 9)
    assert taken["fence"] == 2 and events[-1].data == {"replica": "p2/y"}
    with pytest.raises(Stale):
        await store.append("ns/a", run["id"], 1, "late", [Draft("note", 0)])
    assert await store.beat("ns/a", "p1/x", {run["id"]: 1}) == ([run["id"]], [])
    [(back, _)] = await store.claim("ns/a", "p2/z", 9)
    assert back["fence"] == 3, "an earlier process of the same Pod is gone for certain"
    await store.release("ns/a", run["id"], 3)
    assert [row["fence"] for row, _ in await store.claim("ns/a", "p1/x", 9)] == [4]


async def test_a_control_plane_that_was_restarted_gives_holders_time(database: Database, clock: Clock) -> None:
    run, _ = await RunStore(database, clock=clock, monotonic=clock).create(new())
    clock.now += 10 * LEASE
    again = RunStore(database, clock=clock, monotonic=clock)
    assert await again.claim("ns/a", "p2/y", 9) == []
    assert (await again.run(run["id"]))["fence"] == 1


async def test_two_replicas_never_get_the_same_run(store: RunStore) -> None:
    for number in range(6):
        await store.create(new(number, replica="", session=f"s{number}"))
    found = await asyncio.gather(*(store.claim("ns/a", f"p{n}/x", 6) for n in range(4)))
    taken = [row["id"] for claimed in found for row, _ in claimed]
    assert len(taken) == len(set(taken)) == 6


async def test_runs_of_a_session_take_turns(store: RunStore) -> None:
    first, leased = await store.create(new(1))
    second, waits = await store.create(new(2))
    assert leased and not waits and second["state"] == "pending"
    assert await store.claim("ns/a", "p2/y", 9) == []
    await store.append("ns/a", first["id"], 1, "b", [Draft("final", 0, {"state": "completed"})])
    assert [row["id"] for row, _ in await store.claim("ns/a", "p2/y", 9)] == [second["id"]]


async def test_a_run_waits_is_answered_and_canceled(store: RunStore) -> None:
    run, _ = await store.create(new())
    waiting = {"reason": "unknown_outcome", "question": {}, "parts": []}
    await store.append("ns/a", run["id"], 1, "b", [INTENT, Draft("waiting", 2, waiting)])
    assert (await store.run(run["id"]))["state"] == "waiting" and await store.claim("ns/a", "p2/y", 9) == []
    with pytest.raises(Conflict, match="waits for step 2"):
        await store.answer(run["id"], 3, {}, "bob")
    await store.answer(run["id"], 2, {"action": "skip"}, "bob")
    with pytest.raises(Conflict):
        await store.answer(run["id"], 2, {"action": "skip"}, "bob")
    [(taken, events)] = await store.claim("ns/a", "p2/y", 9)
    assert events[-2].data == {"action": "skip", "by": "bob"}
    await store.cancel(run["id"], "bob")
    assert await store.beat("ns/a", "p2/y", {run["id"]: taken["fence"]}) == ([], [run["id"]])
    with pytest.raises(Stale, match="canceled"):
        await store.start(run["id"], 2, taken["fence"], 1, "gw")
    await store.append("ns/a", run["id"], taken["fence"], "c", [Draft("final", 0, {"state": "canceled"})])
    with pytest.raises(Conflict, match="canceled already"):
        await store.cancel(run["id"], "bob")


async def test_the_id_of_a_run_is_never_anothers_task(store: RunStore) -> None:
    run, _ = await store.create(new(agent="ns/victim"))
    await store.create(replace(new(agent="ns/b"), task=run["id"]))
    await store.append("ns/victim", run["id"], 1, "b", [Draft("note", 0)])  # PostgreSQL moves what is changed
    first, _ = await store.create(new(3, session="s3"))
    second, _ = await store.create(replace(new(agent="ns/b", session="s2"), task=first["task_id"]))
    assert (await store.run(run["id"]))["agent"] == "ns/victim"
    assert (await store.run(run["id"], "ns/b"))["task_id"] == run["id"]
    assert (await store.run(first["task_id"]))["id"] == first["id"] != second["id"], "the older one"


async def test_who_looks_at_a_run_leaves_nothing_behind(store: RunStore) -> None:
    run, _ = await store.create(new())
    news = store.changed(run["id"])
    assert store.changed(run["id"]) is news, "all who wait are told by one"
    await store.append("ns/a", run["id"], 1, "b", [Draft("note", 0)])
    assert news.is_set()
    gone = ref(store.changed(run["id"]))
    assert gone() is None


async def test_what_an_agent_may_not_write(store: RunStore) -> None:
    run, _ = await store.create(new())
    for kind in ("answer", "cancel", "tool.started", "created", "leased", "x"):
        with pytest.raises(BadRequest, match="may not write"):
            await store.append("ns/a", run["id"], 1, "b", [Draft(kind)])
    with pytest.raises(NotFound):
        await store.append("ns/b", run["id"], 1, "b", [Draft("note")])
    with pytest.raises(BadRequest, match="larger"):
        await store.append("ns/a", run["id"], 1, "b", [Draft("note", 0, {"x": "x" * 5_000_000})])
    with pytest.raises(BadRequest, match="state"):
        await store.append("ns/a", run["id"], 1, "b", [Draft("final", 0, {"state": "fine"})])
    assert [e.kind for e in await store.events(run)] == ["created", "leased"]


async def test_a_retry_that_fails_takes_nothing_out_of_the_conversation(store: RunStore, database: Database) -> None:
    run, _ = await store.create(new())
    said = Draft("model.result", 1, {"message": {"role": "assistant", "content": "hi"}, "usage": {}})
    await store.append("ns/a", run["id"], 1, "b", [said, Draft("final", 0, {"state": "completed", "text": "hi"})])
    before = await database.list_events("ns/a", "alice", "s", limit=-1, ascending=True)

    def full(row: object, events: object) -> None:
        raise OSError("no space left on device")

    store.wrote = full
    with pytest.raises(OSError, match="no space"):
        await Again(store, database).retry(await store.run(run["id"]), 1, "root")
    assert await database.list_events("ns/a", "alice", "s", limit=-1, ascending=True) == before != []
    store.wrote = None
    again = await Again(store, database).retry(await store.run(run["id"]), 1, "root")
    kept = await database.list_events("ns/a", "alice", "s", limit=-1, ascending=True)
    assert {event["id"].partition("/")[0] for event in kept} == {again["id"]}


async def test_what_is_said_is_in_the_conversation(store: RunStore, database: Database) -> None:
    run, _ = await store.create(new())
    said = {"message": {"role": "assistant", "content": "hi"}, "usage": {"prompt_tokens": 2}, "calls": []}
    await store.append("ns/a", run["id"], 1, "b", [Draft("model.result", 1, said)])
    kept = await database.list_events("ns/a", "alice", "s", limit=-1, ascending=True)
    assert [event["id"] for event in kept[-2:]] == [f"{run['id']}/1", f"{run['id']}/3"]
    assert '"hello"' in kept[-2]["data"] and '"hi"' in kept[-1]["data"]


@pytest.mark.parametrize(("text", "seconds"), [("30d", 2592000.0), ("12h", 43200.0), ("0", 0.0), ("90", 90.0)])
def test_retention_is_a_duration(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


def test_a_retention_that_is_none_names_its_variable() -> None:
    with pytest.raises(ConfigError, match="QUARTERDECK_RUN_RETENTION"):
        seconds_of("soon")


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[KubeClient]:
    """An API server that knows our definitions."""
    api = ApiServer(ApiServerConfig(tmp_path / "home", port=0))
    await api.start()
    config = api.client_config("admin")
    client = KubeClient(ClientConfig("http://localhost", token=config["token"], unix_socket=str(api.unix_socket)))
    definition = next(document for document in crds() if document["spec"]["names"]["kind"] == "Run")
    await client.apply(CRD, definition)
    yield client
    await client.close()
    await api.stop()


async def test_runs_in_the_background_are_objects_for_kubectl(tmp_path: Path, clock: Clock, kube: KubeClient) -> None:
    """Against a real API server: written, brought up to date, put right, and taken away."""
    opened = await Database.open(str(tmp_path / "runs.db"))
    store = RunStore(opened, clock=clock, monotonic=clock)
    agent = "default/a"
    row, _ = await store.create(NewRun(agent, "bob", "s9", "t9", MESSAGE, source="background"))
    await store.create(new())
    mirror = RunMirror(kube, store)
    await mirror.settle()
    [copy] = (await kube.list(RUN, None)).items
    assert copy["spec"] == {"agent": "a", "user": "bob", "source": "background", "message": "hello"}
    assert copy["status"]["phase"] == "Pending" and copy["status"]["run"] == row["id"]
    [(taken, _)] = await store.claim(agent, "p/x", 1)
    end = Draft("final", 0, {"state": "failed", "reason": "budget_exceeded"})
    await store.append(agent, row["id"], taken["fence"], "b", [end])
    await mirror.look()
    [copy] = (await kube.list(RUN, None)).items
    assert (copy["status"]["phase"], copy["status"]["reason"]) == ("Failed", "budget_exceeded")
    assert copy["status"]["endedAt"]
    forged = {"metadata": {"name": "forged", "namespace": "default"}, "spec": {"agent": "a"}}
    await kube.apply(RUN, forged)
    await kube.apply(RUN, {"metadata": copy["metadata"] | {"managedFields": None}, "spec": {"agent": "other"}})
    await mirror.settle()
    [copy] = (await kube.list(RUN, None)).items
    assert copy["spec"]["agent"] == "a", "one was taken away, one put right"
    await opened.close()
