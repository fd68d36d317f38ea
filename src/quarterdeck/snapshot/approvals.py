"""What a server lists beside what was approved of it, for people."""

from __future__ import annotations

from typing import Any

import msgspec

from .pins import Approved, definition, digest
from .scan import scan


def compared(
    approved: dict[str, Approved], found: dict[str, dict[str, Any]], *, complete: bool = True
) -> list[dict[str, Any]]:
    """One entry for each tool: ``state`` is approved, changed, new or gone (unknown where nothing could be found)."""
    entries: list[dict[str, Any]] = []
    for name in sorted({*approved, *found}):
        pin, tool = approved.get(name), found.get(name)
        entry: dict[str, Any] = {"name": name, "state": "new"}
        if tool is None:
            entry["state"] = "gone" if complete else "unknown"
        else:
            entry |= {"digest": digest(tool), "definition": definition(tool), "findings": list(map(str, scan(tool)))}
            if pin is not None:
                entry["state"] = "approved" if pin.digest == entry["digest"] else "changed"
        if pin is not None:
            entry["approved"] = msgspec.to_builtins(pin)
        entries.append(entry)
    return entries
