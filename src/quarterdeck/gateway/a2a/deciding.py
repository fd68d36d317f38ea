"""A user's word on a tool call, given in the conversation: recorded by the gateway before the agent hears of it.

The answer is a data part of kagent's contract (``decision_type`` approve, reject or batch; reference/kagent.md §4).
The agent never says who approved: the gateway tells the control plane who sent the message, as it has verified them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from quarterdeck.errors import Denied, QuarterdeckError
from quarterdeck.malformed import MALFORMED

from ..acting import requester_of
from ..mcp.approvals import Ask
from ..policy.principal import Principal

MARK = b'"decision_type"'
_VERDICTS = {"approve": "Approve", "reject": "Deny", "deny": "Deny"}
_REASON = 2000


class Said(NamedTuple):
    """``decisions`` and ``reasons`` by the id of a call or approval; ``verdict`` for all that waits, "" for none."""

    task: str
    verdict: str
    decisions: dict[str, str]
    reason: str
    reasons: dict[str, str]
    message: str = ""


class _Message(msgspec.Struct, rename="camel"):
    task_id: str = ""
    message_id: str = ""
    parts: list[dict[str, Any]] = []


class _Params(msgspec.Struct):
    message: _Message | None = None


class _Request(msgspec.Struct):
    """JSON-RPC has ``params``; the REST binding has the message at the top."""

    params: _Params | None = None
    message: _Message | None = None


def said(body: bytes) -> Said | None:
    """What a message decides; None when it decides nothing. A2A 0.3 and 1.0, both bindings."""
    if MARK not in body:
        return None
    try:
        request = msgspec.json.decode(body, type=_Request)
    except MALFORMED:
        return None  # the agent tells the client what is wrong
    message = request.message or (request.params.message if request.params is not None else None)
    for part in message.parts if message is not None else ():
        data = part.get("data")
        kind = data.get("decision_type") if isinstance(data, dict) else None
        if message is None or not isinstance(data, dict) or not isinstance(kind, str) or "ask_user_answers" in data:
            continue
        decisions = _texts(data.get("decisions")) if kind == "batch" else {}
        verdicts = {call: _VERDICTS[word] for call, word in decisions.items() if word in _VERDICTS}
        reason = data.get("rejection_reason")
        reason = reason[:_REASON] if isinstance(reason, str) else ""
        reasons = _texts(data.get("rejection_reasons"))
        return Said(message.task_id, _VERDICTS.get(kind, ""), verdicts, reason, reasons, message.message_id[:_REASON])
    return None


async def record(ask: Ask | None, principal: Principal, agent: str, word: Said) -> None:
    """Tell the control plane. Raises Denied for who may not decide, QuarterdeckError when it cannot be told."""
    if principal.agent or "act" in principal.claims:
        raise Denied(f"{principal.title} is no person: an agent, or who acts for somebody, cannot approve or deny")
    if principal.anonymous:
        raise Denied("who is not known cannot approve or deny: use a token")
    if ask is None:
        raise QuarterdeckError("approvals are kept by a control plane, and this gateway is configured by a file")
    requester = requester_of(principal)
    groups = principal.claims.get("groups")
    body = {
        "person": {
            "name": requester.id,
            "names": requester.names,
            "groups": [str(group) for group in groups] if isinstance(groups, list) else [],
        },
        "agent": agent,
        "task": word.task,
        "decisions": word.decisions,
        "reason": word.reason,
        "reasons": word.reasons,
        "message": word.message,
    }
    if word.verdict:
        body["verdict"] = word.verdict
    await ask("approvals/said", msgspec.json.encode(body))


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(key): text[:_REASON] for key, text in value.items() if isinstance(text, str)}
