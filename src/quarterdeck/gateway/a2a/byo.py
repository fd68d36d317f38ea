"""Calls to BYO agents: opened at the control plane for the verified user before the agent hears of them.

Somebody else's image believes what ``X-User-ID`` says and may keep its conversations by their id alone. So here the
user is who the gateway has verified, each message has a conversation id, and a conversation or task of another user is
one that does not exist.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

import msgspec

from quarterdeck.a2atypes import errors, operations
from quarterdeck.errors import Denied, NotFound, QuarterdeckError
from quarterdeck.malformed import MALFORMED
from quarterdeck.wire.text import of_header

from ..acting import Acting
from ..call import Call
from ..mcp.approvals import Ask
from ..policy.principal import LOCAL_USER

DEFAULT_USER = "admin@kagent.dev"
"""kagent's name of the one user there is where nobody is known."""
_TASK_PATH = re.compile(r"/tasks/([^/:]+)")
_LIST_PATH = re.compile(r"/tasks/*$")
_LISTS = frozenset({operations.LIST, "tasks/list"})
_MESSAGES = ("message", "request")
_SESSIONS = ("contextId", "context_id")
_TASKS = ("taskId", "task_id")
_REFERENCES = ("referenceTaskIds", "reference_task_ids")
_NAMES = 16


class Named(NamedTuple):
    """What a request is about. ``document``: its body, decoded; ``messages``: those in it, which may lack their
    conversation; ``everything``: it asks for tasks of whatever conversation."""

    session: str
    tasks: tuple[str, ...]
    document: dict[str, Any]
    messages: tuple[dict[str, Any], ...]
    everything: bool


class _Opened(msgspec.Struct):
    session: str = ""
    missing: str = ""


def named(body: bytes, target: str) -> Named:
    """A2A 0.3 and 1.0, JSON-RPC and HTTP+JSON, in every spelling that an SDK reads.

    Raises A2AError for what could be read otherwise behind us than here: no object, two conversations at once.
    """
    try:
        document = msgspec.json.decode(body, type=dict[str, Any]) if body else {}
    except MALFORMED as error:
        raise errors.ParseError(f"the body must be a JSON object in UTF-8: {error}") from error
    params = document.get("params")
    envelopes = [document, *([params] if isinstance(params, dict) else [])]
    messages = [each[key] for each in envelopes for key in _MESSAGES if isinstance(each.get(key), dict)]
    path, _, query = target.partition("?")
    path = unquote(path)  # as the image reads it
    queried = [{key: value} for key, values in parse_qs(query).items() for value in values]
    places = [*envelopes, *messages, *queried]
    sessions = _values(places, _SESSIONS)
    if len(sessions) > 1:
        raise errors.InvalidParams(f"contextId: one request names two conversations: {', '.join(sessions)}")
    tasks = _values(places, _TASKS) + _values(envelopes[1:], ("id",))
    tasks += [name for message in messages for key in _REFERENCES for name in _texts(message.get(key))]
    found = _TASK_PATH.search(path)
    tasks += [found[1]] if found is not None else []
    everything = str(document.get("method")) in _LISTS and not _values(envelopes[1:], _SESSIONS)
    everything |= _LIST_PATH.search(path) is not None and not _values(queried, _SESSIONS)
    return Named("".join(sessions), tuple(dict.fromkeys(tasks)), document, tuple(messages), everything)


def _values(places: list[dict[str, Any]], keys: tuple[str, ...]) -> list[str]:
    """What the objects have under any of the keys, each once."""
    found = [place[key] for place in places for key in keys if place.get(key)]
    for value in found:
        if not isinstance(value, str):
            raise errors.InvalidParams(f"{keys[0]}: must be a string")
    return list(dict.fromkeys(found))


def _texts(value: object) -> list[str]:
    if not isinstance(value, list | None) or not all(isinstance(name, str) for name in value or ()):
        raise errors.InvalidParams(f"{_REFERENCES[0]}: must be a list of strings")
    return value or []


def user_of(call: Call) -> tuple[str, str]:
    """(the verified user, the agent that says so on its word alone, or "")."""
    principal = call.principal
    if not principal.agent:
        nobody = principal.anonymous or principal is LOCAL_USER
        return (DEFAULT_USER if nobody else principal.username or principal.id), ""
    if principal.on_behalf_of:
        return principal.on_behalf_of, ""
    said = of_header(call.headers.get(b"x-user-id", b"")).strip()
    return (said, principal.agent) if said else (principal.id, "")


async def enter(ask: Ask | None, call: Call, agent: str, target: str, acting: Acting | None) -> bytes:
    """Open the conversation; the header lines for the agent. The request's body gets its id when it has none.

    Raises NotFound for another user's, Denied for a user whom the calling agent does not have, QuarterdeckError when
    the control plane cannot be asked.
    """
    user, via = user_of(call)
    if len(user) > 255 or "\r" in user or "\n" in user:
        raise Denied("the user's name is no header's value")
    about = named(call.exchange.body, target)
    line = b"x-user-id: %b\r\n" % user.encode("utf-8")
    if about.everything:
        raise Denied("name the contextId whose tasks to list: whose others are, its image does not tell")
    if about.messages or about.tasks or about.session:
        if ask is None:
            raise QuarterdeckError("conversations are kept by a control plane, and this gateway has none")
        if len(about.tasks) > _NAMES:
            raise errors.InvalidParams(f"taskId: one request names {len(about.tasks)} tasks")
        wanted: dict[str, Any] = {"agent": agent, "user": user, "via": via, "session": about.session}
        wanted |= {"tasks": about.tasks, "reads": not about.messages}
        opened = msgspec.json.decode(await ask("conversations", msgspec.json.encode(wanted)), type=_Opened)
        if opened.missing:
            raise NotFound(opened.missing)
        for message in about.messages:
            message.pop("context_id", None)
            message["contextId"] = opened.session
    if call.exchange.body:  # as it was read here, so that no parser finds anything else in it
        call.exchange.body = msgspec.json.encode(about.document)
    told = acting.line(call, agent) if acting is not None else b""
    return line + told
