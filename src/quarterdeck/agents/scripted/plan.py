"""The planner: from a conversation and the tools offered to the next calls, or to an answer. Pure and deterministic.

A request is cut into clauses, each clause given the tool that fits it; clauses that stand alone run side by side,
those that need an earlier result wait for it. The plan is worked out anew from the conversation at each request: calls
already made are recognised by name and arguments and never made twice, so every conversation ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import jsonschema_rs

from . import answer
from .arguments import affinity, convert
from .choose import Choice, chosen, rank
from .clauses import Clause, stages
from .conversation import Turn
from .request import Request
from .results import Done, carried
from .schema import Tool
from .values import Value

LONGEST = 64 * 1024
"""Characters of a request that is planned for."""
_CALLS = 8
"""Most calls side by side."""


@dataclass(frozen=True)
class Call:
    """A tool call to make."""

    name: str
    arguments: dict[str, Any]

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> tuple[str, str]:
        return self.name, json.dumps(self.arguments, sort_keys=True)


@dataclass(frozen=True)
class Decision:
    """Either calls to make, or the text to answer."""

    calls: list[Call] = field(default_factory=list[Call])
    text: str = ""


def decide(turn: Turn, tools: Sequence[Tool], *, forced: str | None = None, parallel: bool = True) -> Decision:
    """What to do next. ``forced``: None, ``*`` for any tool, or the one tool that must be called."""
    offered = [t for t in tools if forced in (None, "*", t.name)]
    if not offered or not turn.text.strip():
        return Decision(text=answer.final(turn.done, tools) if turn.done else answer.no_tool(tools, turn.missing))
    if len(turn.text) > LONGEST:
        return Decision(text=f"I plan by rules and read requests of up to {LONGEST} characters; please ask in fewer.")
    made = {(d.tool, json.dumps(d.arguments, sort_keys=True)): d for d in turn.done}
    so_far: list[Done] = []
    for stage in stages(turn.text, offered, forced is not None):
        calls: list[Call] = []
        for clause in stage:
            planned = _calls(clause, offered, so_far, forced is not None)
            if planned is None:
                continue
            if isinstance(planned, str):
                return Decision(text="\n".join([*_reported(turn, tools), planned]))
            calls += [c for c in planned if c not in calls]
        waiting = [c for c in calls[:_CALLS] if c.key not in made]
        if waiting:
            return Decision(calls=waiting if parallel else waiting[:1])
        results = [made[c.key] for c in calls[:_CALLS]]
        so_far += results
        if any(d.failed for d in results):
            break
    if turn.done:
        return Decision(text=answer.final(turn.done, tools))
    return Decision(text=answer.no_tool(tools, turn.missing))


def _reported(turn: Turn, tools: Sequence[Tool]) -> list[str]:
    return [answer.final(turn.done, tools)] if turn.done else []


def _calls(clause: Clause, tools: Sequence[Tool], so_far: list[Done], forced: bool) -> list[Call] | str | None:
    """The calls of one clause, a question back, or None when no tool fits."""
    request = clause.request
    ranked = rank(request, tools)
    best = chosen(request, ranked) or (ranked[0] if forced and ranked else None)
    if best is None:
        return None
    arguments = dict(best.filling.arguments)
    alternatives: dict[str, list[Any]] = _spread(best, request)
    missing = list(best.filling.missing)
    for parameter in best.filling.missing:
        items = carried(parameter, clause.text, so_far)
        if parameter.types == ("array",) and items:
            arguments[parameter.label] = items[0] if len(items) == 1 and isinstance(items[0], list) else items
            missing.remove(parameter)
        elif items:
            alternatives[parameter.label] = items
            missing.remove(parameter)
    if missing:
        return answer.ask(best.tool, missing)
    calls: list[Call] = []
    for combination in product(*alternatives.values()):
        call = Call(best.tool.name, {**arguments, **dict(zip(alternatives, combination, strict=True))})
        problem = invalid(best.tool.schema, call.arguments)
        if problem:
            return answer.rejected(best.tool, problem)
        calls.append(call)
        if len(calls) == _CALLS:
            break
    return calls


def _spread(choice: Choice, request: Request) -> dict[str, list[Any]]:
    """One parameter, several values of the same kind joined by "and": one call each."""
    for parameter in choice.tool.required:
        given = choice.filling.arguments.get(parameter.label)
        lead = next((v for v in choice.filling.used if v.text == given and v.start >= 0), None)
        if lead is None or "string" not in parameter.types:
            continue
        more = [v for v in _following(lead, request, choice) if affinity(parameter, v, request) is not None]
        if more:
            return {parameter.label: [given, *(convert(parameter, v) for v in more)]}
    return {}


def _following(lead: Value, request: Request, choice: Choice) -> list[Value]:
    found, end = list[Value](), lead.end
    for value in request.values:
        if value.start < end:
            continue
        between = request.text[end : value.start]
        joined = re.fullmatch(
            r"\s*,?\s*(?:and|as well as|or)?\s*(?:also\s+)?(?:in|of|at|for|from)?\s*(?:the\s+)?", between, re.I
        )
        if value.kind != lead.kind or value in choice.filling.used or not joined or not between.strip():
            break
        found.append(value)
        end = value.end
    return found


def invalid(schema: Any, arguments: dict[str, Any]) -> str:
    """Why arguments break their schema, or nothing. A schema that is none itself forbids every call."""
    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)  # a tool's expression cannot hold us up
    try:
        validator = jsonschema_rs.validator_for(schema, offline=True, pattern_options=patterns)
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
        return f"its schema cannot be used ({_first_line(error)})"
    try:
        validator.validate(arguments)
    except ValueError as error:  # ValidationError is one
        return _first_line(error)
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
