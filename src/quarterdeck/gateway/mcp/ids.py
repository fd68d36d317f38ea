"""Ids that lead back: a server's request ids, progress tokens and event ids as clients of several servers see them.

They say themselves which member they are of, so that any process can pass an answer on. Event ids: ``member~id``;
those of the gateway's own buffer have no member. Requests: ``qd.member.id`` with the server's id in base64.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec
from msgspec import Raw, UnsetType

from quarterdeck.malformed import MALFORMED
from quarterdeck.mcptypes import jsonrpc

_REQUEST = "qd."
_OWN = "qd!"


def request_out(member: str, ident: Raw) -> Raw:
    """A server's request id, or progress token, for the client."""
    encoded = urlsafe_b64encode(bytes(ident)).decode().rstrip("=")
    return Raw(msgspec.json.encode(f"{_REQUEST}{encoded}.{member}"))


def request_in(ident: Raw | UnsetType | Any) -> tuple[str, Raw]:
    """Member and original of an id made by :func:`request_out`; an empty name for any other."""
    text = _text(ident)
    if not text.startswith(_REQUEST):
        return "", Raw(b"null")
    encoded, _, member = text[len(_REQUEST) :].partition(".")
    try:
        original = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError):
        return "", Raw(b"null")
    return (member, Raw(original)) if jsonrpc.valid_id(original) and _is_json(original) else ("", Raw(b"null"))


def own_in(ident: Raw | UnsetType | Any) -> str:
    """The id of a question that the gateway put itself; empty for any other."""
    text = _text(ident)
    return text if text.startswith(_OWN) else ""


def event_out(member: str, ident: bytes) -> bytes:
    """An event id of a member's stream, or (no member) of the gateway's own buffer."""
    return b"%b~%b" % (member.encode(), ident)


def event_in(ident: bytes) -> tuple[str, bytes]:
    """Member and original of an event id."""
    member, tilde, original = ident.partition(b"~")
    return (member.decode("latin-1"), original) if tilde else ("", b"")


def error_text(error: Any) -> str:
    """What a client says when it does not answer a question."""
    try:
        found = msgspec.json.decode(error, type=jsonrpc.ErrorObject) if isinstance(error, Raw) else None
    except MALFORMED:
        found = None
    return (found.message if found is not None else "") or "the client refused"


def _text(ident: object) -> str:
    if not isinstance(ident, Raw):
        return ""
    try:
        value = msgspec.json.decode(ident)
    except MALFORMED:
        return ""
    return value if isinstance(value, str) else ""


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except MALFORMED:
        return False
    return True
