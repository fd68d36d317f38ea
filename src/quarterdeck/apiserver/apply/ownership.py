"""Server-side apply and update tracking (structured-merge-diff's Updater and apimachinery's field managers)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from quarterdeck.apiserver.patch.json_patch import copy_json
from quarterdeck.apiserver.schema import SchemaNode
from quarterdeck.apiserver.schema.definitions import OBJECT_META, definition_node
from quarterdeck.errors import BadRequest, Cause, Conflict
from quarterdeck.kube.resource import Object

from . import managed
from .fields import FieldSet, difference, intersection, paths, union
from .managed import Owner, Owners
from .typed import Comparison, SchemaError, compare, field_set, merge, remove_unowned

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_BEFORE_FIRST_APPLY = "before-first-apply"
_STRING = SchemaNode(type="string")


def apply(
    live: Object | None,
    config: Object,
    *,
    manager: str,
    force: bool,
    node: SchemaNode,
    api_version: str,
    subresource: str = "",
    now: str,
    reset_fields: tuple[str, ...] | None = None,
) -> Object:
    """The object after ``manager`` applied ``config``; equal to ``live`` when nothing changes.

    ``now`` is the request time (RFC 3339, seconds). ``reset_fields`` are top-level fields this request cannot set
    (``("status",)`` on the main resource of a kind with a status subresource); None takes what built-in kinds have.
    Raises BadRequest when the configuration does not fit the schema, Conflict when other managers own a changed field.
    """
    if config.get("metadata", {}).get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    root = _with_metadata(node)
    ignored = _ignored(node, subresource, reset_fields)
    wanted = _without_ownership(config)
    full_set = _claims(root, wanted, api_version)
    claims = managed.strip(_filtered(full_set, ignored))
    owners = managed.read(live)
    current = _without_ownership(live) if live is not None else _empty(wanted)
    if live is not None and not owners:
        claim = _filtered(managed.strip(compare(root, _empty(live), current).added), ignored)
        first = Owner(_BEFORE_FIRST_APPLY, "Update", live.get("apiVersion", api_version), "", now, claim)
        owners[first.key] = first
    applier = Owner(manager, "Apply", api_version, subresource, now, claims)
    last = owners.get(applier.key)
    others = {key: owner for key, owner in owners.items() if key != applier.key}

    merged = merge(root, current, {key: value for key, value in wanted.items() if key not in ignored})
    if last is not None:
        owned = full_set
        for owner in others.values():
            owned = union(owned, owner.fields)
        merged = remove_unowned(root, merged, last.fields, owned) or {}
    change = _filtered_comparison(compare(root, current, merged), ignored)
    _check_conflicts(others, change, force, _taken_over(manager, live, root, current))
    after = _release(others, change)
    if last is not None and last.fields == claims and last.api_version == api_version and not _any(change):
        applier = last
    after[applier.key] = applier
    merged = copy_json(merged)  # callers default it in place: it must share nothing with ``live``
    _refresh_last_applied(manager, live, config, merged)
    managed.write(merged, after)
    return merged


def track(
    old: Object | None,
    new: Object,
    *,
    manager: str,
    operation: str = "Update",
    node: SchemaNode,
    api_version: str,
    subresource: str = "",
    now: str,
    reset_fields: tuple[str, ...] | None = None,
) -> None:
    """Record in ``new.metadata.managedFields`` that ``manager`` made ``new`` out of ``old`` (None: created it)."""
    if managed.is_reset(new) and not subresource:
        new["metadata"].pop("managedFields")
        return
    owners: Owners = {} if subresource else managed.read(new)
    if not owners:
        owners = managed.read(old)
    if old is not None and not owners:
        new.get("metadata", {}).pop("managedFields", None)  # as upstream: who is not tracked stays so until an apply
        return
    root = _with_metadata(node)
    ignored = _ignored(node, subresource, reset_fields)
    before = _without_ownership(old) if old is not None else _empty(new)
    try:
        comparison = compare(root, before, _without_ownership(new))
    except SchemaError:
        return  # items without their keys: validation refuses the object in a moment
    change = _filtered_comparison(comparison, ignored)
    updater = Owner(manager, operation, api_version, subresource, now, {})
    mine = owners.get(updater.key)
    after = _release({key: owner for key, owner in owners.items() if key != updater.key}, change)
    fields = mine.fields if mine is not None else {}
    gained = managed.strip(union(change.added, change.modified))
    claims = difference(union(fields, gained), change.removed)
    if mine is not None and claims == fields and not gained:
        after[mine.key] = mine
    elif claims:
        after[updater.key] = replace(updater, fields=claims)
    managed.write(new, after)


def _with_metadata(node: SchemaNode) -> SchemaNode:
    """The kind's root with full ObjectMeta: custom resources leave metadata to the API server."""
    metadata = node.properties.get("metadata")
    if metadata is not None and metadata.properties and "apiVersion" in node.properties:
        return node
    standard = {"apiVersion": _STRING, "kind": _STRING, "metadata": definition_node(OBJECT_META)}
    return replace(node, properties={**node.properties, **standard})


