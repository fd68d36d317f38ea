"""Owner references: who made an object."""

from __future__ import annotations

from typing import Any

from quarterdeck.kube.resource import Object


def owner_reference(obj: Object, *, controller: bool = True, block_deletion: bool = True) -> dict[str, Any]:
    """The reference a child carries to ``obj`` (which needs apiVersion, kind, name and uid)."""
    reference: dict[str, Any] = {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
    }
    if controller:
        reference["controller"] = True
    if block_deletion:
        reference["blockOwnerDeletion"] = True
    return reference


def owner_references(obj: Object) -> list[dict[str, Any]]:
    return obj["metadata"].get("ownerReferences") or []


def controller_of(obj: Object) -> dict[str, Any] | None:
    """The one reference with ``controller: true``, or None."""
    for reference in owner_references(obj):
        if reference.get("controller"):
            return reference
    return None


def is_controlled_by(obj: Object, owner: Object) -> bool:
    reference = controller_of(obj)
    return reference is not None and reference["uid"] == owner["metadata"]["uid"]


def belongs_to(obj: Object, owner: Object) -> bool:
    """Whether ``owner`` controls ``obj``, or owns it and nobody controls it (kmcp wrote such references)."""
    if controller_of(obj) is not None:
        return is_controlled_by(obj, owner)
    return any(reference["uid"] == owner["metadata"]["uid"] for reference in owner_references(obj))
