"""Query parameters and DeleteOptions of a request, parsed and checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from quarterdeck.apiserver.security.identity import MASTERS, User
from quarterdeck.errors import BadRequest, Cause, Invalid

_TRUE = frozenset({"true", "1", "t", "T", "TRUE", "True", ""})
_FALSE = frozenset({"false", "0", "f", "F", "FALSE", "False"})
SYSTEM = User("system:apiserver", (MASTERS,))
"""The API server itself, for objects it makes on its own."""

FIELD_VALIDATION = ("Ignore", "Warn", "Strict")


def flag(query: Mapping[str, str], name: str) -> bool | None:
    """A boolean parameter; None when absent. Raises BadRequest."""
    value = query.get(name)
    if value is None:
        return None
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise BadRequest(f'strconv.ParseBool: parsing "{value}": invalid syntax for parameter {name}')


def number(query: Mapping[str, str], name: str) -> int | None:
    """A non-negative integer parameter; None when absent or empty."""
    value = query.get(name)
    if not value:
        return None
    if not value.isdigit():
        raise BadRequest(f'strconv.ParseInt: parsing "{value}": invalid syntax for parameter {name}')
    return int(value)


@dataclass(slots=True)
class WriteOptions:
    """How a create, update or patch is to be done. ``warnings`` collects what goes into Warning headers."""

    manager: str = "unknown"
    dry_run: bool = False
    validation: str = "Ignore"
    force: bool = False
    user: User = field(default_factory=lambda: SYSTEM)
    warnings: list[str] = field(default_factory=list[str])


def dry_run(values: list[str]) -> bool:
    """The ``dryRun`` parameters: none, or ``All``."""
    for value in values:
        if value != "All":
            cause = Cause("dryRun", f'Unsupported value: "{value}": supported values: "All"', "FieldValueNotSupported")
            raise Invalid(f"dryRun: {cause.message}", causes=(cause,))
    return bool(values)


def write_options(query: Mapping[str, str], user: User, user_agent: str, dry: list[str]) -> WriteOptions:
    """Raises BadRequest or Invalid for values that do not exist."""
    validation = query.get("fieldValidation") or "Warn"
    if validation not in FIELD_VALIDATION:
        supported = ", ".join(f'"{value}"' for value in FIELD_VALIDATION)
        cause = Cause(
            "fieldValidation", f'Unsupported value: "{validation}": supported values: {supported}',
            "FieldValueNotSupported",
        )  # fmt: skip
        raise Invalid(f"fieldValidation: {cause.message}", kind="CreateOptions", causes=(cause,))
    manager = query.get("fieldManager") or user_agent.partition("/")[0] or "unknown"
    if len(manager) > 128:
        raise BadRequest("fieldManager may not be longer than 128 characters")
    return WriteOptions(manager, dry_run(dry), validation, bool(flag(query, "force")), user)


_DELETE_TYPES: dict[str, tuple[type[Any], ...]] = {
    "preconditions": (dict,), "propagationPolicy": (str,), "orphanDependents": (bool,), "gracePeriodSeconds": (int,),
    "dryRun": (list,),
}  # fmt: skip


def _check_delete_body(body: Mapping[str, Any]) -> None:
    for key, types in _DELETE_TYPES.items():
        value = body.get(key)
        if value is not None and (not isinstance(value, types) or (bool not in types and isinstance(value, bool))):
            raise BadRequest(
                f'DeleteOptions in version "v1" cannot be handled as a DeleteOptions: {key} must be '
                f"{types[0].__name__}, not {type(value).__name__}"
            )


@dataclass(slots=True)
class DeleteOptions:
    """metav1.DeleteOptions of body and query together."""

    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
    propagation: str = ""
    dry_run: bool = False
    user: User = field(default_factory=lambda: SYSTEM)


_PROPAGATION = ("Foreground", "Background", "Orphan")


def delete_options(body: Mapping[str, Any], query: Mapping[str, str], dry: list[str]) -> DeleteOptions:
    """Body wins over query, as upstream. Raises BadRequest or Invalid."""
    preconditions = cast(Mapping[str, Any], body.get("preconditions") or {})
    _check_delete_body(body)
    propagation = str(body.get("propagationPolicy") or query.get("propagationPolicy") or "")
    orphan = body.get("orphanDependents")
    if orphan is None:
        orphan = flag(query, "orphanDependents")
    if orphan is not None and not propagation:
        propagation = "Orphan" if orphan else "Background"
    if propagation and propagation not in _PROPAGATION:
        cause = Cause(
            "propagationPolicy",
            f'Unsupported value: "{propagation}": supported values: "Foreground", "Background", "Orphan", "nil"',
            "FieldValueNotSupported",
        )
        raise Invalid(f"DeleteOptions is invalid: propagationPolicy: {cause.message}", causes=(cause,))
    grace: Any = body.get("gracePeriodSeconds")
    if grace is None:
        grace = number(query, "gracePeriodSeconds")
    return DeleteOptions(
        grace_seconds=None if grace is None else max(int(grace), 0),
        uid=str(preconditions.get("uid") or ""),
        resource_version=str(preconditions.get("resourceVersion") or ""),
        propagation=propagation,
        dry_run=dry_run([*dry, *cast(list[str], body.get("dryRun") or ())]),
    )
