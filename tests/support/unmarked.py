"""A request to a model as it was before the agent's host marked what is untrusted."""

from __future__ import annotations

from typing import Any

from quarterdeck.agents.untrusted import NOTE, plain


def unmarked(request: dict[str, Any]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for message in request["messages"]:
        content = message.get("content")
        if message["role"] == "system" and content == NOTE:
            continue
        if isinstance(content, str):
            content = plain(content).removesuffix(f"\n\n{NOTE}")
        messages.append(message | {"content": content})
    return request | {"messages": messages}
