"""Errors with exactly the text and details that kube-apiserver gives; kubectl and client libraries match on both."""

from __future__ import annotations

from collections.abc import Iterable

from quarterdeck.apiserver.kinds import Kind
from quarterdeck.errors import AlreadyExists, BadRequest, Cause, Conflict, Forbidden, Invalid, NotFound


def not_found(kind: Kind, name: str) -> NotFound:
    return NotFound(
        f'{kind.group_resource} "{name}" not found', name=name, group=kind.resource.group, kind=kind.resource.plural
    )


def already_exists(kind: Kind, name: str) -> AlreadyExists:
    return AlreadyExists(
        f'{kind.group_resource} "{name}" already exists', name=name, group=kind.resource.group,
        kind=kind.resource.plural,
    )  # fmt: skip


def conflict(kind: Kind, name: str, detail: str = "") -> Conflict:
    why = detail or "the object has been modified; please apply your changes to the latest version and try again"
    return Conflict(
        f'Operation cannot be fulfilled on {kind.group_resource} "{name}": {why}',
        name=name, group=kind.resource.group, kind=kind.resource.plural,
    )  # fmt: skip


def forbidden(kind: Kind, name: str, detail: str, causes: tuple[Cause, ...] = ()) -> Forbidden:
    return Forbidden(
        f'{kind.group_resource} "{name}" is forbidden: {detail}',
        name=name, group=kind.resource.group, kind=kind.resource.plural, causes=causes,
    )  # fmt: skip


def invalid(kind: Kind, name: str, causes: Iterable[Cause]) -> Invalid:
    """422 with the causes joined as upstream joins a field.ErrorList."""
    unique = tuple(dict.fromkeys(causes))
    texts = [f"{c.field}: {c.message}" if c.field else c.message for c in unique]
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    qualified = f"{kind.resource.kind}.{kind.resource.group}" if kind.resource.group else kind.resource.kind
    return Invalid(
        f'{qualified} "{name}" is invalid: {joined}', name=name, group=kind.resource.group, kind=kind.resource.kind,
        causes=unique,
    )  # fmt: skip


def strict_decoding(kind: Kind, problems: Iterable[str]) -> BadRequest:
    resource = kind.resource
    return BadRequest(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
        f"strict decoding error: {', '.join(problems)}"
    )


def terminating(kind: Kind, name: str, namespace: str) -> Forbidden:
    cause = Cause("metadata.namespace", f"namespace {namespace} is being terminated", "NamespaceTerminating")
    detail = f"unable to create new content in namespace {namespace} because it is being terminated"
    return forbidden(kind, name, detail, (cause,))
