"""REST APIs as MCP servers: a call of a tool is a request to the API, its response the tool's result."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import msgspec
from msgspec import Raw

from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.mcptypes import LATEST_LEGACY, jsonrpc, protocol

from . import client, openapi
from .call import text_of
from .client import Link, RpcError
from .conversation import Conversation, Event, Flight, Greeting
from .relay import RESPONSE_LIMIT

_ids = count(1)


class RestConversation(Conversation):
    """No session at all: the tools are in the configuration, each call is a request of its own."""

    async def open(self) -> Link:
        if self.link is None:
            document = self.route.server.openapi or {}
            info: dict[str, Any] = document.get("info") or {}
            name, version = str(info.get("title", self.route.server.name)), str(info.get("version", ""))
            said = str(info.get("description", ""))
            self.greeting = Greeting(
                capabilities={"tools": {}}, server_info={"name": name, "version": version}, instructions=said
            )
            self.link = Link(client.origin_of(self.route), LATEST_LEGACY)
        return self.link

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> Raw:
        del params
        await self.open()
        if method == protocol.TOOLS_LIST:
            tools = [operation.tool for operation in self._operations().values()]
            return Raw(msgspec.json.encode({"tools": tools}))
        if method in (protocol.PING, protocol.SET_LEVEL):
            return Raw(b"{}")
        raise RpcError(jsonrpc.ErrorObject(protocol.METHOD_NOT_FOUND, f"{self.route.label} has tools only"))

    async def send(self, method: str, params: dict[str, Any]) -> Flight:
        flight = Flight(next(_ids))
        await self.open()
        self._flights[flight.id] = flight
        flight.task = asyncio.get_running_loop().create_task(self._serve(flight, method, params))
        return flight

    async def tell(self, body: bytes, method: str) -> None:
        del body, method  # an API has nobody to tell

    async def cancel(self, flight: Flight, reason: str) -> None:
        del reason
        self.end(flight)

    def _operations(self) -> dict[str, openapi.Operation]:
        """Compiled once for each configuration. Raises UpstreamError when the document has no tools to give."""
        found = self.route.operations
        if found is None:
            try:
                found = self.route.operations = openapi.operations(self.route.server.openapi or {})
            except ConfigError as error:
                raise UpstreamError(f"cannot be offered as tools: {error}") from error
        return found

    async def _serve(self, flight: Flight, method: str, params: dict[str, Any]) -> None:
        try:
            if method == protocol.TOOLS_CALL:
                result = await self._call(params)
            else:
                result = await self.ask(method)
            flight.put(Event("answer", jsonrpc.Message(result=result)))
        except RpcError as error:
            body = Raw(msgspec.json.encode({"code": error.code, "message": str(error)}))
            flight.put(Event("answer", jsonrpc.Message(error=body)))
        except (UpstreamError, TimedOut) as error:
            flight.put(Event("end", error=error))
        finally:
            self._flights.pop(flight.id, None)

    async def _call(self, params: dict[str, Any]) -> Raw:
        name = params.get("name")
        tool = text_of(name) if isinstance(name, Raw) else str(name)
        operation = self._operations().get(tool)
        if operation is None:
            raise RpcError(jsonrpc.ErrorObject(protocol.INVALID_PARAMS, f"Unknown tool: {tool}"))
        try:
            arguments = params.get("arguments")
            given = msgspec.json.decode(arguments, type=dict[str, Any]) if isinstance(arguments, Raw) else {}
            request = openapi.prepare(operation, given)
        except (msgspec.DecodeError, openapi.ArgumentError) as error:
            return _result(str(error), failed=True)  # since 2025-11-25 the model is told, to correct itself
        return await self._ask_api(request)

    async def _ask_api(self, request: openapi.Prepared) -> Raw:
        origin = client.origin_of(self.route)
        headers = [
            *client.lines(self.lane.headers + self.extra),
            *request.headers,
            (b"accept", b"application/json, */*"),
        ]
        response = await self.route.pool.request(
            request.method, origin, request.target, headers, request.body, timeout=self.route.server.timeout or None
        )
        text = (await response.read(RESPONSE_LIMIT)).decode("utf-8", "replace")
        if response.status >= 500:
            raise UpstreamError(f"answered HTTP {response.status}: {text[:500]}")
        if response.status >= 400:
            return _result(f"HTTP {response.status}: {text}", failed=True)
        return _result(text)


def _result(text: str, *, failed: bool = False) -> Raw:
    """A tool's result; a JSON object is there as such, too."""
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    if failed:
        return Raw(msgspec.json.encode({**result, "isError": True}))
    try:
        structured = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        structured = None
    return Raw(
        msgspec.json.encode({**result, "structuredContent": structured} if isinstance(structured, dict) else result)
    )
