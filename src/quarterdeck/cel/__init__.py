"""CEL (Common Expression Language) compiled to Python closures: CRD rules and the gateway's policy language."""

from quarterdeck.cel.compiler import Limits, Program, compile
from quarterdeck.cel.errors import BudgetExceeded, CompileError, EvalError
from quarterdeck.cel.function import Library
from quarterdeck.cel.types import Type
from quarterdeck.cel.values import Duration, Optional, Timestamp, TypeValue, UInt, equals

__all__ = [
    "BudgetExceeded",
    "CompileError",
    "Duration",
    "EvalError",
    "Library",
    "Limits",
    "Optional",
    "Program",
    "Timestamp",
    "Type",
    "TypeValue",
    "UInt",
    "compile",
    "equals",
]
