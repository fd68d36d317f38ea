"""Work on calls that goes on once somebody else has answered: the control plane, or who gives tokens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import msgspec

from .call import Call
from .observe import Observer

_log = logging.getLogger("quarterdeck.gateway")


class Pending:
    """Tasks with an owner. What breaks in one is logged, recorded and answered: nobody waits for ever."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], call: Call | None = None) -> None:
        """``call`` is whose answer waits for it."""
        task = asyncio.get_running_loop().create_task(self._run(work, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, work: Coroutine[Any, Any, None], call: Call | None) -> None:
        try:
            await work
        except Exception as error:
            if call is None:
                raise
            exchange = call.exchange
            _log.error("%s %s failed", exchange.method, exchange.path, exc_info=error)
            if exchange.started:
                exchange.abort()
            else:
                body = msgspec.json.encode({"error": {"message": "internal error", "code": 500}})
                exchange.respond(500, body, [(b"content-type", b"application/json")])
            self._observer.finish(call, "error", 500, f"internal error ({type(error).__name__})")
