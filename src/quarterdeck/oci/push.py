"""``qd mcp build --push --base``: a built image's layers on those of a base image, in a registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aiohttp

from quarterdeck.errors import ConfigError, UsageError

from .build import PYTHON_LABEL
from .layout import CONFIG, LAYER, MANIFEST, Image, Layout
from .reference import Reference
from .registry import Credentials, Registry

_MEDIA_TYPES = {"application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER}
_CONNECT_SECONDS = 15.0


async def push(
    store: Layout, reference: Reference, base: Reference, credentials: Credentials | None, say: Callable[[str], None]
) -> str:
    """Push ``reference`` from the store, put on ``base``; returns the digest. ``credentials`` are for the target.

    Raises UsageError, ConfigError, Denied, UpstreamError. Blobs the registry has already are not sent again.
    """
    image = store.find(reference)
    if image is None:
        raise ConfigError(f"the store has no image {reference}; build it first")
    if not reference.registry:
        raise UsageError(f"--push: {reference} names no registry; write -t REGISTRY/NAME:TAG")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        target = Registry(session, reference.registry, credentials)
        same = base.registry == reference.registry
        source = target if same else Registry(session, base.registry)
        repository, base_repository = target.repository(reference), source.repository(base)
        platform = (str(image.config.get("os", "linux")), str(image.config.get("architecture", "amd64")))
        say(f"reading the base {base}")
        below = await source.manifest(base_repository, base.digest or base.tag, platform)
        below_config = await source.blob_json(base_repository, below["config"]["digest"])
        config = on_base(image, below_config, str(base))
        for layer in below["layers"]:
            await _carry(source, base_repository, target, repository, layer, same=same, say=say)
        for layer in image.layers:
            await _send(store, target, repository, layer, say)
        layers = [
            layer | {"mediaType": _MEDIA_TYPES.get(layer["mediaType"], layer["mediaType"])} for layer in below["layers"]
        ]
        stored = store.put_bytes(_encode(config), CONFIG)
        await _send(store, target, repository, stored, say)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": stored, "layers": [*layers, *image.layers]}
        return await target.put_manifest(repository, reference.tag, _encode(manifest))


def on_base(image: Image, base: dict[str, Any], name: str) -> dict[str, Any]:
    """The configuration of ``image`` above ``base``: layers and history joined, our settings win.

    Raises ConfigError when the base's Python is another minor version than the one the dependencies were resolved for.
    """
    ours: dict[str, Any] = image.config.get("config") or {}
    theirs: dict[str, Any] = base.get("config") or {}
    wanted = str((ours.get("Labels") or {}).get(PYTHON_LABEL, ""))
    environment = dict(entry.partition("=")[::2] for entry in theirs.get("Env") or [])
    has = ".".join(environment.get("PYTHON_VERSION", "").split(".")[:2])
    if wanted and has and ".".join(wanted.split(".")[:2]) != has:
        raise ConfigError(
            f"base {name} has Python {has}, the image was built with {wanted}; use a base with Python {wanted}"
        )
    for entry in ours.get("Env") or []:
        key, _, value = entry.partition("=")
        if key == "PATH" and environment.get("PATH"):
            first = [part for part in value.split(":") if part.startswith("/app")]
            value = ":".join([*first, environment["PATH"]])
        environment[key] = value
    settings = {**theirs, **ours, "Env": [f"{key}={value}" for key, value in environment.items()]}
    settings["Labels"] = {**(theirs.get("Labels") or {}), **(ours.get("Labels") or {})}
    if not ours.get("Entrypoint"):
        settings.pop("Entrypoint", None)  # the base's would swallow our command
    diff_ids = [*base["rootfs"]["diff_ids"], *image.config["rootfs"]["diff_ids"]]
    history = [*(base.get("history") or []), *(image.config.get("history") or [])]
    return {
        **base,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history if sum(not h.get("empty_layer") for h in history) == len(diff_ids) else [],
    }


async def _carry(
    source: Registry,
    base_repository: str,
    target: Registry,
    repository: str,
    layer: dict[str, Any],
    *,
    same: bool,
    say: Callable[[str], None],
) -> None:
    """Bring one layer of the base to the target: nothing to do, mounted within the registry, or streamed across."""
    digest, size = str(layer["digest"]), int(layer["size"])
    if await target.has_blob(repository, digest):
        return
    location = await target.mount(repository, digest, base_repository) if same else ""
    if same and not location:
        return
    say(f"copying {digest[:19]} of the base, {size / 1e6:.1f} MB")
    async with source.blob(base_repository, digest) as chunks:
        await target.upload(repository, digest, chunks, size, location=location)


async def _send(
    store: Layout, target: Registry, repository: str, blob: dict[str, Any], say: Callable[[str], None]
) -> None:
    digest, size = str(blob["digest"]), int(blob["size"])
    if await target.has_blob(repository, digest):
        return
    say(f"pushing {digest[:19]}, {size / 1e6:.1f} MB")
    with store.blob_path(digest).open("rb") as file:
        await target.upload(repository, digest, file, size)


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
