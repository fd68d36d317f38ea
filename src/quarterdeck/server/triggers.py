"""Firing triggers: schedules and Events are looked at where the controllers lead, requests are taken everywhere.

Whatever fires, the run is begun in the transaction that writes the firing down (``triggers_store``), in the name of the
trigger's own ServiceAccount, which must be allowed to do so at that moment.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError

from quarterdeck.controllers.triggers import Access, Facts, Triggers, event_key
from quarterdeck.errors import Forbidden, QuarterdeckError
from quarterdeck.kube.clock import parse_timestamp, timestamp
from quarterdeck.kube.resource import Object
from quarterdeck.snapshot.conversation import new_id
from quarterdeck.telemetry import names
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.translate import triggers as t
from quarterdeck.translate.triggers import Input, Plan

from .runs_store import NewRun
from .triggers_store import Firing, Rules, TriggerStore

log = logging.getLogger(__name__)
LOOK = 1.0
"""Seconds between looks at schedules."""
_TELL, _CARE = 2.0, 60.0
"""Seconds between two writes of what is known into statuses, and between two clean-ups."""
_FAR = 3600.0
_AGAIN = 10.0
"""Seconds until what could not be fired is tried again."""
_OVERLAP = 60.0
"""Seconds of Events that are looked at twice when another process takes over; they are known by their keys."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a firing, for whoever asked. ``message`` is what the agent is, or would be, asked."""

    outcome: str
    reason: str = ""
    run: str = ""
    retry_after: float = 0.0
    message: str = ""


