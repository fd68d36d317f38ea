"""Validation messages in the words of apimachinery's field.Error."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from quarterdeck.errors import Cause

IMMUTABLE = "field is immutable"


def shown(value: Any) -> str:
    """A value as field.Error prints it: strings quoted, the rest as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def required(field: str, detail: str = "") -> Cause:
    return Cause(field, f"Required value: {detail}" if detail else "Required value", "FieldValueRequired")


def invalid(field: str, value: Any, detail: str) -> Cause:
    return Cause(field, f"Invalid value: {shown(value)}: {detail}", "FieldValueInvalid")


def unsupported(field: str, value: Any, supported: Iterable[str]) -> Cause:
    names = ", ".join(shown(name) for name in sorted(supported))
    return Cause(field, f"Unsupported value: {shown(value)}: supported values: {names}", "FieldValueNotSupported")


def duplicate(field: str, value: Any) -> Cause:
    return Cause(field, f"Duplicate value: {shown(value)}", "FieldValueDuplicate")


def forbidden(field: str, detail: str) -> Cause:
    return Cause(field, f"Forbidden: {detail}", "FieldValueForbidden")


def not_found(field: str, value: Any) -> Cause:
    return Cause(field, f"Not found: {shown(value)}", "FieldValueNotFound")


def too_long(field: str, limit: int) -> Cause:
    return Cause(field, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong")
