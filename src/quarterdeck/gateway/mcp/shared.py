"""Sessions with servers of the older era that the stateless requests of one caller share."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from time import monotonic
from typing import Any

import msgspec

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.mcptypes import modern, protocol

from ..policy.principal import Principal
from . import client
from .conversation import Conversation
from .legs import translated
from .route import McpRoute

_CONVERSATIONS = 5_000
_VARIANTS = 8
_CAPABILITIES_BYTES = 4096
"""Sessions of one caller with one server: clients choose the capabilities that tell them apart; and those' bytes."""
_IDLE = 1800.0
"""Seconds without a call after which a session with a server is given up."""

Key = tuple[str, str, str]


class Refused(Exception):
    """A caller may not have another session; ``code`` is the JSON-RPC error's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Conversations:
    """By server, caller and the capabilities of its client."""

    def __init__(self) -> None:
        self._conversations: OrderedDict[Key, tuple[Conversation, float]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, route: McpRoute, principal: Principal, envelope: modern.Envelope, extra: bytes = b"") -> Conversation:
        """The caller's session with the server, for a client that can do so much. Raises Refused."""
        capabilities = {k: v for k, v in envelope.capabilities.items() if k != "extensions"}
        encoded = msgspec.json.encode(capabilities, order="deterministic").decode()
        if len(encoded) > _CAPABILITIES_BYTES:
            text = f"the client's capabilities are larger than {_CAPABILITIES_BYTES} bytes"
            raise Refused(protocol.INVALID_PARAMS, text)
        lane = route.lane(principal)
        # by way of a virtual server other headers may be granted
        through = "" if lane.target == route.target else f" by {'/'.join(lane.target)}"
        key = (f"{route.server.kind} {route.label}{through}", principal.id, encoded)
        if key not in self._conversations and not self._make_room(key):
            text = f"{_VARIANTS} sets of capabilities are in use with this server already"
            raise Refused(protocol.INVALID_REQUEST, text)
        now = monotonic()
        self._expire(now)
        found = self._conversations.pop(key, None)
        conversation = found[0] if found is not None else (translated(route) or Conversation)(route, lane, capabilities)
        conversation.stateless = True
        conversation.renew(route, lane, extra)
        self._conversations[key] = (conversation, now)
        return conversation

    def _expire(self, now: float) -> None:
        for old, (conversation, used) in list(self._conversations.items()):
            if now - used < _IDLE and len(self._conversations) <= _CONVERSATIONS:
                break
            if not conversation.busy:
                del self._conversations[old]
                self._end(conversation)

    def _make_room(self, key: Key) -> bool:
        """Give up the oldest of the caller's sessions with the server when there are too many; False: all are used."""
        mine = [other for other in self._conversations if other[:2] == key[:2]]
        if len(mine) < _VARIANTS:
            return True
        for other in mine:
            conversation, _ = self._conversations[other]
            if not conversation.busy:
                del self._conversations[other]
                self._end(conversation)
                return True
        return False

    def _end(self, conversation: Conversation) -> None:
        link = conversation.link
        conversation.close()
        if link is not None:
            self._spawn(_closed(conversation, link))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _closed(conversation: Conversation, link: client.Link) -> None:
    try:
        await client.close(conversation.route, conversation.lane, link)
    except (UpstreamError, TimedOut):
        return  # it forgets the session by itself
