"""The agent's side of approvals: what is shown to the user, and how a call is made again.

Nothing here approves anything. The gateway has said that a call waits (error 4001); the run pauses, and when somebody
has decided, or the user has answered, the same call is made again and the gateway decides anew.
Shapes: kagent's human-in-the-loop contract (reference/kagent.md §4).
"""

from __future__ import annotations

from typing import Any

from quarterdeck.mcpclient import RpcError
from quarterdeck.mcptypes import protocol
from quarterdeck.snapshot.permits import META_APPROVAL

from .journal.pause import Json, Pause
from .model import ToolCall
from .tool import Context

REASON = "approval"
CONFIRMATION = "adk_request_confirmation"
_SHOWN = {"kagent_type": "function_call", "kagent_is_long_running": True}


def needs_approval(error: Exception) -> bool:
    """Whether a call was answered with that it waits for people."""
    return isinstance(error, RpcError) and error.code == protocol.APPROVAL_REQUIRED


def meta(context: Context) -> Json:
    """What goes with a call that is made again: by which approval."""
    approval = (context.answer or {}).get("approval")
    return {META_APPROVAL: approval} if isinstance(approval, str) and approval else {}


def paused(error: RpcError, call: ToolCall) -> Pause:
    """The pause for a call that waits for people, with what the user is shown."""
    data: Json = error.data if isinstance(error.data, dict) else {}
    approval = str(data.get("approval", ""))
    question = {
        "call": {"id": call.id, "name": call.name, "arguments": call.arguments},
        "approval": approval,
        "argumentsHash": str(data.get("argumentsHash", "")),
        "expiresAt": str(data.get("expiresAt", "")),
    }
    shown = {"approval": approval, "argumentsHash": question["argumentsHash"], "expiresAt": question["expiresAt"]}
    namespace, _, name = approval.partition("/")
    see = f"qd approvals show {name} -n {namespace}"
    hint = f"{call.name} needs approval ({approval}, until {question['expiresAt']}); see: {see}"
    return Pause(REASON, question, [{"text": hint}, confirmation(approval, call, hint, shown)])


def confirmation(ident: str, call: ToolCall, hint: str, payload: Json) -> Json:
    """kagent's data part that asks a user to confirm a call."""
    original = {"id": call.id, "name": call.name, "args": call.arguments}
    asked = {"hint": hint, "confirmed": False, "payload": payload}
    data = {"id": ident, "name": CONFIRMATION, "args": {"originalFunctionCall": original, "toolConfirmation": asked}}
    return {"data": data, "metadata": dict(_SHOWN)}


def answer_of(message: Json, waiting: Json) -> Json:
    """The data of the answer to a pause for approval: the same call once more. What the message says, the gateway has
    told the control plane."""
    del message
    return {"approval": (waiting.get("question") or {}).get("approval", "")}


def decision_in(message: Json) -> dict[str, Any] | None:
    """The decision data part of a message, if it has one."""
    for part in message.get("parts", ()):
        data = part.get("data")
        if isinstance(data, dict) and ("decision_type" in data or "ask_user_answers" in data):
            return data
    return None
