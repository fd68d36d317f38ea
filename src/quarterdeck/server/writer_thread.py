"""SQLite transactions in one thread, each in one go.

Through the asynchronous driver every statement is a message to a thread and back, which costs more than the statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, create_engine, event

T = TypeVar("T")


class WriterThread:
    """``pragmas`` is called with each new connection, as SQLAlchemy's event has it."""

    def __init__(self, url: URL, pragmas: Callable[[Any, object], None]) -> None:
        self._engine = create_engine(url.set(drivername="sqlite"), connect_args={"check_same_thread": False})
        event.listen(self._engine, "connect", pragmas)
        self._connection: Connection | None = None
        """Kept: to take one from the pool and give it back costs as much as a statement."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` gives, committed; to its end even if cancelled. Raises what it raises, rolled back."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._whole, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.gather(running, return_exceptions=True)
            raise

    def close(self) -> None:
        """Wait for what is running, and close the file."""
        self._thread.submit(self._end)
        self._thread.shutdown()

    def _whole(self, work: Callable[[Connection], T]) -> T:
        connection = self._connection
        if connection is None or connection.invalidated:
            connection = self._connection = self._engine.connect()
        with connection.begin():
            return work(connection)

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()
