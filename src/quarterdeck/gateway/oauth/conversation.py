"""A session with a server at which every user signs in for herself.

What is said to the server is said in another conversation, of the server's own era and transport, that shows the user's
token. When the server wants one and there is none, or one that grants more, the caller is asked to open a URL of ours:
in 2025-11-25 by the error ``URLElicitationRequired``, in 2026-07-28 by an ``input_required`` result; clients that can
do neither get an error that holds the URL. No other credential is ever shown in the user's place.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, Protocol, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from quarterdeck.errors import QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import LATEST_LEGACY, jsonrpc, lists, protocol

from ..mcp import client
from ..mcp.call import text_of
from ..mcp.client import Link, NoAnswer, RpcError, Unauthorized
from ..mcp.conversation import Conversation, Event, Flight, Greeting
from ..mcp.newer import NewerConversation
from ..mcp.route import Lane, McpRoute
from ..policy.principal import Principal
from .challenge import Challenge
from .flow import Grant

SIGN_IN = "sign_in"
"""The tool that stands in for those of a server that lists none before its user has signed in."""
_ATTEMPTS = 3
_WAIT = 45.0
"""Seconds a client that has opened the URL is kept waiting for its user, before it is asked again."""
_ROUNDS = 13
_CHANGED = ("tools", "prompts", "resources")
_CODE = {"type": "string", "title": "Code", "description": "What the browser shows at the end of the sign-in."}
_ids = count(1)

T = TypeVar("T")


class Elicitation(Struct, frozen=True):
    """What a user is asked to open."""

    id: str
    url: str
    message: str


class Door(Protocol):
    """Users' grants at one server."""

    label: str

    def user_of(self, principal: Principal) -> str:
        """Whose grant a caller uses. Raises RpcError for one that acts for nobody."""
        ...

    async def grant(self, user: str) -> Grant | None:
        """The user's grant, fresh enough to be shown. Raises UpstreamError, TimedOut when that cannot be told."""
        ...

    async def renewed(self, user: str, grant: Grant | None, challenge: Challenge) -> Grant | None:
        """Another grant in place of one that was not good enough; None when the user has to do something."""
        ...

    async def elicit(self, user: str, principal: Principal, challenge: Challenge) -> Elicitation:
        """Raises UpstreamError, TimedOut."""
        ...

    async def pending(self, user: str) -> bool:
        """Whether the user has signed in and has to give the code that her browser was shown."""
        ...

    async def confirm(self, user: str, code: str) -> bool:
        """Whether that is the code; her grant counts from then on."""
        ...

    async def arrival(self, user: str, elicitation: Elicitation, seconds: float) -> bool:
        """Wait for the user; whether there is a new grant."""
        ...

    def watch(self, user: str, told: Callable[[str], None]) -> None:
        """Call ``told`` with the elicitation's id when the user was at its URL, with "" when her grant counts.

        It is held weakly.
        """
        ...


