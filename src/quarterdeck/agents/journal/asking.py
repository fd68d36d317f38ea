"""Asking the model until there is an answer that can be used.

An endpoint that cannot be reached, or says that it takes no more requests now (HTTP 429 and the like), is asked again,
and so is a model that says nothing at all. A refusal and what a content filter withholds end the run, and say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from quarterdeck.errors import UpstreamError

from ..model import Filtered, Malformed, Overloaded, Reply, Unreachable
from .fold import add_usage
from .pause import RunFailed

PAUSES = (0.3, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts where the endpoint names none."""
AWAY = 120.0
"""Seconds that a gateway which is being started again is waited for."""
NOBODY = "cannot connect to"
"""What the HTTP client says when nobody listens (``wire.client``)."""
LONGEST = 60.0
"""Seconds that an endpoint may make a run wait (``Retry-After``); one that wants more fails it."""
TRIES = 3
"""So many answers in a row that are empty, or that nobody can read, end a run."""
Ask = Callable[[], Awaitable[Reply]]
Sleep = Callable[[float], Awaitable[None]]


async def asked(ask: Ask, sleep: Sleep = asyncio.sleep) -> Reply:
    """The first answer that can be read and says anything, or the last of :data:`TRIES`; with the usage of all.

    Raises what ``ask`` raises when it has raised it too often, RunFailed for what a content filter refused.
    """
    usage: dict[str, int] = {}
    reply = Reply("")
    for attempt in range(1, TRIES + 1):
        try:
            reply = await _reached(ask, sleep)
        except Filtered as error:
            raise RunFailed("content_filter", f"content_filter: {error}") from error
        except Malformed:
            if attempt == TRIES:
                raise
            continue
        add_usage(usage, reply.usage)
        if reply.text or reply.calls or reply.finish in _ENDS:
            break
    return replace(reply, usage=usage)


async def _reached(ask: Ask, sleep: Sleep) -> Reply:
    away, busy, broken, waited = 0, 0, 0, 0.0
    while True:
        try:
            return await ask()
        except Overloaded as error:
            after = error.retry_after
            if after is not None and after > LONGEST:
                raise UpstreamError(f"{error}; it wants to be asked again in {after:g} s, which is too late") from error
            if busy == len(PAUSES):
                raise
            pause = PAUSES[busy] if after is None else after
            busy += 1
        except Unreachable as error:
            if NOBODY not in str(error):  # somebody answered, and broke off: that may happen each time, and costs
                if broken == len(PAUSES):
                    raise
                await sleep(PAUSES[broken])
                broken += 1
                continue
            pause = PAUSES[min(away, len(PAUSES) - 1)]
            away, waited = away + 1, waited + pause
            if waited > AWAY:
                raise
        await sleep(pause)


_ENDS = {
    "content_filter": "the provider's content filter withheld the model's answer",
    "length": "the model came to its limit of tokens (max_tokens) before it said anything",
}
"""What an answer without words ended with, and what that means: the same question would end so again."""


def check(reply: Reply) -> None:
    """Raises RunFailed for an answer that is none: ``refused``, ``content_filter``, ``empty_answer``."""
    if reply.finish == "content_filter":
        raise RunFailed("content_filter", f"content_filter: {_ENDS['content_filter']}")
    if reply.refusal and reply.text == reply.refusal and not reply.calls:
        raise RunFailed("refused", f"refused: the model refuses to answer: {reply.refusal}")
    if reply.calls or reply.text:
        return
    raise RunFailed(
        "empty_answer", f"empty_answer: {_ENDS.get(reply.finish, f'the model said nothing, {TRIES} times')}"
    )


__all__ = ["AWAY", "LONGEST", "PAUSES", "TRIES", "asked", "check"]
