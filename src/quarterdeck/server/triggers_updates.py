"""Resources of MCP servers that triggers follow: through the gateway, in the name of the trigger's agent.

The agent must have been granted the server without a list of tools (who is granted tools alone reads no resources). A
notification is the reason to look only: a run is started when the content is another than at the last look, by this
process or any other. So nothing is told twice, and what changed while nobody listened is told, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from quarterdeck.errors import QuarterdeckError, UpstreamError
from quarterdeck.kube.clock import sleep
from quarterdeck.kube.supervise import Supervisor
from quarterdeck.mcpclient import McpClient
from quarterdeck.mcptypes import protocol
from quarterdeck.translate.triggers import Input, Plan
from quarterdeck.wire.client import Pool
from quarterdeck.wire.http import Header

from .triggers import Engine

log = logging.getLogger(__name__)
_LOOK = 2.0
_PAUSE = (2.0, 60.0)
_UPDATED = "notifications/resources/updated"
_LONGEST = 64 * 1024
"""Characters of a resource that go into the message at most; the trigger may want less."""


class Updates:
    """``token`` gives the bearer token for a trigger and its agent."""

    def __init__(self, engine: Engine, token: Callable[[str, str], str]) -> None:
        self._engine = engine
        self._token = token
        self._pool = Pool()
        self._supervisor = Supervisor(engine.triggers.clock)
        self._followed: dict[str, tuple[Plan, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        triggers = self._engine.triggers
        try:
            while True:
                wanted = [
                    found for found in triggers.all() if found.source == "mcpResources" and not found.spec.suspend
                ]
                await self._settle({found.uid: found for found in wanted} if triggers.leading else {})
                await sleep(triggers.clock, _LOOK)
        finally:
            await self._settle({})
            self._pool.close()

    async def _settle(self, wanted: dict[str, Plan]) -> None:
        for uid, (found, task) in list(self._followed.items()):
            if wanted.get(uid) is not found:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                del self._followed[uid]
        for uid, found in wanted.items():
            if uid not in self._followed:
                keep = self._supervisor.keep("resources of a trigger", partial(self._keep, found))
                self._followed[uid] = found, asyncio.create_task(keep, name=f"trigger {found.label}")

    async def _keep(self, found: Plan) -> None:
        """Follow for as long as it is wanted; a stream that ends is opened again."""
        pause, longest = _PAUSE
        clock, said = self._engine.triggers.clock, ""
        while True:
            began = clock.monotonic()
            try:
                await self.follow(found)
            except (QuarterdeckError, SQLAlchemyError, OSError, TimeoutError) as error:
                if said != str(error):
                    said = str(error)
                    log.warning("trigger %s cannot follow its resources, trying again: %s", found.label, error)
            pause = _PAUSE[0] if clock.monotonic() - began > longest else min(pause * 2, longest)
            await sleep(clock, pause)

    async def follow(self, found: Plan) -> None:
        """Look at the resources now, and each time that the server tells, until it ends the stream.

        Raises QuarterdeckError, also when the agent may not have one of the resources.
        """
        spec = found.spec.mcp_resources
        assert spec is not None
        path = f"/mcp/{found.namespace}/{spec.server.kind.lower()}.{spec.server.name}"

        async def headers() -> list[Header]:
            return [(b"authorization", f"Bearer {self._token(found.label, found.agent)}".encode())]

        client = McpClient(self._pool, self._engine.triggers.gateway + path, headers=headers)
        uris = list(dict.fromkeys(spec.uris))
        async for told in client.listen(uris):
            given = told.get("params")
            params: dict[str, Any] = given if isinstance(given, dict) else {}
            if told["method"] == "notifications/subscriptions/acknowledged":
                honored = params.get("notifications")
                known = honored.get("resourceSubscriptions") or () if isinstance(honored, dict) else uris
                missing = [uri for uri in uris if uri not in known]
                if missing:
                    raise UpstreamError(f"agent {found.agent} may not follow {missing[0]} of {spec.server.name}")
                for uri in uris:
                    await self._look(found, client, uri)
            elif told["method"] == _UPDATED and params.get("uri") in uris:
                await self._look(found, client, str(params["uri"]))

    async def _look(self, found: Plan, client: McpClient, uri: str) -> None:
        spec = found.spec.mcp_resources
        assert spec is not None
        result = await client.request(protocol.RESOURCES_READ, {"uri": uri})
        contents = result.get("contents")
        read = msgspec.json.encode(contents, order="sorted")
        resource = {"server": spec.server.name, "uri": uri, "contents": _cut(contents)}
        marks = hashlib.sha256(uri.encode()).hexdigest(), hashlib.sha256(read).hexdigest()
        await self._engine.fire(found, Input({"resource": resource}, resource, uri), content=marks)


def _cut(contents: Any) -> list[Any]:
    """What there is to read; of what is no text, its type."""
    shown: list[Any] = []
    for item in contents if isinstance(contents, list) else ():
        if isinstance(item, dict):
            kept = {name: item[name] for name in ("uri", "mimeType") if isinstance(item.get(name), str)}
            text = item.get("text")
            shown.append(kept | ({"text": text[:_LONGEST]} if isinstance(text, str) else {}))
    return shown
