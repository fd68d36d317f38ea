"""The volumes of one Pod on disk, kept up to date, with its ServiceAccount tokens."""

from __future__ import annotations

import asyncio
from pathlib import Path

from quarterdeck.kube.clock import parse_timestamp
from quarterdeck.kube.resource import SERVICE_ACCOUNT, Object, Resource
from quarterdeck.node.environment import NodeFacts
from quarterdeck.node.runtime import PodFiles, Runtime
from quarterdeck.node.security import group_readable
from quarterdeck.node.uids import uid_key
from quarterdeck.node.volumes import VolumePolicy, volume_files, volume_path, write_files

_ROTATE_AT = 0.8


class Mounts:
    """Volumes by name. :meth:`refresh` is called at start and from time to time."""

    def __init__(self, runtime: Runtime, files: PodFiles) -> None:
        self._runtime = runtime
        self._files = files
        self._tokens: dict[tuple[str, int], tuple[str, float, float]] = {}
        self._lock = asyncio.Lock()
        self._made = False
        self.paths: dict[str, Path] = {}

    async def first(self, pod: Object, ip: str) -> None:
        """:meth:`refresh`, unless that has succeeded before."""
        if not self._made:
            await self.refresh(pod, ip)

    async def refresh(self, pod: Object, ip: str) -> None:
        """Make or update every volume. Raises VolumeError, ConfigurationError or ApiError."""
        async with self._lock:
            await self._refresh(pod, ip)
            self._made = True

    async def _refresh(self, pod: Object, ip: str) -> None:
        runtime = self._runtime
        facts = NodeFacts(ip, runtime.config.host_ip, runtime.cpu, runtime.memory)
        owner = runtime.uids.assign(uid_key(pod)) if runtime.uids is not None else None
        policy = VolumePolicy(runtime.config.data_dir / "claims", runtime.config.allow_host_path, owner)
        by_group = (pod["spec"].get("securityContext") or {}).get("fsGroup") is not None
        namespace = pod["metadata"]["namespace"]

        async def fetch(res: Resource, name: str) -> Object:
            return await runtime.client.get(res, name, namespace)

        async def token(audience: str, seconds: int) -> str:
            return await self._token(pod, audience, seconds)

        for volume in pod["spec"].get("volumes") or ():
            path = await volume_path(pod, volume, self._files.volumes, policy)
            if path is None:
                path = self._files.volumes / volume["name"]
                files = await volume_files(pod, volume, facts, fetch, token)
                if by_group:
                    files = {name: (content, group_readable(mode)) for name, (content, mode) in files.items()}
                write_files(path, files, owner)
            self.paths[volume["name"]] = path

    async def _token(self, pod: Object, audience: str, seconds: int) -> str:
        """A token bound to the Pod; asked for again when 80 % of its life is over, or when the clock was set back."""
        now = self._runtime.clock.time()
        known = self._tokens.get((audience, seconds))
        if known is not None and known[1] <= now < known[2]:
            return known[0]
        meta = pod["metadata"]
        body: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"namespace": meta["namespace"]},
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
            },
        }
        account = pod["spec"].get("serviceAccountName") or "default"
        answer = await self._runtime.client.create(
            SERVICE_ACCOUNT, body, meta["namespace"], name=account, subresource="token"
        )
        status = answer["status"]
        expires = parse_timestamp(status["expirationTimestamp"])
        self._tokens[(audience, seconds)] = (status["token"], now, now + (expires - now) * _ROTATE_AT)
        return status["token"]