class UserConversation(Conversation):
    """``kind``: how the server is spoken to; None finds out its era."""

    def __init__(
        self,
        door: Door,
        kind: Callable[..., Conversation] | None,
        route: McpRoute,
        lane: Lane,
        capabilities: dict[str, Any],
        *,
        info: dict[str, Any] | None = None,
        version: str = LATEST_LEGACY,
    ) -> None:
        super().__init__(route, lane, capabilities, info=info, version=version)
        self._door = door
        self._kind = kind
        self._bare = lane
        self._grant: Grant | None = None
        self._inner: Conversation | None = None
        self._carried: dict[str, Flight] = {}
        """By the id of a flight: the one of the inner conversation."""
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._offered = False

    # -- what the mixed life of two conversations needs
    @property
    def busy(self) -> bool:
        return bool(self.listeners or self._flights)

    @property
    def kept_here(self) -> frozenset[str]:  # type: ignore[override]  # a class attribute of the others
        return self._inner.kept_here if self._inner is not None else frozenset({protocol.PING})

    def renew(self, route: McpRoute, lane: Lane, extra: bytes) -> None:
        self.route, self._bare, self.extra = route, lane, extra
        self._show(self._grant)

    def attach(self, listener: Callable[[jsonrpc.Message], None]) -> None:
        super().attach(listener)
        if self._inner is not None:
            self._inner.attach(self._relay)

    def detach(self, listener: Callable[[jsonrpc.Message], None]) -> None:
        super().detach(listener)
        if not self.listeners and self._inner is not None:
            self._inner.detach(self._relay)

    def close(self) -> None:
        super().close()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.close()

    # -- requests
    async def open(self) -> Link:
        user = self._door.user_of(self._bare.principal)
        self._door.watch(user, self.signed_in)
        try:
            return (await self._attempt(user, self._opened)).link or self._nowhere()
        except Unauthorized:
            self._offered = True
            self.greeting = Greeting(
                capabilities={name: {"listChanged": True} for name in _CHANGED},
                server_info={"name": self._door.label, "version": ""},
                instructions=f"The user has to sign in at {self._door.label}: call {SIGN_IN}.",
            )
            return self._nowhere()

    def _nowhere(self) -> Link:
        return Link(client.origin_of(self.route), LATEST_LEGACY)

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> Raw:
        async def asked(inner: Conversation) -> Raw:
            return await inner.ask(method, params)

        try:
            return await self._attempt(self._door.user_of(self._bare.principal), self._after_opening(asked))
        except Unauthorized as error:
            listed = self._listed(method)
            if listed is not None:
                return listed
            if method in (protocol.PING, protocol.SET_LEVEL):
                return Raw(b"{}")
            text = f"the user has to sign in at {self._door.label} first"
            raise RpcError(jsonrpc.ErrorObject(protocol.METHOD_NOT_FOUND, text)) from error

    def _listed(self, method: str) -> Raw | None:
        """What a list shows while the server shows nothing; None for a method that lists nothing."""
        key = lists.LIST_KEYS.get(method)
        if key is None:
            return None
        if key == "tools":
            self._offered = True
        return Raw(msgspec.json.encode({key: [_tool(self._door.label)] if key == "tools" else []}))

    async def send(self, method: str, params: dict[str, Any]) -> Flight:
        user = self._door.user_of(self._bare.principal)
        flight = Flight(next(_ids))
        self._flights[flight.id] = flight
        flight.task = asyncio.get_running_loop().create_task(self._carry(flight, user, method, params))
        return flight

    async def answer(self, flight: Flight, answers: dict[str, Raw]) -> None:
        for key, result in answers.items():
            waiting = self._waiting.get(f"{flight.id}/{key}")
            if waiting is not None and not waiting.done():
                flight.asked.pop(key, None)
                waiting.set_result(_answer(result))
        inner = self._carried.get(flight.id)
        if inner is not None and self._inner is not None:
            await self._inner.answer(inner, answers)

    async def refuse(self, question: jsonrpc.Message, text: str) -> None:
        ident = text_of(question.id) if isinstance(question.id, Raw) else ""
        waiting = self._waiting.get(ident)
        if waiting is not None and not waiting.done():
            waiting.set_result({})
        elif self._inner is not None:
            await self._inner.refuse(question, text)

    async def tell(self, body: bytes, method: str) -> None:
        if self._inner is not None and self._inner.link is not None:
            await self._inner.tell(body, method)

    async def cancel(self, flight: Flight, reason: str) -> None:
        inner = self._carried.pop(flight.id, None)
        self.end(flight)
        if inner is not None and self._inner is not None:
            await self._inner.cancel(inner, reason)

    # -- the user's token
    async def _attempt(self, user: str, do: Callable[[], Awaitable[T]]) -> T:
        """``do`` with the user's token, and once more with a better one where there is one. Raises Unauthorized."""
        grant = await self._door.grant(user)
        for last in (False,) * (_ATTEMPTS - 1) + (True,):
            self._show(grant)
            try:
                return await do()
            except Unauthorized as error:
                better = None if last else await self._door.renewed(user, grant, error.challenge)
                if better is None:
                    raise
                grant = better
        raise AssertionError("the last attempt returns or raises")

    def _show(self, grant: Grant | None) -> None:
        """From now on the server sees this grant, and no other Authorization whatever the configuration says."""
        self._grant = grant
        lane = copy.copy(self._bare)
        shown = b"authorization: Bearer %b\r\n" % grant.access_token.encode() if grant is not None else b""
        lane.headers = _anonymous(lane.headers) + shown
        self.lane, self.extra = lane, _anonymous(self.extra)
        if self._inner is not None:
            self._inner.renew(self.route, lane, self.extra)

    async def _opened(self) -> Conversation:
        """The conversation with the server, its session open. Raises Unauthorized, UpstreamError, TimedOut."""
        async with self.opening:
            inner = self._inner
            if inner is None:
                inner = self._inner = await self._spoken_to()
                if self.listeners:
                    inner.attach(self._relay)
        self.link = await inner.open()
        self.greeting = inner.greeting
        return inner

    def _after_opening(self, do: Callable[[Conversation], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        async def both() -> T:
            return await do(await self._opened())

        return both

    async def _spoken_to(self) -> Conversation:
        """A conversation of the server's era. Raises Unauthorized, UpstreamError, TimedOut."""
        if self._kind is not None:
            return self._made(self._kind)
        if self.stateless and await client.speaks_modern(self.route, self.lane, self.extra):
            return self._made(NewerConversation)
        older = self._made(Conversation)
        try:
            await older.open()
        except (RpcError, NoAnswer) as error:
            if isinstance(error, Unauthorized) or (isinstance(error, NoAnswer) and error.status >= 500):
                raise
            if self.stateless or not await client.speaks_modern(self.route, self.lane, self.extra):
                raise
            return self._made(NewerConversation)
        return older

    def _made(self, kind: Callable[..., Conversation]) -> Conversation:
        made = kind(self.route, self.lane, self.capabilities, info=self.info, version=self.version)
        made.extra, made.level = self.extra, self.level
        return made

    # -- calls
    async def _carry(self, flight: Flight, user: str, method: str, params: dict[str, Any]) -> None:
        """Do a call, asking for the user where that is needed."""
        try:
            for _ in range(_ROUNDS):
                if method == protocol.TOOLS_CALL and self._stands_in(params):
                    if await self._signing_in(flight, user, params):
                        return
                    continue
                try:
                    await self._attempt(user, lambda: self._once(flight, method, params))
                except Unauthorized as error:
                    listed = self._listed(method)
                    if listed is not None:
                        flight.put(Event("answer", jsonrpc.Message(result=listed)))
                        return
                    if not await self._sent_for(flight, user, method, error.challenge):
                        return
                else:
                    return
            flight.put(Event("end", error=TimedOut(f"waited too long for its user to sign in at {self._door.label}")))
        except RpcError as error:
            flight.put(_failed(error.code, str(error), error.data))
        except (UpstreamError, TimedOut) as error:
            flight.put(Event("end", error=error))
        except QuarterdeckError as error:
            flight.put(Event("end", error=UpstreamError(f"cannot be signed in at: {error}")))
        except MALFORMED as error:
            flight.put(Event("end", error=UpstreamError(f"sent what MCP does not know: {error}")))
        finally:
            self._flights.pop(flight.id, None)
            self._carried.pop(flight.id, None)

    def _stands_in(self, params: dict[str, Any]) -> bool:
        """Whether the tool called is ours: the server may have one of that name, once its user has signed in."""
        return _name(params) == SIGN_IN and (self._offered or bool(_code(params)))

    async def _once(self, flight: Flight, method: str, params: dict[str, Any]) -> None:
        """The call in the inner conversation, its events passed on as they come. Raises Unauthorized."""
        inner = await self._opened()
        carried = await inner.send(method, params)
        was, flight.id = flight.id, carried.id  # questions name the flight that they belong to
        carried.asked = flight.asked
        self._carried[flight.id] = carried
        self._flights[flight.id] = flight
        if was != flight.id:
            self._flights.pop(was, None)
        try:
            while True:
                event = await carried.take()
                if isinstance(event.error, Unauthorized):
                    raise event.error
                flight.put(event)
                if event.kind in ("answer", "end"):
                    return
                await flight.room()
        finally:
            inner.end(carried)

    async def _sent_for(self, flight: Flight, user: str, method: str, challenge: Challenge) -> bool:
        """Have the user sign in; whether the call can be tried again."""
        door = self._door
        if await door.pending(user):
            return await self._confirmed(flight, user, method)
        elicitation = await door.elicit(user, self._bare.principal, challenge)
        asked: dict[str, Any] = {"mode": "url", "message": elicitation.message, "url": elicitation.url}
        plain = f"{elicitation.message} Open {elicitation.url} in a browser, then try again."
        if not self._can("url"):
            self._tell_plainly(flight, method, plain, elicitation.url)
            return False
        if not self.stateless:
            asked["elicitationId"] = elicitation.id
            flight.put(_failed(protocol.URL_ELICITATION_REQUIRED, elicitation.message, {"elicitations": [asked]}))
            return False
        if not await self._question(flight, asked):
            self._tell_plainly(flight, method, plain, elicitation.url)
            return False
        await door.arrival(user, elicitation, min(_WAIT, self.route.server.timeout * 0.8 or _WAIT))
        return True

    async def _confirmed(self, flight: Flight, user: str, method: str) -> bool:
        """Have the caller give the code that the browser was shown; whether the call can be tried again."""
        label = self._door.label
        if not self._can("form"):
            text = f"Give the code that the browser shows after the sign-in at {label}: call {SIGN_IN} with it as code."
            self._tell_plainly(flight, method, text)
            return False
        asked = {
            "mode": "form",
            "message": f"Somebody has signed in at {label} for you. If it was you, enter the code your browser shows.",
            "requestedSchema": {"type": "object", "properties": {"code": _CODE}, "required": ["code"]},
        }
        if self.version < "2025-11-25" and not self.stateless:
            del asked["mode"]
        content = (await self._question(flight, asked)).get("content")
        code = cast(dict[str, Any], content).get("code") if isinstance(content, dict) else ""
        if await self._door.confirm(user, str(code)):
            return True
        self._tell_plainly(flight, method, f"That is not the code that the browser shows for {label}; try again.")
        return False

    async def _question(self, flight: Flight, asked: dict[str, Any]) -> dict[str, Any]:
        """Put a question to the client; its answer, empty when it declined."""
        key = f"{SIGN_IN}-{next(_ids)}"
        ident = f"{flight.id}/{key}"
        answered = self._waiting[ident] = asyncio.get_running_loop().create_future()
        params = Raw(msgspec.json.encode(asked))
        message = jsonrpc.Message(id=Raw(msgspec.json.encode(ident)), method="elicitation/create", params=params)
        flight.put(Event("question", message))
        try:
            return await answered
        finally:
            self._waiting.pop(ident, None)

    def _can(self, mode: str) -> bool:
        """Whether the client elicits so; one that says no mode can show forms."""
        able = self.capabilities.get("elicitation")
        if not isinstance(able, dict):
            return False
        modes = cast(dict[str, Any], able)
        return mode in modes or (mode == "form" and "url" not in modes)

    async def _signing_in(self, flight: Flight, user: str, params: dict[str, Any]) -> bool:
        """A call of :data:`SIGN_IN`: whether it is answered here."""
        label, code = self._door.label, _code(params)
        if code:
            right = await self._door.confirm(user, code)
            if not right and await self._door.grant(user) is None:
                flight.put(_result(f"That is not the code that the browser shows for {label}.", failed=True))
                return True
        if await self._door.grant(user) is not None:
            flight.put(_result(f"You are signed in at {label}. List the tools again to see them."))
            return True
        return not await self._sent_for(flight, user, protocol.TOOLS_CALL, Challenge())

    def _tell_plainly(self, flight: Flight, method: str, text: str, url: str = "") -> None:
        """For clients that cannot be asked: words that the model, or its user, can follow."""
        if method == protocol.TOOLS_CALL:
            flight.put(_result(text, failed=True))
        else:
            data = {"reason": "sign_in_required", **({"url": url} if url else {})}
            flight.put(_failed(protocol.DENIED, text, data))

    # -- what belongs to no call
    def _relay(self, message: jsonrpc.Message) -> None:
        if message.method == "notifications/tools/list_changed":
            self.mirrored = None
        self._tell(message)

    def signed_in(self, elicitation: str) -> None:
        """The user was at the URL of that elicitation; without one: she is known to the server now."""
        if elicitation:
            if not self.stateless:
                params = Raw(msgspec.json.encode({"elicitationId": elicitation}))
                self._tell(jsonrpc.Message(method="notifications/elicitation/complete", params=params))
            return
        self.mirrored = None
        for name in _CHANGED:
            self._tell(jsonrpc.Message(method=f"notifications/{name}/list_changed"))


def _anonymous(head: bytes) -> bytes:
    """Header lines without a credential."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"authorization:"))


def _tool(label: str) -> dict[str, Any]:
    return {
        "name": SIGN_IN,
        "title": f"Sign in at {label}",
        "description": f"{label} shows its tools to users who have signed in. Call this to be asked to.",
        "inputSchema": {"type": "object", "properties": {"code": _CODE}},
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    }


def _code(params: dict[str, Any]) -> str:
    arguments = params.get("arguments")
    if not isinstance(arguments, Raw):
        return ""
    try:
        return str(msgspec.json.decode(arguments, type=dict[str, Any]).get("code") or "")[:64]
    except MALFORMED:
        return ""


def _name(params: dict[str, Any]) -> str:
    name = params.get("name")
    return text_of(name) if isinstance(name, Raw) else str(name)


def _answer(answer: Raw) -> dict[str, Any]:
    """What a client answers to a question; nothing when it declined."""
    try:
        given = msgspec.json.decode(answer, type=dict[str, Any])
    except MALFORMED:
        return {}
    return given if given.get("action") == "accept" else {}


def _result(text: str, *, failed: bool = False) -> Event:
    result = {"content": [{"type": "text", "text": text}], **({"isError": True} if failed else {})}
    return Event("answer", jsonrpc.Message(result=Raw(msgspec.json.encode(result))))


def _failed(code: int, text: str, data: object = None) -> Event:
    error = {"code": code, "message": text, **({"data": data} if data is not None else {})}
    return Event("answer", jsonrpc.Message(error=Raw(msgspec.json.encode(error))))
