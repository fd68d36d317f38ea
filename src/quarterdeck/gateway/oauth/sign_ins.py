"""Users' sign-ins at MCP servers: who is asked to sign in where, whose grant is used, when it is refreshed.

Threats and answers (MCP security best practices; RFC 9700):

- Somebody gets another to open her sign-in URL, to have the other's account under her name. What comes of a sign-in
  waits until the *caller* gives, over her own authenticated connection, the code that only the browser was shown.
- Somebody finishes his own sign-in in another's browser. The state leads to one flow, once, for ten minutes, and only
  in the browser that began it (a cookie of that flow).
- A server names an authorization server of its own choosing to collect codes: ``iss`` and metadata are compared
  exactly, clients and PKCE verifiers belong to one issuer, tokens are asked for the server's own URL only.
- One user's token for another: grants are found by user and server, and shown in conversations of that user only.
  Agents use a user's grant only in calls on the user's behalf; nobody's replaces a missing one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from hashlib import sha256
from secrets import compare_digest, randbelow, token_urlsafe
from time import time
from typing import TypeVar
from weakref import WeakMethod

import msgspec
from msgspec import Struct

from quarterdeck.errors import QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import jsonrpc, protocol
from quarterdeck.snapshot import McpServer
from quarterdeck.snapshot.sign_in import SignIn

from ..mcp.client import RpcError
from ..policy.principal import Principal
from .challenge import Challenge
from .conversation import Elicitation
from .discovery import Fetch
from .flow import Flow, Grant
from .guard import GuardedFetcher, Refuse
from .protected import Protected
from .registration import Identity
from .store import Seals, Shown, Store
from .token_endpoint import Client, TokenRefused

T = TypeVar("T")

PREFIX = "/.quarterdeck/oauth"
START, CALLBACK, DOCUMENT = f"{PREFIX}/start", f"{PREFIX}/callback", f"{PREFIX}/client.json"
LASTS = 600.0
"""Seconds until a URL, a flow, or a code that was shown is worth nothing."""
_MARGIN = 60.0
_LEASE = 15.0
_TRIES = 5
_TICKET, _STATE = b"sign-in ticket v1", b"sign-in state v1"
_POLL = 1.0
_USERS = 10_000
_VOID = 7200.0
"""Users of whom something is remembered; seconds that a revocation is: longer than any grant is without being read."""
EVERYBODY = "*"
_GONE = frozenset({"invalid_grant", "invalid_token", "invalid_client", "unauthorized_client"})

Recorded = Callable[[str, str, str, str, str], None]
"""user, server, what happened (``grant``, ``refresh``, ``revoke``), outcome, detail"""


class Ticket(Struct, frozen=True, array_like=True):
    """What a sign-in URL holds, sealed."""

    id: str
    user: str
    server: str
    until: float
    challenge: Challenge
    before: tuple[str, ...] = ()


class _State(Struct, frozen=True, array_like=True):
    id: str
    until: float


class Begun(Struct, frozen=True, array_like=True):
    """A flow under way. ``browser`` is the cookie of the browser that began it."""

    ticket: Ticket
    flow: Flow
    browser: str


class _Pending(Struct, array_like=True):
    """A grant whose user has not said yet that it was her."""

    ticket: str
    grant: Grant
    code: str
    tries: int = 0


class SignIns:
    """All sign-ins of one gateway process."""

    def __init__(
        self,
        sealer: Seals,
        refuse: Refuse,
        base: Callable[[], str],
        recorded: Recorded,
        clock: Callable[[], float] = time,
    ) -> None:
        """``base``: scheme, host and path under which browsers reach this gateway."""
        self.store: Store | None = None
        self._sealer = sealer
        self._refuse = refuse
        self._base = base
        self.recorded = recorded
        self.clock = clock
        self._doors: dict[str, ServerDoor] = {}
        self.void: dict[tuple[str, str], float] = {}
        """By user and server: grants given until then are revoked."""

    @property
    def active(self) -> bool:
        """Whether there is a server with sign-ins."""
        return bool(self._doors)

    @property
    def identity(self) -> Identity:
        base = self._base()
        return Identity(base + CALLBACK, metadata_url=base + DOCUMENT)

    def door(self, server: McpServer) -> ServerDoor:
        """The door of a server; what is known of its users stays when its configuration changes."""
        assert server.sign_in is not None
        key = f"{server.kind}/{server.namespace}/{server.name}"
        door = self._doors.get(key)
        if door is None or door.settings != server.sign_in:
            label = server.sign_in.label or server.name
            fresh = ServerDoor(self, key, label, server.sign_in, self._refuse, f"{server.namespace}/{server.name}")
            if door is not None:
                fresh.watchers = door.watchers
            door = self._doors[key] = fresh
        return door

    def found(self, server: str) -> ServerDoor | None:
        return self._doors.get(server)

    def kept(self) -> Store:
        """Raises UpstreamError while nothing can be kept."""
        if self.store is None:
            raise UpstreamError("cannot be signed in at: this gateway has nowhere to keep users' tokens yet")
        return self.store

    def url(self, ticket: Ticket) -> str:
        sealed = self._sealer.seal_bytes(msgspec.msgpack.encode(ticket), _TICKET).decode()
        return f"{self._base()}{START}?t={sealed}"

    def ticket(self, sealed: str) -> Ticket | None:
        """A ticket of ours that still holds."""
        ticket = _read(self._sealer.open_bytes(sealed.encode("ascii", "replace"), _TICKET), Ticket)
        return ticket if ticket is not None and ticket.until > self.clock() else None

    def state(self) -> str:
        """A new ``state``: nobody else can make one, so those that are not ours cost no look into the store."""
        state = _State(token_urlsafe(24), self.clock() + LASTS)
        return self._sealer.seal_bytes(msgspec.msgpack.encode(state), _STATE).decode()

    async def begun(self, state: str) -> Begun | None:
        """The flow of a ``state``, once, while it holds."""
        found = _read(self._sealer.open_bytes(state.encode("ascii", "replace"), _STATE), _State)
        if found is None or found.until <= self.clock():
            return None
        stored = await self.kept().take("flow", "", _name_of(state))
        return _read(stored.value if stored is not None else None, Begun)

    async def keep_flow(self, begun: Begun) -> None:
        """Until its answer comes."""
        value, until = msgspec.msgpack.encode(begun), self.clock() + LASTS
        await self.kept().put("flow", "", _name_of(begun.flow.state), value, until=until)

    # -- the clients that were registered
    async def client(self, issuer: str, redirect_uri: str) -> Client | None:
        found = await self.kept().get("client", "", f"{issuer} {redirect_uri}")
        return _read(found.value, Client) if found is not None else None

    async def keep_client(self, issuer: str, redirect_uri: str, client: Client) -> None:
        await self.kept().put("client", "", f"{issuer} {redirect_uri}", msgspec.msgpack.encode(client))

    def revoked(self, user: str, server: str, at: float) -> None:
        """What a user (:data:`EVERYBODY`: any) granted before is over, at once."""
        if len(self.void) >= _USERS:
            self.void = {key: since for key, since in self.void.items() if since > at - _VOID}
        self.void[user, server] = max(at, self.void.get((user, server), 0.0))
        door = self._doors.get(server)
        if door is not None:
            door.forget(user)

    def over(self, user: str, server: str) -> float:
        """Until when what the user granted there is revoked."""
        return max(self.void.get((user, server), 0.0), self.void.get((EVERYBODY, server), 0.0)) if self.void else 0.0


class ServerDoor:
    """The sign-ins at one server."""

    def __init__(
        self, owner: SignIns, key: str, label: str, settings: SignIn, refuse: Refuse, server: str = ""
    ) -> None:
        self.key = key
        self.label = label
        self.settings = settings
        self.server = server or label
        """How records name it."""
        self.watchers: dict[str, list[WeakMethod[Callable[[str], None]]]] = {}
        self._owner = owner
        host = (settings.url.partition("://")[2].partition("/")[0].rpartition("@")[2]).lower()
        name = host[1 : host.index("]")] if host.startswith("[") and "]" in host else host.partition(":")[0]
        named = {name, *(trusted.lower() for trusted in settings.trusted_hosts)}
        self._fetch: Fetch = GuardedFetcher(frozenset(named), refuse)
        self._decoded: dict[str, tuple[int, Grant]] = {}
        self._refreshing: dict[str, asyncio.Task[Grant | None]] = {}
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def protected(self) -> Protected:
        return Protected(self.settings, self._fetch, self._owner.identity, self._owner, self._owner.clock)

    def user_of(self, principal: Principal) -> str:
        if principal.on_behalf_of:
            return principal.on_behalf_of
        problem = ""
        if principal.agent:
            problem = (
                f"agent {principal.agent} called for no user: {self.label} knows people only, "
                "so the call must carry the user's identity (a token with sub and act, RFC 8693)"
            )
        elif principal.anonymous:
            problem = (
                f"{self.label} knows people only: authenticate at the gateway first, so that it knows who you are "
                "(on this machine with the token in run/local-token of the data directory)"
            )
        if problem:
            raise RpcError(jsonrpc.ErrorObject(protocol.DENIED, problem), {"reason": "user_required"})
        return principal.id

    # -- grants
    async def grant(self, user: str) -> Grant | None:
        stored = await self._owner.kept().get("grant", user, self.key)
        if stored is None:
            self._decoded.pop(user, None)
            return None
        known = self._decoded.get(user)
        if known is None or known[0] != stored.version:
            if len(self._decoded) >= _USERS:
                self._decoded.clear()
            found = _read(stored.value, Grant)
            if found is None:
                return None  # of another release: the user signs in again
            known = self._decoded[user] = (stored.version, found)
        grant = known[1]
        if grant.at <= self._owner.over(user, self.key):
            return None
        life = grant.expires - (grant.refreshed or grant.at)
        if grant.expires - self._owner.clock() > min(_MARGIN, life / 5):
            return grant
        return await self._refreshed(user, grant, stored.version)

    def forget(self, user: str) -> None:
        """What is remembered of a user's grant; the authorization server is told, if it takes that."""
        store = self._owner.store
        for name in list(self._decoded) if user == EVERYBODY else [user]:
            if store is not None:
                store.forget(name, self.key)
            known = self._decoded.pop(name, None)
            if known is not None and known[1].server.revocation_endpoint:
                task = asyncio.get_running_loop().create_task(self._take_back(known[1]))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def _take_back(self, grant: Grant) -> None:
        with contextlib.suppress(UpstreamError, TimedOut):  # it is over here, whatever is known there
            await self.protected.revoke(grant)

    async def renewed(self, user: str, grant: Grant | None, challenge: Challenge) -> Grant | None:
        if challenge.status == 403 and not challenge.steps_up:
            raise UpstreamError("refuses what the user may do there (HTTP 403)")
        store = self._owner.kept()
        store.forget(user, self.key)
        newer = await self.grant(user)
        if newer is None or grant is None or newer.access_token != grant.access_token:
            return newer
        if challenge.steps_up:
            return None
        stored = await store.get("grant", user, self.key)
        if stored is None:
            return None
        if grant.refresh_token and self._owner.clock() - max(grant.refreshed, grant.at) > 5.0:
            return await self._refreshed(user, grant, stored.version)
        await self._drop(user, "the server does not take the token")
        return None

    async def _refreshed(self, user: str, grant: Grant, version: int) -> Grant | None:
        """A fresh grant; requests that want the same one share it. None: the user has to sign in again."""
        task = self._refreshing.get(user)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._refresh(user, grant, version))
            self._refreshing[user] = task
            task.add_done_callback(lambda done: self._done(user, done))
        return await asyncio.shield(task)

    def _done(self, user: str, task: asyncio.Task[Grant | None]) -> None:
        self._refreshing.pop(user, None)
        if not task.cancelled():
            task.exception()  # looked at by those who wait, if there still are any

    async def _refresh(self, user: str, grant: Grant, version: int) -> Grant | None:
        store, clock = self._owner.kept(), self._owner.clock
        if not grant.refresh_token:
            if grant.expires > clock():
                return grant
            await self._drop(user, "the token has expired, and there is none to refresh it with")
            return None
        if not await store.lease("grant", user, self.key, version, _LEASE):
            return await self._of_another(user, version)
        try:
            fresh = await self.protected.refresh(grant)
        except TokenRefused as error:
            if error.error in _GONE or error.status == 401:
                await self._drop(user, str(error))
                return None
            return self._unrefreshed(user, grant, error)
        except (UpstreamError, TimedOut) as error:
            return self._unrefreshed(user, grant, error)
        if await self._keep(user, fresh, after=version):
            return fresh
        store.forget(user, self.key)  # revoked, or granted anew, in the meantime: what is there now counts
        stored = await store.get("grant", user, self.key)
        return _read(stored.value, Grant) if stored is not None else None

    def _unrefreshed(self, user: str, grant: Grant, error: QuarterdeckError) -> Grant:
        self._owner.recorded(user, self.server, "refresh", "error", str(error))
        if grant.expires > self._owner.clock():
            return grant
        raise error

    async def _of_another(self, user: str, version: int) -> Grant | None:
        """What another process that refreshes the grant now makes of it."""
        store = self._owner.kept()
        for _ in range(int(_LEASE / 0.2)):
            store.forget(user, self.key)
            stored = await store.get("grant", user, self.key)
            if stored is None:
                return None
            if stored.version != version:
                return _read(stored.value, Grant)
            await asyncio.sleep(0.2)
        raise TimedOut(f"gave no fresh token for {user} in {_LEASE:g} s")

    async def _keep(self, user: str, grant: Grant, *, after: int | None = None) -> bool:
        shown = Shown(
            user, self.key, grant.server.issuer, grant.scope, grant.at, grant.refreshed, grant.expires,
            bool(grant.refresh_token),
        )  # fmt: skip
        value = msgspec.msgpack.encode(grant)
        return await self._owner.kept().put("grant", user, self.key, value, after=after, shown=shown)

    async def _drop(self, user: str, why: str) -> None:
        await self._owner.kept().take("grant", user, self.key)
        self._owner.recorded(user, self.server, "refresh", "denied", why)

    # -- signing in
    async def elicit(self, user: str, principal: Principal, challenge: Challenge) -> Elicitation:
        del principal
        before: tuple[str, ...] = ()
        if challenge.steps_up:
            grant = await self.grant(user)
            before = tuple(grant.scope.split()) if grant is not None else ()
            self.protected.check(challenge, before)
        ticket = Ticket(token_urlsafe(12), user, self.key, self._owner.clock() + LASTS, challenge, before)
        more = f", which wants you to allow more: {challenge.scope}" if challenge.steps_up else ""
        return Elicitation(ticket.id, self._owner.url(ticket), f"Sign in at {self.label}{more}.")

    async def begin(self, ticket: Ticket, browser: str) -> str:
        """Where the browser goes. Raises UpstreamError, TimedOut."""
        url, flow = await self.protected.begin(ticket.challenge, ticket.before, self._owner.state())
        await self._owner.keep_flow(Begun(ticket, flow, browser))
        return url

    async def finish(self, begun: Begun, response: dict[str, str]) -> str:
        """The code that the user has to give to her client. Raises UpstreamError, TimedOut."""
        grant = await self.protected.finish(begun.flow, response)
        code = f"{randbelow(10**8):08d}"
        user, until = begun.ticket.user, self._owner.clock() + LASTS
        pending = _Pending(begun.ticket.id, grant, code)
        await self._owner.kept().put("pending", user, self.key, msgspec.msgpack.encode(pending), until=until)
        self._tell(user, begun.ticket.id)
        return code

    async def pending(self, user: str) -> bool:
        """Whether a sign-in of the user waits for its code."""
        return await self._owner.kept().get("pending", user, self.key) is not None

    async def confirm(self, user: str, code: str) -> bool:
        """Whether that is the code of the user's sign-in; her grant counts from then on."""
        store = self._owner.kept()
        stored = await store.take("pending", user, self.key)
        if stored is None:
            return False
        pending = _read(stored.value, _Pending)
        if pending is None:
            return False
        given = "".join(c for c in code if c.isdigit())
        if not compare_digest(given, pending.code):
            pending.tries += 1
            self._owner.recorded(user, self.server, "grant", "denied", "a wrong code was given")
            if pending.tries < _TRIES:
                until = self._owner.clock() + LASTS
                await store.put("pending", user, self.key, msgspec.msgpack.encode(pending), until=until)
            return False
        await self._keep(user, pending.grant)
        self._owner.recorded(user, self.server, "grant", "ok", f"scopes: {pending.grant.scope or 'not told'}")
        self._tell(user, "")
        return True

    async def arrival(self, user: str, elicitation: Elicitation, seconds: float) -> bool:
        del elicitation
        store = self._owner.kept()
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            store.forget(user, self.key)
            if await self.pending(user) or await self.grant(user) is not None:
                return True
            await asyncio.sleep(_POLL)
        return False

    def watch(self, user: str, told: Callable[[str], None]) -> None:
        known = [ref for ref in self.watchers.get(user, ()) if ref() is not None]
        if not any(ref() == told for ref in known):
            known.append(WeakMethod(told))
        if len(self.watchers) >= _USERS:
            alive = {name: [ref for ref in refs if ref() is not None] for name, refs in self.watchers.items()}
            self.watchers = {name: refs for name, refs in alive.items() if refs}
        self.watchers[user] = known

    def _tell(self, user: str, elicitation: str) -> None:
        for ref in self.watchers.get(user, ()):
            told = ref()
            if told is not None:
                told(elicitation)


def _name_of(state: str) -> str:
    """Of all its characters: what only decodes to the same is another."""
    return sha256(state.encode()).hexdigest()


def _read(data: bytes | None, kind: type[T]) -> T | None:
    """What was kept; None for nothing, and for what another release has kept."""
    try:
        return msgspec.msgpack.decode(data, type=kind) if data is not None else None
    except MALFORMED:
        return None
