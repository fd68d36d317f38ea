"""The control plane as an MCP server (``/mcp`` on 8700): ``list_agents`` and ``invoke_agent``, as kagent has them.

Stateless Streamable HTTP of both eras: each POST is answered with JSON, there are no sessions and nothing is pushed.
Callers are people with a Kubernetes API token; what they may do is what they may do to ``runs``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from quarterdeck import __version__
from quarterdeck.errors import BadRequest, Forbidden, MethodNotAllowed, NotFound, QuarterdeckError
from quarterdeck.mcptypes import modern, protocol
from quarterdeck.snapshot.conversation import new_id
from quarterdeck.snapshot.runs import FINAL, Event

from .http import Answer, Call, Route, route
from .identity import Identity
from .runs_store import NewRun, RunStore

LONGEST = 900.0
"""Seconds that ``invoke_agent`` waits; the run goes on afterwards."""
_POLL = 2.0
_INFO = {"name": "quarterdeck", "title": "Quarterdeck control plane", "version": __version__}
_CAPABILITIES: dict[str, Any] = {"tools": {}, "resources": {}}
_AGENTS = "kagent://agents"
_LISTED = {"type": "object", "properties": {"name": {"type": "string"}, "description": {"type": "string"}}}
_TOOLS: list[dict[str, Any]] = [
    {
        "name": "list_agents",
        "title": "List agents",
        "description": "The agents that can be invoked, as namespace/name, and what each is for.",
        "inputSchema": {"type": "object", "properties": {}, "additionalProperties": False},
        "outputSchema": {"type": "object", "properties": {"agents": {"type": "array", "items": _LISTED}}},
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "invoke_agent",
        "title": "Invoke an agent",
        "description": "Give an agent a task and wait for its answer. Pass context_id of an earlier answer to go on.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "agent": {"type": "string", "description": "namespace/name, as list_agents has it"},
                "task": {"type": "string", "description": "what the agent is to do, in full"},
                "context_id": {"type": "string", "description": "the conversation to go on with"},
            },
            "required": ["agent", "task"],
        },
        "annotations": {"readOnlyHint": False, "openWorldHint": True},
    },
]


@dataclass(frozen=True, slots=True)
class Listed:
    """An agent that can be invoked; ``name`` is ``namespace/name``."""

    name: str
    description: str

    @property
    def namespace(self) -> str:
        return self.name.partition("/")[0]


class McpApi:
    """``agents`` gives what there is now."""

    def __init__(self, store: RunStore, identity: Identity, agents: Callable[[], Sequence[Listed]]) -> None:
        self._store = store
        self._identity = identity
        self._agents = agents

    def routes(self) -> list[Route]:
        return [
            route("POST", "/mcp", self.post),
            route("GET", "/mcp", self.no_stream),
            route("DELETE", "/mcp", self.no_stream),
        ]

    async def no_stream(self, call: Call) -> Answer:
        raise MethodNotAllowed(f"/mcp takes POST, not {call.exchange.method}: it has no sessions and pushes nothing")

    async def post(self, call: Call) -> Answer | None:
        authorization = call.header(b"authorization")
        await self._identity.somebody(authorization)
        body = call.body()
        method, ident = body.get("method"), body.get("id")
        if body.get("jsonrpc") != "2.0" or not isinstance(method, str):
            raise BadRequest("the body must be one JSON-RPC 2.0 request")
        if "id" not in body:
            call.exchange.respond(202, b"")
            return None
        params = body.get("params") or {}
        version = call.header(protocol.H_VERSION)
        is_modern = version in protocol.MODERN_VERSIONS
        try:
            result = await self._result(method, params, authorization)
        except _Failed as error:
            failed = {"jsonrpc": "2.0", "id": ident, "error": {"code": error.code, "message": str(error)}}
            return Answer(failed, modern.status_of(error.code) if is_modern else 200)
        if is_modern:
            result |= {"resultType": "complete"}
        return Answer({"jsonrpc": "2.0", "id": ident, "result": result})

    async def _result(self, method: str, params: Any, authorization: str) -> dict[str, Any]:
        if not isinstance(params, dict):
            raise _Failed(protocol.INVALID_PARAMS, "params: must be an object")
        if method == protocol.INITIALIZE:
            asked = params.get("protocolVersion")
            spoken = asked if asked in protocol.LEGACY_VERSIONS else protocol.LATEST_LEGACY
            return {"protocolVersion": spoken, "capabilities": _CAPABILITIES, "serverInfo": _INFO}
        if method == protocol.DISCOVER:
            return {
                "supportedVersions": list(protocol.MODERN_VERSIONS), "capabilities": _CAPABILITIES, "ttlMs": 60000,
                "cacheScope": "private", "_meta": {protocol.META_SERVER_INFO: _INFO},
            }  # fmt: skip
        if method == protocol.PING:
            return {}
        if method == protocol.TOOLS_LIST:
            return {"tools": _TOOLS, "ttlMs": 60000, "cacheScope": "private"}
        if method == protocol.TOOLS_CALL:
            return await self._call(params.get("name"), params.get("arguments") or {}, authorization)
        if method == protocol.RESOURCES_LIST:
            listed = {"uri": _AGENTS, "name": "agents", "mimeType": "application/json"}
            return {"resources": [listed], "ttlMs": 60000, "cacheScope": "private"}
        if method == protocol.TEMPLATES_LIST:
            return {"resourceTemplates": [], "ttlMs": 60000, "cacheScope": "private"}
        if method == protocol.RESOURCES_READ and params.get("uri") == _AGENTS:
            text = json.dumps(await self._listed(authorization))
            found = {"uri": _AGENTS, "mimeType": "application/json", "text": text}
            return {"contents": [found], "ttlMs": 0, "cacheScope": "private"}
        if method == protocol.RESOURCES_READ:
            raise _Failed(protocol.INVALID_PARAMS, f"uri: there is {_AGENTS}, no {str(params.get('uri'))[:200]}")
        raise _Failed(protocol.METHOD_NOT_FOUND, f"method {method[:100]!r} is not served here")

    async def _call(self, name: Any, arguments: Any, authorization: str) -> dict[str, Any]:
        if not isinstance(arguments, dict):
            raise _Failed(protocol.INVALID_PARAMS, "arguments: must be an object")
        if name == "list_agents":
            return _told(await self._listed(authorization))
        if name != "invoke_agent":
            raise _Failed(protocol.INVALID_PARAMS, f"there is no tool {str(name)[:100]!r}")
        try:
            return await self._invoke(arguments, authorization)
        except QuarterdeckError as error:
            return {"content": [{"type": "text", "text": f"Error: {error}"}], "isError": True}

    async def _listed(self, authorization: str) -> dict[str, Any]:
        """The agents of the namespaces whose runs the caller may list."""
        agents = self._agents()
        if not await self._may_list(authorization, ""):
            namespaces = sorted({agent.namespace for agent in agents})
            seen = {name for name in namespaces if await self._may_list(authorization, name)}
            agents = [agent for agent in agents if agent.namespace in seen]
        return {"agents": [{"name": agent.name, "description": agent.description} for agent in agents]}

    async def _may_list(self, authorization: str, namespace: str) -> bool:
        try:
            await self._identity.person(authorization, "list", "runs", namespace)
        except Forbidden:
            return False
        return True

    async def _invoke(self, arguments: dict[str, Any], authorization: str) -> dict[str, Any]:
        agent, task, context = (arguments.get(name) or "" for name in ("agent", "task", "context_id"))
        for name, value in (("agent", agent), ("task", task), ("context_id", context)):
            if not isinstance(value, str) or (not value and name != "context_id") or len(value) > 1024 * 1024:
                raise BadRequest(f"{name}: must be text")
        namespace = agent.partition("/")[0]
        who = await self._identity.person(authorization, "create", "runs", namespace)
        if agent not in {each.name for each in self._agents()}:
            raise NotFound(f"agent {agent[:255]} does not exist; list_agents tells which do", name=agent[:255])
        session, task_id = context[:255] or new_id(agent), new_id(agent)
        message = {
            "messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": task}], "taskId": task_id,
            "contextId": session,
        }  # fmt: skip
        row, _ = await self._store.create(NewRun(agent, who.name, session, task_id, message, "mcp"))
        state, text = await self._waited(str(row["id"]))
        found = {"agent": agent, "task_id": task_id, "context_id": session, "run_id": row["id"], "state": state}
        told = _told(found | {"text": text}, text or f"The run is {state}.")
        return told | ({"isError": True} if state in ("failed", "canceled") else {})

    async def _waited(self, run: str) -> tuple[str, str]:
        """State and text of a run that has ended or waits, or of one that takes too long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LONGEST
        while True:
            news = self._store.changed(run)
            row = await self._store.run(run)
            left = until - loop.time()
            if row["state"] in FINAL or row["state"] == "waiting" or left <= 0:
                return str(row["state"]), _text(await self._store.events(row))
            try:
                async with asyncio.timeout(min(_POLL, left)):
                    await news.wait()
            except TimeoutError:
                continue


class _Failed(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def _told(value: dict[str, Any], text: str = "") -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text or json.dumps(value)}], "structuredContent": value}


def _text(events: Sequence[Event]) -> str:
    """The answer, or what the run waits for."""
    for event in reversed(events):
        if event.kind == "final":
            return str(event.data.get("text") or "")
        if event.kind == "waiting":
            return "\n".join(str(part["text"]) for part in event.data.get("parts") or () if "text" in part)
    return ""
