"""Durations as people type them: ``90``, ``30s``, ``1h30m``, ``500ms``."""

from __future__ import annotations

import re

from quarterdeck.errors import UsageError

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str, option: str) -> float:
    """Seconds; a bare number is seconds. Raises UsageError naming ``option``."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not text or not re.fullmatch(rf"(?:{_PART.pattern})+", text):
        raise UsageError(f"{option}={text}: not a duration; write 30s, 5m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
