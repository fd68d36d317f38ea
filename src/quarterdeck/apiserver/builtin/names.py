"""Names, labels and annotations: the formats and message texts of apimachinery's util/validation."""

from __future__ import annotations

import re
from typing import Any

from quarterdeck.errors import Cause

from .errors import IMMUTABLE, duplicate, invalid, required, too_long

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_LABEL_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_QUALIFIED = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_CONFIG_KEY = re.compile(r"^[-._a-zA-Z0-9]+$")
_ENV_NAME = re.compile(r"^[ -<>-~]+$")
_PORT_NAME = re.compile(r"^[-a-z0-9]+$")

_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_NAME_PART_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_CONFIG_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_ENV_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"
_ANNOTATIONS_LIMIT = 256 * 1024


def _more_than(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def label(name: str) -> str:
    """What is wrong with an RFC 1123 label; "" when nothing is."""
    if len(name) > 63:
        return _more_than(63)
    return "" if _LABEL.match(name) else _LABEL_TEXT


def label_1035(name: str) -> str:
    if len(name) > 63:
        return _more_than(63)
    return "" if _LABEL_1035.match(name) else _LABEL_1035_TEXT


def subdomain(name: str) -> str:
    if len(name) > 253:
        return _more_than(253)
    return "" if _SUBDOMAIN.match(name) else _SUBDOMAIN_TEXT


def path_segment(name: str) -> str:
    """Names of RBAC objects: anything that can stand in a URL path."""
    if name in (".", ".."):
        return f"may not be '{name}'"
    return next((f"may not contain '{char}'" for char in "/%" if char in name), "")


def qualified(name: str) -> str:
    prefix, slash, rest = name.rpartition("/")
    if slash and not prefix:
        return "prefix part must be non-empty"
    if slash and (wrong := subdomain(prefix)):
        return f"prefix part {wrong}"
    if not rest:
        return "name part must be non-empty"
    if len(rest) > 63:
        return f"name part {_more_than(63)}"
    return "" if _QUALIFIED.match(rest) and "/" not in prefix else _NAME_PART_TEXT


def label_value(value: str) -> str:
    if len(value) > 63:
        return _more_than(63)
    return "" if _LABEL_VALUE.match(value) else _LABEL_VALUE_TEXT


def config_key(name: str) -> str:
    if len(name) > 253:
        return _more_than(253)
    if name in (".", ".."):
        return f"must not be '{name}'"
    return "" if _CONFIG_KEY.match(name) else _CONFIG_KEY_TEXT


def env_name(name: str) -> str:
    return "" if _ENV_NAME.match(name) else _ENV_TEXT


def port_name(name: str) -> str:
    if len(name) > 15:
        return "must be no more than 15 characters"
    if not _PORT_NAME.match(name):
        return "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    if not any(char.isalpha() for char in name):
        return "must contain at least one letter (a-z)"
    if "--" in name:
        return "must not contain consecutive hyphens"
    return "must not begin or end with a hyphen" if name[0] == "-" or name[-1] == "-" else ""


def labels(values: dict[str, str] | None, field: str) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in (values or {}).items():
        if wrong := qualified(key):
            causes.append(invalid(field, key, wrong))
        if wrong := label_value(value):
            causes.append(invalid(field, value, wrong))
    return causes


def annotation_map(values: dict[str, str] | None, field: str) -> list[Cause]:
    causes = [invalid(field, key, wrong) for key in values or {} if (wrong := qualified(key.lower()))]
    if values and sum(len(k) + len(v) for k, v in values.items()) > _ANNOTATIONS_LIMIT:
        causes.append(too_long(field, _ANNOTATIONS_LIMIT))
    return causes


_BY_KIND = {
    "Namespace": label,
    "Service": label_1035,
    "Role": path_segment,
    "RoleBinding": path_segment,
    "ClusterRole": path_segment,
    "ClusterRoleBinding": path_segment,
}


def object_meta(obj: dict[str, Any], *, kind: str, namespaced: bool) -> list[Cause]:
    """ValidateObjectMeta for one kind."""
    metadata: dict[str, Any] = obj.get("metadata") or {}
    check = _BY_KIND.get(kind, subdomain)
    causes: list[Cause] = []
    name = metadata.get("name", "")
    if metadata.get("generateName") and (wrong := check(f"{metadata['generateName'].rstrip('-.')}x")):
        causes.append(invalid("metadata.generateName", metadata["generateName"], wrong))
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    elif wrong := check(name):
        causes.append(invalid("metadata.name", name, wrong))
    namespace = metadata.get("namespace", "")
    if namespaced:
        if not namespace:
            causes.append(required("metadata.namespace"))
        elif wrong := label(namespace):
            causes.append(invalid("metadata.namespace", namespace, wrong))
    elif namespace:
        causes.append(Cause("metadata.namespace", "Forbidden: not allowed on this type", "FieldValueForbidden"))
    causes += labels(metadata.get("labels"), "metadata.labels")
    causes += annotation_map(metadata.get("annotations"), "metadata.annotations")
    return causes + _references(metadata)


_FINALIZERS = frozenset({"orphan", "foregroundDeletion", "kubernetes", "customresourcecleanup.apiextensions.k8s.io"})
"""Standard finalizers that are not domain-qualified."""


def _references(metadata: dict[str, Any]) -> list[Cause]:
    causes: list[Cause] = []
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                causes.append(invalid(f"metadata.ownerReferences[{index}].{key}", "", f"{key} must not be empty"))
    controllers = [owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
    if len(controllers) > 1:
        text = 'Only one reference can have Controller set to true. Found "true" in references for {} and {}'
        text = text.format(*(f"{c.get('kind')}/{c.get('name')}" for c in controllers[:2]))
        causes.append(invalid("metadata.ownerReferences", metadata["ownerReferences"], text))
    for name in metadata.get("finalizers") or ():
        if wrong := qualified(name):
            causes.append(invalid("metadata.finalizers", name, wrong))
        elif "/" not in name and name not in _FINALIZERS:
            causes.append(
                invalid(
                    "metadata.finalizers", name, "name is neither a standard finalizer name nor is it fully qualified"
                )
            )
    return causes


def object_meta_update(obj: dict[str, Any], old: dict[str, Any]) -> list[Cause]:
    """Identity never changes; finalizers may not be added once deletion has begun."""
    new_meta, old_meta = obj.get("metadata") or {}, old.get("metadata") or {}
    causes = [
        invalid(f"metadata.{key}", new_meta.get(key, ""), IMMUTABLE)
        for key in ("name", "namespace", "uid", "creationTimestamp")
        if new_meta.get(key) != old_meta.get(key)
    ]
    if old_meta.get("deletionTimestamp"):
        added = [name for name in new_meta.get("finalizers") or () if name not in (old_meta.get("finalizers") or ())]
        if added:
            detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
            causes.append(Cause("metadata.finalizers", f"Forbidden: {detail}", "FieldValueForbidden"))
    return causes


def unique(values: list[Any], field: str, key: str) -> list[Cause]:
    """A duplicate error for every repeated value; ``field`` is the list, ``key`` the field of the item."""
    seen: list[Any] = []
    causes: list[Cause] = []
    for index, value in enumerate(values):
        if value in seen:
            causes.append(duplicate(f"{field}[{index}].{key}", value))
        elif value:
            seen.append(value)
    return causes
