"""JSON-RPC messages as stdio lines: one line each, members that need no change kept as the bytes they came in."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, UnsetType

from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import protocol
from quarterdeck.mcptypes.jsonrpc import Message

_members = msgspec.json.Decoder(dict[str, Raw])


def encode_line(
    *,
    id: Raw | UnsetType = UNSET,
    method: str = "",
    params: Raw | UnsetType = UNSET,
    result: Raw | UnsetType = UNSET,
    error: Raw | UnsetType = UNSET,
) -> bytes:
    """A message without newline inside; members left UNSET are left out."""
    parts = [b'{"jsonrpc":"2.0"']
    if isinstance(id, Raw):
        parts.append(b',"id":' + bytes(id))
    if method:
        parts.append(b',"method":' + msgspec.json.encode(method))
    for name, value in ((b"params", params), (b"result", result), (b"error", error)):
        if isinstance(value, Raw):
            parts.append(b',"%b":' % name + bytes(value))
    parts.append(b"}")
    line = b"".join(parts)
    return msgspec.json.format(line, indent=-1) if b"\n" in line or b"\r" in line else line


def meta_member(params: Raw | UnsetType, key: str) -> Raw | None:
    """``params._meta[key]`` as raw JSON; None when it is not there."""
    if not isinstance(params, Raw) or key.encode() not in bytes(params):
        return None
    try:
        meta = _members.decode(params).get("_meta")
        return _members.decode(meta).get(key) if meta is not None else None
    except MALFORMED:
        return None


def with_meta(params: Raw, key: str, value: Raw) -> Raw:
    """The params with ``_meta[key]``, known to be there, replaced."""
    members = _members.decode(params)
    meta = _members.decode(members["_meta"])
    meta[key] = value
    members["_meta"] = Raw(msgspec.json.encode(meta))
    return Raw(msgspec.json.encode(members))


def member(params: Raw | UnsetType, key: str) -> Raw | None:
    """``params[key]`` as raw JSON; None when it is not there."""
    if not isinstance(params, Raw):
        return None
    try:
        return _members.decode(params).get(key)
    except MALFORMED:
        return None


def with_member(params: Raw, key: str, value: Raw) -> Raw:
    members = _members.decode(params)
    members[key] = value
    return Raw(msgspec.json.encode(members))


def request_version(message: Message) -> str | None:
    """The protocol version a modern request names in its ``_meta``; None for a legacy one."""
    raw = meta_member(message.params, protocol.META_VERSION)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=str)
    except MALFORMED:
        return None
