"""What a resource refers to: values of Secrets and ConfigMaps of its namespace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SecretReader = Callable[[str, str], str]
"""(name, key) → text; an empty key is the only one. Raises RefNotFound that names what is missing."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Of one namespace."""

    secret: SecretReader
    config_map: SecretReader
