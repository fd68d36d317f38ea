"""Approvals in one control-plane process: store, API, audit, copies as objects, webhooks, and the runs that wait."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.errors import QuarterdeckError
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
        self.store.changed.append(self._record)
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
            await self.store.sweep()
            await self.tell_runs()
            if self._mirror is not None and looks % _SETTLE == 0:
                await self._mirror.settle()
            looks += 1
            await sleep(clock, _SWEEP)

    async def _record(self, approval: Approval) -> None:
        """What happens without anybody saying it."""
        if approval.state in ("Expired", "Void", "Consumed"):
            self.audit.ended(approval)

    # -- runs
    async def _decided(self, approval: Approval) -> None:
        """A run that waits for this goes on: the call is made again, and the gateway says what became of it."""
        if not approval.wanted.run or approval.state not in _DECIDED:
            return
        said = approval.decisions[-1].person.via if approval.decisions else "api"
        if said == "api":
            await self._tell(approval, 0)
        else:  # it reaches the agent by itself, in this moment
            self._untold[approval.id] = (approval, -1)

    async def tell_runs(self) -> None:
        """Those that did not wait yet when the approval was decided."""
        for approval, tried in list(self._untold.values()):
            if tried < 0:
                self._untold[approval.id] = (approval, 0)
            else:
                await self._tell(approval, tried)

    async def _tell(self, approval: Approval, tried: int) -> None:
        wanted = approval.wanted
        first = wanted.task.rpartition("#")[2]
        waiting = [wanted.run, *([first] if first and first != wanted.run else [])]
        told = [await self._told(run, approval) for run in waiting]
        if not told[0] and tried + 1 < _TELLINGS:
            self._untold[approval.id] = (approval, tried + 1)
        else:
            self._untold.pop(approval.id, None)

    async def _told(self, run: str, approval: Approval) -> bool:
        """Whether a run that waits for this approval, its own or another agent's, was told."""
        runs = self._runs
        assert runs is not None
        by = ", ".join(d.person.name for d in approval.decisions) or "the control plane"
        said: dict[str, Any] = {
            "approval": approval.id,
            "state": approval.state,
            "text": approval.message,
            "argumentsHash": approval.wanted.arguments_hash,
        }
        try:
            asked = await self._asked(run)
            question = _question_of(asked) if asked is not None else {}
            if asked is None or question.get("approval") != approval.id:
                return False
            if "task" in question:  # of the agent that was asked
                said["task"] = question["task"]
            await runs.answer(run, asked.step, said, by)
        except QuarterdeckError as error:
            log.debug("run %s does not wait for approval %s: %s", run, approval.id, error)
            return False
        return True

    async def _place(self, run: str) -> Place:
        runs = self._runs
        assert runs is not None
        row = await runs.run(run)
        asked = await self._asked(run)
        user = "" if row["source"] == "chat" else str(row["user_id"])
        if asked is None:
            return Place(str(row["task_id"]), user=user)
        question = _question_of(asked)
        call: Any = question.get("call")
        shown = str(call.get("id", "")) if isinstance(call, dict) else ""
        return Place(str(row["task_id"]), asked.step, shown, str(question.get("approval", "")), user)

    async def _asked(self, run: str) -> Event | None:
        """What a run waits for now. Raises NotFound."""
        assert self._runs is not None
        row = await self._runs.run(run)
        if row["state"] != "waiting":
            return None
        events = await self._runs.events(row)
        return next((event for event in reversed(events) if event.kind == "waiting"), None)


def _question_of(event: Event) -> dict[str, Any]:
    question = event.data.get("question")
    return question if isinstance(question, dict) else {}
