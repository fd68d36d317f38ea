"""What an MCP server answered, as the model gets it: text, and images beside it. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from . import media

_TEXTUAL = ("application/json", "application/xml", "application/yaml", "application/x-yaml", "application/javascript")

_LEAVES = 2_000
"""Values of structured content that are looked for in the text."""


@dataclass(slots=True)
class Read:
    """A CallToolResult; ``media``: its images, ``{mediaType, data}`` (base64)."""

    text: str = ""
    media: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    failed: bool = False


def read(result: dict[str, Any]) -> Read:
    """Text parts as they are, embedded resources with their text, images, and what cannot be shown by name.

    ``structuredContent`` is added where the text does not say the same.
    """
    found = Read(failed=bool(result.get("isError")))
    content = result.get("content")
    parts = [_part(part, found.media) for part in (content if isinstance(content, list) else []) if _is_object(part)]
    structured = result.get("structuredContent")
    if structured is not None and not _says(parts, structured):
        parts.append(json.dumps(structured, ensure_ascii=False))
    found.text = "\n".join(parts)
    return found


def _is_object(part: Any) -> bool:
    return isinstance(part, dict)


def _part(part: dict[str, Any], images: list[dict[str, Any]]) -> str:
    kind = part.get("type")
    if kind == "text":
        return str(part.get("text", ""))
    if kind == "image":
        return _image("image", str(part.get("mimeType", "")), str(part.get("data", "")), images)
    if kind == "resource_link":
        told = [str(part[k]) for k in ("title", "description") if part.get(k)] or [str(part.get("name", ""))]
        return f"[resource {part.get('uri', '')}{_type(part)}: {', '.join(told)}]"
    if kind == "resource":
        resource = part.get("resource")
        return _resource(resource if isinstance(resource, dict) else {}, images)
    return f"[{kind}{_type(part)}, {_size(str(part.get('data', '')))}: cannot be shown]"


def _resource(resource: dict[str, Any], images: list[dict[str, Any]]) -> str:
    name, kind = f"resource {resource.get('uri', '')}", str(resource.get("mimeType") or "")
    if isinstance(resource.get("text"), str):
        return f"[{name}{_type(resource)}]\n{resource['text']}"
    blob = str(resource.get("blob", ""))
    if kind.startswith("image/"):
        return _image(name, kind, blob, images)
    if kind.startswith("text/") or kind.partition(";")[0] in _TEXTUAL:
        try:
            return f"[{name}{_type(resource)}]\n{base64.b64decode(blob).decode('utf-8', 'replace')}"
        except (binascii.Error, ValueError):
            return f"[{name}{_type(resource)}: is no base64]"
    return f"[{name}{_type(resource)}, {_size(blob)}: cannot be shown]"


def _image(name: str, kind: str, data: str, images: list[dict[str, Any]]) -> str:
    """Note an image; one that providers would refuse, or that is too much, is only named."""
    why = ""
    if kind not in media.TYPES:
        why = ": cannot be shown"
    elif len(images) >= media.PER_RESULT:
        why = f": not shown, {media.PER_RESULT} images of a result are the most"
    elif sum(len(one["data"]) for one in images) + len(data) > media.LARGEST:
        why = ": not shown, it is too large"
    elif not _base64(data):
        why = ": is no base64"
    if why:
        return f"[{name} ({kind}), {_size(data)}{why}]"
    images.append({"mediaType": kind, "data": data})
    return f"[{name} ({kind}), image {len(images)} of this result]"


def _base64(data: str) -> bool:
    try:
        return bool(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        return False


def _says(parts: list[str], structured: Any) -> bool:
    """Whether the text holds the structured content: as JSON, as servers should have it, or every value of it."""
    for text in parts:
        if text[:1] in ("{", "["):
            try:
                if json.loads(text) == structured:
                    return True
            except (ValueError, RecursionError):
                continue
    whole = "\n".join(parts)
    values = list(islice(_values(structured), _LEAVES))
    return bool(whole) and len(values) < _LEAVES and all(value in whole for value in values)


def _values(structured: Any) -> Iterator[str]:
    if isinstance(structured, dict):
        for value in structured.values():
            yield from _values(value)
    elif isinstance(structured, list):
        for value in structured:
            yield from _values(value)
    elif isinstance(structured, str):
        yield structured
    elif structured is not None:
        yield json.dumps(structured)


def _type(part: dict[str, Any]) -> str:
    return f" ({part['mimeType']})" if part.get("mimeType") else ""


def _size(data: str) -> str:
    return f"{max(1, len(data) * 3 // 4 // 1024)} KiB"
