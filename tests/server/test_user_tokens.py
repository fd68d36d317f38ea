"""Users' grants at the control plane: sealed, for one gateway at a time, seen and revoked by those who may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from quarterdeck import snapshot as s
from quarterdeck.errors import TimedOut, Unauthorized, UpstreamError
from quarterdeck.gateway.oauth.plane import PlaneStore
from quarterdeck.gateway.oauth.store import Shown
from quarterdeck.server.database import Database
from quarterdeck.server.governance import Governance
from quarterdeck.server.http import Router
from quarterdeck.server.identity import Identity
from quarterdeck.server.management import failure
from quarterdeck.server.user_tokens import Sealer, UserTokens
from quarterdeck.server.user_tokens_api import UserTokensApi
from quarterdeck.server.user_tokens_tables import user_tokens
from quarterdeck.snapshot.revocations import Revocation
from quarterdeck.snapshot.sign_in import SignIn
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Server

NOTES = "RemoteMCPServer/ns/notes"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Reviews:
    """Who is who by their token, and who may what."""

    async def workload(self, token: str, audience: str) -> dict[str, Any]:
        if token != "gw":
            raise Unauthorized("no")
        return {"username": "system:serviceaccount:ns:gw", "groups": []}

    async def person(self, token: str, attributes: dict[str, str]) -> tuple[dict[str, Any], bool]:
        return {"username": token}, token == "root"


class Configuration:
    """What is streamed to gateways."""

    revocations: tuple[Revocation, ...] = ()

    async def govern(self, revocations: Any, pins: Any) -> None:
        self.revocations = revocations

    def current(self, gateway: str) -> bytes | None:
        servers = (
            s.McpServer("ns", "notes", "RemoteMCPServer", "/mcp", sign_in=SignIn("https://notes.example/mcp")),
            s.McpServer("ns", "plain", "RemoteMCPServer", "/mcp"),
        )
        return s.encode(s.Snapshot(gateway=gateway, mcp=servers)) if gateway == "ns/gw" else None


class Plane:
    """The API on a port, and a gateway's store that uses it."""

    def __init__(self, database: Database, key: bytes = b"k" * 32) -> None:
        self.clock = Clock()
        self.configuration = Configuration()
        governance = Governance(database, self.clock)
        self.tokens = UserTokens(database, governance, Sealer(key), self.clock)
        api = UserTokensApi(self.tokens, Identity(Reviews(), lambda _: None), self.configuration, governance)  # type: ignore[arg-type]
        self.server = Server(Router(api.routes(), failure).handle)
        self.pool = Pool()
        self.port = 0
        self.down = False

    async def __call__(self, method: str, path: str, body: bytes = b"", token: str = "root") -> tuple[int, Any]:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        response = await self.pool.request(method, ("127.0.0.1", self.port, False), path, headers, body)
        return response.status, msgspec.json.decode(await response.read())

    async def ask(self, body: bytes) -> bytes:
        if self.down:
            raise TimedOut("no answer")
        status, answer = await self("POST", "/v1/gateways/ns/gw/user-tokens", body, "gw")
        if status != 200:
            raise UpstreamError(str(answer))
        return msgspec.json.encode(answer)


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    database = await Database.open(str(tmp_path / "server.db"))
    made = Plane(database)
    _, made.port = await made.server.listen("127.0.0.1", 0)
    yield made
    await made.server.stop(0)
    made.pool.close()
    await database.close()


async def keep(store: PlaneStore, user: str, value: bytes = b"secret", **more: Any) -> bool:
    shown = Shown(user, NOTES, "https://id.example", "read", 900.0, expires=4000.0, refreshable=True)
    return await store.put("grant", user, NOTES, value, shown=shown, **more)


async def test_a_gateway_keeps_and_finds_grants_which_are_sealed_at_rest(plane: Plane, tmp_path: Path) -> None:
    store = PlaneStore(plane.ask, plane.clock)
    assert await store.get("grant", "alice", NOTES) is None
    assert await keep(store, "alice", b"the access token")
    found = await store.get("grant", "alice", NOTES)
    assert found is not None
    assert (found.value, found.version) == (b"the access token", 1)
    assert await store.get("grant", "bob", NOTES) is None
    rows = await plane.tokens._database.rows(select(user_tokens))
    assert all(b"access token" not in row["value"] for row in rows)
    other = Plane(plane.tokens._database, b"o" * 32)
    assert await other.tokens.get("grant", "alice", NOTES) is None
    rotated = Plane(plane.tokens._database, b"n" * 32 + b"k" * 32)
    assert await rotated.tokens.get("grant", "alice", NOTES) is not None


async def test_writes_are_compared_and_one_of_several_refreshes(plane: Plane) -> None:
    one, two = PlaneStore(plane.ask, plane.clock), PlaneStore(plane.ask, plane.clock)
    assert await keep(one, "alice", after=0)
    assert not await keep(two, "alice", after=0)
    assert sorted([await one.lease("grant", "alice", NOTES, 15), await two.lease("grant", "alice", NOTES, 15)]) == [
        0,
        1,
    ]
    assert await keep(one, "alice", b"fresh", after=1)
    assert not await keep(two, "alice", b"stale", after=1)
    plane.clock.now += 1
    assert await two.lease("grant", "alice", NOTES, 15)  # writing ends the lease
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
