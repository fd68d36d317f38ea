"""Volumes as directories: ConfigMap, Secret, projected and downward API files with atomic update, emptyDir, PVC.

Files of API volumes are written as kubelet does (atomic writer): a time-stamped directory, ``..data`` pointing at it,
and one symlink per key, so that a reader sees all old or all new content.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from quarterdeck.errors import NotFound, QuarterdeckError
from quarterdeck.kube.resource import CONFIG_MAP, SECRET, Object
from quarterdeck.node.environment import Fetch, NodeFacts, bytes_data, field_value, resource_value
from quarterdeck.node.uids import give

Token = Callable[[str, int], Awaitable[str]]
"""(audience, seconds) → a ServiceAccount token bound to the Pod."""

Files = dict[str, tuple[bytes, int]]
"""Relative path → (content, mode)."""


class VolumeError(QuarterdeckError):
    """A volume cannot be mounted; becomes an Event FailedMount and the Pod waits in ContainerCreating."""

    reason = "FailedMount"


@dataclass(frozen=True, slots=True)
class VolumePolicy:
    """What the node's owner allows. ``claims`` is where PersistentVolumeClaims live; ``owner`` the Pod's uid on the
    machine (None: the node's), whose its volumes are."""

    claims: Path
    host_path: bool = False
    owner: int | None = None


async def volume_path(pod: Object, volume: Object, root: Path, policy: VolumePolicy) -> Path | None:
    """The directory of a volume that holds no API data (made if needed); None for API volumes."""
    if "hostPath" in volume:
        if not policy.host_path:
            raise VolumeError(
                f'volume "{volume["name"]}": hostPath is not allowed on this node; start it with host paths allowed'
            )
        return Path(volume["hostPath"]["path"])
    if "persistentVolumeClaim" in volume:
        claim = volume["persistentVolumeClaim"]["claimName"]
        if _inside(volume["name"], claim) != claim or "/" in claim:
            raise VolumeError(f'volume "{volume["name"]}": {claim!r} is not the name of a PersistentVolumeClaim')
        path = policy.claims / pod["metadata"]["namespace"] / claim
    elif "emptyDir" in volume or "ephemeral" in volume or len(volume) == 1:
        path = root / volume["name"]
    elif any(kind in volume for kind in ("configMap", "secret", "projected", "downwardAPI")):
        return None
    else:
        kind = next(k for k in volume if k != "name")
        raise VolumeError(
            f'volume "{volume["name"]}": kind {kind} is not supported on this node; '
            "use emptyDir, a ConfigMap, a Secret or a claim"
        )
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)
    if policy.owner is not None:
        await asyncio.to_thread(give, path, policy.owner)
    return path


async def volume_files(pod: Object, volume: Object, facts: NodeFacts, fetch: Fetch, token: Token) -> Files:
    """The files of an API volume. Raises VolumeError naming the volume and what is missing."""
    name = volume["name"]
    if "projected" in volume:
        source = volume["projected"]
        mode = int(source.get("defaultMode") or 0o644)
        files: Files = {}
        for part in source.get("sources") or ():
            files |= await _source(pod, name, part, mode, facts, fetch, token)
        return files
    kind = next(k for k in ("configMap", "secret", "downwardAPI") if k in volume)
    source = volume[kind]
    body = {**source, "name": source.get("secretName") or source.get("name")}
    return await _source(pod, name, {kind: body}, int(source.get("defaultMode") or 0o644), facts, fetch, token)


