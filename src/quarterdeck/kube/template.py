"""What others added to the pod template of a workload we own.

Server-side apply removes only what its own manager once asked for, and comparing with the wanted template cannot tell
an addition from an API server's default. ``metadata.managedFields`` can: defaults belong to nobody.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from quarterdeck.kube.resource import Object

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
"""The one annotation of a template that is others' to write: ``kubectl rollout restart``."""

_DEFAULTED = {"apiVersion", "divisor"}
"""Members an API server adds to atomic structs (fieldRef, resourceFieldRef)."""


def foreign_template_fields(managed: list[Object], manager: str = "quarterdeck") -> list[Object]:
    """The entries of ``managedFields`` by which others than ``manager`` own something in ``spec.template``."""
    return [
        entry
        for entry in managed
        if entry.get("manager") != manager and "f:template" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]


def additions(desired: Object, live: Object, manager: str = "quarterdeck") -> list[str]:
    """Paths in ``spec.template`` of ``live`` that others set and ``desired`` does not have; sorted.

    ``live`` carries at least the :func:`foreign_template_fields` of its ``managedFields``.
    """
    entries = foreign_template_fields(live["metadata"].get("managedFields") or [], manager)
    wanted, there = desired["spec"]["template"], (live.get("spec") or {}).get("template") or {}
    found = {
        path
        for entry in entries
        for path in _walk(entry["fieldsV1"]["f:spec"]["f:template"], wanted, there, "template")
    }
    return sorted(found - {f"template.metadata.annotations.{RESTARTED_AT}"})


def with_restart(template: Object, live: Object) -> Object:
    """``template`` with the restart stamp that ``live`` (a template too) carries."""
    stamp = ((live.get("metadata") or {}).get("annotations") or {}).get(RESTARTED_AT)
    if stamp is None:
        return template
    metadata = template.get("metadata") or {}
    annotations = (metadata.get("annotations") or {}) | {RESTARTED_AT: stamp}
    return template | {"metadata": metadata | {"annotations": annotations}}


def _walk(fields: Object, wanted: Any, there: Any, path: str) -> Iterator[str]:
    """Follow ``fieldsV1`` through both values side by side."""
    for key, children in fields.items():
        kind, _, name = key.partition(":")
        if kind == "f" and isinstance(there, dict):
            at = f"{path}.{name}"
            mine, value = wanted.get(name) if isinstance(wanted, dict) else None, there.get(name)
            if set(children) - {"."}:
                yield from _walk(children, mine, value, at)
            elif _more(mine, value):
                yield at
        elif kind == "k":
            keys: dict[str, Any] = json.loads(name)
            at = f"{path}[{','.join(str(value) for value in keys.values())}]"
            mine, value = _item(wanted, keys), _item(there, keys)
            if value is not None and mine is None:
                yield at
            else:
                yield from _walk(children, mine, value, at)
        elif kind == "v" and isinstance(there, list):
            value = json.loads(name)
            if value in there and value not in (wanted or ()):
                yield f"{path}[{value}]"


def _item(items: Any, keys: dict[str, Any]) -> Any:
    """The entry with these keys; one that leaves a key out has the default (a port's protocol)."""
    if not isinstance(items, list):
        return None
    return next((item for item in items if all(item.get(key, value) == value for key, value in keys.items())), None)


def _more(wanted: Any, there: Any) -> bool:
    """Whether an atomic value has more than it should; other differences show when the wanted fields are compared."""
    if wanted is None:
        return there not in (None, "", {}, [])
    if isinstance(wanted, list) and isinstance(there, list):
        return len(there) > len(wanted)
    if isinstance(wanted, dict) and isinstance(there, dict):
        return bool(set(there) - set(wanted) - _DEFAULTED)
    return False
