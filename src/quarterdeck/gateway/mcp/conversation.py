"""One session with a server of the older era (until 2025-11-25), shared by the stateless requests of one caller.

A request in it is a :class:`Flight`. What the server says about it (notices, questions, the answer) waits in the
flight's queue, so that the exchange that takes it may be another than the one that sent the request: a question to the
client becomes an ``input_required`` result, and the retry that brings the answers takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from itertools import count
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcptypes import LATEST_LEGACY, jsonrpc, protocol
from quarterdeck.wire.client import Response

from ..call import Call
from . import client
from .client import Link, SessionExpired
from .route import Lane, McpRoute

_QUEUE = 1024
_QUEUE_BYTES = 1024 * 1024
"""Messages of one call, and their bytes, that wait for a client that does not read; the server waits then, too."""
_GREETING_BYTES = 256 * 1024
"""Largest result of ``initialize``: it is kept."""

_LISTENING = 0.2
"""Seconds that the first call of a session waits for the GET stream."""
_RESUMED = 100
"""How often the stream of one call is taken up again."""
_BURST = 0.05
"""Seconds to wait for further questions once the server has asked one: servers ask several things at a time."""

CHANGES = frozenset(
    {
        "notifications/tools/list_changed", "notifications/prompts/list_changed",
        "notifications/resources/list_changed", "notifications/resources/updated",
    }
)  # fmt: skip
_ids = count(1)


class Event(Struct, gc=False):
    """What a server says about a call. ``answer`` and ``end`` come last."""

    kind: Literal["notice", "question", "answer", "end"]
    message: jsonrpc.Message = msgspec.field(default_factory=jsonrpc.Message)
    error: UpstreamError | TimedOut | None = None

    @property
    def size(self) -> int:
        message = self.message
        parts = (message.params, message.result, message.error)
        return sum(memoryview(part).nbytes for part in parts if isinstance(part, Raw))


class Greeting(Struct, rename="camel"):
    """Result of ``initialize``."""

    protocol_version: str = LATEST_LEGACY
    capabilities: dict[str, Any] = {}
    server_info: dict[str, Any] = {}
    instructions: str = ""


class _Progress(Struct):
    token: str | int = msgspec.field(name="progressToken", default="")


class Flight:
    """A call that the server works on."""

    def __init__(self, number: int) -> None:
        self.id = f"qd-f{number}"
        self.events: asyncio.Queue[Event] = asyncio.Queue(_QUEUE)
        self.asked: dict[str, jsonrpc.Message] = {}
        """Questions the client has been told of and has not answered."""
        self.given: dict[str, Raw] = {}
        self.answered = asyncio.Event()
        """Its answers, and whether all are there; for servers that want them together."""
        self.token: Raw | None = None
        self.own_token = ""
        """The client's progress token, and the one that the server knows in its place."""
        self.task: asyncio.Task[None] | None = None
        self.over = False
        self._waiting = 0
        self._taken = asyncio.Event()

    def key_of(self, question: jsonrpc.Message) -> str:
        """The key that is in a question's id, as those have that the gateway makes: ``{flight}/{key}``."""
        try:
            ident: object = msgspec.json.decode(question.id) if isinstance(question.id, Raw) else ""
        except msgspec.DecodeError:
            return ""
        return ident.removeprefix(f"{self.id}/") if isinstance(ident, str) and ident.startswith(f"{self.id}/") else ""

    @property
    def full(self) -> bool:
        """Whether the server should wait before it says more."""
        return self._waiting >= _QUEUE_BYTES or self.events.qsize() >= _QUEUE // 2

    async def room(self) -> None:
        """Returns when the queue is not :attr:`full`."""
        while self.full:
            self._taken.clear()
            await self._taken.wait()

    def put(self, event: Event) -> None:
        try:
            self.events.put_nowait(event)
            self._waiting += event.size
        except asyncio.QueueFull:  # the client stopped reading; the call ends rather than grow
            self.over = True

    async def take(self) -> Event:
        """The next event, however long it takes."""
        event = await self.events.get()
        self._waiting -= event.size
        self._taken.set()
        return event

    async def next(self, timeout: float) -> Event:
        """The next event; ``end`` with TimedOut after so many silent seconds (0: never)."""
        try:
            async with asyncio.timeout(timeout or None):
                return await self.take()
        except TimeoutError:
            return Event("end", error=TimedOut(f"gave no sign of life for {timeout:g} s"))

    async def burst(self, first: Event) -> list[Event]:
        """``first``, a question, and those that follow at once. What is no question goes back into the queue."""
        found = [first]
        later: list[Event] = []
        try:
            async with asyncio.timeout(_BURST):
                while True:
                    event = await self.take()
                    (found if event.kind == "question" else later).append(event)
        except TimeoutError:
            for event in later:
                self.put(event)
        return found


