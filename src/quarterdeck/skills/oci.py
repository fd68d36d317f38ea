"""Skills out of OCI images, as kagent: the layers' files, lowest first, are the skill's folder.

Everything is verified by its digest, so an image named by digest is what it was when somebody looked at it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import aiohttp

from quarterdeck.errors import ConfigError, UpstreamError, UsageError
from quarterdeck.oci.reference import Reference
from quarterdeck.oci.reference import parse as parse_reference
from quarterdeck.oci.registry import Credentials, Registry

from . import unpack
from .sources import OciSource

_LAYER_BYTES = 64 << 20
_MOST_LAYERS = 64
_TARS = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def reference(source: OciSource) -> Reference:
    """Raises ConfigError for what is no image's name, or one without a registry and a path."""
    try:
        return parse_reference(source.image)
    except UsageError as error:
        raise ConfigError(f"skills.refs: {error}") from error


async def fetch(source: OciSource, target: unpack.Target, logins: Iterable[Path], *, insecure: bool = False) -> str:
    """Put the image's files into ``target``; returns its digest. ``logins``: mounted pull secrets.

    Raises ConfigError, Denied, UpstreamError.
    """
    image = reference(source)
    timeout = aiohttp.ClientTimeout(total=300, sock_connect=30)
    connector = aiohttp.TCPConnector(ssl=not insecure)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=True) as session:
        plain = insecure and image.registry != "" and await _plain(session, image.registry)  # Docker Hub never is
        registry = Registry(session, image.registry, login(logins, image.registry), plain=plain)
        repository = registry.repository(image)
        machine = ("linux", _MACHINES.get(platform.machine(), platform.machine()))
        try:
            try:
                digest, manifest = await registry.pinned(repository, image.digest or image.tag, machine)
                layers = _layers(manifest, source.image)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise UpstreamError(f"{source.image}: the registry's manifest is none: {error!r}") from error
            for layer in layers:
                with tempfile.TemporaryFile() as file:
                    await _download(registry, repository, layer, file, source.image)
                    unpack.tar(file, target, whiteouts=True)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UpstreamError(f"{source.image}: {error or 'no answer in time'}") from error
    return digest


def login(folders: Iterable[Path], host: str) -> Credentials | None:
    """The login for a registry out of mounted ``kubernetes.io/dockerconfigjson`` Secrets. Raises ConfigError."""
    wanted = {host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/", f"{host}/"}
    if not host:
        wanted = {"https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"}
    for folder in folders:
        path = folder / ".dockerconfigjson"
        if not path.is_file():
            raise ConfigError(
                f"skills.imagePullSecrets: Secret {folder.name} has no key .dockerconfigjson; create it with "
                "kubectl create secret docker-registry"
            )
        try:
            entries: dict[str, Any] = json.loads(path.read_bytes()).get("auths") or {}
            entry = next((entries[key] for key in entries if key in wanted), None)
            if entry is None:
                continue
            if entry.get("auth"):
                user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            else:
                user, password = str(entry["username"]), str(entry["password"])
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ConfigError(f"skills.imagePullSecrets: Secret {folder.name}: .dockerconfigjson is damaged") from error
        return Credentials(user, password)
    return None


def _layers(manifest: dict[str, Any], name: str) -> list[str]:
    """Their digests, lowest first."""
    layers: list[dict[str, Any]] = manifest.get("layers") or []
    if not layers or len(layers) > _MOST_LAYERS:
        raise ConfigError(
            f"skills.refs: {name}: {len(layers)} layers; build it FROM scratch with the skill's files only"
        )
    for layer in layers:
        kind = str(layer.get("mediaType", ""))
        if kind.removesuffix("+gzip").removesuffix(".gzip") not in _TARS:
            raise ConfigError(f"skills.refs: {name}: a layer is {kind}; build it with layers of tar or tar+gzip")
        if int(layer.get("size") or 0) > _LAYER_BYTES:
            raise ConfigError(
                f"skills.refs: {name}: a layer has more than {_LAYER_BYTES} bytes; build it FROM scratch with the "
                "skill's files only"
            )
    return [str(layer["digest"]) for layer in layers]


async def _download(registry: Registry, repository: str, layer: str, out: IO[bytes], name: str) -> None:
    digest, total = hashlib.sha256(), 0
    async with registry.blob(repository, layer) as chunks:
        async for chunk in chunks:
            total += len(chunk)
            if total > _LAYER_BYTES:
                raise ConfigError(f"skills.refs: {name}: a layer has more than {_LAYER_BYTES} bytes")
            digest.update(chunk)
            out.write(chunk)
    if f"sha256:{digest.hexdigest()}" != layer:
        raise UpstreamError(f"{name}: the registry sent a layer that is not {layer}")
    out.seek(0)


async def _plain(session: aiohttp.ClientSession, host: str) -> bool:
    """Whether a registry that need not prove who it is speaks no TLS at all."""
    try:
        async with session.get(f"https://{host}/v2/", allow_redirects=False):
            return False
    except (aiohttp.ClientError, TimeoutError):
        return True
