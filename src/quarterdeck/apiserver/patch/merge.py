"""RFC 7386 JSON merge patch."""

from __future__ import annotations

from typing import Any


def merge_patch(doc: Any, patch: Any) -> Any:
    """``doc`` with ``patch`` applied: null removes a member, objects merge, anything else replaces.

    Neither argument is changed; the result shares unchanged parts with ``doc``.
    """
    if not isinstance(patch, dict):
        return patch
    result: dict[str, Any] = dict(doc) if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merge_patch(result.get(key), value)
        else:
            result[key] = value
    return result
