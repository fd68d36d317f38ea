"""Messages that come a second time: whoever sends one again, because no answer came, starts nothing twice.

A message that begins a task decides the task's id: who sends it, its ``messageId`` and all it says. The same message
within :data:`WINDOW` to twice that many seconds is therefore the same task, on every replica. An answer to a task that
waits counts once; the journal knows which messages have answered.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from hashlib import blake2b
from time import time

from quarterdeck.snapshot.conversation import VARIABLE, known_id
from quarterdeck.snapshot.runs import Event

from .a2a.types import Json

WINDOW = 600


def ids(message: Json, user: str, now: float | None = None) -> tuple[str, str]:
    """Id of the task that a message begins now, and of the one that it may have begun before."""
    agent = f"{os.environ.get('KAGENT_NAMESPACE', '')}/{os.environ.get('KAGENT_NAME', '')}"
    track = os.environ.get(VARIABLE, "")
    tag = int(track) if track.isdigit() else 0
    said = json.dumps([user, message], sort_keys=True).encode()
    window = int(time() if now is None else now) // WINDOW
    digests = (blake2b(said, digest_size=16, salt=b"%d" % n).digest() for n in (window, window - 1))
    task, before = (known_id(agent, tag, digest) for digest in digests)
    return task, before


def answered(message: Json, events: Iterable[Event]) -> bool:
    """Whether this very message has answered the run before."""
    given = (event.data.get("message") for event in events if event.kind == "answer")
    return any(
        isinstance(old, dict) and old.get("messageId") == message["messageId"] and old.get("parts") == message["parts"]
        for old in given
    )