def _ignored(node: SchemaNode, subresource: str, reset_fields: tuple[str, ...] | None) -> frozenset[str]:
    if reset_fields is not None:
        return frozenset(reset_fields)
    if not node.raw.get("$id") or "status" not in node.properties:
        return frozenset()
    if subresource == "status":
        return frozenset(node.properties) - {"apiVersion", "kind", "metadata", "status"}
    return frozenset({"status"})


def _without_ownership(obj: Object) -> Object:
    metadata = obj.get("metadata")
    if not metadata or "managedFields" not in metadata:
        return obj
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def _empty(obj: Object) -> Object:
    """What an object of this identity is before anybody said anything about it."""
    return {key: obj[key] for key in ("apiVersion", "kind") if key in obj} | {"metadata": {}}


def _claims(root: SchemaNode, config: Object, api_version: str) -> FieldSet:
    try:
        return field_set(root, config)
    except SchemaError as error:
        metadata = config.get("metadata", {})
        name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
        raise BadRequest(
            f"failed to create typed patch object ({name}; {api_version}, Kind={config.get('kind', '')}): {error}"
        ) from None


def _filtered(fields: FieldSet, ignored: frozenset[str]) -> FieldSet:
    return {element: node for element, node in fields.items() if element[2:] not in ignored} if ignored else fields


def _filtered_comparison(change: Comparison, ignored: frozenset[str]) -> Comparison:
    return Comparison(
        _filtered(change.added, ignored), _filtered(change.modified, ignored), _filtered(change.removed, ignored)
    )


def _any(change: Comparison) -> bool:
    return bool(change.added or change.modified or change.removed)


def _release(owners: Owners, change: Comparison) -> Owners:
    """Everybody else loses the fields whose value this request changed or removed."""
    if not _any(change):
        return dict(owners)
    lost = union(union(change.added, change.modified), change.removed)
    after: Owners = {}
    for key, owner in owners.items():
        rest = difference(owner.fields, lost)
        if rest:
            after[key] = owner if rest == owner.fields else replace(owner, fields=rest)
    return after


def _check_conflicts(others: Owners, change: Comparison, force: bool, allowed: FieldSet) -> None:
    if force:
        return
    changed = union(change.added, change.modified)
    found: list[tuple[Owner, list[str]]] = []
    for owner in others.values():
        disputed = difference(intersection(owner.fields, changed), allowed)
        if disputed:
            found.append((owner, list(paths(disputed))))
    if not found:
        return
    found.sort(key=lambda pair: pair[0].printed())
    causes = tuple(
        Cause(path, f"conflict with {owner.printed()}", "FieldManagerConflict")
        for owner, where in found
        for path in where
    )
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0].message}: {causes[0].field}"
    else:
        lines: list[str] = []
        for owner, where in found:
            lines.append(f"conflicts with {owner.printed()}:")
            lines.extend(f"- {path}" for path in where)
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    raise Conflict(message, causes=causes)


def _last_applied(live: Object | None) -> str:
    annotations = (live or {}).get("metadata", {}).get("annotations") or {}
    return annotations.get(LAST_APPLIED, "")


def _taken_over(manager: str, live: Object | None, root: SchemaNode, current: Object) -> FieldSet:
    """What ``kubectl apply --server-side`` may take from the client-side apply that came before it.

    These are the fields of the last-applied annotation whose live value is still the one applied then.
    """
    text = _last_applied(live) if manager == "kubectl" else ""
    if not text:
        return {}
    try:
        applied: Any = json.loads(text)
        if not isinstance(applied, dict):
            return {}
        fields = field_set(root, applied)
        change = compare(root, applied, current)
    except (ValueError, SchemaError):
        return {}
    return difference(difference(difference(fields, change.modified), change.added), change.removed)


def _refresh_last_applied(manager: str, live: Object | None, config: Object, merged: Object) -> None:
    """Keep the annotation true, so that the person may go back to client-side apply."""
    if manager != "kubectl" or not _last_applied(live):
        return
    metadata = {**merged.get("metadata", {})}
    text = json.dumps(config, separators=(",", ":"), ensure_ascii=False, sort_keys=True) + "\n"
    metadata["annotations"] = {**(metadata.get("annotations") or {}), LAST_APPLIED: text}
    merged["metadata"] = metadata
