"""What CEL raises: a program that cannot be compiled, or one that failed on its input."""

from __future__ import annotations

from quarterdeck.errors import ConfigError, QuarterdeckError


class CompileError(ConfigError):
    """The expression is not valid CEL. ``position`` is the character offset the message is about."""

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.position = position


class EvalError(QuarterdeckError):
    """The expression has no value for this input (missing key, overflow, wrong type …)."""

    reason = "EvaluationFailed"


class BudgetExceeded(EvalError):
    """The evaluation took more steps than allowed; never absorbed by ``&&`` or ``||``."""

    def __init__(self) -> None:
        super().__init__("evaluation budget exceeded")


def no_overload(name: str = "") -> EvalError:
    return EvalError(f"no such overload: {name}" if name else "no such overload")
