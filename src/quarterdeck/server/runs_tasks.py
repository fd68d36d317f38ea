"""A run's A2A task as of its journal, saved with what changes it: for lists of tasks, and for who is notified."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, bindparam, select

from quarterdeck.agents.journal.told import task_of
from quarterdeck.snapshot.runs import Event

from .database import Database, Row
from .kagent import task_row
from .runs_tables import run_events

log = logging.getLogger(__name__)
SHOWN = frozenset({"created", "waiting", "final"})
"""Kinds of events after which a task is saved; in between it is made of the journal."""
_EVENTS = select(run_events).where(run_events.c.run == bindparam("this")).order_by(run_events.c.seq)


def keep(database: Database, connection: Connection, row: Row, written: Sequence[Event]) -> bool:
    """Save the task in the transaction that wrote these events; whether ``database.queued`` is to be set after it."""
    if not any(event.kind in SHOWN for event in written):
        return False
    events = written
    if written[0].kind != "created":
        events = [event_of(dict(found)) for found in connection.execute(_EVENTS, {"this": row["number"]}).mappings()]
    try:
        task = task_of(events)
    except (KeyError, TypeError, AttributeError) as error:  # what an agent writes is its own, and bounded only
        log.warning("run %s of agent %s cannot be told as a task: %r", row["id"], row["agent"], error)
        return False
    return database.keep_task(connection, task_row(row["agent"], row["user_id"], row["session_id"], task))


def event_of(row: Row) -> Event:
    """A row of ``run_events``."""
    return Event(row["seq"], row["kind"], row["step"], row["at"], row["fence"], msgspec.json.decode(row["data"]))
