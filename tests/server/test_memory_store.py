"""Memory in the database: SQLite, PostgreSQL as it is, and PostgreSQL with pgvector."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from quarterdeck.agents.memory.offline import embed
from quarterdeck.errors import BadRequest, NotFound
from quarterdeck.server.database import Database
from quarterdeck.server.memory_store import TTL, USED_OFTEN, MemoryStore, New, Owner, Question
from support.databases import Servers, fresh

ALICE, BOB = Owner("ns/a", "alice"), Owner("ns/a", "bob")
OTHER = Owner("ns/b", "alice")
FACTS = [
    "User prefers dark mode in all editors",
    "The production cluster runs in eu-west-1 on Kubernetes 1.31",
    "Alice's favourite colour is teal",
    "The deployment window is Friday at 17:00",
    "The user's dog is called Biscuit",
    "Database backups are stored in the S3 bucket acme-backups",
    "Bob is allergic to peanuts",
    "The on-call engineer this week is Dana",
    "Use metric units in all answers",
    "The staging database password rotates every 30 days",
    "東京オフィスは月曜日が休みです",
]


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow), "pgvector"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path, postgres_servers: Servers) -> str:
    found = str(tmp_path / "server.db")
    return found if request.param == "sqlite" else await fresh(postgres_servers.url(request.param))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(database: Database, clock: Clock) -> MemoryStore:
    made = MemoryStore(database, clock=clock, most=20)
    await made.open()
    return made


def new(content: str, dimensions: int = 256, model: str = "m") -> New:
    return New(content, embed(content, dimensions), model)


def asked(question: str, dimensions: int = 256, model: str = "m", **more: Any) -> Question:
    return Question(question, embed(question, dimensions), model, **more)


async def texts(store: MemoryStore, owner: Owner, question: Question) -> list[str]:
    return [row["content"] for row in await store.search(owner, question)]


QUESTIONS = [
    ("which region is our cluster in?", 1),
    ("what colour do I like?", 2),
    ("when can we deploy?", 3),
    ("what's my dog's name", 4),
    ("where are backups of the database kept", 5),
    ("can Bob eat peanut butter?", 6),
    ("who is on call", 7),
    ("which units do you answer in?", 8),
    ("the paswords of stagings", 9),
    ("東京オフィス", 10),
]


async def test_what_belongs_to_a_question_is_found_first(store: MemoryStore) -> None:
    await store.save(ALICE, [new(fact) for fact in FACTS])
    for question, fact in QUESTIONS:
        for way in (asked(question), Question(question), Question("", embed(question, 256), "m")):
            if way.vector is None and fact == 9:
                continue  # misspelt: only its letters are near
            found = await texts(store, ALICE, way)
            assert found[:1] == [FACTS[fact]], (question, way)
    long = (
        "Hello! I hope you are well. Before we begin with the plan of next year, could you tell me "
        "when the next deployment window is, please, and anything else that I should know about it?"
    )
    assert (await texts(store, ALICE, asked(long, least=0.3)))[:1] == [FACTS[3]]
    for nothing in ("what is the weather in Paris today", "please write a poem about the sea", "?!", ""):
        assert await texts(store, ALICE, asked(nothing or " ", least=0.3)) == []
    best = (await store.search(ALICE, asked(FACTS[2])))[0]
    assert best["score"] == pytest.approx(1.0, abs=1e-5) and best["user_id"] == "alice"


async def test_nobody_finds_what_is_anothers(store: MemoryStore) -> None:
    ids = {owner: (await store.save(owner, [new(f"the secret of {owner.user} is {owner.agent}")]))[0]
           for owner in (ALICE, BOB, OTHER)}  # fmt: skip
    for owner in ids:
        assert await texts(store, owner, asked("the secret")) == [f"the secret of {owner.user} is {owner.agent}"]
    assert await store.embed(BOB, "m", {ids[ALICE]: [1.0, 0.0]}) == 0
    assert await store.forget("ns/a", "alice") == 1
    assert await texts(store, ALICE, asked("the secret")) == []
    assert len(await store.list("ns/a")) == 1 and len(await store.list()) == 2
    assert [row["user_id"] for row in await store.list(user="alice")] == ["alice"]
    await store.delete(ids[BOB])
    with pytest.raises(NotFound, match="qd memory list"):
        await store.delete(ids[BOB])
    with pytest.raises(NotFound):
        await store.get(ids[BOB])


async def test_memories_expire_unless_they_are_used(store: MemoryStore, clock: Clock) -> None:
    await store.save(ALICE, [new(FACTS[0]), new(FACTS[2])])
    for _ in range(USED_OFTEN):
        assert await texts(store, ALICE, asked("dark mode", least=0.3)) == [FACTS[0]]
        clock.now += TTL / 20
    clock.now = 1_000_000.0 + TTL
    assert await texts(store, ALICE, asked("favourite colour of Alice dark mode")) == [FACTS[0]]
    assert [row["content"] for row in await store.list("ns/a", "alice")] == [FACTS[0]]
    assert await store.prune() == 1
    clock.now += TTL
    assert await store.search(ALICE, asked("dark mode")) == [] and await store.prune() == 1


async def test_vectors_of_several_lengths_live_side_by_side(store: MemoryStore) -> None:
    await store.save(ALICE, [new(FACTS[4], 256, "old")])
    await store.save(ALICE, [new(FACTS[2], 64, "new")])
    assert await texts(store, ALICE, Question("", embed("the dog Biscuit", 64), "new", least=0.3)) == []
    assert await texts(store, ALICE, asked("the dog Biscuit", 64, "new", least=0.3)) == [FACTS[4]]
    (stale,) = await store.stale(ALICE, "new", 64, 10)
    assert stale["content"] == FACTS[4]
    assert await store.embed(ALICE, "new", {stale["id"]: embed(FACTS[4], 64), "nobody": [1.0]}) == 1
    assert await store.stale(ALICE, "new", 64, 10) == []
    assert await texts(store, ALICE, Question("", embed("the dog Biscuit", 64), "new", least=0.3)) == [FACTS[4]]


async def test_the_same_is_kept_once_and_lives_on(store: MemoryStore, clock: Clock) -> None:
    (first,) = await store.save(ALICE, [New(FACTS[0])])
    clock.now += TTL - 1
    again = await asyncio.gather(*(store.save(ALICE, [new(f" {FACTS[0].upper()} ")]) for _ in range(4)))
    assert again == [[first]] * 4
    clock.now += TTL - 1
    assert await texts(store, ALICE, Question("", embed("dark mode", 256), "m")) == [FACTS[0]]


async def test_a_conversation_is_saved_once_up_to_each_message(store: MemoryStore) -> None:
    saved = [
        await store.save(ALICE, [new(FACTS[n])], session="s1", turns=turns) for n, turns in enumerate((5, 5, 4, 10))
    ]
    assert [len(ids) for ids in saved] == [1, 0, 0, 1]
    assert await store.progress(ALICE, "s1") == 10 and await store.progress(BOB, "s1") == 0
    together = await asyncio.gather(*(store.save(ALICE, [new(FACTS[4])], session="s2", turns=5) for _ in range(3)))
    assert sorted(len(ids) for ids in together) == [0, 0, 1]


async def test_what_was_said_before_is_not_learned_again_once_it_is_forgotten(
    store: MemoryStore, database: Database
) -> None:
    for session, user, count in (("s1", "alice", 3), ("s2", "alice", 1), ("s3", "bob", 2)):
        for run in range(count):
            for number in (1, 2):
                await database.append_event("ns/a", user, session, f"run-{run}/{number}", "{}")
    await store.save(ALICE, [new("a secret")], session="s1", turns=1)
    assert await store.forget("ns/a", "alice") == 1
    assert await store.save(ALICE, [new("a secret")], session="s1", turns=3) == []
    assert len(await store.save(ALICE, [new("said later")], session="s1", turns=4)) == 1
    assert [await store.progress(ALICE, s) for s in ("s1", "s2")] == [4, 1] and await store.progress(BOB, "s3") == 0
    (kept,) = await store.save(BOB, [new("of Bob")])
    await store.delete(kept)
    assert await store.progress(BOB, "s3") == 2 and await store.list("ns/a", "bob") == []


async def test_there_is_room_for_so_many_and_the_least_used_go(store: MemoryStore) -> None:
    await store.save(ALICE, [new("number zero is used")])
    assert await store.search(ALICE, asked("zero"))
    await store.save(ALICE, [new(f"fact {n}") for n in range(25)])
    await store.save(BOB, [new("of Bob")])
    kept = {row["content"] for row in await store.list("ns/a", "alice")}
    assert kept == {"number zero is used", *(f"fact {n}" for n in range(6, 25))}
    assert len(await store.list("ns/a", "bob")) == 1


async def test_what_is_new_has_time_to_be_used(store: MemoryStore) -> None:
    await store.save(ALICE, [new(f"fact {n}") for n in range(20)])
    for number in range(20):
        assert await store.search(ALICE, asked(f"fact {number}", limit=20))
    await store.save(ALICE, [new("the latest news")])
    assert "the latest news" in await texts(store, ALICE, asked("latest news"))
    assert len(await store.list("ns/a", "alice")) == 20


async def test_odd_texts_and_vectors(store: MemoryStore) -> None:
    odd = ['a "quoted" AND OR NEAR( x* -y', "scope:s1 terms", "🎉🎉", "%_\\", "ß ﬀ É"]
    await store.save(ALICE, [new(text) for text in odd])
    for one in odd:
        assert one in await texts(store, ALICE, asked(one)), one
    for vector in ([0.0, 0.0], [1e300, 1e300], [float("inf"), 1.0]):
        with pytest.raises(BadRequest, match="direction"):
            await store.save(ALICE, [New("x", vector)])
        assert await store.search(ALICE, Question("", vector)) == []


async def test_memories_of_before_pgvector_came_are_indexed(postgres_servers: Servers, clock: Clock) -> None:
    database = await Database.open(await fresh(postgres_servers.url("pgvector")))
    plain = MemoryStore(database, clock=clock)  # not opened: it does not know the extension
    await plain.save(ALICE, [new(FACTS[4])])
    opened = MemoryStore(database, clock=clock)
    await opened.open()
    await plain.save(ALICE, [new(FACTS[2])])
    await opened.prune()
    question = Question("", embed("the dog Biscuit", 256), "m")
    assert await texts(opened, ALICE, question) == [FACTS[4], FACTS[2]]
    rows = await database.rows(text("SELECT vector_dims(embedding) AS n FROM memory_vectors"))
    assert [row["n"] for row in rows] == [256, 256]
    await opened.forget("ns/a")
    assert await database.rows(text("SELECT 1 FROM memory_vectors")) == []
    await database.close()


async def test_a_postgresql_without_pgvector_is_named(
    postgres_servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    database = await Database.open(await fresh(postgres_servers.url("postgresql")))
    store = MemoryStore(database)
    await store.open()
    assert store._pgvector or ("no pgvector" in caplog.text and "vector" in caplog.text.partition("no pgvector")[2])
    await store.save(ALICE, [new(fact) for fact in FACTS])
    for question, fact in QUESTIONS:
        assert (await texts(store, ALICE, asked(question)))[:1] == [FACTS[fact]], question
    await database.close()


_WRITER = """
import asyncio, sys
from quarterdeck.server.database import Database
from quarterdeck.server.memory_store import MemoryStore, New, Owner

