"""Who is calling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller. ``agent`` is ``namespace/name`` for agents, empty for people."""

    id: str
    """Stable name used in audit records and bound into session tokens."""
    agent: str = ""
    on_behalf_of: str = ""
    anonymous: bool = False
    claims: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)
    """Claims of the verified token; empty where there is none."""
    api_key: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)
    """What the configuration says of the API key that was shown."""
    username: str = ""
    """Name given with basic authentication; else the token's ``sub``."""

    @property
    def title(self) -> str:
        """How messages name the caller."""
        return f"agent {self.agent}" if self.agent else self.id


ANONYMOUS = Principal("anonymous@local", anonymous=True)
"""Somebody without a credential at this machine."""
ANYBODY = Principal("anonymous", anonymous=True)
"""Somebody without a credential, wherever."""
LOCAL_USER = Principal("user@local")


def agent_principal(agent: str) -> Principal:
    """The principal of an agent given as ``namespace/name``."""
    return Principal(f"agent:{agent}", agent=agent)
