"""Answers in words: results phrased, errors reported, questions back, and what the tools could do instead."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from .results import Done, parse
from .schema import Parameter, Tool

_LONGEST = 6000
_SHORT = 200
ASKING = "To use "
_ASKED = re.compile(r"To use \S+ I need `([^`]+)`")
_NOUN = re.compile(
    r"^(?:get|gets|give|gives|return|returns|retrieve|retrieves|show|shows|tell|tells|provide|provides|read|reads|"
    r"compute|computes|calculate|calculates|obtain|obtains)\s+(?:the\s+|a\s+|an\s+)?(?P<noun>[^,.;:]{3,80})",
    re.I,
)


def no_tool(tools: Sequence[Tool], missing: str = "") -> str:
    """Nothing fits: say so and what there is, and what there would be if it could be reached."""
    if missing:
        return f"None of the tools I have now fits this request, so I called none. {missing}"
    if not tools:
        return (
            "I am Quarterdeck's scripted model: I plan by rules and answer by calling tools, "
            "and no tool is offered to me here."
        )
    offers = [f"{t.name} ({t.summary})" if t.summary else t.name for t in tools[:12]]
    more = f"; and {len(tools) - 12} more" if len(tools) > 12 else ""
    return f"None of my tools fits this request, so I called none. What they can do: {'; '.join(offers)}{more}."


def ask(tool: Tool, missing: Sequence[Parameter]) -> str:
    """A question for exactly what is missing."""
    wanted = " and ".join(f"`{p.label}`{_hint(p)}" for p in missing)
    return f"{ASKING}{tool.name} I need {wanted}. What should {'it' if len(missing) == 1 else 'they'} be?"


def asked_for(text: str) -> str | None:
    """The parameter an earlier answer of ours asked for."""
    match = _ASKED.search(text)
    return match.group(1) if match else None


def _hint(parameter: Parameter) -> str:
    if parameter.enum:
        return f" (one of {', '.join(map(str, parameter.enum[:10]))})"
    return f" ({parameter.description.strip().rstrip('.')})" if parameter.description.strip() else ""


def rejected(tool: Tool, problem: str) -> str:
    """Arguments could be found, but the schema does not take them."""
    return f"I cannot call {tool.name} with what I found in your request: {problem}. What should I use instead?"


def final(done: Sequence[Done], tools: Sequence[Tool]) -> str:
    """The answer from the results of this turn."""
    known = {t.name: t for t in tools}
    several = len(done) > 1
    return "\n".join(_phrase(d, known.get(d.tool), several) for d in done)


def _phrase(done: Done, tool: Tool | None, several: bool) -> str:
    text = done.result.strip()
    if done.failed:
        return f"The tool {done.tool} reported an error: {text[:_LONGEST]}"
    if not text:
        return f"The tool {done.tool} succeeded and returned nothing."
    parsed = parse(text)
    if isinstance(parsed, (dict, list)) and parsed:
        listed = _sentence(parsed)
        if len(listed) <= _LONGEST:
            return f"{done.tool} answers: {listed}"
    elif "\n" not in text and len(text) <= _SHORT:
        noun = _NOUN.match(tool.summary) if tool is not None else None
        if noun and not re.search(r"[.!?]$|\s\S+\s\S+\s", text):
            values = [str(v) for v in done.arguments.values() if isinstance(v, (str, int, float))]
            where = f" for {', '.join(values)}" if values else ""
            return f"The {noun.group('noun').strip()}{where} is {text}."
        return f"{done.tool}: {text}" if several else text
    cut = "" if len(text) <= _LONGEST else f"\n[cut: {len(text)} characters in all]"
    return f"{done.tool} returned:\n{text[:_LONGEST]}{cut}"


def _sentence(value: Any, depth: int = 0) -> str:
    """JSON as a readable line."""
    if isinstance(value, dict):
        inner = ", ".join(f"{k}: {_sentence(v, depth + 1)}" for k, v in cast(dict[str, Any], value).items())
        return f"({inner})" if depth else f"{inner}."
    if isinstance(value, list):
        return "; ".join(_sentence(v, depth + 1) for v in cast(list[Any], value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else "nothing" if value is None else json.dumps(value)
