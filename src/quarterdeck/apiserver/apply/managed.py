"""``metadata.managedFields``: reading, writing, and the fields nobody can own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.kube.resource import Object

from .fields import FieldSet, union

# More writers by update than this are folded into one entry, oldest first, as kube-apiserver does.
_MAX_UPDATERS = 10
_FOLDED = "ancient-changes"

_NOBODYS_METADATA = frozenset(
    {
        "f:name", "f:namespace", "f:creationTimestamp", "f:selfLink", "f:uid", "f:clusterName", "f:generation",
        "f:managedFields", "f:resourceVersion",
    }
)  # fmt: skip

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Owner:
    """One entry: ``manager`` set ``fields`` by ``operation`` ("Apply" or "Update") at ``time`` (RFC 3339)."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    time: str
    fields: FieldSet

    @property
    def key(self) -> Key:
        """What makes two entries the same owner: an applier stays itself when it moves to another version."""
        version = "" if self.operation == "Apply" else self.api_version
        return (self.manager, self.operation, version, self.subresource)

    def printed(self) -> str:
        """The owner as conflict messages name it."""
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        if self.operation == "Update":
            text += f" using {self.api_version}"
        return text


Owners = dict[Key, Owner]


def read(obj: Object | None) -> Owners:
    """The owners of an object; entries that cannot be understood are left out."""
    entries = (obj or {}).get("metadata", {}).get("managedFields") or ()
    owners: Owners = {}
    for entry in entries:
        fields = entry.get("fieldsV1")
        if entry.get("operation") not in ("Apply", "Update") or not isinstance(fields, dict):
            continue
        owner = Owner(
            entry.get("manager", ""),
            entry["operation"],
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
            entry.get("time") or "",
            fields,
        )
        owners[owner.key] = owner
    return owners


def is_reset(obj: Object) -> bool:
    """Whether the request asks to forget all ownership: ``managedFields: [{}]``."""
    return obj.get("metadata", {}).get("managedFields") == [{}]


def write(obj: Object, owners: Owners) -> None:
    """Store the owners in ``obj``, in place, ordered as kube-apiserver orders them."""
    metadata = obj.setdefault("metadata", {})
    entries = [_entry(owner) for owner in sorted(_folded(owners).values(), key=_order) if owner.fields]
    if entries:
        metadata["managedFields"] = entries
    else:
        metadata.pop("managedFields", None)


def _order(owner: Owner) -> tuple[str, str, str, str, str]:
    return (owner.operation, owner.time, owner.manager, owner.api_version, owner.subresource)


def _entry(owner: Owner) -> dict[str, Any]:
    entry: dict[str, Any] = {"manager": owner.manager, "operation": owner.operation, "apiVersion": owner.api_version}
    if owner.time:
        entry["time"] = owner.time
    entry["fieldsType"] = "FieldsV1"
    entry["fieldsV1"] = owner.fields
    if owner.subresource:
        entry["subresource"] = owner.subresource
    return entry


def _folded(owners: Owners) -> Owners:
    updaters = sorted((o for o in owners.values() if o.operation == "Update" and not o.subresource), key=_order)
    if len(updaters) <= _MAX_UPDATERS:
        return owners
    kept = dict(owners)
    surplus = [o for o in updaters if o.manager != _FOLDED]
    for owner in surplus[: len(updaters) - _MAX_UPDATERS + 1]:
        del kept[owner.key]
        bucket = replace(owner, manager=_FOLDED)
        known = kept.get(bucket.key)
        if known is not None:
            bucket = replace(bucket, fields=union(known.fields, owner.fields))
        kept[bucket.key] = bucket
    return kept


def strip(fields: FieldSet) -> FieldSet:
    """``fields`` without those that no manager may own (identity and bookkeeping of the server)."""
    result = {element: node for element, node in fields.items() if element not in ("f:apiVersion", "f:kind", ".")}
    metadata = result.get("f:metadata")
    if metadata is not None:
        rest = {element: node for element, node in metadata.items() if element not in _NOBODYS_METADATA}
        if rest:
            result["f:metadata"] = rest
        else:
            del result["f:metadata"]
    return result
