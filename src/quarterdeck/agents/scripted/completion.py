"""OpenAI's chat completions format: reading requests, writing responses, chunks and errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from quarterdeck import __version__
from quarterdeck.errors import BadRequest

from ..memory.recalled import apart
from .conversation import read
from .plan import decide
from .schema import read_tools
from .script import Entry, ScriptedCall
from .script import reply as scripted_reply

FINGERPRINT = f"quarterdeck-scripted-{__version__}"
OWNER = "quarterdeck-scripted"


@dataclass(frozen=True)
class Outcome:
    """What is answered: calls, or text; or an error the script asks for. ``delay`` in seconds."""

    calls: list[ScriptedCall]
    text: str
    delay: float = 0.0
    error: tuple[int, str] | None = None


def parse(body: bytes) -> dict[str, Any]:
    """The request document. Raises BadRequest naming the field."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest("the body must be a JSON object")
    request = cast(dict[str, Any], document)
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages: must be a list of at least one message")
    for i, message in enumerate(cast(list[Any], messages)):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest(f"messages[{i}].role: is required")
    if request.get("tools") is not None and not isinstance(request["tools"], list):
        raise BadRequest("tools: must be a list")
    return request


def _forced(request: dict[str, Any], names: list[str]) -> tuple[bool, str | None]:
    """(whether tools may be called, None, ``*`` or the tool that must be)."""
    choice: Any = request.get("tool_choice")
    if choice is None or choice == "auto":
        return True, None
    if choice == "none":
        return False, None
    if choice == "required":
        if not names:
            raise BadRequest("tool_choice: required needs at least one entry in tools")
        return True, "*"
    function: Any = choice.get("function") if isinstance(choice, dict) else None
    name: Any = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise BadRequest("tool_choice: must be none, auto, required or {type: function, function: {name: ...}}")
    if name not in names:
        raise BadRequest(f"tool_choice: there is no tool {name!r} in tools")
    return True, name


ASK_USER = "ask_user"


def answer(request: dict[str, Any], script: list[Entry]) -> Outcome:
    """Script first, planner else. Raises BadRequest."""
    tools = read_tools(request.get("tools"))
    allowed, forced = _forced(request, [t.name for t in tools])
    messages, recalled = apart(request["messages"])
    turn = replace(read(messages), recalled=recalled)
    scripted = scripted_reply(script, turn)
    if scripted is not None:
        return Outcome(scripted.calls if allowed else [], scripted.text, scripted.delay, scripted.error)
    # a plan asks nobody; scripts may
    tools = [tool for tool in tools if allowed and (tool.name != ASK_USER or forced == ASK_USER)]
    decision = decide(turn, tools, forced=forced, parallel=request.get("parallel_tool_calls") is not False)
    return Outcome([ScriptedCall(c.name, json.dumps(c.arguments)) for c in decision.calls], decision.text)


def identify(body: bytes) -> str:
    """An id for a completion, the same for the same request."""
    return hashlib.sha256(body).hexdigest()[:24]


def usage(body: bytes, outcome: Outcome) -> dict[str, int]:
    """Words stand in for tokens: four characters each."""
    prompt = len(body) // 4
    written = (len(outcome.text) + sum(len(c.tool) + len(c.arguments) for c in outcome.calls)) // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _calls(ident: str, outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{ident[:16]}{i}", "type": "function", "function": {"name": c.tool, "arguments": c.arguments}}
        for i, c in enumerate(outcome.calls)
    ]


def completion(model: str, ident: str, created: int, outcome: Outcome, counted: dict[str, int]) -> dict[str, Any]:
    """A ``chat.completion``. ``created`` in Unix seconds."""
    message: dict[str, Any] = {"role": "assistant", "content": outcome.text or None}
    if outcome.calls:
        message["tool_calls"] = _calls(ident, outcome)
    reason = "tool_calls" if outcome.calls else "stop"
    return {
        "id": f"chatcmpl-{ident}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "system_fingerprint": FINGERPRINT,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": counted,
    }


def chunks(
    model: str, ident: str, created: int, outcome: Outcome, counted: dict[str, int] | None
) -> Iterator[dict[str, Any]]:
    """The ``chat.completion.chunk`` objects of a stream; ``counted`` when the client asked for usage."""
    base = {
        "id": f"chatcmpl-{ident}", "object": "chat.completion.chunk", "created": created, "model": model,
        "system_fingerprint": FINGERPRINT,
    }  # fmt: skip

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}

    yield chunk({"role": "assistant", "content": None if outcome.calls else ""})
    for i, call in enumerate(_calls(ident, outcome)):
        function = call["function"]
        yield chunk({"tool_calls": [{**call, "index": i, "function": {"name": function["name"], "arguments": ""}}]})
        text: str = function["arguments"]
        for start in range(0, len(text), 64):
            yield chunk({"tool_calls": [{"index": i, "function": {"arguments": text[start : start + 64]}}]})
    for start in range(0, len(outcome.text), 24):
        yield chunk({"content": outcome.text[start : start + 24]})
    yield chunk({}, "tool_calls" if outcome.calls else "stop")
    if counted is not None:
        yield {**base, "choices": [], "usage": counted}


def error(status: int, message: str) -> dict[str, Any]:
    """OpenAI's error document."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def models(name: str, created: int) -> dict[str, Any]:
    """The list of the one model there is."""
    return {"object": "list", "data": [model_card(name, created)]}


def model_card(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER}
