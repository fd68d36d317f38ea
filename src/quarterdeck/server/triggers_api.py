"""``/v1/hooks`` for gateways, that pass on what senders say, and ``/v1/triggers`` for people."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import ceil
from typing import Any
from uuid import uuid4

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from quarterdeck.controllers.triggers import Triggers
from quarterdeck.errors import (
    BadRequest,
    ConfigError,
    Forbidden,
    NotFound,
    QuarterdeckError,
    TooLarge,
    Unauthorized,
)
from quarterdeck.kube.clock import timestamp
from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot.hooks import Forwarded, Told
from quarterdeck.telemetry import names
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.translate import triggers as t
from quarterdeck.translate.triggers import Input, Plan

from .database import Row
from .http import Answer, Call, Route, route
from .identity import Identity
from .triggers import Engine, Outcome
from .triggers_hooks import Request, alerts, take, too_deep

log = logging.getLogger(__name__)
_MOST = 500
_STATUS = {"Limited": 429, "Started": 202, "DryRun": 202}
"""HTTP status by outcome; 200 for what fires nothing and need not be sent again."""


class TriggersApi:
    """``gateway`` says whether a name is that of a Gateway we configure."""

    def __init__(
        self, triggers: Triggers, engine: Engine, identity: Identity, gateway: Callable[[str], bool], registry: Registry
    ) -> None:
        self._triggers = triggers
        self._engine = engine
        self._identity = identity
        self._gateway = gateway
        self._refused = registry.counter(
            names.TRIGGER_REFUSED, "Requests to triggers that were not taken.", ("trigger", "status")
        )

    def routes(self) -> list[Route]:
        one = "/v1/triggers/{namespace}/{name}"
        return [
            route("POST", "/v1/hooks/{namespace}/{name}", self.hook),
            route("GET", "/v1/triggers", self.list),
            route("GET", one + "/firings", self.firings),
            route("POST", one + "/test", self.test),
        ]

    # -- of gateways
    async def hook(self, call: Call) -> Answer:
        """A request as a gateway got it. The answer is always 200, with what the sender is to be told."""
        try:
            sent = msgspec.json.decode(call.exchange.body, type=Forwarded)
        except MALFORMED as error:
            raise BadRequest(f"the body is no forwarded request: {error}") from error
        namespace, _, short = sent.gateway.partition("/")
        await self._identity.gateway(call.header(b"authorization"), namespace, short)
        if not self._gateway(sent.gateway):
            raise Forbidden(f"{sent.gateway} is no Gateway that is configured here")
        told = await self._told(call.parameters["namespace"], call.parameters["name"], sent)
        if told.status >= 400:
            self._refused.labels(
                "/".join(call.parameters.values()) if told.status != 404 else "", str(told.status)
            ).value += 1
        return Answer(msgspec.to_builtins(told))

    async def _told(self, namespace: str, name: str, sent: Forwarded) -> Told:
        try:
            found = self._triggers.get(namespace, name)
            if not found.hooked:
                raise NotFound(f"{namespace}/{name} takes no requests")
            secret = await self._triggers.secret(found)
            taken = take(found, Request(sent.headers, sent.body), secret, self._triggers.clock.time())
            if taken.ignored:
                return Told(200, "Ignored", taken.ignored)
            came = await self._engine.fire(found, taken.given, taken.key)
        except (NotFound, ConfigError) as error:
            log.debug("request to trigger %s/%s: %s", namespace, name, error)
            missing = isinstance(error, NotFound)
            return Told(404 if missing else 503, "", "there is no such trigger" if missing else "it cannot fire now")
        except (Unauthorized, BadRequest, TooLarge) as error:
            return Told(error.http_status, "", str(error))
        except (QuarterdeckError, SQLAlchemyError, OSError) as error:
            log.warning("trigger %s/%s did not fire: %s", namespace, name, error)
            return Told(503, "", "it cannot fire now; its conditions say why", retry_after=30)
        return Told(_STATUS.get(came.outcome, 200), came.outcome, came.reason, came.run, ceil(came.retry_after))

    # -- of people
    async def list(self, call: Call) -> Answer:
        """``?namespace=``: of that one only."""
        namespace = call.query.get("namespace", "")
        await self._identity.person(call.header(b"authorization"), "list", "triggers", namespace)
        now = self._triggers.clock.time()
        plans = [found for found in self._triggers.all() if namespace in ("", found.namespace)]
        plans.sort(key=lambda found: found.label)
        numbers = await self._engine.store.numbers()
        return Answer({"triggers": [_shown(found, numbers.get(found.uid, {}), now) for found in plans]})

    async def firings(self, call: Call) -> Answer:
        """``?limit=``: the newest firings, newest first."""
        found = await self._found(call, "get")
        text = call.query.get("limit", "50")
        if not text.isdigit():
            raise BadRequest("limit: must be a whole number")
        rows = await self._engine.store.history(found.uid, min(int(text), _MOST))
        return Answer({"firings": [_firing(row) for row in rows]})

    async def test(self, call: Call) -> Answer:
        """``{payload?, headers?, fire?}``: what a firing would do; with ``fire`` it is done, suspended or not."""
        body = call.body()
        fire = body.get("fire") is True
        found = await self._found(call, "update" if fire else "get")
        given, ignored = sample(found, body.get("payload"), body.get("headers"))
        if ignored:
            came = Outcome("Ignored", ignored)
        elif fire:
            came = await self._engine.fire(found, given, f"manual/{uuid4()}", source="manual")
        else:
            came = await self._engine.rehearse(found, given)
        told = {
            "outcome": came.outcome, "reason": came.reason, "run": came.run, "message": came.message,
            "agent": found.agent, "user": found.user, "fired": fire,
        }  # fmt: skip
        return Answer(told, 201 if fire and came.outcome == "Started" else 200)

    async def _found(self, call: Call, verb: str) -> Plan:
        namespace = call.parameters["namespace"]
        await self._identity.person(call.header(b"authorization"), verb, "triggers", namespace)
        return self._triggers.get(namespace, call.parameters["name"])


_SAMPLES = {
    "webhook": "a body",
    "alertmanager": "a group of alerts as Alertmanager sends it, version 4",
    "kubernetesEvents": 'an Event such as {"involvedObject": {"kind": "Pod", "name": "web-1"}, "reason": "BackOff"}',
    "mcpResources": 'a resource such as {"uri": "file:///inbox.md"}',
}


def sample(found: Plan, payload: Any, headers: Any) -> tuple[Input, str]:
    """What a firing by ``payload`` brings, and why there is none. Raises BadRequest for what does not fit."""
    if headers is not None and not isinstance(headers, dict):
        raise BadRequest("headers: must be an object")
    if too_deep(payload):
        raise BadRequest("payload: is nested too deeply")
    shown = {str(name).lower(): str(value) for name, value in (headers or {}).items()}
    if found.source == "cron":
        return Input(), ""
    if payload is None:
        raise BadRequest(
            f"payload: {found.source} fires by {_SAMPLES[found.source]}: say one (qd trigger: --data JSON)"
        )
    if found.hooked:
        webhook = Input({"body": payload, "headers": shown}, payload)
        given = webhook if found.source == "webhook" else alerts(payload)
        return given, t.ignored(found, given)
    if not isinstance(payload, dict):
        raise BadRequest(f"payload: must be an object as {found.source} has it")
    if found.source == "kubernetesEvents":
        spec = found.spec.kubernetes_events
        assert spec is not None
        event = {"metadata": {"namespace": found.namespace}} | payload
        wrong = next((name for name in ("metadata", "involvedObject") if not isinstance(event.get(name, {}), dict)), "")
        if wrong:
            raise BadRequest(f"payload: {wrong} must be an object, as an Event has it")
        return t.of_event(event), "" if t.matches(spec, event) else "no Event that the trigger looks for"
    return Input({"resource": payload}, payload), ""


def _shown(found: Plan, row: Row, now: float) -> dict[str, Any]:
    spec = found.spec
    coming = None if found.schedule is None or spec.suspend else found.schedule.next_after(now)
    return {
        "namespace": found.namespace, "name": found.name, "source": found.source, "agent": spec.agent,
        "user": found.user, "suspend": spec.suspend, "dryRun": spec.dry_run,
        "active": row.get("active", 0), "started": row.get("started", 0), "skipped": row.get("skipped", 0),
        "deduplicated": row.get("deduplicated", 0), "limited": row.get("limited", 0),
        "lastFiring": timestamp(row["last_at"]) if row.get("last_at") else "",
        "lastOutcome": row.get("last_outcome", ""), "lastRun": row.get("last_run", ""),
        "nextFiring": timestamp(coming) if coming is not None else "",
        "path": f"/hooks/{found.label}" if found.hooked else "",
    }  # fmt: skip


def _firing(row: Row) -> dict[str, Any]:
    return {
        "at": timestamp(row["at"]), "due": timestamp(row["due"]) if row["due"] else "", "source": row["source"],
        "key": row["key"], "outcome": row["outcome"], "reason": row["reason"], "run": row["run"],
        "state": row["state"] or "", "why": row["why"] or "", "message": row["message"],
    }  # fmt: skip
