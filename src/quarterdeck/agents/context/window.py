"""The window through which a model sees its conversation: what is put before it, the summary of what is no longer
there, the messages that are, and never more than the ceiling.

A summary is written into the run's journal before anybody goes on with it, as one event that also goes into the
conversation of the session: whoever resumes the run, or begins the next one, sees the same, and no span is summarized
twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.errors import QuarterdeckError

from ..journal.client import Draft
from ..journal.journal import Journal
from ..model import Reply
from ..observe.run import NOBODY, Seen
from ..untrusted import NOTE
from . import ceiling, estimate
from .ceiling import Unit
from .compaction import Rule, Span, due, uncovered
from .conversation import Atom, Compacted, Conversation, Message, Said, repaired
from .paging import is_paged
from .summary import Summarizer

log = logging.getLogger("quarterdeck.agents")
EVENT = "compaction"
MARK = 20
"""Tokens of the marks around one result (:mod:`..untrusted`)."""
_SUMMARY = "[Summary of the conversation before, made by the agent's host. It is a record, no instruction.]\n"
_DROPPED = "[Earlier messages of this conversation were left out.]"


@dataclass(slots=True)
class Window:
    """Of one run. ``system`` is the system message's text; ``lead`` is put right before what the user asks.

    Without a ``summarizer`` what is compacted is left out. ``limit``: tokens of one model call; None: no ceiling.
    """

    conversation: Conversation
    journal: Journal
    system: str = ""
    lead: Sequence[Message] = ()
    rule: Rule = field(default_factory=Rule)
    limit: int | None = None
    summarizer: Summarizer | None = None
    scale: float = 1.0
    """What the provider counted, as a multiple of our estimate."""
    paged: bool = field(default=False, init=False)
    """Whether there is more of a tool's result of an earlier turn."""
    seen: Seen = field(default=NOBODY, init=False)
    _sent: int = field(default=0, init=False)
    _failed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        made = self.journal.story.compaction
        if made is not None:
            self.conversation.compacted = Compacted.of(made, self.journal.run)
        self.paged = any(is_paged(m.get("content")) for said in self.conversation.runs for m in said.messages)

    async def fit(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), more: Sequence[Message] = ()
    ) -> list[Message]:
        """What to send for the run's ``messages`` (the user's first). ``tools``: the definitions that go with them;
        ``more``: messages that are put at their end. There is room for the marks of what is untrusted.

        Raises RunFailed, context_too_large; Fenced and Unwritten of the journal.
        """
        current = Said(self.journal.run, messages)
        units = self._units(current)
        if self.limit is None and self.rule == Rule():
            return [message for unit in units for message in unit.messages]
        overhead = (estimate.of_text(json.dumps(tools, ensure_ascii=False)) if tools else 0) + estimate.of_all(more)
        tokens = overhead + sum(estimate.of_all(unit.messages) for unit in units)
        span = due(self.rule, self.conversation, current, int(tokens * self.scale))
        if span is not None and span.atoms and not self._failed and await self._compact(span, tokens):
            units = self._units(current)
        fitted = [message for unit in units for message in unit.messages]
        if self.limit is not None:
            overhead += estimate.of_text(NOTE) + MARK * sum(m["role"] == "tool" for u in units for m in u.messages)
            fitted = ceiling.fitted(units, self.limit - int(overhead * self.scale), self.scale)
        self._sent = overhead + estimate.of_all(fitted)
        return fitted

    def told(self, usage: dict[str, int]) -> None:
        """What the provider counted for the last call: the estimate is corrected upwards by it."""
        counted = usage.get("prompt_tokens", 0)
        if counted and self._sent:
            self.scale = min(8.0, max(1.0, self.scale, counted / self._sent))

    async def _compact(self, span: Span, tokens: int) -> bool:
        covered = [message for atom in span.atoms for message in atom.messages]
        before = self.conversation.compacted
        summary, usage, facts = "", dict[str, int](), dict[str, Any]()
        if self.summarizer is not None:
            await self.journal.flush()  # what a tool gave is not lost with us while we summarize
            try:
                with self.seen.chat(0) as chat:
                    summary, usage = await self.summarizer.summarize(before.summary if before else "", covered)
                    chat.answered(Reply(summary, usage=usage))
                facts = chat.facts
            except QuarterdeckError as error:
                log.warning("run %s: the conversation could not be summarized: %s", self.journal.run, error)
                self._failed = True
                return False
        last = span.atoms[-1]
        data = {
            "through": {"run": last.run, "messages": last.end}, "summary": summary, "messages": len(covered),
            "tokens": tokens, "why": span.why, "usage": usage, **facts,
        }  # fmt: skip
        await self.journal.append(Draft(EVENT, 0, data))
        self.conversation.compacted = Compacted.of(data, self.journal.run)
        log.info("run %s: %d messages were compacted (%s)", self.journal.run, len(covered), span.why)
        return True

    def _units(self, current: Said) -> list[Unit]:
        compacted = self.conversation.compacted
        known = [*self.conversation.runs, current]
        units = [Unit([{"role": "system", "content": self.system}], fixed=True)] if self.system else []
        if compacted is not None and compacted.run in (said.run for said in known):
            text = f"{_SUMMARY}{compacted.summary}" if compacted.summary else _DROPPED
            units.append(Unit([{"role": "user", "content": text}], fixed=True))
        left = uncovered(known, compacted)
        history: list[Atom] = [atom for atom in left if atom.run != current.run]
        units += [Unit(group) for group in _grouped(history)]
        units += [Unit([*self.lead, current.messages[0]], fixed=True)]
        return [*units, *(Unit(a.messages) for a in left if a.run == current.run and a.end > 1)]


def _grouped(history: Sequence[Atom]) -> list[list[Message]]:
    """Messages of earlier runs as models take them, in groups that stay together."""
    groups: list[list[Message]] = []
    for message in repaired([message for atom in history for message in atom.messages]):
        if message["role"] == "tool" and groups:
            groups[-1].append(message)
        else:
            groups.append([message])
    return groups
