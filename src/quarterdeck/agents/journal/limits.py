"""What one run may use, and how a run that goes in circles is noticed. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import inf
from time import time

from pydantic import BaseModel, ConfigDict, Field

from ..observe.usage import cost_of, tokens_of
from .pause import BudgetExceeded, RunFailed

LOOP = 3
"""The same call with the same result so often is a loop."""


class Budget(BaseModel):
    """Limits of one run; None is no limit. ``cost`` is in the currency of the prices."""

    model_config = ConfigDict(extra="ignore")

    steps: int | None = Field(None, ge=1)
    """Model calls and tool calls together."""
    tool_calls: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=1)
    """Input and output of all model calls."""
    cost: float | None = Field(None, gt=0)
    wall_time: float | None = Field(None, gt=0)
    """Seconds from the beginning of the run; time that it waits for somebody counts, too."""
    input_price: float = Field(0.0, ge=0)
    output_price: float = Field(0.0, ge=0)
    """Of a million tokens."""

    def left(self, began: float) -> float:
        """Seconds of the wall time of a run that began then (seconds since the epoch); without limit: for ever."""
        return max(0.0, self.wall_time - (time() - began)) if self.wall_time is not None and began else inf


@dataclass(frozen=True, slots=True)
class Used:
    steps: int
    tool_calls: int
    usage: Mapping[str, int]
    seconds: float


def tokens(usage: Mapping[str, int]) -> int:
    """Of models that say a total, which has more than its parts, and of those that do not."""
    used = tokens_of(usage)
    return max(usage.get("total_tokens", 0), used.input + used.output)


def cost(usage: Mapping[str, int], budget: Budget) -> float:
    return cost_of(tokens_of(usage), budget.input_price, budget.output_price)


def check(budget: Budget, used: Used, *, steps: int = 0, tool_calls: int = 0) -> None:
    """Before so many more steps. Raises BudgetExceeded that says what was used."""
    spent = cost(used.usage, budget)
    rows: list[tuple[str, float, float | None]] = [
        ("steps", used.steps + steps, budget.steps),
        ("toolCalls", used.tool_calls + tool_calls, budget.tool_calls),
        ("tokens", tokens(used.usage), budget.tokens),
        ("cost", spent, budget.cost),
        ("wallTime", used.seconds, budget.wall_time),
    ]
    for name, value, most in rows:
        over = most is not None and (value > most if name in ("steps", "toolCalls") else value >= most)
        if over:
            raise BudgetExceeded(told(name, most or 0, used, spent))


def told(name: str, most: float, used: Used, spent: float) -> str:
    """What the user and ``qd run show`` are told of a budget that is used up."""
    return (
        f"budget_exceeded: {name} is limited to {most:g}. Used: {used.steps} steps, {used.tool_calls} tool "
        f"calls, {tokens(used.usage)} tokens, cost {spent:.4g}, {used.seconds:.1f} s"
    )


class Loops:
    """Counts calls by tool, arguments and result."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def note(self, name: str, arguments: str, result: str) -> int:
        """How often it was seen. ``arguments``: their hash."""
        key = f"{name} {arguments} {sha256(result.encode()).hexdigest()}"
        self._seen[key] += 1
        return self._seen[key]

    def saw(self, name: str, arguments: str, result: str) -> None:
        """As :meth:`note`. Raises RunFailed at the third time."""
        if self.note(name, arguments, result) >= LOOP:
            raise RunFailed(
                "loop_detected",
                f"loop_detected: tool {name} was called {LOOP} times with the same arguments and gave the same result",
            )
