"""The traffic of one server process: who asked what, and where answers, progress and server requests go.

Ids and progress tokens are rewritten per hop, so that callers that chose the same id never meet. Everything else in a
message is passed on as the bytes it came in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from msgspec import UNSET, Raw, UnsetType

from quarterdeck.errors import QuarterdeckError, TimedOut, UpstreamError
from quarterdeck.mcptypes import protocol
from quarterdeck.mcptypes.jsonrpc import Message, error_response

from .child import Child
from .frames import encode_line, member, meta_member, with_member, with_meta

PING_TIMEOUT = 5.0
"""Seconds a process that let a request time out has to say anything at all; then it is hung and is ended."""


class Receiver(Protocol):
    """Where what belongs to one request goes: the HTTP exchange that carries it."""

    def on_interim(self, message: bytes) -> None:
        """A notification or server request that belongs to the request."""
        ...

    def on_answer(self, message: bytes) -> None: ...
    def on_failure(self, error: QuarterdeckError) -> None: ...


@dataclass(slots=True)
class Pending:
    """A request the process has not answered yet."""

    client_id: Raw
    receiver: Receiver
    session: str
    progress_token: Raw | None = None
    deadline: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Link:
    """Multiplexes requests of one or many sessions over one process."""

    child: Child
    unsolicited: Callable[[bytes], bool]
    """Takes a message from the server that belongs to no request; returns False when nobody listens."""
    greeting: Raw | UnsetType = UNSET
    """Result of ``initialize`` where one process greets once for many sessions."""
    _next: int = 0
    _heard: int = 0
    _pinged: asyncio.TimerHandle | None = None
    _pending: dict[int, Pending] = field(default_factory=dict[int, Pending])
    _asked: dict[str, Raw] = field(default_factory=dict[str, Raw])

    def __post_init__(self) -> None:
        self.child.listener = self

    @property
    def busy(self) -> int:
        return len(self._pending)

    # -- towards the server
    def request(self, message: Message, receiver: Receiver, session: str, timeout: float) -> int:
        """Send a request; its answer goes to ``receiver``. Returns the id used towards the process."""
        assert isinstance(message.id, Raw)
        self._next += 1
        number = self._next
        pending = Pending(message.id, receiver, session)
        params = message.params
        internal = Raw(b"%d" % number)
        pending.progress_token = meta_member(params, "progressToken")
        if pending.progress_token is not None and isinstance(params, Raw):
            params = with_meta(params, "progressToken", internal)
        self._pending[number] = pending
        self._watch(number, pending, timeout)
        try:
            self.child.send(encode_line(id=internal, method=message.method, params=params))
        except UpstreamError:
            self._drop(number)
            raise
        return number

    def notify(self, message: Message, session: str) -> None:
        """Pass a client notification on; a cancellation names the id the process knows."""
        params = message.params
        if message.method == protocol.CANCELLED and isinstance(params, Raw):
            number = self._number(member(params, "requestId"), session)
            if number is None:
                return
            params = with_member(params, "requestId", Raw(b"%d" % number))
        self.child.send(encode_line(method=message.method, params=params))

    def answer(self, message: Message) -> bool:
        """Pass a client's answer to a server request on. False when the server asked no such thing."""
        assert isinstance(message.id, Raw)
        original = self._asked.pop(bytes(message.id).decode(), None)
        if original is None:
            return False
        self.child.send(encode_line(id=original, result=message.result, error=message.error))
        return True

    def cancel(self, number: int, reason: str) -> None:
        """Tell the process that nobody waits for request ``number`` any more."""
        if self._drop(number) is None or not self.child.alive:
            return
        params = msgspec.json.encode({"requestId": number, "reason": reason})
        self.child.send(encode_line(method=protocol.CANCELLED, params=Raw(params)))

    # -- Listener
    def on_message(self, message: Message) -> None:
        self._heard += 1
        if not message.method:
            self._answered(message)
        else:
            self._from_server(message)

    def on_exit(self, error: UpstreamError) -> None:
        if self._pinged is not None:
            self._pinged.cancel()
        pending, self._pending = self._pending, {}
        for entry in pending.values():
            if entry.deadline is not None:
                entry.deadline.cancel()
            entry.receiver.on_failure(error)

    # -- inside
    def _answered(self, message: Message) -> None:
        assert isinstance(message.id, Raw)
        raw = bytes(message.id)
        pending = self._drop(int(raw)) if raw.isdigit() else None
        if pending is not None:
            pending.receiver.on_answer(encode_line(id=pending.client_id, result=message.result, error=message.error))

    def _from_server(self, message: Message) -> None:
        pending, params = self._belongs_to(message)
        ident = message.id
        if isinstance(ident, Raw):
            self._next += 1
            key = b'"srv-%d"' % self._next
            self._asked[key.decode()] = ident
            ident = Raw(key)
        data = encode_line(id=ident, method=message.method, params=params)
        if pending is not None:
            self._watch_again(pending)
            pending.receiver.on_interim(data)
        elif not self.unsolicited(data) and isinstance(ident, Raw):
            self._refuse(ident)

    def _belongs_to(self, message: Message) -> tuple[Pending | None, Raw | UnsetType]:
        """The request a server message is about, and the params with the caller's own token put back."""
        params = message.params
        if message.method == "notifications/progress" and isinstance(params, Raw):
            pending = self._by_number(member(params, "progressToken"))
            if pending is not None and pending.progress_token is not None:
                return pending, with_member(params, "progressToken", pending.progress_token)
            return pending, params
        pending = self._by_number(meta_member(params, protocol.META_SUBSCRIPTION))
        if pending is not None and isinstance(params, Raw):
            return pending, with_meta(params, protocol.META_SUBSCRIPTION, pending.client_id)
        # A stdio server cannot say which request a log line or question is about: the youngest one is the best guess,
        # unless it is plainly not about a request.
        if message.method.endswith(("list_changed", "resources/updated")):
            return None, params
        return (next(reversed(self._pending.values())) if self._pending else None), params

    def _by_number(self, token: Raw | None) -> Pending | None:
        digits = bytes(token).strip(b'"') if token is not None else b""
        return self._pending.get(int(digits)) if digits.isdigit() else None

    def _refuse(self, asked_id: Raw) -> None:
        original = self._asked.pop(bytes(asked_id).decode())
        text = "no client is listening for requests of the server"
        self.child.send(error_response(original, protocol.METHOD_NOT_FOUND, text))

    def _number(self, client_id: Raw | None, session: str) -> int | None:
        if client_id is None:
            return None
        wanted = bytes(client_id)
        for number, pending in self._pending.items():
            if pending.session == session and bytes(pending.client_id) == wanted:
                return number
        return None

    def _watch(self, number: int, pending: Pending, timeout: float) -> None:
        def expired() -> None:
            self.cancel(number, "timed out")
            self._ping()
            name = self.child.config.name
            pending.receiver.on_failure(
                TimedOut(
                    f"MCP server {name} gave no sign of life for {timeout:g} s; spec.timeout of the MCPServer sets this"
                )
            )

        pending.deadline = asyncio.get_running_loop().call_later(timeout, expired) if timeout else None

    def _ping(self) -> None:
        """Find out whether the process as a whole is hung: one busy call is its own affair, a dead loop is everybody's.

        Any message counts as a sign of life, also the error of a server that knows no ping.
        """
        if self._pinged is not None or not self.child.alive:
            return
        heard = self._heard
        self._next += 1

        def check() -> None:
            self._pinged = None
            if self._heard == heard and self.child.alive:
                self.child.kill(f"gave no answer to a ping within {PING_TIMEOUT:g} s and was ended")

        self._pinged = asyncio.get_running_loop().call_later(PING_TIMEOUT, check)
        self.child.send(encode_line(id=Raw(b"%d" % self._next), method="ping"))

    def _watch_again(self, pending: Pending) -> None:
        if pending.deadline is None:
            return
        pending.deadline.cancel()
        for number, entry in self._pending.items():
            if entry is pending:
                self._watch(number, pending, self.child.config.timeout)

    def _drop(self, number: int) -> Pending | None:
        pending = self._pending.pop(number, None)
        if pending is not None and pending.deadline is not None:
            pending.deadline.cancel()
        return pending
