"""The open ports: bound and let go as snapshots come, without touching the connections of those that stay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from quarterdeck.wire.http import Exchange, Handler, Server
from quarterdeck.wire.sockets import bound_socket
from quarterdeck.wire.tls import PortContext, port_context

from ..limits.sizes import listener as listener_limits
from .frontend import Frontend
from .listeners import Port, PortKey

if TYPE_CHECKING:
    from ..table import Table
    from ..workers.share import Share

_log = logging.getLogger("quarterdeck.gateway")
_AGAIN = 1.0  # seconds between tries to bind a port that somebody else has
_DRAIN = 30.0  # seconds that requests may take to end on a port that is let go


class _Open:
    """One bound port, and what it serves now."""

    def __init__(self, port: Port, table: Table) -> None:
        self.port = port
        self.table = table
        self.server: Server = None  # type: ignore[assignment]  # set right after, it needs our handler
        self.context: PortContext | None = port_context() if port.secure else None
        self.address: tuple[str, int] = ("", 0)
        self.use(port, table)

    def use(self, port: Port, table: Table) -> None:
        self.port = port
        self.table = table
        if self.context is not None:
            self.context.use(port.tls)


class Ports:
    """``new_server`` makes a server for a handler; ``own`` is told the addresses we listen at.

    ``address`` is where listeners are bound that name none. Ports that cannot be bound are tried again every second.
    """

    def __init__(
        self,
        frontend: Frontend,
        new_server: Callable[[str, Handler], Server],
        own: set[tuple[str, int]],
        address: str,
        *,
        share: Share | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``share``: other workers listen at the same ports. ``changed`` is called when a port was bound late."""
        self._frontend = frontend
        self._new_server = new_server
        self._own = own
        self._address = address
        self._share = share
        self._changed = changed
        self._open: dict[tuple[PortKey, bool], _Open] = {}
        self._table: Table | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self.problems: dict[str, str] = {}
        """Listener → why it is not served."""
        self.endpoints: dict[str, str] = {}
        """Listener → ``scheme://host:port``."""

    def apply(self, table: Table) -> None:
        """Serve the listeners of a table from now on; what cannot be bound is in :attr:`problems`."""
        self._table = table
        before = self.problems
        wanted = {(key, port.secure): port for key, port in table.listeners.ports.items()}
        for key in [key for key in self._open if key not in wanted]:
            self._close(self._open.pop(key))
        self.problems = dict(table.listeners.problems)
        failed = False
        for key, port in wanted.items():
            opened = self._open.get(key)
            if opened is not None:
                opened.use(port, table)
            else:
                try:
                    opened = self._open[key] = self._bind(port, table)
                except OSError as error:
                    failed = True
                    where = f"{port.key[0] or self._address}:{port.key[1]}"
                    for name in port.names:
                        self.problems[name] = f"cannot listen on {where}: {error.strerror or error}"
                    continue
            opened.server.limits = listener_limits(port.max_body)
            opened.server.forget()
        for name, problem in self.problems.items():
            if before.get(name) != problem:
                _log.error("listener %s is not served: %s", name, problem)
        self.endpoints = self._list()
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_later(_AGAIN, self._try_again) if failed else None

    async def settled(self) -> None:
        """Wait until every bound port accepts."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self, grace: float) -> None:
        """Stop accepting, let requests in flight end for ``grace`` seconds."""
        if self._again is not None:
            self._again.cancel()
        for task in self._tasks:  # ports that are on their way out already
            task.cancel()
        opened, self._open = list(self._open.values()), {}
        await asyncio.gather(*(one.server.stop(grace) for one in opened), *self._tasks, return_exceptions=True)

    def _try_again(self) -> None:
        if self._table is not None:
            before = len(self._open)
            self.apply(self._table)
            if len(self._open) != before:
                self._changed()

    def _bind(self, port: Port, table: Table) -> _Open:
        opened = _Open(port, table)

        def handle(exchange: Exchange) -> Coroutine[Any, Any, None] | None:
            return self._frontend.handle(exchange, opened.port, opened.table)

        host, number = port.key
        where, share = host or self._address, self._share
        if share is None:
            sock = bound_socket(where, number)
        elif number:
            sock = bound_socket(where, number, reuse_port=True)
        else:
            sock = share.agree(f"{where}|{port.scheme}", lambda known: bound_socket(where, known, reuse_port=True))
        bound: Any = sock.getsockname()
        opened.address = (str(bound[0]), int(bound[1]))
        opened.server = self._new_server(f"{opened.address[0]}:{opened.address[1]}", handle)
        self._own.add(opened.address)
        self._run(opened.server.listen_socket(sock, tls=opened.context))
        return opened

    def _close(self, opened: _Open) -> None:
        self._own.discard(opened.address)
        self._run(opened.server.stop(_DRAIN))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _list(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for opened in self._open.values():
            host, number = opened.address
            url = f"{opened.port.scheme}://{f'[{host}]' if ':' in host else host}:{number}"
            found.update({name: url for name in opened.port.names if name not in self.problems})
        return found
