"""Printer columns of custom resources, as the server prints them in a Table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from quarterdeck.apiserver.crd import jsonpath
from quarterdeck.apiserver.kinds import Column
from quarterdeck.kube.resource import Object

AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def columns_of(version: dict[str, Any]) -> tuple[Column, ...]:
    """Name, then the version's own columns; without any, Age."""
    listed: list[dict[str, Any]] = version.get("additionalPrinterColumns") or [
        {
            **AGE,
            "description": "When the server created this object.",
        }
    ]
    name = Column("Name", "string", lambda obj, now: (obj.get("metadata") or {}).get("name", ""), "Name", 0, "name")
    return (name, *(_column(raw) for raw in listed))


def _column(raw: dict[str, Any]) -> Column:
    return Column(
        raw["name"],
        raw["type"],
        _reader(raw["jsonPath"], raw["type"]),
        raw.get("description") or f"Custom resource definition column (in JSONPath format): {raw['jsonPath']}",
        int(raw.get("priority") or 0),
        raw.get("format", ""),
    )


def _reader(path: str, kind: str) -> Callable[[Object, float], Any]:
    steps = path if path.startswith(("{", "$", "@", ".", "[")) else f".{path}"
    jsonpath.compile_path(steps)

    def read(obj: Object, now: float) -> Any:
        found = jsonpath.evaluate(steps, obj)
        return _cell(found[0], kind, now) if found else None

    return read


def _cell(value: Any, kind: str, now: float) -> Any:
    if value is None:
        return None
    if kind == "string":
        return jsonpath.text_of(value)
    if kind == "date":
        return age_of(value, now) if isinstance(value, str) else "<invalid>"
    if kind == "integer" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value)
    if kind == "number" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    return value if kind == "boolean" and isinstance(value, bool) else None


def age_of(timestamp: str, now: float) -> str:
    """The time since an RFC 3339 timestamp as kubectl writes it; ``now`` in seconds since 1970."""
    try:
        seconds = int(now - datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp())
    except ValueError:
        return "<invalid>"
    return human_duration(seconds) if seconds >= -1 else "<invalid>"


def human_duration(seconds: int) -> str:
    """``45s``, ``3m20s``, ``17m``, ``5h3m``, ``20h``, ``3d4h``, ``12d``, ``2y30d``, ``9y``."""
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = seconds // 3600
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    years = days // 365
    return f"{years}y{days % 365}d" if years < 8 and days % 365 else f"{years}y"
