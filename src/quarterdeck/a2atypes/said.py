"""What a user's A2A message says to a model: its text, and the images in it. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

Json = dict[str, Any]


def text(message: Json) -> str:
    """All parts as text: data parts as JSON, files of text as they are, images by their media type."""
    return "\n".join(_text(part) for part in message.get("parts") or ())


def images(message: Json) -> list[Json]:
    """``{mediaType, data}`` (base64) of each part that is an image."""
    found = [(media_type(part), part["raw"]) for part in message.get("parts") or () if isinstance(part.get("raw"), str)]
    return [{"mediaType": media, "data": raw} for media, raw in found if media.startswith("image/")]


def media_type(part: Json) -> str:
    return str(part.get("mediaType") or "").partition(";")[0].strip().lower()


def _text(part: Json) -> str:
    if "text" in part:
        return str(part["text"])
    if "data" in part:
        return json.dumps(part["data"], ensure_ascii=False)
    if "raw" in part:
        return _file(part)
    return str(part.get("url", ""))


def _file(part: Json) -> str:
    name = f" {part['filename']}" if part.get("filename") else ""
    if media_type(part).startswith("image/"):
        return f"[image{name}: {media_type(part)}]"
    try:
        return base64.b64decode(part["raw"]).decode("utf-8", "replace")
    except (binascii.Error, ValueError, TypeError):
        return f"[file{name}]"
