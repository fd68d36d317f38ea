"""Users' grants at the control plane: sealed, for one gateway at a time, seen and revoked by those who may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from quarterdeck import snapshot as s
from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.gateway.oauth.plane import PlaneStore
from quarterdeck.server.database import Database
from quarterdeck.server.user_tokens_tables import user_tokens
from quarterdeck.snapshot.sign_in import Shown, SignIn
from support.user_tokens import Plane

NOTES = "RemoteMCPServer/ns/notes"


@pytest.fixture
async def plane(database_url: str) -> AsyncIterator[Plane]:
    servers = (
        s.McpServer("ns", "notes", "RemoteMCPServer", "/mcp", sign_in=SignIn("https://notes.example/mcp")),
        s.McpServer("ns", "plain", "RemoteMCPServer", "/mcp"),
    )
    async with Plane(await Database.open(database_url), *servers) as made:
        yield made


async def keep(store: PlaneStore, user: str, value: bytes = b"secret", **more: Any) -> bool:
    shown = Shown(user, NOTES, "https://id.example", "read", 900.0, expires=4000.0, refreshable=True)
    return await store.put("grant", user, NOTES, value, shown=shown, **more)


async def test_a_gateway_keeps_and_finds_grants_which_are_sealed_at_rest(plane: Plane) -> None:
    store = PlaneStore(plane.ask, plane.clock)
    assert await store.get("grant", "alice", NOTES) is None
    assert await keep(store, "alice", b"the access token")
    found = await store.get("grant", "alice", NOTES)
    assert found is not None
    assert (found.value, found.version) == (b"the access token", 1)
    assert await store.get("grant", "bob", NOTES) is None
    rows = await plane.database.rows(select(user_tokens))
    assert all(b"access token" not in row["value"] for row in rows)
    other = Plane(plane.database, key=b"o" * 32)
    assert await other.tokens.get("grant", "alice", NOTES) is None
    rotated = Plane(plane.database, key=b"n" * 32 + b"k" * 32)
    assert await rotated.tokens.get("grant", "alice", NOTES) is not None


async def test_writes_are_compared_and_one_of_several_refreshes(plane: Plane) -> None:
    one, two = PlaneStore(plane.ask, plane.clock), PlaneStore(plane.ask, plane.clock)
    assert await keep(one, "alice", after=0)
    assert not await keep(two, "alice", after=0)
    leased = [await store.lease("grant", "alice", NOTES, 1, 15) for store in (one, two)]
    assert leased == [True, False]
    assert await keep(one, "alice", b"fresh", after=1)
    assert not await keep(two, "alice", b"stale", after=1)
    plane.clock.now += 1
    assert not await two.lease("grant", "alice", NOTES, 1, 15)  # another has refreshed what it was
    assert await two.lease("grant", "alice", NOTES, 2, 15)  # writing ends the lease
    found = await two.get("grant", "alice", NOTES)
    assert found is not None
    assert found.value == b"fresh"


async def test_a_flow_is_taken_once_and_not_after_its_time(plane: Plane) -> None:
    store = PlaneStore(plane.ask, plane.clock)
    await store.put("flow", "", "state", b"f", until=plane.clock.now + 600)
    taken = await asyncio.gather(*(store.take("flow", "", "state") for _ in range(3)))
    assert sorted(t is not None for t in taken) == [False, False, True]
    await store.put("flow", "", "late", b"f", until=plane.clock.now + 600)
    plane.clock.now += 601
    assert await store.take("flow", "", "late") is None


async def test_a_gateway_gets_only_what_belongs_to_servers_where_users_sign_in(plane: Plane) -> None:
    store = PlaneStore(plane.ask, plane.clock)
    for name in ("RemoteMCPServer/ns/plain", "RemoteMCPServer/ns/other"):
        with pytest.raises(UpstreamError, match="serves no"):
            await store.get("grant", "alice", name)
    status, _ = await plane("POST", "/v1/gateways/ns/gw/user-tokens", b"{}", "somebody")
    assert status == 401
    status, _ = await plane("POST", "/v1/gateways/ns/other/user-tokens", b"{}", "gw")
    assert status == 403
    status, _ = await plane("POST", "/v1/gateways/ns/gw/user-tokens", b"{", "gw")
    assert status == 400


async def test_people_see_and_revoke_their_own_and_admins_all(plane: Plane) -> None:
    store = PlaneStore(plane.ask, plane.clock)
    for user in ("alice", "bob"):
        await keep(store, user)
    status, found = await plane("GET", "/v1/user-tokens")
    assert [one["user"] for one in found["tokens"]] == ["alice", "bob"]
    assert "secret" not in str(found)
    assert (await plane("GET", "/v1/user-tokens", token="alice"))[1]["tokens"] == found["tokens"][:1]
    assert (await plane("GET", "/v1/user-tokens?user=bob", token="alice"))[0] == 403
    assert (await plane("DELETE", "/v1/user-tokens?user=bob", token="alice"))[0] == 403
    assert (await plane("DELETE", "/v1/user-tokens"))[0] == 400
    status, gone = await plane("DELETE", "/v1/user-tokens?server=ns/notes", token="alice")
    assert (status, [one["user"] for one in gone["revoked"]]) == (200, ["alice"])
    [mark] = plane.configuration.revocations
    assert (mark.kind, mark.subject, mark.by, mark.created) == ("grant", f"{NOTES} alice", "alice", 1000.0)
    store.forget("alice", NOTES)
    assert await store.get("grant", "alice", NOTES) is None
    assert await store.get("grant", "bob", NOTES) is not None
    assert (await plane("DELETE", "/v1/user-tokens?server=s/notes"))[0] == 404
    assert (await plane("DELETE", "/v1/user-tokens?user=bob"))[0] == 200
    assert (await plane("DELETE", "/v1/user-tokens?user=bob"))[0] == 404


async def test_a_known_grant_outlasts_a_control_plane_that_does_not_answer_for_an_hour(plane: Plane) -> None:
    store = PlaneStore(plane.ask, plane.clock)
    await keep(store, "alice")
    await store.get("grant", "alice", NOTES)
    plane.down = True
    plane.clock.now += 3500
    assert await store.get("grant", "alice", NOTES) is not None
    with pytest.raises(TimedOut):
        await store.get("grant", "bob", NOTES)
    plane.clock.now += 200
    with pytest.raises(TimedOut):
        await store.get("grant", "alice", NOTES)


async def test_many_are_revoked_by_one_mark(plane: Plane) -> None:
    for number in range(101):
        await plane.tokens.put("grant", f"u{number}", NOTES, b"x", shown={"user": f"u{number}", "server": NOTES})
    status, gone = await plane("DELETE", "/v1/user-tokens?server=ns/notes")
    assert (status, len(gone["revoked"])) == (200, 101)
    assert [mark.subject for mark in plane.configuration.revocations] == [f"{NOTES} *"]
