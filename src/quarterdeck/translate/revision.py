"""Revisions of Agents and MCPServers: each accepted spec as a ControllerRevision, numbered as a Deployment's are.

A revision holds what ``rollout undo`` writes back: the spec without what is not versioned of a Deployment either, the
number of Pods and the way of rolling out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from quarterdeck.kube.owner import owner_reference
from quarterdeck.kube.resource import Object

from .objects import digest

OWNER = "quarterdeck.dev/revision-of"
"""Label: UID of the object that the revision is of."""
HASH = "quarterdeck.dev/revision-hash"
"""Label: equal for equal content."""
NUMBER = "quarterdeck.dev/revision"
"""Annotation: the revision number again, for readers of metadata alone."""
CHANGE_CAUSE = "kubernetes.io/change-cause"
HISTORY_LIMIT = "quarterdeck.dev/revision-history-limit"
"""Annotation on an Agent or MCPServer: how many old revisions are kept."""
DEFAULT_LIMIT = 10

_NOT_VERSIONED = (
    ("replicas",),
    ("rollout",),
    ("scaleToZero",),
    ("deployment", "replicas"),
    ("declarative", "deployment", "replicas"),
    ("byo", "deployment", "replicas"),
)


@dataclass(frozen=True, slots=True)
class Revision:
    """A kept revision, from its metadata."""

    name: str
    number: int
    hash: str
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write so that the history is right; all empty when it is."""

    number: int
    """The current revision's number."""
    create: bool = False
    renumber: str = ""
    """Name of the kept revision that is current again, or whose change cause is another now."""
    surplus: tuple[str, ...] = ()
    """Names of revisions beyond the limit, oldest first."""


def versioned(spec: Object) -> Object:
    """The part of a spec that a revision keeps; a copy."""
    kept = deepcopy(spec)
    for path in _NOT_VERSIONED:
        _remove(kept, path)
    return kept


def restored(current: Object, kept: Object) -> Object:
    """``current`` with its versioned part replaced by ``kept``."""
    spec = versioned(kept)
    for path in _NOT_VERSIONED:
        holder, value = _find(current, path)
        if not holder:
            continue
        target: Any = spec
        for key in path[:-1]:
            target = target.get(key) if isinstance(target, dict) else None
        if isinstance(target, dict):
            target[path[-1]] = deepcopy(value)
    return spec


def _remove(spec: Object, path: Sequence[str]) -> None:
    """Take a field out, and the objects that held nothing else."""
    holder: Any = spec.get(path[0]) if len(path) > 1 else None
    if len(path) == 1:
        spec.pop(path[0], None)
    elif isinstance(holder, dict):
        _remove(holder, path[1:])


def _find(spec: Object, path: Sequence[str]) -> tuple[bool, Any]:
    value: Any = spec
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return False, None
        value = value[key]
    return True, value


def content_hash(kind: str, spec: Object) -> str:
    """Equal for specs whose versioned parts are equal."""
    return digest([kind, versioned(spec)])[:10]


def history_limit(obj: Object) -> int:
    text = (obj["metadata"].get("annotations") or {}).get(HISTORY_LIMIT, "")
    return int(text) if text.isascii() and text.isdigit() else DEFAULT_LIMIT


def read(obj: Object) -> Revision:
    """The revision of a ControllerRevision, or of its PartialObjectMetadata."""
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    number = str(obj.get("revision", "") or annotations.get(NUMBER, ""))
    return Revision(
        metadata["name"],
        int(number) if number.isdigit() else 0,
        (metadata.get("labels") or {}).get(HASH, ""),
        annotations.get(CHANGE_CAUSE),
    )


def plan(obj: Object, known: Iterable[Revision]) -> Plan:
    """How the history of ``obj``, whose spec was accepted, has to change."""
    kept = sorted(known, key=lambda r: r.number)
    wanted = content_hash(obj["kind"], obj.get("spec") or {})
    cause = (obj["metadata"].get("annotations") or {}).get(CHANGE_CAUSE)
    latest = kept[-1].number if kept else 0
    current = next((r for r in reversed(kept) if r.hash == wanted), None)
    # what a canary is compared with runs: however many specs were tried since, it stays
    stable = ((obj.get("status") or {}).get("rollout") or {}).get("stableRevision")
    old = [r.name for r in kept if r is not current and r.name != stable]
    surplus = tuple(old[: max(0, len(old) - history_limit(obj))])
    if current is None:
        return Plan(latest + 1, create=True, surplus=surplus)
    if current.number != latest:
        return Plan(latest + 1, renumber=current.name, surplus=surplus)
    return Plan(latest, renumber=current.name if current.cause != cause else "", surplus=surplus)


def marks(obj: Object, number: int) -> dict[str, Any]:
    """Annotations of the current revision; None takes one away."""
    return {
        NUMBER: str(number),
        CHANGE_CAUSE: (obj["metadata"].get("annotations") or {}).get(CHANGE_CAUSE),
    }


def revision_name(obj: Object) -> str:
    """Name of the ControllerRevision that holds the spec of ``obj`` as it is now."""
    return _name(obj, content_hash(obj["kind"], obj.get("spec") or {}))


def kept_as(obj: Object, name: str, content: object) -> bool:
    """Whether ``content`` is what the revision of that name was made with.

    Who may write ControllerRevisions of a namespace can put one of another content there; nothing has checked it.
    """
    return isinstance(content, dict) and _name(obj, digest([obj["kind"], content])[:10]) == name


def _name(obj: Object, found: str) -> str:
    metadata = obj["metadata"]
    # the UID: one of the same name that is being deleted may still have its revisions
    suffix = hashlib.sha256(f"{metadata['uid']}/{found}".encode()).hexdigest()[:10]
    return f"{metadata['name']}-{suffix}"


def controller_revision(obj: Object, number: int) -> Object:
    """The ControllerRevision of ``obj`` as it is now."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    found = content_hash(obj["kind"], spec)
    present = {key: value for key, value in marks(obj, number).items() if value is not None}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": revision_name(obj),
            "namespace": metadata["namespace"],
            "labels": {OWNER: metadata["uid"], HASH: found, "app.kubernetes.io/name": metadata["name"]},
            "annotations": present,
            "ownerReferences": [owner_reference(obj)],
        },
        "data": {"spec": versioned(spec)},
        "revision": number,
    }
