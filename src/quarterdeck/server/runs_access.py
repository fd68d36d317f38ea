"""Who may see and change which runs: agents their own, people where Kubernetes' RBAC lets them (``runs``)."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.errors import Forbidden, NotFound, Unauthorized

from .database import Row
from .http import Call
from .identity import Identity
from .runs_store import RunStore


@dataclass(frozen=True, slots=True)
class Who:
    """``agent`` is empty for people."""

    name: str
    agent: str = ""

    @property
    def own(self) -> str | None:
        """Whose runs the caller may see; None: everybody's."""
        return self.agent or None


class RunsAccess:
    """Decides by the token of a request."""

    def __init__(self, store: RunStore, identity: Identity) -> None:
        self._store = store
        self._identity = identity

    async def who(self, call: Call, verb: str, namespace: str) -> Who:
        """A Pod of an agent, or a person who may do this to ``runs`` in a namespace; everywhere when none is given.

        Raises Unauthorized, Forbidden.
        """
        authorization = call.header(b"authorization")
        try:
            caller = await self._identity.workload(authorization)
        except Unauthorized:
            return Who((await self._identity.person(authorization, verb, "runs", namespace)).name)
        if caller.agent is None:
            raise Forbidden(f"{caller.name} is no agent's Pod; only Pods that an Agent owns may use this API")
        return Who(f"agent:{caller.agent}", caller.agent)

    async def of(self, call: Call, ident: str, verb: str) -> tuple[Who, Row]:
        """Who asks, and the run: an agent's own, or of an agent in a namespace where a person may do that.

        Raises NotFound for what an agent does not own, Forbidden for people who may not.
        """
        try:
            row = await self._store.run(ident)
        except NotFound:
            await self.who(call, verb, "")  # who may see nothing learns nothing of what there is
            raise
        who = await self.who(call, verb, row["agent"].partition("/")[0])
        return who, row if who.own in (None, row["agent"]) else await self._store.run(ident, who.own)
