"""What a user's message says to a run that waits."""

from __future__ import annotations

from . import approvals, ask_user, remote
from .a2a import types
from .a2a.types import Json
from .journal.fold import UNKNOWN

_ACTIONS = ("repeat", "skip", "fail")
_WORDS = {"yes": "repeat", "retry": "repeat", "no": "skip", "abort": "fail", "stop": "fail"}


def of(message: Json, waiting: Json) -> Json:
    """The data of the answer. Raises InvalidParams for an answer that says none of what can be said."""
    reason = waiting["reason"]
    if reason == UNKNOWN:
        return {"action": _action(message)}
    if reason == approvals.REASON:
        return approvals.answer_of(message, waiting)
    if reason == remote.REASON:
        return remote.answer_of(message, waiting)
    if reason == ask_user.REASON:
        return ask_user.answer_of(message, types.text_of(message))
    return {"text": types.text_of(message)}


def _action(message: Json) -> str:
    """``{action: …}`` in a data part, or the word."""
    for part in message["parts"]:
        data = part.get("data")
        if isinstance(data, dict) and data.get("action") in _ACTIONS:
            return data["action"]
    text = types.text_of(message).strip().strip(".!\"'").lower()
    action = _WORDS.get(text, text)
    if action not in _ACTIONS:
        raise types.InvalidParams(f"the task waits for one of {', '.join(_ACTIONS)}; {text[:40]!r} is none of them")
    return action
