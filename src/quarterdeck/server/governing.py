"""The part of the management API for those who govern: revocations, approved tools, and checkpoints of audit chains."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import time
from typing import Any

import msgspec

from quarterdeck.controllers.discovery import list_tools
from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.errors import BadRequest, Conflict, NotFound, QuarterdeckError
from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot import McpServer
from quarterdeck.snapshot.approvals import compared
from quarterdeck.snapshot.pins import Approved, definition, digest
from quarterdeck.snapshot.revocations import wanted
from quarterdeck.telemetry.audit import Checkpoint

from .governance import Governance, Server
from .http import Answer, Call, Route, route
from .identity import Identity

_RANK = {"MCPServer": 0, "RemoteMCPServer": 1, "Service": 2, "Target": 3}
ListTools = Callable[[McpServer], Awaitable[list[dict[str, Any]]]]


class GovernanceApi:
    """People need the verb on ``revocations``, ``toolpins`` or ``auditcheckpoints`` of ``quarterdeck.dev``."""

    def __init__(
        self,
        governance: Governance,
        identity: Identity,
        configuration: GatewayConfig,
        tools: ListTools = list_tools,
        clock: Callable[[], float] = time,
    ) -> None:
        self._governance = governance
        self._identity = identity
        self._configuration = configuration
        self._tools = tools
        self._clock = clock

    def routes(self) -> list[Route]:
        checkpoints = "/v1/gateways/{namespace}/{name}/audit/checkpoints"
        server = "/v1/tools/{namespace}/{name}"
        return [
            route("POST", checkpoints, self.keep_checkpoint),
            route("GET", checkpoints, self.checkpoints),
            route("POST", "/v1/revocations", self.revoke),
            route("GET", "/v1/revocations", self.revocations),
            route("DELETE", "/v1/revocations/{id}", self.undo),
            route("GET", server, self.tools),
            route("POST", server + "/approvals", self.approve),
            route("DELETE", server + "/approvals", self.withdraw),
        ]

    async def keep_checkpoint(self, call: Call) -> Answer:
        """A gateway process signs how far its audit chain has come."""
        parameters = call.parameters
        gateway, _ = await self._identity.gateway(
            call.header(b"authorization"), parameters["namespace"], parameters["name"], configured=False
        )
        try:
            point = msgspec.json.decode(call.exchange.body, type=Checkpoint)
        except MALFORMED as error:
            raise BadRequest(f"the body is no checkpoint: {error}") from error
        await self._governance.keep(gateway, point)
        return Answer({"kept": point.seq})

    async def checkpoints(self, call: Call) -> Answer:
        await self._person(call, "get", "auditcheckpoints")
        gateway = f"{call.parameters['namespace']}/{call.parameters['name']}"
        return Answer({"checkpoints": msgspec.to_builtins(await self._governance.checkpoints(gateway))})

    async def revoke(self, call: Call) -> Answer:
        """``{agent|user|server: …, for: seconds, reason: text}``; streamed to the gateways before this returns."""
        who = await self._person(call, "create", "revocations")
        revocation = wanted(call.body(), by=who, now=self._clock())
        await self._governance.revoke(revocation)
        await self._governance.publish(self._configuration)
        return Answer(msgspec.to_builtins(revocation), 201)

    async def revocations(self, call: Call) -> Answer:
        await self._person(call, "list", "revocations")
        found = [r for r in await self._governance.revocations() if r.kind != "grant"]  # those are only passing marks
        return Answer({"revocations": msgspec.to_builtins(found)})

    async def undo(self, call: Call) -> Answer:
        await self._person(call, "delete", "revocations")
        undone = await self._governance.undo(call.parameters["id"])
        await self._governance.publish(self._configuration)
        return Answer(msgspec.to_builtins(undone))

    async def tools(self, call: Call) -> Answer:
        """What was approved of a server beside what it lists now."""
        await self._person(call, "get", "toolpins", call.parameters["namespace"])
        server = self._server(call)
        slot: Server = (server.kind, server.namespace, server.name)
        approved = {one.tool: one for one in await self._governance.approved(slot)}
        found, error = await self._found(server)
        return Answer(
            {
                "kind": server.kind,
                "namespace": server.namespace,
                "name": server.name,
                "mode": server.pin or ("enforce" if approved else "off"),
                "error": error,
                "tools": compared(approved, found, complete=not error),
            }
        )

    async def approve(self, call: Call) -> Answer:
        """``{tools: {name: digest}}``: the definitions that were looked at; Conflict when they have changed since."""
        who = await self._person(call, "update", "toolpins", call.parameters["namespace"])
        looked_at: Any = call.body().get("tools")
        if not isinstance(looked_at, dict) or not looked_at:
            raise BadRequest("tools: must map names of tools to the digests of their definitions")
        server = self._server(call)
        found, error = await self._found(server)
        if error:
            raise QuarterdeckError(error)
        now, approvals = self._clock(), list[Approved]()
        for name, seen in looked_at.items():
            tool = found.get(name)
            if tool is None:
                raise NotFound(f"{server.kind} {server.namespace}/{server.name} has no tool {name!r}", name=name)
            if digest(tool) != seen:
                raise Conflict(f"tool {name!r} has changed since you looked; look again: qd tools diff {server.name}")
            approvals.append(Approved(name, str(seen), definition(tool), who, now))
        await self._governance.approve((server.kind, server.namespace, server.name), approvals)
        await self._governance.publish(self._configuration)
        return Answer({"approved": [one.tool for one in approvals]})

    async def withdraw(self, call: Call) -> Answer:
        """``?tool=``: of one; without it of all tools of the server."""
        await self._person(call, "update", "toolpins", call.parameters["namespace"])
        server = self._server(call)
        tool = call.query.get("tool")
        slot: Server = (server.kind, server.namespace, server.name)
        count = await self._governance.withdraw(slot, None if tool is None else [tool])
        await self._governance.publish(self._configuration)
        return Answer({"withdrawn": count})

    async def _person(self, call: Call, verb: str, resource: str, namespace: str = "") -> str:
        return (await self._identity.person(call.header(b"authorization"), verb, resource, namespace)).name

    def _server(self, call: Call) -> McpServer:
        """By ``{namespace}/{name}``, where two kinds have one name by ``?kind=``. Raises NotFound."""
        namespace, name = (call.parameters[key] for key in ("namespace", "name"))
        snapshot = self._configuration.snapshot
        servers = [
            server
            for server in (snapshot.mcp if snapshot is not None else ())
            if (server.namespace, server.name) == (namespace, name)
            and server.kind == call.query.get("kind", server.kind)
        ]
        if not servers:
            raise NotFound(f"MCP server {namespace}/{name} is not served; see: qd get mcpservers,remotemcpservers -A")
        return min(servers, key=lambda server: _RANK[server.kind])

    async def _found(self, server: McpServer) -> tuple[dict[str, dict[str, Any]], str]:
        """The tools of a server by name as it lists them itself, past the gateway and its filters."""
        try:
            tools = await self._tools(server)
        except QuarterdeckError as error:
            return {}, f"{server.kind} {server.namespace}/{server.name} cannot be asked: {error}"
        return {str(tool.get("name", "")): tool for tool in tools}, ""
