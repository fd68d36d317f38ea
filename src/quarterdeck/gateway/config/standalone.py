"""A gateway that serves one configuration file: which file, how it is read, and what comes of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from quarterdeck.errors import ConfigError, UsageError
from quarterdeck.snapshot import Snapshot
from quarterdeck.snapshot.pins import ServerPins, lock_path, pins, read_lock

if TYPE_CHECKING:
    from .places import Places

_MOST_BYTES = 8 * 1024 * 1024
Compat = Literal["", "oct", "now"]


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Exactly one of ``path`` and ``inline`` is given."""

    path: Path | None = None
    inline: str = ""
    compat: Compat = ""
    """The generation of agentgateway; empty: told by the fields that exist in only one."""
    allow_anonymous: bool = False
    """Whether routes without authentication answer other machines."""

    @property
    def name(self) -> str:
        """How messages name the configuration."""
        return str(self.path) if self.path is not None else "<inline>"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a file says about the process. None or empty: nothing."""

    admin: str = ""
    stats: str = ""
    ready: str = ""
    log_level: str = ""
    log_format: str = ""
    audit: Mapping[str, str] = field(default_factory=dict[str, str])
    """Flag (``audit-otlp``) → what it is given."""

    @property
    def flags(self) -> dict[str, str]:
        """What stands for flags of the process that are not given."""
        addresses = {"admin": self.admin, "stats": self.stats, "ready": self.ready}
        return {flag: text for flag, text in {**addresses, **self.audit}.items() if text}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be served."""

    name: str
    title: str
    """What kind of file it is, for people."""
    snapshot: Snapshot
    settings: Settings = Settings()
    warnings: tuple[str, ...] = ()
    files: frozenset[Path] = field(default_factory=frozenset[Path])
    """Files whose change makes it another configuration."""
    places: Places | None = None


def file_options(path: Path | None, inline: str, compat: str, *, allow_anonymous: bool) -> FileOptions:
    """Raises UsageError."""
    if bool(path) == bool(inline):
        raise UsageError("give either a file (-f) or the configuration itself (-c)")
    if compat not in ("", "oct", "now"):
        raise UsageError(f"--compat {compat!r} must be oct (October 2025) or now")
    return FileOptions(path, inline, compat, allow_anonymous)


def load(options: FileOptions, environment: Mapping[str, str] | None = None, base: Path | None = None) -> Loaded:
    """Read, check and translate. ``base``: what relative paths are relative to; default: the working directory.

    Raises ConfigError that names every problem with its line.
    """
    from .agentgateway.load import load as agentgateway
    from .mcp_json import is_mcp_json
    from .mcp_json import load as mcp_json

    text = _text(options)
    variables = os.environ if environment is None else environment
    directory = base or Path.cwd()
    read = mcp_json if is_mcp_json(options.path, text) else agentgateway
    loaded = read(text, options, variables, directory)
    return loaded if options.path is None else _pinned(loaded, lock_path(options.path))


def _pinned(loaded: Loaded, lock: Path) -> Loaded:
    """With the tools that were approved, beside the file (``<config>.tools.lock``)."""
    locked = {(server.kind, server.namespace, server.name): server for server in read_lock(lock).servers}
    servers = tuple(
        replace(server, pin=locked[slot].pin)
        if (slot := (server.kind, server.namespace, server.name)) in locked
        else server
        for server in loaded.snapshot.mcp
    )
    approved = tuple(ServerPins(*slot, pins(server.tools)) for slot, server in locked.items())
    return dataclasses.replace(
        loaded, snapshot=replace(loaded.snapshot, mcp=servers, pins=approved), files=loaded.files | {lock}
    )


def _text(options: FileOptions) -> str:
    if options.path is None:
        return options.inline
    try:
        with options.path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{options.path}: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{options.path}: larger than {_MOST_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{options.path}:{line}: not text in UTF-8; save it as UTF-8") from error