async def _source(
    pod: Object, volume: str, source: Object, mode: int, facts: NodeFacts, fetch: Fetch, token: Token
) -> Files:
    if "serviceAccountToken" in source:
        spec = source["serviceAccountToken"]
        text = await token(spec.get("audience") or "", int(spec.get("expirationSeconds") or 3600))
        return {_inside(volume, spec["path"]): (text.encode(), 0o600 if mode == 0o644 else mode)}
    if "downwardAPI" in source:
        return {
            _inside(volume, item["path"]): (_downward(pod, item, facts).encode(), int(item.get("mode") or mode))
            for item in source["downwardAPI"].get("items") or ()
        }
    if "configMap" not in source and "secret" not in source:
        raise VolumeError(
            f'volume "{volume}": projected source {next(iter(source), "")!r} is not supported on this node'
        )
    secret = "secret" in source
    ref = source["secret"] if secret else source["configMap"]
    word = "secret" if secret else "configmap"
    try:
        data = bytes_data(await fetch(SECRET if secret else CONFIG_MAP, ref["name"]))
    except NotFound as error:
        if ref.get("optional"):
            return {}
        raise VolumeError(
            f'MountVolume.SetUp failed for volume "{volume}" : {word} "{ref["name"]}" not found'
        ) from error
    return select(volume, data, ref, mode)


def select(volume: str, data: Mapping[str, bytes], ref: Object, mode: int) -> Files:
    """Apply ``items`` and modes to the keys of a ConfigMap or Secret."""
    items: list[Object] = ref.get("items") or [{"key": k, "path": k} for k in data]
    files: Files = {}
    for item in items:
        if item["key"] not in data:
            if ref.get("optional"):
                continue
            raise VolumeError(
                f'MountVolume.SetUp failed for volume "{volume}" : references non-existent key: {item["key"]}'
            )
        files[_inside(volume, item["path"])] = (data[item["key"]], int(item.get("mode") or mode))
    return files


def _downward(pod: Object, item: Object, facts: NodeFacts) -> str:
    if "fieldRef" in item:
        return field_value(pod, item["fieldRef"]["fieldPath"], facts)
    return resource_value(pod, {}, item["resourceFieldRef"], facts)


def _inside(volume: str, path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise VolumeError(f'volume "{volume}": path {path!r} must stay inside the volume')
    return str(pure)


def write_files(root: Path, files: Files, owner: int | None = None) -> bool:
    """Make ``root`` hold exactly ``files``; True when anything changed. ``owner``: uid and gid of the content."""
    data = root / "..data"
    if data.is_symlink() and _same(data, files):
        return False
    root.mkdir(parents=True, exist_ok=True)
    fresh = root / f"..{uuid.uuid4().hex}"
    fresh.mkdir(mode=0o755)
    for path, (content, mode) in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)
        if owner is not None:
            os.chown(target, owner, owner)
    old = os.readlink(data) if data.is_symlink() else None
    swap = root / "..data_tmp"
    swap.unlink(missing_ok=True)
    swap.symlink_to(fresh.name)
    swap.replace(data)
    _link_tops(root, {PurePosixPath(path).parts[0] for path in files})
    if old is not None:
        shutil.rmtree(root / old, ignore_errors=True)
    return True


def _link_tops(root: Path, tops: set[str]) -> None:
    for entry in root.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    for name in tops:
        link = root / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")


def _same(data: Path, files: Files) -> bool:
    present = {str(p.relative_to(data)) for p in data.rglob("*") if p.is_file()}
    return present == set(files) and all(
        (data / path).read_bytes() == content and (data / path).stat().st_mode & 0o7777 == mode
        for path, (content, mode) in files.items()
    )


def sub_path(volume: Path, sub: str) -> Path:
    """A subPath inside a volume; made as a directory when missing. Symlinks may not lead out of the volume."""
    if ".." in PurePosixPath(sub).parts or PurePosixPath(sub).is_absolute():
        raise VolumeError(f"subPath {sub!r} must be relative and must not contain '..'")
    target = (volume / sub).resolve()  # before anything is made: a container may have put symlinks there
    if not target.is_relative_to(volume.resolve()):
        raise VolumeError(f"subPath {sub!r} leads out of its volume")
    if not target.exists():
        target.mkdir(parents=True)
    return target
