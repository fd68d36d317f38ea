"""Look-ups of a variable and the fields below it, the work that most expressions consist of."""

from __future__ import annotations

from typing import Any

from quarterdeck.cel.errors import EvalError
from quarterdeck.cel.operators import Closure, select


def chain(root: str, fields: tuple[str, ...]) -> Closure:
    """Look-ups from a variable down a path of fields, unrolled for the usual lengths."""

    def slow(frame: list[Any]) -> Any:
        variables = frame[0]
        if root not in variables:
            raise EvalError(f"no such attribute(s): {root}")
        value = variables[root]
        for field in fields:
            value = select(value, field)
        return value

    first, second, third = (*fields, "", "", "")[:3]

    def run0(frame: list[Any]) -> Any:
        try:
            return frame[0][root]
        except KeyError:
            return slow(frame)

    def run1(frame: list[Any]) -> Any:
        try:
            return frame[0][root][first]
        except (KeyError, TypeError):
            return slow(frame)

    def run2(frame: list[Any]) -> Any:
        try:
            return frame[0][root][first][second]
        except (KeyError, TypeError):
            return slow(frame)

    def run3(frame: list[Any]) -> Any:
        try:
            return frame[0][root][first][second][third]
        except (KeyError, TypeError):
            return slow(frame)

    return (run0, run1, run2, run3)[len(fields)] if len(fields) <= 3 else slow


def selections(run: Closure, fields: tuple[str, ...]) -> Closure:
    def descend(frame: list[Any]) -> Any:
        value = run(frame)
        for field in fields:
            value = select(value, field)
        return value

    return descend if fields else run