class Running:
    """A call that a conversation carries, for whoever may end what is open."""

    def __init__(self, call: Call, flight: Flight) -> None:
        self.call = call
        self.principal = call.principal
        self.target = ("mcp", call.server)
        self._flight = flight

    def give_up(self, error: UpstreamError) -> None:
        """The gateway ends the call; its client is told why."""
        self._flight.put(Event("end", error=error))


class Conversation:
    """The session, its GET stream, and the calls in it."""

    kept_here: frozenset[str] = frozenset()
    """Requests that are settled here, as the server has no such thing."""

    def __init__(
        self,
        route: McpRoute,
        lane: Lane,
        capabilities: dict[str, Any],
        *,
        info: dict[str, Any] | None = None,
        version: str = LATEST_LEGACY,
    ) -> None:
        """``info`` and ``version``: what the client said of itself when it initialised, if it did."""
        self.route = route
        self.lane = lane
        self.capabilities = capabilities
        self.info = info
        self.version = version
        self.extra = b""
        """Header lines that the rules of the target add, of the newest call."""
        self.link: Link | None = None
        self.stateless = False
        """Whether its clients are of 2026-07-28: questions to them become ``input_required`` results."""
        self.greeting = Greeting()
        self.level = ""
        self.listeners: set[Callable[[jsonrpc.Message], None]] = set()
        """Take notifications that belong to no call: lists that changed, resources that were updated."""
        self.mirrored: dict[str, dict[tuple[str, ...], str]] | None = None
        """Tool → arguments that travel as headers; None until the tools were listed."""
        self._flights: dict[str, Flight] = {}
        self._stream: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        """Whether the server has answered to the GET stream: what it asks before that is lost."""
        self.opening = asyncio.Lock()

    @property
    def busy(self) -> bool:
        return bool(self._flights or self.listeners)

    async def open(self) -> Link:
        """The session; made when there is none. Raises UpstreamError, TimedOut."""
        async with self.opening:
            return self._live() or await self._begin()

    def _live(self) -> Link | None:
        """The session; None when there is none, or the server is no longer to be reached where it was opened."""
        link = self.link
        return link if link is not None and self.route.origin(link.origin[0], link.origin[1]) is not None else None

    async def _begin(self) -> Link:
        """Make a session in place of any other. Raises UpstreamError, TimedOut."""
        self.close()
        opened, result = await client.initialize(
            self.route, self.lane, self.capabilities, info=self.info, version=self.version, extra=self.extra
        )
        if memoryview(result).nbytes > _GREETING_BYTES:
            raise UpstreamError(f"says more than {_GREETING_BYTES} bytes of itself")
        self.greeting = msgspec.json.decode(result, type=Greeting)
        self.link = opened
        self.level, self.mirrored = "", None
        self._listening.clear()
        self._stream = asyncio.get_running_loop().create_task(self._listen(self.link))
        return self.link

    def renew(self, route: McpRoute, lane: Lane, extra: bytes) -> None:
        """Go on by the newest configuration, and as the newest call is to be seen."""
        self.route, self.lane, self.extra = route, lane, extra
        if self.link is not None:
            self.link.extra = extra

    def attach(self, listener: Callable[[jsonrpc.Message], None]) -> None:
        """Tell ``listener`` of what belongs to no call, from now on."""
        self.listeners.add(listener)

    def detach(self, listener: Callable[[jsonrpc.Message], None]) -> None:
        self.listeners.discard(listener)

    def close(self) -> None:
        """Forget the session; calls in it end with an error."""
        self.link = None
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
        for flight in list(self._flights.values()):
            flight.put(Event("end", error=UpstreamError("ended the session")))

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> Raw:
        """A request of our own; a session that has expired is opened anew, once. Raises RpcError, UpstreamError."""
        link = await self.open()
        try:
            return await client.ask(self.route, self.lane, link, method, params)
        except SessionExpired:
            self.close()
            return await client.ask(self.route, self.lane, await self.open(), method, params)

    async def send(self, method: str, params: dict[str, Any]) -> Flight:
        """Start a call. Raises UpstreamError, TimedOut."""
        flight = Flight(next(_ids))
        link = await self.open()
        body = jsonrpc.request(flight.id, method, params)
        if not self._listening.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LISTENING):
                    await self._listening.wait()
        response = await client.post(self.route, self.lane, link, method, body)
        if response.status == 404 and link.session:
            self.close()
            response = await client.post(self.route, self.lane, await self.open(), method, body)
        self._flights[flight.id] = flight
        flight.task = asyncio.get_running_loop().create_task(self._receive(flight, response))
        return flight

    async def answer(self, flight: Flight, answers: dict[str, Raw]) -> None:
        """Bring the client's answers to the server. Raises UpstreamError, TimedOut."""
        for key, result in answers.items():
            question = flight.asked.pop(key, None)
            if question is not None:
                await self.tell(jsonrpc.result_response(question.id, result), "response")

    async def refuse(self, question: jsonrpc.Message, text: str) -> None:
        """Tell the server that nobody will answer. Raises UpstreamError, TimedOut."""
        await self.tell(jsonrpc.error_response(question.id, protocol.METHOD_NOT_FOUND, text), "response")

    async def tell(self, body: bytes, method: str) -> None:
        """Send what the server does not answer. Raises UpstreamError, TimedOut."""
        await client.notify(self.route, self.lane, await self.open(), body, method)

    async def cancel(self, flight: Flight, reason: str) -> None:
        """Nobody waits for this call any more. Raises nothing: the server is told if it can be."""
        self.end(flight)
        if self.link is not None:
            body = jsonrpc.notification(protocol.CANCELLED, {"requestId": flight.id, "reason": reason})
            try:
                await self.tell(body, protocol.CANCELLED)
            except (UpstreamError, TimedOut):
                return  # it cannot hear us; its own time limits end the call

    def end(self, flight: Flight) -> None:
        """Stop listening to the server about this call."""
        flight.over = True
        self._flights.pop(flight.id, None)
        if flight.task is not None:
            flight.task.cancel()

    # -- from the server
    async def _receive(self, flight: Flight, response: Response) -> None:
        place = client.Place()
        try:
            for _ in range(_RESUMED + 1):
                if await self._read(flight, response, place):
                    return
                response = await self._resumed(response, place)
            raise UpstreamError(f"ended the stream of one call more than {_RESUMED} times")
        except (UpstreamError, TimedOut) as error:
            flight.put(Event("end", error=error))
        finally:
            response.close()
            self._flights.pop(flight.id, None)

    async def _read(self, flight: Flight, response: Response, place: client.Place) -> bool:
        """Whether the stream brought the answer. Raises UpstreamError when it broke and cannot be taken up again."""
        before = place.last
        try:
            async for message in client.messages(response, place):
                if not message.method:
                    flight.put(Event("answer", message))
                    return True
                self._about(flight, message)
                await flight.room()
        except UpstreamError:
            if place.last == before:
                raise
        return False

    async def _resumed(self, response: Response, place: client.Place) -> Response:
        """The stream of a call taken up again where it ended: servers end them to be polled (SEP-1699)."""
        response.close()
        link = self.link
        if not place.last or link is None:
            raise UpstreamError(f"ended before it answered (HTTP {response.status})")
        await asyncio.sleep(place.wait)
        again = await client.listen(self.route, self.lane, link, place.last)
        if again.status != 200:
            again.close()
            raise UpstreamError(f"ended before it answered, and does not go on (HTTP {again.status})")
        return again

    async def _listen(self, link: Link) -> None:
        """The GET stream: questions and notifications that the server sends outside of calls. Servers may have none."""
        try:
            response = await client.listen(self.route, self.lane, link)
            self._listening.set()
            if response.status != 200:
                response.close()
                return
            async for message in client.messages(response):
                await self._unasked(message)
        except (UpstreamError, TimedOut):
            return  # the next session has another stream
        finally:
            self._listening.set()

    async def _unasked(self, message: jsonrpc.Message) -> None:
        """A message that came on no call's stream."""
        if not message.method:
            self._late(message)
            return
        flight = self._meant(message)
        if message.method in CHANGES or flight is None:
            self._tell(message)
        elif not flight.full:
            self._about(flight, message)
        elif message.id is not UNSET:
            await self.refuse(message, "the client does not keep up")

    def _late(self, answer: jsonrpc.Message) -> None:
        """The answer to a call, told where anything is told, as its own stream is gone."""
        ident: object = msgspec.json.decode(answer.id) if isinstance(answer.id, Raw) else ""
        flight = self._flights.pop(ident, None) if isinstance(ident, str) else None
        if flight is not None:
            flight.put(Event("answer", answer))
            if flight.task is not None:
                flight.task.cancel()

    def _meant(self, message: jsonrpc.Message) -> Flight | None:
        """The call a message is about: progress says so, for all else the youngest one is the best guess."""
        if message.method == "notifications/progress" and isinstance(message.params, Raw):
            token = msgspec.json.decode(message.params, type=_Progress).token
            for flight in self._flights.values():
                if flight.own_token and flight.own_token == token:
                    return flight
        return next(reversed(self._flights.values())) if self._flights else None

    def _about(self, flight: Flight, message: jsonrpc.Message) -> None:
        if message.method in CHANGES:
            self._tell(message)
        else:
            flight.put(Event("notice" if message.id is UNSET else "question", message))

    def _tell(self, message: jsonrpc.Message) -> None:
        self.route.changes += 1
        if message.method == "notifications/tools/list_changed":
            self.mirrored = None
        for listener in list(self.listeners):
            listener(message)
