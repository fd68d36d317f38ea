"""Validation of ConfigMap, Secret, PersistentVolumeClaim, quota, limits, and RBAC kinds."""

from __future__ import annotations

from typing import Any

from quarterdeck.apiserver.schema import quantity
from quarterdeck.errors import Cause

from . import names
from .errors import IMMUTABLE, duplicate, forbidden, invalid, required, too_long, unsupported

Json = dict[str, Any]

_MAX_DATA = 1024 * 1024
_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_FROZEN = "field is immutable when `immutable` is set"
_SECRET_KEYS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _keys(data: Json, field: str, causes: list[Cause]) -> int:
    for key in data:
        if wrong := names.config_key(key):
            causes.append(invalid(f"{field}[{key}]", key, wrong))
    return sum(len(value) for value in data.values())


def _immutable(obj: Json, old: Json, fields: tuple[str, ...], causes: list[Cause]) -> None:
    if not old.get("immutable"):
        return
    if not obj.get("immutable"):
        causes.append(forbidden("immutable", _FROZEN))
    causes.extend(forbidden(key, _FROZEN) for key in fields if (obj.get(key) or {}) != (old.get(key) or {}))


def config_map(obj: Json, old: Json | None) -> list[Cause]:
    causes: list[Cause] = []
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    total = _keys(data, "data", causes) + _keys(binary, "binaryData", causes)
    causes += [invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in data if key in binary]
    if total > _MAX_DATA:
        causes.append(too_long("", _MAX_DATA))
    if old is not None:
        _immutable(obj, old, ("data", "binaryData"), causes)
    return causes


def secret(obj: Json, old: Json | None) -> list[Cause]:
    causes: list[Cause] = []
    data = obj.get("data") or {}
    if _keys(data, "data", causes) * 3 // 4 > _MAX_DATA:
        causes.append(too_long("data", _MAX_DATA))
    kind = obj.get("type", "")
    causes += [required(f"data[{key}]") for key in _SECRET_KEYS.get(kind, ()) if key not in data]
    if kind == "kubernetes.io/basic-auth" and not data.keys() & {"username", "password"}:
        causes += [required("data[username]"), required("data[password]")]
    if kind == "kubernetes.io/service-account-token":
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        if not annotations.get("kubernetes.io/service-account.name"):
            causes.append(required("metadata.annotations[kubernetes.io/service-account.name]"))
    if old is not None:
        if kind != old.get("type"):
            causes.append(invalid("type", kind, IMMUTABLE))
        _immutable(obj, old, ("data",), causes)
    return causes


def claim(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    modes = spec.get("accessModes") or []
    if not modes:
        causes.append(required("spec.accessModes", "at least 1 access mode is required"))
    causes += [unsupported("spec.accessModes", mode, _ACCESS_MODES) for mode in modes if mode not in _ACCESS_MODES]
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        causes.append(required("spec.resources[storage]"))
    elif quantity.parse(size) <= 0:
        causes.append(invalid("spec.resources[storage]", size, "must be greater than zero"))
    if old is not None:
        before = old.get("spec") or {}
        changeable = ("resources", "volumeName", "volumeAttributesClassName")
        if {k: v for k, v in spec.items() if k not in changeable} != {
            k: v for k, v in before.items() if k not in changeable
        }:
            text = "spec is immutable after creation except resources.requests and volumeAttributesClassName "
            text += "for bound claims"
            causes.append(forbidden("spec", text))
    return causes


def _amounts(values: Json | None, field: str, causes: list[Cause]) -> None:
    for name, amount in (values or {}).items():
        if quantity.parse(amount) < 0:
            causes.append(invalid(f"{field}[{name}]", amount, "must be greater than or equal to 0"))


def resource_quota(obj: Json, old: Json | None) -> list[Cause]:
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    for name in spec.get("hard") or {}:
        if wrong := names.qualified(name):
            causes.append(invalid(f"spec.hard[{name}]", name, wrong))
    _amounts(spec.get("hard"), "spec.hard", causes)
    if old is not None and spec.get("scopes") != (old.get("spec") or {}).get("scopes"):
        causes.append(invalid("spec.scopes", spec.get("scopes"), IMMUTABLE))
    return causes


def limit_range(obj: Json, old: Json | None) -> list[Cause]:
    del old
    causes: list[Cause] = []
    limits: list[Json] = (obj.get("spec") or {}).get("limits") or []
    seen: set[str] = set()
    for index, item in enumerate(limits):
        where, kind = f"spec.limits[{index}]", item.get("type", "")
        if kind in seen:
            causes.append(duplicate(f"{where}.type", kind))
        seen.add(kind)
        for key in ("max", "min", "default", "defaultRequest"):
            _amounts(item.get(key), f"{where}.{key}", causes)
        largest = item.get("max") or {}
        for key in ("min", "default", "defaultRequest"):
            for name, amount in (item.get(key) or {}).items():
                if name in largest and quantity.parse(amount) > quantity.parse(largest[name]):
                    text = f"{key} value {amount} is greater than max value {largest[name]}"
                    causes.append(invalid(f"{where}.{key}[{name}]", amount, text))
    return causes


def role(obj: Json, old: Json | None) -> list[Cause]:
    del old
    causes: list[Cause] = []
    for index, rule in enumerate(obj.get("rules") or ()):
        where = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(required(f"{where}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if obj.get("kind") == "Role":
                text = "namespaced rules cannot apply to non-resource URLs"
                causes.append(invalid(f"{where}.nonResourceURLs", rule["nonResourceURLs"], text))
            continue
        if not rule.get("apiGroups"):
            causes.append(required(f"{where}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            causes.append(required(f"{where}.resources", "resource rules must supply at least one resource"))
    return causes


def role_binding(obj: Json, old: Json | None) -> list[Cause]:
    causes: list[Cause] = []
    reference = obj.get("roleRef") or {}
    kinds = ("ClusterRole",) if obj.get("kind") == "ClusterRoleBinding" else ("ClusterRole", "Role")
    if reference.get("apiGroup") != "rbac.authorization.k8s.io":
        causes.append(unsupported("roleRef.apiGroup", reference.get("apiGroup", ""), ("rbac.authorization.k8s.io",)))
    if reference.get("kind") not in kinds:
        causes.append(unsupported("roleRef.kind", reference.get("kind", ""), kinds))
    if not reference.get("name"):
        causes.append(required("roleRef.name"))
    for index, subject in enumerate(obj.get("subjects") or ()):
        causes += _subject(subject, f"subjects[{index}]")
    if old is not None and reference != old.get("roleRef"):
        causes.append(invalid("roleRef", reference, "cannot change roleRef"))
    return causes


def _subject(subject: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    kind = subject.get("kind", "")
    if not subject.get("name"):
        causes.append(required(f"{path}.name"))
    if kind == "ServiceAccount":
        if not subject.get("namespace"):
            causes.append(required(f"{path}.namespace"))
        if subject.get("apiGroup"):
            causes.append(unsupported(f"{path}.apiGroup", subject["apiGroup"], ("",)))
    elif kind not in ("User", "Group"):
        causes.append(unsupported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group")))
    return causes
