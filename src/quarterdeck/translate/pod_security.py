"""The restricted Pod Security Standard as defaults: what a user left open is filled, what a user says stays.

Kubernetes documentation: concepts/security/pod-security-standards. Where a user asks for root or for privileges, the
fields that would contradict that are left alone too, so that the Pod is admitted (or refused) for what was asked.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

UID = 65532
"""uid, gid and fsGroup of Pods that name none; the user of our own image."""
_TMP = "quarterdeck-tmp"
_TMP_SIZE = "1Gi"
_ADMIN = {"SYS_ADMIN", "CAP_SYS_ADMIN"}


def restricted(pod: dict[str, Any], read_only: Collection[str]) -> dict[str, Any]:
    """A Pod spec with its security contexts filled. ``read_only`` names containers whose images we know to write to
    /tmp only: their root file system is read-only, and /tmp a volume."""
    context = _pod_context(dict(pod.get("securityContext") or {}))
    filled = {
        key: [_container(each, context, each["name"] in read_only) for each in pod[key]]
        for key in ("initContainers", "containers")
        if pod.get(key)
    }
    out = pod | filled | {"securityContext": context}
    mounted = {mount["name"] for key in filled for each in filled[key] for mount in each.get("volumeMounts") or ()}
    if _TMP in mounted:
        out["volumes"] = [*(pod.get("volumes") or ()), {"name": _TMP, "emptyDir": {"sizeLimit": _TMP_SIZE}}]
    return out


def _pod_context(context: dict[str, Any]) -> dict[str, Any]:
    root = context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False
    filled: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}, "fsGroup": UID}
    if "fsGroup" not in context:
        filled["fsGroupChangePolicy"] = "OnRootMismatch"
    if not root:
        filled["runAsNonRoot"] = True
        filled |= {} if "runAsUser" in context else {"runAsUser": UID, "runAsGroup": UID}
    return filled | {key: value for key, value in context.items() if value is not None}


def _container(container: dict[str, Any], pod: dict[str, Any], read_only: bool) -> dict[str, Any]:
    context = {key: value for key, value in (container.get("securityContext") or {}).items() if value is not None}
    capabilities = dict(context.get("capabilities") or {})
    filled: dict[str, Any] = {}
    if not context.get("privileged"):
        filled["capabilities"] = {"drop": ["ALL"]} | capabilities
        if not _ADMIN & set(capabilities.get("add") or ()):
            filled["allowPrivilegeEscalation"] = False
    if context.get("runAsUser") == 0 and pod.get("runAsNonRoot"):
        filled["runAsNonRoot"] = False  # the Pod's is our default, and would refuse what this container asks for
    if read_only:
        filled["readOnlyRootFilesystem"] = True
    out = container | {"securityContext": filled | context | _kept(filled, "capabilities")}
    mounts = container.get("volumeMounts") or []
    if read_only and not any(mount["mountPath"].rstrip("/") == "/tmp" for mount in mounts):  # noqa: S108 - the Pod's own
        out["volumeMounts"] = [*mounts, {"name": _TMP, "mountPath": "/tmp"}]  # noqa: S108
    return out


def _kept(filled: dict[str, Any], key: str) -> dict[str, Any]:
    """A field that was filled inside, not as a whole."""
    return {key: filled[key]} if key in filled else {}
