"""Long results of tools, page by page: the model gets the first and asks for more with ``read_result``.

The whole result, up to a bound, is kept in the journal with the step: it outlives the process, and later turns of the
conversation can read in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.errors import QuarterdeckError, UsageError
from quarterdeck.snapshot.runs import Event

from ..journal.fold import Story
from ..tool import Context, Outcome

NAME = "read_result"
PER_RUN = 8_000_000
"""Characters of results that one run keeps beyond their first pages."""
_EVENT = 2_500_000
"""Bytes of JSON of one kept result: the journal's events are bounded."""
_NOTICE = re.compile(r"\n\[page \d+ of [^\n]*\]$")
_SLACK = 400
"""Characters that a result may be longer than a page and still be shown as a whole: a page with its notice is."""
_MATCHES, _AROUND = 20, 200
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pages:
    """``size``: characters of a page; ``most``: of a result that are kept."""

    size: int = 32_000
    most: int = 1_000_000


def first(text: str, ident: str, pages: Pages, room: int = PER_RUN) -> tuple[str, str]:
    """What the model gets of a result, and what is kept of it; empty where the first is all.

    ``room``: characters that may still be kept.
    """
    if len(text) <= pages.size + _SLACK:
        return text, ""
    kept = _bounded(text[: max(0, min(pages.most, room))])
    if len(kept) <= pages.size:
        return f"{text[: pages.size]}\n[page 1 of 1: the other {len(text) - pages.size} characters are not kept]", ""
    return page(kept, ident, 0, pages.size, len(text)), kept


def page(kept: str, ident: str, offset: int, size: int, total: int) -> str:
    """One page with what comes after it. ``total``: characters that the result had."""
    end = _end(kept, offset, size)
    number, count = offset // size + 1, -(-len(kept) // size)
    lost = f" of {total}; the rest was not kept" if total > len(kept) else ""
    more = f'; read on with {NAME} {{"result": "{ident}", "offset": {end}}}' if end < len(kept) else "; the end"
    where = f"page {number} of {count}: characters {offset} to {end} of {len(kept)}{lost}{more}"
    return f"{kept[offset:end]}\n[{where}]"


def _end(text: str, offset: int, size: int) -> int:
    """Where a page ends: after a line, if one ends near there."""
    if offset + size >= len(text):
        return len(text)
    line = text.rfind("\n", offset + size * 4 // 5, offset + size)
    return line + 1 if line >= 0 else offset + size


def _bounded(text: str) -> str:
    while len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")) > _EVENT:
        text = text[: len(text) * 3 // 4]
    return text


def essence(content: str) -> str:
    """A result without the notice of its page, which says which step it is of."""
    return _NOTICE.sub("", content)


def ident_of(run: str, step: int) -> str:
    """What the model calls a result by, in this conversation."""
    return f"r{step}-{run[-8:]}"


def room(story: Story) -> int:
    return PER_RUN - sum(len(step.result.get("full") or "") for step in story.steps.values())


def is_paged(content: Any) -> bool:
    return isinstance(content, str) and f"read on with {NAME}" in content


Events = Callable[[str], Awaitable[Sequence[Event]]]
"""The journal of an earlier run of the conversation. Raises QuarterdeckError."""


class ReadResult:
    """The tool: of the results of this run, and of the earlier ``runs`` of its conversation."""

    def __init__(self, story: Story, run: str, runs: Sequence[str], events: Events | None, pages: Pages) -> None:
        self.name = self.upstream = NAME
        self.server = ""
        self.repeatable = True
        self.description = (
            "Read on in a long result of a tool, of which only a page was shown. result and offset are in the notice "
            "at the page's end; with find, the places where a text occurs are shown with their offsets instead."
        )
        text, number = {"type": "string"}, {"type": "integer", "minimum": 0}
        self.schema: Json = {
            "type": "object",
            "properties": {"result": text, "offset": number, "find": text},
            "required": ["result"],
        }
        self._story, self._run, self._runs, self._events, self._pages = story, run, runs, events, pages

    async def call(self, arguments: dict[str, Any], context: Context) -> Outcome:
        del context
        ident, offset, find = str(arguments.get("result", "")), arguments.get("offset", 0), arguments.get("find")
        if not isinstance(offset, int) or isinstance(offset, bool) or offset < 0:
            raise UsageError("offset: must be a whole number, 0 or more")
        result = await self._find(ident)
        full = str(result.get("full") or "")
        if not full:
            raise UsageError(f"result: {ident!r} is no result of which there is more; see the notice at its page's end")
        if isinstance(find, str) and find:
            return Outcome(_found(full, find[:_AROUND], offset, self._pages.size))
        if offset >= len(full):
            raise UsageError(f"offset: the result has {len(full)} characters")
        return Outcome(page(full, ident, offset, self._pages.size, int(result.get("length") or len(full))))

    async def _find(self, ident: str) -> Json:
        number, _, tail = ident.removeprefix("r").partition("-")
        if not number.isdigit() or not tail:
            return {}
        if self._run.endswith(tail):
            return self._story.step(int(number)).result if int(number) in self._story.steps else {}
        run = next((run for run in self._runs if run.endswith(tail)), "")
        if not run or self._events is None:
            return {}
        try:
            events = await self._events(run)
        except QuarterdeckError as error:
            raise UsageError(f"result: {ident!r} cannot be read any more: {error}") from error
        return next((e.data for e in events if e.kind == "tool.result" and e.step == int(number)), {})


def _found(text: str, find: str, offset: int, most: int) -> str:
    lower, wanted, places = text.lower(), find.lower(), list[str]()
    at = lower.find(wanted, offset)
    while at >= 0 and len(places) < _MATCHES and sum(map(len, places)) < most - 3 * _AROUND:
        around = text[max(0, at - _AROUND) : at + len(find) + _AROUND].replace("\n", " ")
        places.append(f"offset {at}: … {around} …")
        at = lower.find(wanted, at + max(len(wanted), _AROUND))
    if not places:
        return f"{find!r} does not occur from offset {offset} on"
    more = f"\n[more from offset {at} on]" if at >= 0 else ""
    return "\n".join(places) + more
