"""Rules for ``metadata`` that hold for every kind, before any schema."""

from __future__ import annotations

import re
import secrets
import uuid
from datetime import UTC, datetime
from types import NoneType
from typing import Any

from quarterdeck.apiserver.kinds import Kind
from quarterdeck.errors import BadRequest, Cause
from quarterdeck.kube.resource import Object

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # as upstream: no vowels, so no words
_LABEL_NAMED = frozenset({"namespaces", "services"})
_PATH_NAMED = frozenset({"rbac.authorization.k8s.io"})
_MAX_GENERATED = 58

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def rfc3339(seconds: float) -> str:
    """metav1.Time: UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """The reverse of :func:`rfc3339`."""
    return datetime.fromisoformat(text).timestamp()


def generated_name(prefix: str) -> str:
    return prefix[:_MAX_GENERATED] + "".join(secrets.choice(_SUFFIX) for _ in range(5))


def name_causes(kind: Kind, name: str) -> list[Cause]:
    """What is wrong with ``metadata.name``."""
    if not name:
        return [Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")]
    if kind.resource.group in _PATH_NAMED:
        bad = next((part for part in ("/", "%") if part in name), "")
        text = f"may not contain '{bad}'" if bad else ("may not be '.'" if name in (".", "..") else "")
    elif kind.resource.plural in _LABEL_NAMED and not kind.custom:
        text = _LABEL_TEXT if not _LABEL.fullmatch(name) else ""
        text = text or ("must be no more than 63 bytes" if len(name) > 63 else "")
    else:
        text = _SUBDOMAIN_TEXT if not _SUBDOMAIN.fullmatch(name) else ""
        text = text or ("must be no more than 253 bytes" if len(name) > 253 else "")
    return [Cause("metadata.name", f'Invalid value: "{name}": {text}')] if text else []


def check_type(kind: Kind, obj: Object) -> None:
    """apiVersion and kind must be the URL's; absent ones are filled in. Raises BadRequest."""
    resource = kind.resource
    api_version, name = obj.setdefault("apiVersion", resource.api_version), obj.setdefault("kind", resource.kind)
    if api_version != resource.api_version:
        raise BadRequest(
            f"the API version in the data ({api_version}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if name != resource.kind:
        raise BadRequest(
            f"the kind in the data ({name}) does not match the expected kind of the resource ({resource.kind})"
        )
    check_metadata(kind, obj)


_TEXT, _TEXTS, _LIST = "string", "map[string]string", "array"
_METADATA_TYPES = {
    "name": _TEXT, "generateName": _TEXT, "namespace": _TEXT, "uid": _TEXT, "resourceVersion": _TEXT,
    "labels": _TEXTS, "annotations": _TEXTS, "finalizers": _LIST, "ownerReferences": _LIST, "managedFields": _LIST,
}  # fmt: skip


def check_metadata(kind: Kind, obj: Object) -> None:
    """The types within ``metadata``, which must exist afterwards. Raises BadRequest as a decoder would."""
    metadata = obj.get("metadata")
    if metadata is None:
        metadata = obj["metadata"] = {}
    if not isinstance(metadata, dict):
        raise _wrong_type(kind, "metadata", "ObjectMeta", metadata)
    for key, wanted in _METADATA_TYPES.items():
        value = metadata.get(key)
        if value is None:
            continue
        if wanted == _TEXT:
            good = isinstance(value, str)
        elif wanted == _TEXTS:
            # A null value is Go's zero value, the empty text.
            good = isinstance(value, dict) and all(isinstance(v, (str, NoneType)) for v in value.values())
        else:
            items = str if key == "finalizers" else dict
            good = isinstance(value, list) and all(isinstance(item, items) for item in value)
        if not good:
            raise _wrong_type(kind, f"metadata.{key}", wanted, value)


def _wrong_type(kind: Kind, path: str, wanted: str, value: Any) -> BadRequest:
    resource, given = kind.resource, _JSON_NAMES.get(type(value), "value")
    return BadRequest(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: json: cannot '
        f"unmarshal {given} into Go struct field {resource.kind}.{path} of type {wanted}"
    )


_JSON_NAMES: dict[type, str] = {
    dict: "object", list: "array", str: "string", int: "number", float: "number", bool: "bool"
}  # fmt: skip


def check_namespace(kind: Kind, obj: Object, namespace: str) -> None:
    """metadata.namespace must be the URL's; absent it is filled in. Raises BadRequest."""
    metadata: Object = obj["metadata"]
    given = metadata.get("namespace") or ""
    if not kind.resource.namespaced:
        metadata.pop("namespace", None)
        if given:
            raise BadRequest("namespace may not be set on a cluster-scoped object")
        return
    if given and given != namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace


def new_metadata(obj: Object, now: float) -> None:
    """What the server alone sets on create."""
    metadata: Object = obj["metadata"]
    for key in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"):
        metadata.pop(key, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = rfc3339(now)


def keep_metadata(obj: Object, live: Object) -> None:
    """What an update can never change."""
    metadata: Object = obj["metadata"]
    before: Object = live["metadata"]
    for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        if key in before:
            metadata[key] = before[key]
        else:
            metadata.pop(key, None)
    metadata.pop("selfLink", None)
    if metadata.get("managedFields") is None and "managedFields" in before:
        metadata["managedFields"] = before["managedFields"]


def metadata_causes(obj: Object, live: Object) -> list[Cause]:
    """Immutable metadata and finalizers that cannot be added to an object being deleted."""
    metadata: Object = obj["metadata"]
    causes: list[Cause] = []
    if live["metadata"].get("deletionTimestamp"):
        added = [f for f in metadata.get("finalizers") or () if f not in (live["metadata"].get("finalizers") or ())]
        if added:
            shown = ", ".join(f'"{name}"' for name in added)
            text = "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers"
            causes.append(Cause("metadata.finalizers", f"{text} [{shown}]", "FieldValueForbidden"))
    return causes
