"""``POST /v1/conversations``: gateways tell for which user a message goes to a BYO agent, before they pass it on."""

from __future__ import annotations

from typing import Protocol

from quarterdeck.errors import BadRequest, Forbidden, NotFound

from .http import Answer, Call, Route, route
from .identity import Identity
from .kagent_sessions import Conversations

_NAMES = 16


class Gateways(Protocol):
    """Whom we configure, and with what agents."""

    def serves(self, gateway: str) -> bool: ...
    def has_agent(self, agent: str) -> bool: ...


class ConversationsApi:
    """On the management API, for gateways only."""

    def __init__(self, conversations: Conversations, identity: Identity, configuration: Gateways) -> None:
        self._conversations = conversations
        self._identity = identity
        self._configuration = configuration

    def routes(self) -> list[Route]:
        return [route("POST", "/v1/conversations", self.open)]

    async def open(self, call: Call) -> Answer:
        """``{agent, user, session?, tasks?, via?, reads?}`` → ``{session}``; with ``reads`` nothing is opened.

        ``{missing}`` says that the conversation or a task is another user's; 403: ``via`` does not have the user.
        """
        await self._gateway(call)
        body = call.body()
        agent, user = call.text(body, "agent", required=True) or "", call.text(body, "user", required=True) or ""
        if len(user) > 255:
            raise BadRequest("user: is longer than 255 characters")
        if not self._configuration.has_agent(agent):
            raise BadRequest(f"agent: there is no {agent}")
        session, via = call.text(body, "session") or "", call.text(body, "via") or ""
        given = body.get("tasks") or []
        if not isinstance(given, list) or len(given) > _NAMES or not all(isinstance(name, str) for name in given):
            raise BadRequest(f"tasks: must be a list of at most {_NAMES} strings")
        try:
            if body.get("reads"):
                found = await self._conversations.check(agent, user, session, given)
            else:
                found = await self._conversations.open(agent, user, session, given, via)
        except NotFound as error:  # to the gateway that asks for somebody it is an answer
            return Answer({"missing": str(error)})
        return Answer({"session": found})

    async def _gateway(self, call: Call) -> None:
        caller = await self._identity.workload(call.header(b"authorization"))
        account = caller.name.removeprefix("system:serviceaccount:").replace(":", "/")
        if caller.agent is not None or account.count("/") != 1 or not self._configuration.serves(account):
            raise Forbidden(f"{caller.agent or caller.name} is no gateway of this control plane")
