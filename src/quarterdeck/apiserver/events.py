"""Events: one store, two API groups. Stored as core/v1, served as events.k8s.io/v1 too."""

from __future__ import annotations

from typing import Any

from quarterdeck.kube.resource import Object

CORE, EVENTS = "v1", "events.k8s.io/v1"

# core/v1 name → events.k8s.io/v1 name
_RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_BACK = {new: old for old, new in _RENAMED.items()}


def convert_event(obj: Object, api_version: str) -> Object:
    """The same Event in the other group."""
    if obj.get("apiVersion") == api_version:
        return obj
    names = _RENAMED if api_version == EVENTS else _BACK
    made: Object = {names.get(key, key): value for key, value in obj.items()}
    made["apiVersion"] = api_version
    return made


def event_fields(obj: Object) -> dict[str, str]:
    """Field selector values under both groups' names, from the stored (core) form."""
    target: dict[str, Any] = obj.get("involvedObject") or {}
    found: dict[str, str] = {}
    for key in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"):
        value = target.get(key)
        if value:
            found[f"involvedObject.{key}"] = found[f"regarding.{key}"] = str(value)
    component = str(obj.get("reportingComponent") or (obj.get("source") or {}).get("component") or "")
    found["reportingComponent"] = found["reportingController"] = component
    found["source"] = str((obj.get("source") or {}).get("component") or component)
    found["reason"], found["type"] = str(obj.get("reason") or ""), str(obj.get("type") or "")
    return found
