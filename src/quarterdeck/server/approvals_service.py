"""Approvals in one control-plane process: store, API, audit, copies as objects, webhooks, and the runs that wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.controllers.gateway_config import GatewayConfig
from quarterdeck.errors import QuarterdeckError
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import SystemClock, sleep
from quarterdeck.kube.supervise import Supervisor
from quarterdeck.telemetry.audit import open_log

from . import approvals as a
from .approvals import Approval
from .approvals_api import ApprovalsApi
from .approvals_audit import ApprovalAudit
from .approvals_mirror import ApprovalMirror
from .approvals_notify import Notifier, Send
from .approvals_store import ApprovalStore
from .database import Database
from .http import Route
from .identity import Identity

log = logging.getLogger(__name__)
_SWEEP = 2.0
"""Seconds between looks for what has expired."""
_SETTLE = 15
"""Looks between two comparisons of all copies."""
_DECIDED = frozenset({"Approved", "Denied", "Expired", "Void"})

Resume = Callable[[str, int, dict[str, Any], str], Awaitable[Any]]
"""Tell a run that waits at a step what was said, and by whom. Raises QuarterdeckError when it does not wait there."""


@dataclass(frozen=True, slots=True)
class ApprovalOptions:
    """``client`` writes the copies and reads policies' webhooks; without one there are neither. ``audit``: file of the
    audit log, standard output when None. ``local``: names that all mean the one person at this machine."""

    client: KubeClient | None = None
    audit: Path | None = None
    local: frozenset[str] = frozenset()


class ApprovalService:
    """``start``, then :attr:`routes` and :attr:`agent_routes` are served; ``stop``."""

    def __init__(
        self,
        database: Database,
        identity: Identity,
        config: GatewayConfig,
        options: ApprovalOptions,
        send: Send,
        resume: Resume | None = None,
    ) -> None:
        def rules() -> a.Rules:
            return a.rules_of(config.snapshot.approvals if config.snapshot is not None else ())

        self.store = ApprovalStore(database, rules, a.same_person(options.local))
        self.audit = ApprovalAudit(open_log(options.audit, on_failure="drop", on_error=log.error))
        api = ApprovalsApi(self.store, identity, config, self.audit)
        self.routes: list[Route] = api.routes()
        self.agent_routes: list[Route] = api.agent_routes()
        self._resume = resume
        self._mirror: ApprovalMirror | None = None
        self._notifier: Notifier | None = None
        self._tasks: list[asyncio.Task[None]] = []
        if options.client is not None:
            self._mirror = ApprovalMirror(options.client, self.store)
            self._notifier = Notifier(options.client, send)
            self.store.changed += [self._mirror.take, self._notifier.take]
        if resume is not None:
            self.store.changed.append(self._tell_run)

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
            if self._mirror is not None and looks % _SETTLE == 0:
                await self._mirror.settle()
            looks += 1
            await sleep(clock, _SWEEP)

    async def _tell_run(self, approval: Approval) -> None:
        """A run that waits for this goes on: the call is made again, and the gateway says what became of it."""
        wanted = approval.wanted
        if self._resume is None or not wanted.run or approval.state not in _DECIDED:
            return
        said = {
            "approval": approval.id,
            "state": approval.state,
            "message": approval.message,
            "argumentsHash": wanted.arguments_hash,
        }
        by = ", ".join(d.person.name for d in approval.decisions) or "the control plane"
        try:
            await self._resume(wanted.run, wanted.step, said, by)
        except QuarterdeckError as error:
            log.debug("run %s does not wait for approval %s: %s", wanted.run, approval.id, error)
