"""What the bridge is told: ``bridge.json``, written by ``translate`` into the MCPServer's ConfigMap."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from quarterdeck.errors import ConfigError
from quarterdeck.malformed import MALFORMED


class Listen(Struct, frozen=True):
    port: int


class BridgeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The stdio server to run and how to offer it. Times in seconds, sizes in bytes."""

    listen: Listen
    command: str
    args: tuple[str, ...] = ()
    name: str = "mcp"
    mode: Literal["per-session", "shared"] = "per-session"
    timeout: float = 30.0
    """Longest silence of the server during one request; progress notifications count as a sign of life."""
    start_timeout: float = 60.0
    """Longest time from starting the process to its answer to the first request (``uvx`` and ``npx`` unpack first)."""
    warm: int = 1
    """Processes started ahead of the next session."""
    max_sessions: int = 64
    idle_timeout: float = 1800.0
    hold: bool = False
    """Whether connections wait until the server has been asked what it speaks, or could not be started."""
    message_bytes: int = 16 * 1024 * 1024
    """Longest message accepted from the server; a longer one ends the process."""


def load(path: str) -> BridgeConfig:
    """Raises ConfigError naming the file and the field."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=BridgeConfig)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error
    except MALFORMED as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
