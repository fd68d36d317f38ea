"""What A2A keeps behind the control plane besides the tasks themselves: their list, and who is notified of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from quarterdeck.a2atypes import Json, errors
from quarterdeck.agents.state import ControlPlaneState
from quarterdeck.errors import QuarterdeckError

from .core import Caller, Page, Query


class A2aState(ControlPlaneState):
    """Client of ``/api/a2a/…`` (server/a2a_api.py)."""

    async def list_tasks(self, user: str, query: Query) -> Page:
        """Raises InvalidParams for a page token that is none of ours."""
        asked = {
            "context": query.context,
            "state": query.state,
            "since": query.since,
            "size": query.size,
            "token": query.token,
        }
        found = await self._call("GET", f"/api/a2a/tasks?{urlencode(asked)}", user, missing_ok=True)
        if found is None:
            raise errors.InvalidParams("pageToken: is not one that this agent gave")
        return Page(found["tasks"], found["next"], found["total"])

    async def create_config(self, user: str, config: Json, version: str, *, catch_up: bool) -> Json:
        """Keep a push notification config. ``catch_up``: notify of an end that the task has reached already.

        Raises InvalidParams for an address that must not be called.
        """
        body = {"config": config, "version": version, "catchUp": catch_up}
        found = await self._call("POST", _path(config["taskId"]), user, body)
        if "refused" in found:
            raise errors.InvalidParams(f"url: {found['refused']}")
        return found["config"]

    async def configs(self, user: str, task_id: str) -> list[Json]:
        return await self._call("GET", _path(task_id), user, missing_ok=True) or []

    async def delete_config(self, user: str, task_id: str, ident: str) -> None:
        await self._call("DELETE", f"{_path(task_id)}/{quote(ident, safe='')}", user, missing_ok=True)

    async def caller(self, authorization: str) -> Caller:
        """Who a token of the cluster is (gRPC, where no gateway says it). Raises Unauthenticated."""
        found = await self._call("POST", "/api/a2a/callers", "", {"authorization": authorization})
        if not found["user"]:
            raise errors.Unauthenticated("a valid token is needed: metadata authorization: Bearer …")
        return Caller(found["user"], True)

    async def sign(self, card: Json) -> list[Json]:
        """The control plane's signatures of this agent's card; none when it cannot be asked now."""
        try:
            found: Any = await self._once("POST", "/api/a2a/cards/sign", "", {"card": card}, {404: True})
        except QuarterdeckError:
            return []
        return found["signatures"] if found else []


def _path(task_id: str) -> str:
    return f"/api/a2a/tasks/{quote(task_id, safe='')}/push"
