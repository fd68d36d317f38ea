"""Calls to BYO agents: opened at the control plane for the verified user before the agent hears of them.

Somebody else's image believes what ``X-User-ID`` says and may keep its conversations by their id alone. So here the
user is who the gateway has verified, each message has a conversation id, and a conversation or task of another user is
one that does not exist.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from quarterdeck.a2atypes import operations
from quarterdeck.errors import Denied, NotFound, QuarterdeckError
from quarterdeck.malformed import MALFORMED

from ..acting import Acting
from ..call import Call
from ..mcp.approvals import Ask
from ..policy.principal import LOCAL_USER

DEFAULT_USER = "admin@kagent.dev"
"""kagent's name of the one user there is where nobody is known."""
_TASK_PATH = re.compile(r"/tasks/([^/:?]+)")
_LISTS = frozenset({operations.LIST, "tasks/list"})


class Named(NamedTuple):
    """What a request is about. ``document``: it, when it is a message that can be given a conversation."""

    session: str
    tasks: tuple[str, ...]
    document: dict[str, Any] | None = None


class _Opened(msgspec.Struct):
    session: str = ""
    missing: str = ""


def named(body: bytes, target: str) -> Named:
    """A2A 0.3 and 1.0, JSON-RPC and HTTP+JSON; what cannot be read is the agent's to complain of."""
    try:
        document = msgspec.json.decode(body, type=dict[str, Any]) if body else {}
    except MALFORMED:
        document = {}
    rpc = "jsonrpc" in document
    inner = document.get("params") if rpc else document
    params: dict[str, Any] = inner if isinstance(inner, dict) else {}
    message = params.get("message")
    tasks = [params.get("taskId"), params.get("id") if rpc else None]
    path, _, query = target.partition("?")
    found = _TASK_PATH.search(path)
    tasks += [found[1]] if found is not None else []
    session = params.get("contextId") or parse_qs(query).get("contextId", [""])[0]
    if isinstance(message, dict):
        tasks.append(message.get("taskId"))
        session = message.get("contextId") or session
    names = tuple(dict.fromkeys(each for each in tasks if isinstance(each, str) and each))
    return Named(session if isinstance(session, str) else "", names, document if isinstance(message, dict) else None)


def user_of(call: Call) -> tuple[str, str]:
    """(the verified user, the agent that says so on its word alone, or "")."""
    principal = call.principal
    if not principal.agent:
        nobody = principal.anonymous or principal is LOCAL_USER
        return (DEFAULT_USER if nobody else principal.username or principal.id), ""
    if principal.on_behalf_of:
        return principal.on_behalf_of, ""
    said = call.headers.get(b"x-user-id", b"").decode("latin-1").strip()
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
    if about.document is None and call.method in _LISTS and not about.session:
        raise Denied("name the contextId whose tasks to list: whose others are, its image does not tell")
    if about.document is not None or about.tasks or about.session:
        if ask is None:
            raise QuarterdeckError(
                "conversations are kept by a control plane, and this gateway is configured by a file"
            )
        wanted: dict[str, Any] = {"agent": agent, "user": user, "via": via, "session": about.session}
        wanted |= {"tasks": about.tasks[:16], "reads": about.document is None}
        opened = msgspec.json.decode(await ask("conversations", msgspec.json.encode(wanted)), type=_Opened)
        if opened.missing:
            raise NotFound(opened.missing)
        if about.document is not None and not about.session:
            call.exchange.body = _with_session(about.document, opened.session)
    told = acting.line(call, agent) if acting is not None else b""
    return line + told


def _with_session(document: dict[str, Any], session: str) -> bytes:
    params = document["params"] if "jsonrpc" in document else document
    params["message"]["contextId"] = session
    return msgspec.json.encode(document)
