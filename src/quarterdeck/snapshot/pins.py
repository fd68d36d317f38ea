"""Pinned tools: what the definition of a tool was when somebody approved it.

A definition is what a model gets to see: name, title, description, schemas and annotations. Its digest is SHA-256 over
the canonical JSON (members sorted, no white space).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from quarterdeck.errors import ConfigError, StorageError
from quarterdeck.malformed import MALFORMED

Mode = Literal["", "off", "warn", "enforce"]
"""Empty: ``enforce`` where something was approved, else ``off``."""
MODES: tuple[Mode, ...] = ("off", "warn", "enforce")
ANNOTATION = "quarterdeck.dev/pin"
_MEMBERS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")


class ToolPin(Struct, frozen=True):
    name: str
    digest: str


class ServerPins(Struct, frozen=True, omit_defaults=True):
    """The approved tools of one MCP server."""

    kind: str
    namespace: str
    name: str
    tools: tuple[ToolPin, ...] = ()


class Approved(Struct, frozen=True, omit_defaults=True):
    """One approval with what was approved, for differences."""

    tool: str
    digest: str
    definition: dict[str, Any]
    by: str = ""
    at: float = 0.0
    """Seconds since the epoch."""


class LockedServer(Struct, frozen=True, omit_defaults=True):
    """A server in a lock file; ``kind`` and ``namespace`` are those of targets of configuration files."""

    name: str
    tools: tuple[Approved, ...] = ()
    kind: str = "Target"
    namespace: str = "file"
    pin: Mode = ""


class Lock(Struct, frozen=True):
    """A ``<config>.tools.lock`` file."""

    servers: tuple[LockedServer, ...] = ()
    version: int = 1


def definition(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a tool (as ``tools/list`` has it) that are pinned."""
    return {member: tool[member] for member in _MEMBERS if tool.get(member) is not None}


def digest(tool: Mapping[str, Any]) -> str:
    """Of a tool's definition, in lower-case hex."""
    return hashlib.sha256(msgspec.json.encode(definition(tool), order="sorted")).hexdigest()


def lock_path(config: Path) -> Path:
    return config.with_name(config.name + ".tools.lock")


def read_lock(path: Path) -> Lock:
    """Empty when there is no such file. Raises ConfigError, StorageError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lock)
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except MALFORMED as error:
        raise ConfigError(f"{path} is no lock file of tools: {error}; approve the tools again") from error


def write_lock(path: Path, lock: Lock) -> None:
    """Replace the file as a whole. Raises StorageError."""
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(lock, order="deterministic"), indent=2) + b"\n")
        fresh.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def pins(approved: Iterable[Approved]) -> tuple[ToolPin, ...]:
    return tuple(sorted((ToolPin(one.tool, one.digest) for one in approved), key=lambda pin: pin.name))