async def main():
    store = MemoryStore(await Database.open(sys.argv[1]))
    await store.open()
    for turn in range(1, 50):
        facts = [New(f"fact {n} of turn {turn}", [1.0, float(n)], "m") for n in range(10)]
        await store.save(Owner("ns/a", "alice"), facts, session="s", turns=turn)
        print(turn, flush=True)

asyncio.run(main())
"""


@pytest.mark.timeout(240)
async def test_a_control_plane_that_is_killed_has_saved_all_of_a_conversations_facts_or_none(tmp_path: Path) -> None:
    path = str(tmp_path / "server.db")
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    while int(writer.stdout.readline()) < 3:
        pass
    writer.kill()
    writer.wait(60)
    database = await Database.open(path)
    store = MemoryStore(database)
    await store.open()
    turns = await store.progress(ALICE, "s")
    assert turns >= 3 and len(await store.list("ns/a", "alice")) == turns * 10
    assert await store.save(ALICE, [New("again")], session="s", turns=turns) == []
    assert len(await texts(store, ALICE, Question("fact turn 3", limit=50))) == min(50, turns * 10)
    async with database.write() as connection:  # raises when the index and the memories differ
        await connection.execute(text("INSERT INTO memories_fts(memories_fts, rank) VALUES ('integrity-check', 1)"))
    await database.close()
