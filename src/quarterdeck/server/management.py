"""The management API on 8700: health, status, and the stream that configures gateways."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from quarterdeck import __version__
from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.errors import BadRequest, QuarterdeckError
from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot.activity import Report
from quarterdeck.wire.http import Disconnected

from .database import Database
from .http import Answer, Call, Route, Router, route
from .identity import Identity

GATEWAY_NAMESPACE = "quarterdeck-system"
_REPORT_LIMIT = 20_000
HEARTBEAT = 20.0
"""Seconds after which a blank line tells a silent stream's reader that we are there."""


def failure(error: QuarterdeckError) -> dict[str, Any]:
    return {"error": {"reason": error.reason, "message": str(error)}}


class ManagementApi:
    """What gateways and people ask the control plane."""

    def __init__(
        self, database: Database, identity: Identity, configuration: GatewayConfig, more: Sequence[Route] = ()
    ) -> None:
        """``more``: routes of others on the same port."""
        self._more = more
        self._database = database
        self._identity = identity
        self._configuration = configuration

    def router(self) -> Router:
        gateway = "/v1/gateways/{namespace}/{name}/config"
        routes: list[Route] = [
            route("GET", "/healthz", self.health),
            route("GET", "/v1/status", self.status),
            route("GET", gateway, self.config),
            route("POST", gateway + "/{version}/ack", self.acknowledge),
            route("POST", "/v1/gateways/{namespace}/{name}/activity", self.activity),
            route("POST", "/v1/gateways/{namespace}/{name}/wake", self.wake),
            *self._more,
        ]
        return Router(routes, failure)

    async def health(self, call: Call) -> Answer:
        del call
        return Answer({"status": "ok", "version": __version__})

    async def status(self, call: Call) -> Answer:
        await self._identity.person(call.header(b"authorization"), "get", "status")
        return Answer({"version": __version__, "rows": await self._database.count()})

    async def config(self, call: Call) -> Answer | None:
        """One full snapshot a line. ``?watch`` keeps the stream open."""
        gateway, _ = await self._gateway(call, configured=False)
        exchange = call.exchange
        if "watch" not in call.query:
            line = self._configuration.current(gateway)
            if line is None:
                raise BadRequest(f"gateway {gateway} has no configuration yet; try again in a moment")
            exchange.respond(200, line + b"\n", [(b"content-type", b"application/json")])
            return None
        exchange.start(200, [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")])
        stream = self._configuration.stream(gateway)
        waiting: asyncio.Future[bytes | None] = asyncio.ensure_future(anext(stream, None))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=HEARTBEAT)
                if not done:
                    await exchange.send(b"\n")
                    continue
                line = waiting.result()
                if line is None:
                    exchange.finish()
                    return None
                await exchange.send(line + b"\n")
                waiting = asyncio.ensure_future(anext(stream, None))
        except Disconnected:
            return None
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def acknowledge(self, call: Call) -> Answer:
        """A gateway replica says whether it serves a version."""
        gateway, replica = await self._gateway(call)
        body = call.body()
        accepted, errors = body.get("accepted"), body.get("errors", [])
        if not isinstance(accepted, bool) or not isinstance(errors, list):
            raise BadRequest("the body must be {accepted: true|false, errors: [text, …]}")
        texts = [str(error)[:1000] for error in errors[:50]]
        listed = body.get("problems")
        problems = {str(k)[:500]: str(v)[:1000] for k, v in listed.items()} if isinstance(listed, dict) else {}
        self._configuration.acknowledge(gateway, replica, call.parameters["version"], accepted, texts, problems)
        return Answer({"accepted": accepted})

    async def activity(self, call: Call) -> Answer:
        """A gateway process reports its traffic: totals of canaries and of what may be scaled to zero."""
        gateway, _ = await self._gateway(call)
        try:
            report = msgspec.json.decode(call.exchange.body, type=Report)
        except MALFORMED as error:
            raise BadRequest(f"the body is no report: {error}") from error
        if len(report.counted) + len(report.used) > _REPORT_LIMIT:
            raise BadRequest(f"a report has at most {_REPORT_LIMIT} entries")
        self._configuration.report(gateway, report)
        return Answer({"accepted": True})

    async def wake(self, call: Call) -> Answer:
        """A gateway holds a call for something that is scaled to zero."""
        await self._gateway(call)
        body = call.body()
        kind, namespace, name = (call.text(body, key, required=True) or "" for key in ("kind", "namespace", "name"))
        return Answer({"replicas": await self._configuration.wake((kind, namespace, name))})

    async def _gateway(self, call: Call, *, configured: bool = True) -> tuple[str, str]:
        """The gateway asked for, and the replica. Only the ServiceAccount of its name may read: secrets are inside."""
        parameters = call.parameters
        return await self._identity.gateway(
            call.header(b"authorization"), parameters["namespace"], parameters["name"], configured=configured
        )
