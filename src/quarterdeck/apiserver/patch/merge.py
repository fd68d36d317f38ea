"""RFC 7386 JSON merge patch."""

from __future__ import annotations

from typing import Any

from .json_patch import copy_json


def merge_patch(doc: Any, patch: Any) -> Any:
    """``doc`` with ``patch`` applied: null removes a member, objects merge, anything else replaces.

    Neither argument is changed and the result shares nothing with ``doc``, so it may be defaulted in place.
    """
    return _merge(copy_json(doc), patch)


def _merge(doc: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result: dict[str, Any] = doc if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _merge(result.get(key), value)
        else:
            result[key] = value
    return result
