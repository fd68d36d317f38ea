"""The three bindings behind one interface: operations of 1.0 in, results or errors out, as JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from quarterdeck.a2atypes import operations as op

Json = dict[str, Any]


class Failed(Exception):
    """The server's error. ``kind`` is the ErrorInfo's reason."""

    def __init__(self, kind: str, code: Any, message: str, raw: Any = None) -> None:
        super().__init__(f"{kind} ({code}): {message}")
        self.kind, self.code, self.message, self.raw = kind, code, message, raw


class Driver(Protocol):
    binding: str

    async def call(self, operation: str, params: Json, **headers: str) -> Json: ...
    def stream(self, operation: str, params: Json, **headers: str) -> AsyncIterator[Json]: ...


def _reason(details: Any) -> str:
    for each in details or ():
        if str(each.get("@type", "")).endswith("google.rpc.ErrorInfo"):
            assert each["domain"] == "a2a-protocol.org"
            return str(each["reason"])
    return ""


def _headers(headers: dict[str, str]) -> dict[str, str]:
    """``a2a_version="0.3"`` as the header of that name."""
    given = {"a2a-version": "1.0"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return {k: v for k, v in given.items() if v is not None}


@dataclass
class JsonRpc:
    http: httpx.AsyncClient
    path: str = "/"
    binding: str = "jsonrpc"
    last: httpx.Response | None = field(default=None)

    async def call(self, operation: str, params: Json, **headers: str) -> Json:
        body = {"jsonrpc": "2.0", "id": "r1", "method": operation, "params": params}
        self.last = await self.http.post(self.path, json=body, headers=_headers(headers))
        return self._result(self.last.json())

    async def stream(self, operation: str, params: Json, **headers: str) -> AsyncIterator[Json]:
        body = {"jsonrpc": "2.0", "id": "r1", "method": operation, "params": params}
        async with self.http.stream("POST", self.path, json=body, headers=_headers(headers)) as response:
            if not response.headers["content-type"].startswith("text/event-stream"):
                self._result(json.loads(await response.aread()))
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield self._result(json.loads(line[6:]))

    def _result(self, document: Json) -> Json:
        assert document["jsonrpc"] == "2.0" and document["id"] == "r1"
        assert ("result" in document) != ("error" in document)
        if "error" in document:
            error = document["error"]
            raise Failed(_reason(error.get("data")), error["code"], error["message"], document)
        return document["result"]


@dataclass
class HttpJson:
    http: httpx.AsyncClient
    path: str = ""
    binding: str = "http_json"
    last: httpx.Response | None = field(default=None)

    async def call(self, operation: str, params: Json, **headers: str) -> Json:
        method, path, options = self._request(operation, dict(params))
        self.last = await self.http.request(method, path, headers=_headers(headers), **options)
        return self._result(self.last.status_code, self.last.json())

    async def stream(self, operation: str, params: Json, **headers: str) -> AsyncIterator[Json]:
        method, path, options = self._request(operation, dict(params))
        async with self.http.stream(method, path, headers=_headers(headers), **options) as response:
            if not response.headers["content-type"].startswith("text/event-stream"):
                self._result(response.status_code, json.loads(await response.aread()))
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield self._result(200, json.loads(line[6:]))

    def _request(self, operation: str, params: Json) -> tuple[str, str, Json]:
        tenant = params.pop("tenant", "")
        prefix = self.path + (f"/{tenant}" if tenant else "")
        if operation in (op.SEND, op.STREAM):
            return "POST", f"{prefix}/message:{'send' if operation == op.SEND else 'stream'}", {"json": params}
        if operation in (op.CANCEL, op.SUBSCRIBE):
            verb = "cancel" if operation == op.CANCEL else "subscribe"
            return "POST", f"{prefix}/tasks/{params['id']}:{verb}", {}
        if operation == op.EXTENDED_CARD:
            return "GET", f"{prefix}/extendedAgentCard", {}
        method = {op.PUSH_CREATE: "POST", op.PUSH_DELETE: "DELETE"}.get(operation, "GET")
        path = f"{prefix}/tasks"
        if operation in op.PUSH:
            path += f"/{params.pop('taskId')}/pushNotificationConfigs"
        if operation in (op.GET, op.PUSH_GET, op.PUSH_DELETE):
            path += f"/{params.pop('id')}"
        if method == "POST":
            return method, path, {"json": params}
        return method, path, {"params": {k: str(v).lower() if isinstance(v, bool) else v for k, v in params.items()}}

    def _result(self, status: int, document: Json) -> Json:
        if "error" in document and "code" in (document.get("error") or {}):
            error = document["error"]
            assert status in (200, error["code"])
            raise Failed(_reason(error.get("details")), error["code"], error["message"], document)
        assert status == 200
        return document


@asynccontextmanager
async def collected(driver: Driver, operation: str, params: Json, **headers: str) -> AsyncIterator[list[Json]]:
    """All events of a stream."""
    yield [event async for event in driver.stream(operation, params, **headers)]
