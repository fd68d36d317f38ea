"""Approvals in the database: on SQLite and PostgreSQL, with two replicas of the control plane at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from quarterdeck.errors import Conflict, Forbidden
from quarterdeck.server import approvals_store
from quarterdeck.server.approvals import Decision, Person, rules_of, same_person
from quarterdeck.server.approvals_store import ApprovalStore
from quarterdeck.server.database import Database
from quarterdeck.snapshot.consent import ApprovalRule, Requester, Wanted

from .conftest import POLICY, RULE, Clock

GATEWAY = "quarterdeck-system/quarterdeck"
WANTED = Wanted(
    "MCPServer", "kagent", "peer", "delete", "sha256:00", "agent:kagent/b", (RULE,), "kagent/b", Requester("carol"),
    "r1", 1, arguments={},
)  # fmt: skip
REQUIRED = "requireApproval/agent/kagent/b/tools/MCPServer/kagent/peer"
LOCAL = frozenset({"kubernetes-admin", "user@local"})


class Replicas:
    """Two control planes on one database."""

    def __init__(self, databases: list[Database], clock: Clock) -> None:
        self.rules: tuple[ApprovalRule, ...] = (POLICY,)
        self.clock = clock
        self.stores = [ApprovalStore(d, lambda: rules_of(self.rules), same_person(LOCAL), clock) for d in databases]


@pytest.fixture
async def replicas(database_url: str) -> AsyncIterator[Replicas]:
    first = await Database.open(database_url)
    # SQLite has one process only, which takes turns
    databases = [first, await Database.open(database_url) if "://" in database_url else first]
    yield Replicas(databases, Clock())
    for database in {id(d): d for d in databases}.values():
        await database.close()


async def test_asked_at_once_it_is_one_approval(replicas: Replicas) -> None:
    made = await asyncio.gather(*(store.request(GATEWAY, WANTED) for store in replicas.stores * 5))
    assert len({one.id for one in made}) == 1
    other = await replicas.stores[0].request(GATEWAY, msgspec.structs.replace(WANTED, step=2))
    assert other.id != made[0].id


async def test_used_at_once_it_is_used_once(replicas: Replicas) -> None:
    asked = await replicas.stores[0].request(GATEWAY, WANTED)
    await replicas.stores[1].decide(asked, Decision(Person("alice"), "Approve", 1.0))
    used = await asyncio.gather(
        *(store.consume(GATEWAY, "kagent", asked.name, WANTED) for store in replicas.stores * 5), return_exceptions=True
    )
    assert sum(getattr(one, "state", "") == "Consumed" for one in used) == 1
    assert sum(isinstance(one, Forbidden) and "used already" in str(one) for one in used) == 9


async def test_two_approvers_at_once_both_count(replicas: Replicas) -> None:
    replicas.rules = (msgspec.structs.replace(POLICY, required=2),)
    asked = await replicas.stores[0].request(GATEWAY, WANTED)
    said = [Decision(Person(name), "Approve", 1.0) for name in ("alice", "bob")]
    await asyncio.gather(*(store.decide(asked, one) for store, one in zip(replicas.stores, said, strict=True)))
    kept = await replicas.stores[0].get("kagent", asked.name)
    assert kept.state == "Approved" and {d.person.name for d in kept.decisions} == {"alice", "bob"}


async def test_no_and_yes_at_once_is_no_or_a_conflict(replicas: Replicas) -> None:
    asked = await replicas.stores[0].request(GATEWAY, WANTED)
    said = [Decision(Person("alice"), "Approve", 1.0), Decision(Person("bob"), "Deny", 1.0, "no")]
    done = await asyncio.gather(
        *(store.decide(asked, one) for store, one in zip(replicas.stores, said, strict=True)), return_exceptions=True
    )
    kept = await replicas.stores[0].get("kagent", asked.name)
    assert kept.state == "Denied"
    assert all(not isinstance(one, BaseException) or isinstance(one, Conflict) for one in done)


async def test_a_person_counts_once_and_may_change_their_mind(replicas: Replicas) -> None:
    replicas.rules = (msgspec.structs.replace(POLICY, required=2),)
    store = replicas.stores[0]
    asked = await store.request(GATEWAY, WANTED)
    for _ in range(2):
        asked = await store.decide(asked, Decision(Person("alice"), "Approve", 1.0))
    assert asked.state == "Pending" and len(asked.decisions) == 1
    assert (await store.decide(asked, Decision(Person("alice"), "Deny", 2.0))).state == "Denied"


async def test_one_person_under_two_names_is_one(replicas: Replicas) -> None:
    replicas.rules = (msgspec.structs.replace(POLICY, users=(), required=2, requester=True),)
    store = replicas.stores[0]
    asked = await store.request(GATEWAY, msgspec.structs.replace(WANTED, requester=Requester("alice@idp", ("alice",))))
    for person in (Person("alice@idp", via="conversation"), Person("alice"), Person("oidc:alice")):
        asked = await store.decide(asked, Decision(person, "Approve", 1.0))
        assert asked.state == "Pending", person
    for name in ("bob", "oidc:bob"):
        asked = await store.get("kagent", asked.name)
        if asked.state == "Pending":
            asked = await store.decide(asked, Decision(Person(name), "Approve", 1.0))
    assert asked.state == "Approved"


@pytest.mark.parametrize(
    ("requester", "approver", "rules", "may"),
    [
        ("carol@idp", Person("carol"), (RULE,), True),  # another name, another person
        ("carol", Person("oidc:carol"), (RULE,), False),
        ("user@local", Person("kubernetes-admin"), (RULE,), False),
        ("user@local", Person("kubernetes-admin"), (REQUIRED,), True),
        ("", Person("anybody"), (REQUIRED,), True),
        ("carol", Person("carol", via="conversation"), (REQUIRED,), True),
        ("carol", Person("dave", ("carol",), via="conversation"), (REQUIRED,), False),
        ("", Person("", via="conversation"), (RULE,), False),
    ],
)
async def test_who_is_the_requester(
    tmp_path: Path, requester: str, approver: Person, rules: tuple[str, ...], may: bool
) -> None:
    database = await Database.open(str(tmp_path / "server.db"))
    policy = msgspec.structs.replace(POLICY, users=())
    store = ApprovalStore(database, lambda: rules_of((policy,)), same_person(LOCAL), Clock())
    asked = await store.request(GATEWAY, msgspec.structs.replace(WANTED, rules=rules, requester=Requester(requester)))
    try:
        approved = (await store.decide(asked, Decision(approver, "Approve", 1.0))).state == "Approved"
    except Forbidden:
        approved = False
    assert approved is may
    await database.close()


async def test_what_nobody_can_look_through_is_refused(replicas: Replicas) -> None:
    store = replicas.stores[0]
    for step in range(200):
        await store.request(GATEWAY, msgspec.structs.replace(WANTED, step=step))
    with pytest.raises(Conflict, match="200 requests"):
        await store.request(GATEWAY, msgspec.structs.replace(WANTED, step=200))


async def test_what_is_long_over_is_forgotten(replicas: Replicas) -> None:
    store = replicas.stores[0]
    asked = await store.request(GATEWAY, WANTED)
    await store.decide(asked, Decision(Person("alice"), "Deny", 1.0))
    replicas.clock.now += 31 * 86400
    await store.sweep()
    assert await store.find() == []


async def test_however_many_came_since_a_message_is_known_and_what_waits_is_found(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approvals_store, "_LISTED", 2)
    store = replicas.stores[0]
    asked = await store.request(GATEWAY, WANTED)
    await store.decide(asked, Decision(Person("alice"), "Approve", 1.0, message='m"1_'))
    waits = await store.request(GATEWAY, msgspec.structs.replace(WANTED, step=2))
    for number in range(3):
        replicas.clock.now += 1
        other = msgspec.structs.replace(WANTED, run=f"r{number + 2}", requester=Requester("dave"))
        await store.request(GATEWAY, other)
    assert await store.said('m"1_', "alice")
    assert not await store.said('m"1_', "bob") and not await store.said("m", "alice")
    found = await store.find(states=("Pending",), requester="carol")
    assert [one.id for one in found] == [waits.id]
