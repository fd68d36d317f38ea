"""When a conversation is compacted, and how far. Pure.

kagent's fields (spec.declarative.context.compaction), whose meaning is that of ADK's events compaction:

- each ``compaction_interval`` turns, all turns but the last ``overlap_size`` are compacted;
- as soon as the context has ``token_threshold`` tokens, in the middle of a turn, too, all messages but the last
  ``event_retention_size`` are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import estimate
from .conversation import Atom, Compacted, Conversation, Said, atoms

_RETAINED = 6
"""Messages that stay where a token threshold comes without ``event_retention_size``."""
_WORTH = 5
"""What is compacted because of its size must be this part of the threshold: else each step would compact again."""


@dataclass(frozen=True, slots=True)
class Rule:
    """None: not limited by that."""

    interval: int | None = None
    overlap: int = 0
    threshold: int | None = None
    retention: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """What is to be compacted. ``why``: ``interval`` or ``tokens``."""

    atoms: Sequence[Atom]
    why: str


def uncovered(runs: Sequence[Said], compacted: Compacted | None) -> list[Atom]:
    """What the summary does not stand for, oldest first."""
    names = [said.run for said in runs]
    if compacted is None or compacted.run not in names:
        return [atom for said in runs for atom in atoms(said)]
    at = names.index(compacted.run)
    return [
        atom for i, said in enumerate(runs[at:]) for atom in atoms(said, compacted.messages if i == 0 else 0)
    ]  # fmt: skip


def due(rule: Rule, conversation: Conversation, current: Said, tokens: int) -> Span | None:
    """What to compact before the next model call of the run ``current``; ``tokens`` of the context as it is."""
    compacted = conversation.compacted
    left = uncovered([*conversation.runs, current], compacted)
    if rule.threshold is not None and tokens >= rule.threshold:
        found = _older(left, rule.retention if rule.retention is not None else _RETAINED)
        if sum(estimate.of_all(atom.messages) for atom in found) * _WORTH >= rule.threshold:
            return Span(found, "tokens")
    if rule.interval is None or len(current.messages) > 1:
        return None
    runs = [said.run for said in conversation.runs]
    since = runs.index(compacted.made_in) if compacted is not None and compacted.made_in in runs else 0
    if len(runs) - since < rule.interval:
        return None
    kept = set(runs[len(runs) - rule.overlap :] if rule.overlap else ()) | {current.run}
    older = [atom for atom in left if atom.run not in kept]
    return Span(older, "interval") if older else None


def _older(left: Sequence[Atom], retained: int) -> list[Atom]:
    """All but the newest so many messages; the last atom always stays."""
    kept = 0
    for position in range(len(left) - 1, -1, -1):
        kept += len(left[position].messages)
        if kept >= max(1, retained):
            return list(left[:position])
    return []
