"""Work on calls that goes on once somebody else has answered: the control plane, or who gives tokens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from quarterdeck.errors import UpstreamError

from .call import Call
from .observe import Observer
from .policy.principal import Principal
from .upstream import Upstreams

_log = logging.getLogger("quarterdeck.gateway")
Refuse = Callable[[Call, int, str], None]
"""Answers with a status and a message, as the call's protocol has errors."""


class Pending:
    """Tasks with an owner. What breaks in one is logged, recorded and answered, and who is revoked meanwhile ends it:
    nobody waits for ever, and nothing is done in the name of who may not any more."""

    def __init__(self, upstreams: Upstreams, observer: Observer, refuse: Refuse) -> None:
        self._upstreams = upstreams
        self._observer = observer
        self._refuse = refuse
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], call: Call | None = None) -> None:
        """``call`` is whose answer waits for it."""
        task = asyncio.get_running_loop().create_task(work if call is None else self._run(work, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if call is not None:
            waiting = _Waiting(call, task, self)
            self._upstreams.held.add(waiting)
            task.add_done_callback(lambda _: self._upstreams.held.discard(waiting))

    def end(self, call: Call, status: int, message: str) -> None:
        """Answer, and record."""
        if call.exchange.started:
            call.exchange.abort()
        else:
            self._refuse(call, status, message)
        self._observer.finish(call, "denied" if status == 403 else "error", status, message)

    async def _run(self, work: Coroutine[Any, Any, None], call: Call) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - as the wire does with what its handlers raise
            _log.error("%s %s failed", call.exchange.method, call.exchange.path, exc_info=error)
            self.end(call, 500, f"internal error ({type(error).__name__})")


class _Waiting:
    """A call that is not on its way yet, for revocations."""

    def __init__(self, call: Call, task: asyncio.Task[None], pending: Pending) -> None:
        self.call = call
        self._task = task
        self._pending = pending

    @property
    def principal(self) -> Principal:
        return self.call.principal

    @property
    def target(self) -> tuple[str, str]:
        return self.call.kind, self.call.server

    def give_up(self, error: UpstreamError) -> None:
        self._task.cancel()
        self._pending.end(self.call, 403, str(error))
