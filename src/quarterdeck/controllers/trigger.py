"""Trigger: says whether it can fire, when it will, and what came of it; ``server.triggers`` fires it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.errors import ConfigError, RefNotFound
from quarterdeck.kube import resource as k
from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object
from quarterdeck.translate.triggers import Plan

from .context import RESOLVED, Context, Verdict
from .triggers import Access, Facts, Triggers

_AGAIN = 60.0
"""Seconds until permissions are looked at anew: nobody tells when a RoleBinding changes."""
_SOONER = 10.0
_INVALID = "InvalidTrigger"
_DENIED = "IdentityNotAllowed"


def controller(context: Context, triggers: Triggers) -> Controller:
    informer = context.set.informer(k.TRIGGER)

    def naming(*path: str):
        def keys(obj: Object) -> Iterable[Key]:
            name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
            return [k.key_of(one) for one in informer.list(namespace) if name in _named(one, path)]

        return keys

    secret_paths = ("webhook.github", "webhook.hmac", "webhook.bearer", "alertmanager.bearer")
    return Controller(
        "trigger",
        k.TRIGGER,
        TriggerReconciler(context, triggers, Access(context.set.client, context.set.clock)).reconcile,
        maps=(
            (k.AGENT, naming("agent")),
            (k.SERVICE_ACCOUNT, naming("serviceAccountName")),
            (k.SECRET, naming(*(f"{path}.secretRef.name" for path in secret_paths))),
            (k.MCP_SERVER, naming("mcpResources.server.name")),
            (k.REMOTE_MCP_SERVER, naming("mcpResources.server.name")),
        ),
        workers=2,
    )


def _named(obj: Object, paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        value = obj.get("spec") or {}
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str):
            found.add(value)
    return found


@dataclass(slots=True)
class TriggerReconciler:
    context: Context
    triggers: Triggers
    access: Access

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.TRIGGER, key)
        if obj is None:
            return None
        facts = self.triggers.facts(str(obj["metadata"].get("uid") or ""))
        try:
            found = self.triggers.get(key.namespace, key.name)
        except ConfigError as error:
            verdicts = [*self.context.rejected(error, _INVALID), Verdict("Ready", False, _INVALID, str(error))]
            await self.context.set_status(k.TRIGGER, obj, verdicts, {"nextFiringTime": None, "path": None})
            return None
        if found.source == "kubernetesEvents":
            self.triggers.follow_events()
        verdicts = [Verdict("Accepted", True, "Accepted", "The trigger is accepted"), *await self._verdicts(found)]
        fields = self._fields(found)
        if facts is not None:
            self._tell(obj, facts)
            fields |= _numbers(facts)
        await self.context.set_status(k.TRIGGER, obj, verdicts, fields)
        return Result(_AGAIN if verdicts[-1].status else _SOONER)

    async def _verdicts(self, found: Plan) -> list[Verdict]:
        problem = self.triggers.problem(found)
        if problem is None:
            try:
                await self.triggers.secret(found)
            except RefNotFound as error:
                problem = error
        if problem is not None:
            text = str(problem)
            return [Verdict("ResolvedRefs", False, problem.reason, text), Verdict("Ready", False, problem.reason, text)]
        if not await self.access.may_start(found):
            text = (
                f"{found.user} may not create runs (quarterdeck.dev) in namespace {found.namespace}: bind a Role to it "
                "that has verb create on runs.quarterdeck.dev"
            )
            return [RESOLVED, Verdict("Authorized", False, _DENIED, text), Verdict("Ready", False, _DENIED, text)]
        allowed = Verdict("Authorized", True, "Authorized", f"Runs are started in the name of {found.user}")
        if found.spec.suspend:
            return [RESOLVED, allowed, Verdict("Ready", False, "Suspended", "spec.suspend is true: nothing is started")]
        how = "fires without starting anything (spec.dryRun)" if found.spec.dry_run else "fires"
        return [RESOLVED, allowed, Verdict("Ready", True, "Ready", f"The trigger {how}")]

    def _fields(self, found: Plan) -> Object:
        now = self.context.set.clock.time()
        coming = None if found.schedule is None or found.spec.suspend else found.schedule.next_after(now)
        return {
            "source": found.source,
            "path": f"/hooks/{found.label}" if found.hooked else None,
            "nextFiringTime": timestamp(coming) if coming is not None else None,
        }

    def _tell(self, obj: Object, facts: Facts) -> None:
        """Events for what has happened since the status was written."""
        before = obj.get("status") or {}
        if facts.last_run and facts.last_run != before.get("lastRun"):
            self.context.event(obj, "Normal", "RunStarted", f"run {facts.last_run} was started; see: qd run show")
        if before and facts.limited > int(before.get("limited") or 0):
            self.context.event(obj, "Warning", "RateLimited", "fired more often than spec.rateLimit lets it")
        if before and facts.skipped > int(before.get("skipped") or 0):
            text = "a firing started nothing: it was missed, or a run goes on and concurrencyPolicy forbids another"
            self.context.event(obj, "Warning", "FiringSkipped", text)


def _numbers(facts: Facts) -> Object:
    return {
        "active": facts.active,
        "started": facts.started,
        "skipped": facts.skipped,
        "deduplicated": facts.deduplicated,
        "limited": facts.limited,
        "lastFiringTime": timestamp(facts.last_at) if facts.last_at else None,
        "lastOutcome": facts.last_outcome or None,
        "lastRun": facts.last_run or None,
    }
