"""Field errors as kube-apiserver words them: ``metav1.StatusCause`` with the body of upstream's ``field.Error``."""

from __future__ import annotations

import json
from typing import Any

from quarterdeck.errors import Cause


def child(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def show(value: Any) -> str:
    """A value as it stands in a message: strings quoted, everything else as JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def invalid(path: str, value: Any, detail: str) -> Cause:
    return Cause(path, f"Invalid value: {show(value)}: {detail}")


def invalid_omitted(path: str, detail: str) -> Cause:
    """Invalid, for a value too large to print."""
    return Cause(path, f"Invalid value: {detail}")


def type_invalid(path: str, shown: Any, expected: str) -> Cause:
    detail = f"{path} in body must be of type {expected}: {show(shown)}"
    return Cause(path, f"Invalid value: {show(shown)}: {detail}", "FieldValueTypeInvalid")


def required(path: str, detail: str = "") -> Cause:
    return Cause(path, f"Required value: {detail}" if detail else "Required value", "FieldValueRequired")


def forbidden(path: str, detail: str) -> Cause:
    return Cause(path, f"Forbidden: {detail}", "FieldValueForbidden")


def duplicate(path: str, value: Any) -> Cause:
    return Cause(path, f"Duplicate value: {show(value)}", "FieldValueDuplicate")


def not_supported(path: str, value: Any, supported: tuple[Any, ...]) -> Cause:
    listed = ", ".join(f'"{item}"' if isinstance(item, str) else json.dumps(show(item)) for item in supported)
    return Cause(path, f"Unsupported value: {show(value)}: supported values: {listed}", "FieldValueNotSupported")


def too_long(path: str, limit: int) -> Cause:
    return Cause(path, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong")


def too_many(path: str, actual: int, limit: int) -> Cause:
    return Cause(path, f"Too many: {actual}: must have at most {limit} items", "FieldValueTooMany")


BLOCKED = Cause(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)
BLOCKING = frozenset(
    ("FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid")
)
