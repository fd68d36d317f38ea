"""What a container's security context comes to on this node (pure), with kubelet's words where it must be refused.

Fields of the container win over the Pod's, as core/v1 says. What the node does not give although it was asked for is
listed in :attr:`Security.refused` and shown on the Pod: nobody shall believe in a capability that is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.kube.resource import Object
from quarterdeck.node.environment import ConfigurationError
from quarterdeck.node.images.spec import ImageSpec

NONROOT = 65532
"""The uid (and gid) inside containers where neither Pod nor image names one."""
_GRANTED = frozenset({
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "NET_RAW",
})  # fmt: skip
"""Capabilities a container may be given, in its own user namespace; the rest of the kernel's are the machine's."""
_POD_FIELDS = ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile", "supplementalGroups", "fsGroup")


@dataclass(frozen=True, slots=True)
class Security:
    """``uid``/``gid`` as the container sees them (no gid: nobody named one); ``given``: the Pod itself names the uid.
    ``filtered``: under the system-call filter. ``groups``: fsGroup and supplementalGroups."""

    uid: int = NONROOT
    gid: int | None = None
    given: bool = False
    read_only: bool = False
    filtered: bool = True
    capabilities: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    refused: tuple[str, ...] = ()


def security_of(pod: Object, container: Object, image: ImageSpec) -> Security:
    """The security of one container. Raises ConfigurationError, which becomes CreateContainerConfigError."""
    of_pod = pod["spec"].get("securityContext") or {}
    own = {name: value for name, value in (container.get("securityContext") or {}).items() if value is not None}
    context: Object = {name: of_pod[name] for name in _POD_FIELDS if of_pod.get(name) is not None} | own
    uid, gid = _identity(pod, container, context, image)
    capabilities, refused = _capabilities(context)
    groups = [*([context["fsGroup"]] if "fsGroup" in context else []), *(context.get("supplementalGroups") or ())]
    if context.get("supplementalGroups"):
        refused.append("supplementalGroups (its volumes are its own without them)")
    return Security(
        uid,
        gid,
        "runAsUser" in context,
        bool(context.get("readOnlyRootFilesystem")),
        _filtered(context.get("seccompProfile") or {}),
        capabilities,
        tuple(int(group) for group in groups),
        tuple(refused),
    )


def _identity(pod: Object, container: Object, context: Object, image: ImageSpec) -> tuple[int, int | None]:
    """(uid, gid) inside the container, checked as kubelet's verifyRunAsNonRoot does."""
    meta = pod["metadata"]
    where = f'(pod: "{meta["name"]}_{meta["namespace"]}({meta.get("uid", "")})", container: {container["name"]})'
    user, group = image_user(image)
    if context.get("runAsNonRoot"):
        if context.get("runAsUser") == 0:
            raise ConfigurationError(f"container's runAsUser breaks non-root policy {where}")
        if "runAsUser" not in context and user == 0:
            raise ConfigurationError(f"container has runAsNonRoot and image will run as root {where}")
        if "runAsUser" not in context and isinstance(user, str):
            raise ConfigurationError(
                f"container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root "
                f"{where}"
            )
    if isinstance(user, str):
        # A container engine looks the name up itself.
        user, of_user = (None, None) if "runAsUser" in context or image.engine else _by_name(image, user)
        group = group if group is not None else of_user
    uid = int(context.get("runAsUser", NONROOT if user is None else user))
    return uid, context.get("runAsGroup", group)


def image_user(image: ImageSpec) -> tuple[int | str | None, int | None]:
    """(user, group) an image asks for, without user root; a user of None: this node knows nothing of the image."""
    if image.user is None:
        return None, None
    user, _, group = image.user.partition(":")
    number = int(group) if group.isdigit() else None
    if not user:
        return 0, number
    return (int(user) if user.isdigit() else user), number


def _by_name(image: ImageSpec, name: str) -> tuple[int, int]:
    """uid and gid of a user in the image's own user database. Raises ConfigurationError."""
    database = Path(image.root or "/nonexistent") / "etc" / "passwd"
    lines = database.read_text(errors="replace").splitlines() if database.is_file() else []
    for line in lines:
        fields = line.split(":")
        if len(fields) > 3 and fields[0] == name and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), int(fields[3])
    raise ConfigurationError(f"unable to find user {name}: no matching entries in passwd file; set runAsUser")


def _filtered(profile: Object) -> bool:
    kind = profile.get("type") or "RuntimeDefault"
    if kind == "Localhost":
        raise ConfigurationError(
            f"seccompProfile Localhost ({json.dumps(profile.get('localhostProfile', ''))}) cannot be applied: this "
            "node has no profiles of its own; use type RuntimeDefault"
        )
    return kind != "Unconfined"


def _capabilities(context: Object) -> tuple[tuple[str, ...], list[str]]:
    """(granted, what was asked for and is not given). All are dropped unless they are added by name."""
    listed: Object = context.get("capabilities") or {}
    added = sorted({_plain(name) for name in listed.get("add") or ()})
    granted = tuple(name for name in added if name in _GRANTED)
    refused = [f"capability {name}" for name in added if name not in _GRANTED]
    if context.get("privileged"):
        refused.append("privileged")
    if context.get("allowPrivilegeEscalation"):
        refused.append("allowPrivilegeEscalation")
    return granted, refused


def _plain(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def group_readable(mode: int) -> int:
    """A volume file's mode where a Pod reads it by group (kubelet's SetVolumeOwnership for read-only volumes)."""
    return mode | ((mode & 0o400) >> 3)


def explained(security: Security, *, applied: Iterable[str], missing: Iterable[str]) -> str:
    """One line for people: what holds for a container, and what it was not given."""
    text = ", ".join(applied)
    absent = [*missing, *security.refused]
    return text + (f"; not given: {', '.join(absent)}" if absent else "")
