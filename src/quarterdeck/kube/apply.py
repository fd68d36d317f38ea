"""Server-side apply that stays silent when nothing changed.

What we last asked for is kept as a hash in an annotation, so that a field we no longer want is noticed (server-side
apply then removes it); what others changed is noticed by comparing the wanted fields with the cached object. Both equal
means no request at all. What changes an object carries the resourceVersion that the decision was made on: a request
that arrives late (of a leader that was stopped meanwhile) fails instead of bringing old content back.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.quantity import parse_quantity
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.kube.template import additions, with_restart

APPLIED_HASH = "quarterdeck.dev/applied-hash"

_encode = msgspec.json.Encoder(order="sorted").encode


def with_applied_hash(desired: Object) -> Object:
    """``desired`` plus the annotation over its own content."""
    digest = hashlib.sha256(_encode(desired)).hexdigest()[:32]
    metadata: dict[str, Any] = desired["metadata"]
    annotations = {**(metadata.get("annotations") or {}), APPLIED_HASH: digest}
    return desired | {"metadata": metadata | {"annotations": annotations}}


async def apply_if_changed(
    client: KubeClient,
    res: Resource,
    desired: Object,
    live: Object | None,
    *,
    field_manager: str = "quarterdeck",
    force: bool = True,
) -> Object | None:
    """Apply ``desired`` unless ``live`` (the cached object, None if absent) already is it; None when nothing was sent.

    ``desired`` holds only the fields we own and no status. Raises errors.Conflict when ``live`` is not the newest.
    """
    marked = with_applied_hash(desired)
    if live is not None and covers(marked, live):
        return None
    return await client.apply(res, _onto(live, marked), field_manager=field_manager, force=force)


async def restore_template(
    client: KubeClient, res: Resource, desired: Object, *, field_manager: str = "quarterdeck"
) -> Object | None:
    """Replace the workload's pod template by the desired one where others added to it; None when nobody did.

    A restart's stamp stays. The template is replaced first, so that one rollout undoes everything; the apply after it
    changes no value, but makes us the manager that can take the fields out again.
    """
    metadata = desired["metadata"]
    live = await client.get(res, metadata["name"], metadata["namespace"])
    if not additions(desired, live, field_manager):
        return None
    template = with_restart(desired["spec"]["template"], live["spec"]["template"])
    patch = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/spec/template", "value": template},
    ]
    live = await client.patch(
        res, metadata["name"], patch, metadata["namespace"], kind="json", field_manager=field_manager
    )
    return await client.apply(res, _onto(live, with_applied_hash(desired)), field_manager=field_manager)


async def apply_status_if_changed(
    client: KubeClient, res: Resource, live: Object, status: Object, *, field_manager: str = "quarterdeck"
) -> Object | None:
    """Make ``status`` (all of it that we own) the object's status; None when it already is."""
    current: Object = live.get("status") or {}
    if covers(status, current) and not _surplus(status, current):
        return None
    metadata = {k: live["metadata"][k] for k in ("name", "namespace") if k in live["metadata"]}
    body = {"apiVersion": res.api_version, "kind": res.kind, "metadata": metadata, "status": status}
    return await client.apply(res, _onto(live, body), field_manager=field_manager, subresource="status")


def _onto(live: Object | None, desired: Object) -> Object:
    """``desired``, to be applied to this very version of the object only."""
    version = ((live or {}).get("metadata") or {}).get("resourceVersion")
    return desired | {"metadata": desired["metadata"] | {"resourceVersion": version}} if version else desired


def covers(desired: Any, live: Any) -> bool:
    """Whether ``live`` already shows everything ``desired`` says.

    Tolerates what an API server does to a write: defaults added, empty values dropped, quantities canonicalised, list
    entries with keys reordered or joined by other writers' entries.
    """
    if isinstance(desired, dict):
        if not desired and live is None:
            return True
        return isinstance(live, dict) and all(covers(value, live.get(key)) for key, value in desired.items())
    if isinstance(desired, list):
        return _covers_list(desired, live)
    if desired == live and isinstance(desired, bool) == isinstance(live, bool):
        return True
    if live is None:
        return desired is None or desired in ("", 0, False)
    return _same_quantity(desired, live)


def _covers_list(desired: list[Any], live: Any) -> bool:
    if live is None:
        return not desired
    if not isinstance(live, list):
        return False
    if desired and all(isinstance(item, dict) for item in desired):
        return len(live) >= len(desired) and all(any(covers(item, other) for other in live) for item in desired)
    return len(desired) == len(live) and all(covers(a, b) for a, b in zip(desired, live, strict=True))


def _same_quantity(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or not (isinstance(a, str) or isinstance(b, str)):
        return False
    try:
        return parse_quantity(a) == parse_quantity(b)
    except ValueError:
        return False


def _surplus(desired: Object, live: Object) -> bool:
    """A field, or list entry, of the live status that the new one does not have."""
    for key, value in live.items():
        if key not in desired:
            return True
        wanted = desired[key]
        if isinstance(value, list) and isinstance(wanted, list) and len(value) != len(wanted):
            return True
        if isinstance(value, dict) and isinstance(wanted, dict) and _surplus(wanted, value):
            return True
    return False
