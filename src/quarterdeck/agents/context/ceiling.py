"""The hard ceiling: what is sent to a model never has more tokens than that, whatever was said. Pure.

What goes first is what is missed least: images of before, long results of tools, then the oldest messages; the system
message and what the user asks now stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..journal.pause import RunFailed
from .conversation import Message
from .estimate import of_all

TOO_LARGE = "context_too_large"
LEFT_OUT = "[Earlier messages of this conversation were left out: they did not fit into the context.]"
_SHORT = (4_000, 1_000, 250)
"""Characters that results of tools are shortened to, one after the other."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Messages that stay or go together. ``fixed``: they stay."""

    messages: Sequence[Message]
    fixed: bool = False


def fitted(units: Sequence[Unit], limit: int, scale: float = 1.0) -> list[Message]:
    """The messages of ``units`` in at most ``limit`` tokens, by our estimate times ``scale``.

    Raises RunFailed, context_too_large, when what must stay is too much by itself.
    """

    def fits() -> bool:
        return sum(of_all(unit.messages) for unit in kept) * scale <= limit

    kept = list(units)
    if fits():
        return _flat(kept)
    kept = _changed(kept, _without_images)
    for most in _SHORT:
        if fits():
            return _flat(kept)
        kept = _changed(kept, lambda message, most=most: _shortened(message, most))
    kept, dropped = _newest(kept, limit, scale)
    if not fits():
        kept = [Unit([_shortened(m, _SHORT[-1]) for m in unit.messages], unit.fixed) for unit in kept]
    if not fits():
        needed = int(sum(of_all(unit.messages) for unit in kept) * scale)
        raise RunFailed(
            TOO_LARGE,
            f"{TOO_LARGE}: the instruction, the question and the last step have about {needed} tokens, the limit is "
            f"{limit}; ask for less, or raise spec.declarative.context.maxTokens",
        )
    return _flat(kept, note=dropped)


def _newest(units: Sequence[Unit], limit: int, scale: float) -> tuple[list[Unit], bool]:
    """Without the oldest that do not fit; the last step stays. And whether that are fewer."""
    sizes = [of_all(unit.messages) for unit in units]
    left, gone = sum(sizes), set[int]()
    for at in [at for at, unit in enumerate(units) if not unit.fixed][:-1]:
        if left * scale <= limit:
            break
        left -= sizes[at]
        gone.add(at)
    return [unit for at, unit in enumerate(units) if at not in gone], bool(gone)


def _changed(units: Sequence[Unit], change: Callable[[Message], Message]) -> list[Unit]:
    """All but what must stay, and the last step, whose results are what the model goes on with."""
    free = [unit for unit in units if not unit.fixed]
    last = free[-1] if free else None
    return [unit if unit.fixed or unit is last else Unit([change(m) for m in unit.messages]) for unit in units]


def _without_images(message: Message) -> Message:
    if not message.get("media"):
        return message
    rest = {k: v for k, v in message.items() if k != "media"}
    return rest | {"content": f"{rest.get('content') or ''}\n[its images are no longer shown]".lstrip()}


def _shortened(message: Message, most: int) -> Message:
    content = message.get("content")
    if message["role"] != "tool" or not isinstance(content, str) or len(content) <= most + 100:
        return message
    return message | {"content": f"{content[:most]}\n[{len(content) - most} more characters were left out]"}


def _flat(units: Sequence[Unit], *, note: bool = False) -> list[Message]:
    out: list[Message] = []
    for unit in units:
        if note and not (unit.fixed and unit.messages and unit.messages[0]["role"] == "system"):
            out.append({"role": "user", "content": LEFT_OUT})
            note = False
        out.extend(unit.messages)
    return out
