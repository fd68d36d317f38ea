"""Where an agent's skills come from, as the controllers tell the init container that fetches them (``skills.json``)."""

from __future__ import annotations

from typing import Annotated

import msgspec


class ConfigMapSource(msgspec.Struct, frozen=True, tag="configMap"):
    """``mount``: which of the init container's ConfigMap mounts it is, from 0 on."""

    name: str
    mount: int


class GitSource(msgspec.Struct, frozen=True, tag="git"):
    """``folder`` (of all sources): what the skill's folder is called; empty for the skill's own name."""

    url: str
    ref: str = "main"
    path: str = ""
    folder: str = ""


class OciSource(msgspec.Struct, frozen=True, tag="oci"):
    image: str
    folder: str = ""


class S3Source(msgspec.Struct, frozen=True, tag="s3"):
    uri: str
    region: str = ""
    endpoint: str = ""
    folder: str = ""


Source = ConfigMapSource | GitSource | OciSource | S3Source


class Sources(msgspec.Struct, frozen=True):
    """All of an agent. ``pull``: names of the mounts with registry logins; ``insecure``: neither TLS nor host keys are
    verified."""

    sources: tuple[Annotated[Source, "tagged by type"], ...] = ()
    pull: tuple[str, ...] = ()
    insecure: bool = False


def label(source: Source) -> str:
    """A source as people name it."""
    match source:
        case ConfigMapSource():
            return f"ConfigMap {source.name}"
        case GitSource():
            return f"{source.url}@{source.ref}" + (f":{source.path}" if source.path else "")
        case OciSource():
            return source.image
        case S3Source():
            return source.uri
