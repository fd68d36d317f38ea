"""Memory for people, on the management API: ``GET``, ``DELETE /v1/memories…``; and the hourly end of old ones.

The verbs ``list``, ``get`` and ``delete`` on ``memories`` of ``quarterdeck.dev`` are asked for in the agent's
namespace. Without them people see and delete their own memories only: those whose user is their name.
"""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.exc import SQLAlchemyError

from quarterdeck.errors import BadRequest, Forbidden, NotFound

from .database import Row
from .http import Answer, Call, Route, route
from .identity import Identity
from .memory_api import shown
from .memory_store import MemoryStore

log = logging.getLogger(__name__)
RESOURCE = "memories"
EVERY = 3600.0
_MOST = 1000


class MemoryPeople:
    def __init__(self, store: MemoryStore, identity: Identity) -> None:
        self._store = store
        self._identity = identity

    def routes(self) -> list[Route]:
        return [
            route("GET", "/v1/memories", self.list),
            route("DELETE", "/v1/memories", self.forget),
            route("GET", "/v1/memories/{id}", self.get),
            route("DELETE", "/v1/memories/{id}", self.delete),
        ]

    async def list(self, call: Call) -> Answer:
        """``?agent=NAMESPACE/NAME&namespace=&user=&limit=``, most used first."""
        agent = _agent(call)
        namespace = agent.partition("/")[0] or call.query.get("namespace", "")
        user = await self._whose(call, "list", namespace, call.query.get("user", ""))
        text = call.query.get("limit", "100")
        if not text.isdecimal() or not text.isascii():
            raise BadRequest(f"limit: {text[:40]!r} is not a whole number")
        rows = await self._store.list(agent, user, max(1, min(int(text[:9]), _MOST)), namespace=namespace)
        return Answer({"memories": [shown(row) for row in rows]})

    async def get(self, call: Call) -> Answer:
        return Answer(shown(await self._of(call, "get")))

    async def delete(self, call: Call) -> Answer:
        row = await self._of(call, "delete")
        await self._store.delete(row["id"])
        await self._told(call, row["agent"], row["user_id"], 1)
        return Answer({"deleted": 1})

    async def forget(self, call: Call) -> Answer:
        """``?agent=NAMESPACE/NAME``, with ``&user=`` that user's only."""
        agent = _agent(call)
        if not agent:
            raise BadRequest("agent: is missing; name the agent that is to forget: ?agent=NAMESPACE/NAME")
        user = await self._whose(call, "delete", agent.partition("/")[0], call.query.get("user", ""))
        gone = await self._store.forget(agent, user)
        await self._told(call, agent, user or "all users", gone)
        return Answer({"deleted": gone})

    async def _of(self, call: Call, verb: str) -> Row:
        """The memory. Raises NotFound, Forbidden; who may see none learns nothing of which there are."""
        try:
            row = await self._store.get(call.parameters["id"])
        except NotFound:
            await self._identity.somebody(call.header(b"authorization"))
            raise
        try:
            await self._whose(call, verb, row["agent"].partition("/")[0], row["user_id"])
        except Forbidden:
            ident = call.parameters["id"]
            raise NotFound(f"memory {ident!r} does not exist; see: qd memory list", name=ident) from None
        return row

    async def _whose(self, call: Call, verb: str, namespace: str, wanted: str) -> str:
        """The user that a request is about, empty for all; who may not do that everywhere there, may to their own."""
        authorization = call.header(b"authorization")
        try:
            await self._identity.person(authorization, verb, RESOURCE, namespace)
        except Forbidden:
            own = (await self._identity.somebody(authorization)).name
            if wanted not in ("", own):
                raise
            return own
        return wanted

    async def _told(self, call: Call, agent: str, user: str, count: int) -> None:
        by = (await self._identity.somebody(call.header(b"authorization"))).name
        log.info("%s deleted %d memories of agent %s for %s", by, count, agent, user)


class Expiry:
    """Deletes memories whose time has come, once an hour; they are not found any more before that."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                gone = await self._store.prune()
                if gone:
                    log.info("deleted %d memories that had expired", gone)
            except (SQLAlchemyError, OSError) as error:
                log.warning("expired memories could not be deleted, trying again in an hour: %s", error)
            await asyncio.sleep(EVERY)


def _agent(call: Call) -> str:
    agent = call.query.get("agent", "")
    if agent and agent.count("/") != 1:
        raise BadRequest(f"agent: must be NAMESPACE/NAME, not {agent[:200]!r}")
    return agent
