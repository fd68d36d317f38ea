"""Approvals in one control-plane process: store, API, audit, copies as objects, webhooks, and the runs that wait."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.errors import Conflict, QuarterdeckError
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import SystemClock, sleep
from quarterdeck.kube.supervise import Supervisor
from quarterdeck.snapshot.runs import Event
from quarterdeck.telemetry.audit import open_log

from . import approvals as a
from .approvals import Approval
from .approvals_api import ApprovalsApi, Place
from .approvals_audit import ApprovalAudit
from .approvals_mirror import ApprovalMirror
from .approvals_notify import Notifier, Send
from .approvals_store import ApprovalStore
from .database import Database
from .http import Route
from .identity import Identity
from .runs_store import RunStore

log = logging.getLogger(__name__)
_SWEEP = 2.0
"""Seconds between looks for what has expired."""
_SETTLE = 15
"""Looks between two comparisons of all copies."""
_TELLINGS = 15
"""Attempts to tell a run, one with each look: the call is answered before the run is written down as waiting."""
_DECIDED = frozenset({"Approved", "Denied", "Expired", "Void"})


@dataclass(frozen=True, slots=True)
class ApprovalOptions:
    """``client`` writes the copies and reads policies' webhooks; without one there are neither. ``audit``: file of the
    audit log, standard output when None. ``local``: names that all mean the one person at this machine.
    ``namespaces``: the only ones with copies; all when empty."""

    client: KubeClient | None = None
    audit: Path | None = None
    local: frozenset[str] = frozenset()
    namespaces: tuple[str, ...] = ()


class ApprovalService:
    """``start``, then :attr:`routes` and :attr:`agent_routes` are served; ``stop``."""

    def __init__(
        self,
        database: Database,
        identity: Identity,
        config: GatewayConfig,
        options: ApprovalOptions,
        send: Send,
        runs: RunStore | None = None,
    ) -> None:
        """``runs``: those that wait for approvals go on when these are decided."""

        def rules() -> a.Rules:
            return a.rules_of(config.snapshot.approvals if config.snapshot is not None else ())

        self.store = ApprovalStore(database, rules, a.same_person(options.local))
        self.audit = ApprovalAudit(open_log(options.audit, on_failure="drop", on_error=log.error))
        api = ApprovalsApi(self.store, identity, config, self.audit, self._place if runs is not None else None)
        self.routes: list[Route] = api.routes()
        self.agent_routes: list[Route] = api.agent_routes()
        self._runs = runs
        self._untold: dict[str, tuple[Approval, int]] = {}
        """Decided approvals whose runs do not go on yet, and how often that was tried."""
        self._mirror: ApprovalMirror | None = None
        self._notifier: Notifier | None = None
        self._tasks: list[asyncio.Task[None]] = []
        if options.client is not None:
            self._mirror = ApprovalMirror(options.client, self.store, options.namespaces)
            self._notifier = Notifier(options.client, send)
            self.store.changed += [self._mirror.take, self._notifier.take]
        if runs is not None:
            self.store.changed.append(self._decided)

    def start(self) -> None:
        loop, keep = asyncio.get_running_loop(), Supervisor().keep
        self._tasks.append(loop.create_task(keep("approvals", self._run), name="approvals"))
        if self._mirror is not None:
            self._tasks.append(loop.create_task(keep("approval copies", self._mirror.run), name="approval copies"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._notifier is not None:
            await self._notifier.stop()
        self.audit.log.close()

    async def _run(self) -> None:
        clock, looks = SystemClock(), 0
        while True:
            for approval in await self.store.sweep():
                self.audit.expired(approval)
            await self.tell_runs()
            if self._mirror is not None and looks % _SETTLE == 0:
                await self._mirror.settle()
            looks += 1
            await sleep(clock, _SWEEP)

    # -- runs
    async def _decided(self, approval: Approval) -> None:
        """A run that waits for this goes on: the call is made again, and the gateway says what became of it."""
        if not approval.wanted.run or approval.state not in _DECIDED:
            return
        self._untold[approval.id] = (approval, 0)
        said = approval.decisions[-1].person.via if approval.decisions else "api"
        if said == "api":  # what was said in the conversation reaches the agent by itself
            await self._tell(approval, 0)

    async def tell_runs(self) -> None:
        """Those that did not wait yet when the approval was decided."""
        for approval, tried in list(self._untold.values()):
            await self._tell(approval, tried)

    async def _tell(self, approval: Approval, tried: int) -> None:
        wanted, runs = approval.wanted, self._runs
        assert runs is not None
        said = {
            "approval": approval.id,
            "state": approval.state,
            "text": approval.message,
            "argumentsHash": wanted.arguments_hash,
        }
        by = ", ".join(d.person.name for d in approval.decisions) or "the control plane"
        try:
            question = await self._question(wanted.run)
            if question.get("approval", approval.id) != approval.id:
                raise Conflict(f"run {wanted.run} waits for {question['approval']}")
            await runs.answer(wanted.run, wanted.step, said, by)
        except QuarterdeckError as error:
            if tried + 1 < _TELLINGS:
                self._untold[approval.id] = (approval, tried + 1)
                return
            log.debug("run %s does not wait for approval %s: %s", wanted.run, approval.id, error)
        self._untold.pop(approval.id, None)

    async def _place(self, run: str) -> Place:
        runs = self._runs
        assert runs is not None
        row = await runs.run(run)
        asked = [e for e in await runs.events(row) if e.kind == "waiting"] if row["state"] == "waiting" else []
        call: Any = _question_of(asked[-1]).get("call") if asked else None
        shown = str(call.get("id", "")) if isinstance(call, dict) else ""
        return Place(str(row["task"]), asked[-1].step if asked else 0, shown)

    async def _question(self, run: str) -> dict[str, Any]:
        """What a run asked last."""
        assert self._runs is not None
        events = await self._runs.events(await self._runs.run(run))
        return next((_question_of(event) for event in reversed(events) if event.kind == "waiting"), {})


def _question_of(event: Event) -> dict[str, Any]:
    question = event.data.get("question")
    return question if isinstance(question, dict) else {}
