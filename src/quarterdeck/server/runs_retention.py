"""How long the journals of ended runs are kept."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from time import time

from sqlalchemy.exc import SQLAlchemyError

from quarterdeck.errors import ConfigError

from .runs_again import Again

log = logging.getLogger(__name__)
VARIABLE = "QUARTERDECK_RUN_RETENTION"
"""Environment variable: ``720h``, ``30d``; ``0`` keeps them for ever."""
DEFAULT = "30d"
EVERY = 3600.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str, variable: str = VARIABLE) -> float:
    """Raises ConfigError naming the variable."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip())
    if found is None:
        raise ConfigError(f"{variable}={text}: must be a number with s, m, h or d behind it, or 0 to keep all")
    return float(found[1]) * _UNITS[found[2] or "s"]


class Retention:
    """Deletes what is older, once an hour."""

    def __init__(self, again: Again, seconds: float, clock: Callable[[], float] = time) -> None:
        self._again = again
        self._seconds = seconds
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled; ends at once when all is kept."""
        while self._seconds > 0:
            try:
                await self.once()
            except (SQLAlchemyError, OSError) as error:
                log.warning("old runs could not be deleted, trying again in an hour: %s", error)
            await asyncio.sleep(EVERY)

    async def once(self) -> int:
        """How many runs were deleted."""
        count = await self._again.prune(self._clock() - self._seconds)
        if count:
            log.info("deleted the journals of %d runs that ended more than %g s ago", count, self._seconds)
        return count