class Engine:
    """``wake`` asks for a Pod of an agent that is scaled to zero; ``revoked`` says why nobody may act for a trigger's
    identity, or its agent, now."""

    def __init__(
        self,
        triggers: Triggers,
        store: TriggerStore,
        access: Access,
        registry: Registry,
        wake: Callable[[str], Awaitable[None]],
        revoked: Callable[[Plan], str] = lambda found: "",
    ) -> None:
        self._revoked = revoked
        self.triggers = triggers
        self.store = store
        self._access = access
        self._wake = wake
        self._led = False
        self._told = self._cared = -_FAR
        self._next: dict[str, tuple[Plan, float]] = {}
        """When a schedule is due next, by UID, or Events that could not be looked at; nothing is asked until then."""
        self._seen: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._fired = registry.counter(names.TRIGGER_FIRINGS, "Firings of triggers.", ("trigger", "source", "outcome"))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            timer = self.triggers.clock.call_later(LOOK, self.triggers.on_event.set)
            try:
                await self.triggers.on_event.wait()
            finally:
                timer.cancel()

    async def look(self) -> None:
        """Fire what is due; nothing where another process leads."""
        self.triggers.on_event.clear()
        if not self.triggers.leading:
            self._led = False
            self._next.clear()
            self.triggers.tell(None)
            return
        plans = self.triggers.all()
        now = self.triggers.clock.time()
        for found in plans:
            known, coming = self._next.get(found.uid, (None, 0.0))
            due = found.schedule is not None and not found.spec.suspend and (known is not found or coming <= now)
            if due and not await self._quietly(found, self.by_clock(found)):
                self._next[found.uid] = found, now + _AGAIN
        await self._events([found for found in plans if found.source == "kubernetesEvents"])
        await self._quietly(None, self._keep_up(plans))

    # -- firing
    async def fire(
        self,
        found: Plan,
        given: Input,
        key: str = "",
        *,
        source: str = "",
        due: float = 0.0,
        missed: int = 0,
        content: tuple[str, str] | None = None,
    ) -> Outcome:
        """Start a run unless something is against it. For ``key`` (empty: like no other) and ``content`` see Firing.

        Raises Forbidden when the trigger's identity may not, ConfigError when something it names is missing, and
        StorageError's kin when that cannot be known: nothing is started then, and it may be tried again.
        """
        refusal, firing = await self._prepared(found, given, key, source, due)
        if refusal is not None:
            result = refusal
            if content is not None:  # else a change back to what was seen before would be none
                await self.store.noted(rules_of(found), *content)
        else:
            fired = await self.store.fire(rules_of(found), replace(firing, missed=missed, content=content))
            result = Outcome(fired.outcome, fired.reason, fired.run, fired.retry_after, firing.message)
        self._fired.labels(found.label, source or found.source, result.outcome).value += 1
        if result.outcome not in ("Duplicate", "Filtered"):
            log.info("trigger %s fired by %s: %s %s", found.label, source or found.source, result.outcome, result.run)
        return result

    async def rehearse(self, found: Plan, given: Input, key: str = "") -> Outcome:
        """What :meth:`fire` would do; nothing is written or started."""
        refusal, firing = await self._prepared(found, given, key, "", 0.0)
        if refusal is not None:
            return refusal
        fired = await self.store.look(rules_of(found), firing)
        return Outcome(fired.outcome, fired.reason, fired.run, fired.retry_after, firing.message)

    async def _prepared(
        self, found: Plan, given: Input, key: str, source: str, due: float
    ) -> tuple[Outcome | None, Firing]:
        at = due or self.triggers.clock.time()
        values = t.variables(found, given, timestamp(at))
        message = t.text(found, given, values)
        run = None if found.spec.dry_run else _run(found, message, source or found.source, key)
        same = t.same(found, given, values)
        firing = Firing(key or f"once/{uuid4()}", source or found.source, run, same, due, message)
        if found.spec.suspend and source != "manual":
            return Outcome("Suspended", "spec.suspend is true"), firing
        why = t.wanted(found, values)
        if why:
            return Outcome("Filtered", why, message=message), firing
        problem = self.triggers.problem(found)
        if problem is not None:
            raise problem
        revoked = self._revoked(found)
        if revoked:
            raise Forbidden(revoked)
        if not await self._access.may_start(found):
            raise Forbidden(f"{found.user} may not create runs (quarterdeck.dev) in namespace {found.namespace}")
        return None, firing

    # -- the clock
    async def by_clock(self, found: Plan) -> None:
        """Start what is due by a schedule; what was missed is counted."""
        cron, schedule = found.spec.cron, found.schedule
        assert cron is not None and schedule is not None
        rules, now = rules_of(found), self.triggers.clock.time()
        since = await self.store.since(rules, f"{cron.time_zone or 'UTC'} {cron.schedule}", self._created(found, now))
        deadline = cron.starting_deadline_seconds
        due = schedule.due(since, now, cron.missed_run_policy, None if deadline is None else float(deadline))
        for moment in due.times:
            missed = due.missed if moment == due.times[0] else 0
            came = await self.fire(found, Input(), f"cron/{timestamp(moment)}", due=moment, missed=missed)
            if came.outcome == "Filtered":
                await self.store.missed(rules, moment, missed)
        if due.latest is not None and not due.times:
            await self.store.missed(rules, due.latest, due.missed)
        self._next[found.uid] = found, schedule.next_after(now) or now + _FAR

    def _created(self, found: Plan, default: float) -> float:
        obj = self.triggers.object(found.namespace, found.name) or {}
        stamp = (obj.get("metadata") or {}).get("creationTimestamp")
        return parse_timestamp(stamp) if stamp else default

    # -- Events
    async def _events(self, plans: list[Plan]) -> None:
        if not plans:
            return
        self.triggers.follow_events()
        waiting, self.triggers.events = self.triggers.events, {}
        now, led, self._led = self.triggers.clock.time(), self._led, True
        for found in plans:
            failed, coming = self._next.get(found.uid, (None, 0.0))
            if failed is found and now < coming:
                continue
            events = waiting
            if failed is not None or not led:  # it could not be fired until now, or another process led
                events = {event_key(event): event for event in self.triggers.all_events()} | waiting
            if await self._quietly(found, self._by_events(found, list(events.values()))):
                self._next.pop(found.uid, None)
            else:
                self._next[found.uid] = found, now + _AGAIN

    async def _by_events(self, found: Plan, events: list[Object]) -> None:
        spec = found.spec.kubernetes_events
        assert spec is not None
        now = self.triggers.clock.time()
        wanted = [
            (event, namespace)
            for event in events
            if t.matches(spec, event) and self.triggers.selects(found, namespace := _namespace(event))
        ]
        if not wanted and now - self._seen.get(found.uid, 0.0) < _OVERLAP / 2:
            return
        created = self._created(found, now)
        since = await self.store.since(rules_of(found), "events", created)
        for event, namespace in wanted:
            if happened(event, now) < max(since - _OVERLAP, created):
                continue
            if not await self._access.may_see_events(found, namespace):
                self._say(f"{found.uid}/{namespace}", f"{found.user} may not list events in {namespace}", found)
                continue
            await self.fire(found, t.of_event(event), f"event/{event_key(event)}"[:128])
        await self.store.missed(rules_of(found), now, 0)
        self._seen[found.uid] = now

    # -- what else there is to do
    async def tell(self) -> None:
        """Have statuses say what the database does."""
        rows = await self.store.numbers()
        self.triggers.tell(
            {
                uid: Facts(
                    row["active"], row["started"], row["skipped"], row["deduplicated"], row["limited"], row["last_at"],
                    row["last_outcome"], row["last_run"],
                )
                for uid, row in rows.items()
            }
        )  # fmt: skip

    async def _keep_up(self, plans: list[Plan]) -> None:
        now = self.triggers.clock.monotonic()
        if now - self._told >= _TELL:
            self._told = now
            await self.tell()
            for agent in await self.store.pending():
                with suppress(QuarterdeckError):  # most never sleep
                    await self._wake(agent)
        if now - self._cared >= _CARE:
            self._cared = now
            await self._care(plans)

    async def _care(self, plans: list[Plan]) -> None:
        for found in plans:
            limits = found.spec.successful_runs_history_limit, found.spec.failed_runs_history_limit
            await self._quietly(found, self.store.prune(found.uid, *limits))
        live = self.triggers.uids()
        await self.store.forget(live)
        for kept in (self._next, self._seen, self._said):
            for known in [known for known in kept if known.partition("/")[0] not in live]:
                del kept[known]

    async def _quietly(self, found: Plan | None, work: Awaitable[object]) -> bool:
        """One trigger must not keep the others from firing; False for what failed: it is looked at again."""
        uid = found.uid if found is not None else ""
        try:
            await work
        except (QuarterdeckError, SQLAlchemyError, OSError) as error:
            self._say(uid, f"trying again: {error}", found)
            return False
        self._said.pop(uid, None)
        return True

    def _say(self, what: str, text: str, found: Plan | None) -> None:
        """Once while it stays so."""
        if self._said.get(what) != text:
            self._said[what] = text
            log.warning("trigger%s %s", f" {found.label}:" if found is not None else "s:", text)


def rules_of(found: Plan) -> Rules:
    limit = found.spec.rate_limit
    return Rules(found.uid, found.label, found.spec.concurrency_policy, found.window, limit.runs, found.per)


def happened(event: Object, default: float) -> float:
    """When an Event came last."""
    series = event.get("series") or {}
    stamps = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    stamp = next((str(one) for one in (*stamps, event["metadata"].get("creationTimestamp")) if one), "")
    try:
        return parse_timestamp(stamp)
    except ValueError:
        return default


def _namespace(event: Object) -> str:
    return str(event["metadata"].get("namespace") or "")


def _run(found: Plan, message: str, source: str, key: str) -> NewRun:
    session, task = new_id(found.agent), new_id(found.agent)
    said = {
        "messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": message}], "taskId": task,
        "contextId": session,
    }  # fmt: skip
    origin = {"trigger": found.label, "source": source, "key": key}
    return NewRun(found.agent, found.user, session, task, said, f"trigger:{found.name}"[:64], origin=origin)
