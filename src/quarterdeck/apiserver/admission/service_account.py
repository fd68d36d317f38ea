"""ServiceAccount admission: every Pod runs as an account that exists and gets its API token mounted."""

from __future__ import annotations

import secrets
from typing import Any

from quarterdeck.apiserver.security.identity import ObjectReader, forbidden_object
from quarterdeck.errors import Forbidden
from quarterdeck.kube.resource import SERVICE_ACCOUNT, Object

from .attributes import AdmissionAttributes

TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_PREFIX = "kube-api-access-"
_TOKEN_SECONDS = 3607  # upstream's value: an hour and a few seconds, so that it can be told from others
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_MIRROR = "kubernetes.io/config.mirror"


def admit_service_account(reader: ObjectReader, a: AdmissionAttributes) -> None:
    """Set the default account, mount its token, copy its imagePullSecrets. Raises Forbidden when it is missing."""
    if not a.creates_pod or _MIRROR in (a.obj["metadata"].get("annotations") or {}):
        return
    spec: dict[str, Any] = a.obj["spec"]
    spec["serviceAccountName"] = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec["serviceAccount"] = spec["serviceAccountName"]
    account = _account(reader, a)
    if _automount(spec, account):
        _mount_token(spec)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [{"name": s.get("name", "")} for s in account["imagePullSecrets"]]


def validate_service_account(reader: ObjectReader, a: AdmissionAttributes) -> None:
    """Raises Forbidden when the Pod's account does not exist."""
    if a.creates_pod and _MIRROR not in (a.obj["metadata"].get("annotations") or {}):
        _account(reader, a)


def _account(reader: ObjectReader, a: AdmissionAttributes) -> Object:
    name = a.obj["spec"].get("serviceAccountName") or "default"
    account = reader.get(SERVICE_ACCOUNT, a.namespace, name)
    if account is None:
        why = f'error looking up service account {a.namespace}/{name}: serviceaccount "{name}" not found'
        raise _forbidden(a, why)
    return account


def _automount(spec: dict[str, Any], account: Object) -> bool:
    for holder in (spec, account):
        if holder.get("automountServiceAccountToken") is not None:
            return bool(holder["automountServiceAccountToken"])
    return True


def _mount_token(spec: dict[str, Any]) -> None:
    volumes: list[Any] = spec.get("volumes") or []
    name = next((str(v["name"]) for v in volumes if str(v.get("name", "")).startswith(_PREFIX)), "")
    used = False
    added = not name
    if added:
        name = _PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(5))
    for key in ("initContainers", "containers"):
        for container in spec.get(key) or ():
            mounts: list[Any] = container.get("volumeMounts") or []
            if not any(m.get("mountPath") == TOKEN_MOUNT for m in mounts):
                container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": TOKEN_MOUNT}]
                used = True
    if added and used:
        spec["volumes"] = [*volumes, _token_volume(name)]


def _token_volume(name: str) -> Object:
    namespace_field = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace_field]}},
    ]
    return {"name": name, "projected": {"defaultMode": 0o644, "sources": sources}}


def _forbidden(a: AdmissionAttributes, why: str) -> Forbidden:
    return forbidden_object("", "pods", a.name or str(a.obj["metadata"].get("name") or ""), why)
