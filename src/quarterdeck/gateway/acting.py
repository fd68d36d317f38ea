"""For whom an agent acts: what the gateway tells an agent with a user's message, and the agent shows with its calls.

The gateway seals the verified user into a token for that agent. The agent cannot read or change it, and nobody else
can use it, so a call made with it was asked for by that user, whatever the agent says. A user's message to one agent
that leads to another keeps user and first task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time

import msgspec
from msgspec import Struct

from quarterdeck.snapshot.consent import Requester

from .call import Call
from .mcp.session import SessionSealer
from .policy.principal import Principal

HEADER = b"x-quarterdeck-acting-for"
TASK = b"x-quarterdeck-task"
"""A2A task of the agent in which it asks another agent."""
_LASTS = 7 * 86400.0
"""Seconds: a run may wait for people, or be taken up after days."""
_NAMES = ("preferred_username", "email", "sub", "upn")


class ActingFor(Struct, frozen=True, array_like=True):
    """``task``: ``NAMESPACE/AGENT#ID`` of the task that the user sees; empty while the agent has not named it."""

    user: str
    names: tuple[str, ...]
    task: str
    at: float

    @property
    def requester(self) -> Requester:
        return Requester(self.user, self.names)


def requester_of(principal: Principal) -> Requester:
    """A person who calls themselves, with the other names that their verified token has for them."""
    claims = principal.claims
    names = {str(claims[name]) for name in _NAMES if isinstance(claims.get(name), str)} | {principal.username}
    return Requester(principal.id, tuple(sorted(name for name in names if name and name != principal.id)))


class Acting:
    """Makes and reads the tokens."""

    def __init__(self, sealer: SessionSealer, clock: Callable[[], float] = time) -> None:
        self._sealer = sealer
        self._clock = clock

    def token(self, principal: Principal, headers: Mapping[bytes, bytes], agent: str) -> bytes:
        """For ``agent``, to whom a message of ``principal`` goes; empty when nobody is known to stand behind it."""
        if principal.agent:
            given = self.of(principal, headers)
            if given is None:
                return b""
            task = given.task or self._task(principal, headers)
            told = msgspec.structs.replace(given, task=task)
        else:
            requester = requester_of(principal)
            told = ActingFor(requester.id, requester.names, "", self._clock())
        return self._sealer.seal_bytes(msgspec.msgpack.encode(told), _binding(agent))

    def line(self, call: Call, agent: str) -> bytes:
        """The header line for a message to ``agent``; empty when there is nothing to tell."""
        token = self.token(call.principal, call.headers, agent)
        return b"%b: %b\r\n" % (HEADER, token) if token else b""

    def of(self, principal: Principal, headers: Mapping[bytes, bytes]) -> ActingFor | None:
        """For whom the agent says, provably, that it acts."""
        given = headers.get(HEADER)
        if given is None or not principal.agent:
            return None
        data = self._sealer.open_bytes(given, _binding(principal.agent))
        if data is None:
            return None
        try:
            found = msgspec.msgpack.decode(data, type=ActingFor)
        except msgspec.DecodeError:
            return None
        return found if self._clock() < found.at + _LASTS else None

    def _task(self, principal: Principal, headers: Mapping[bytes, bytes]) -> str:
        task = headers.get(TASK, b"")[:255].decode("latin-1")
        return f"{principal.agent}#{task}" if task else ""


def _binding(agent: str) -> bytes:
    return b"acting-for|" + agent.encode()
