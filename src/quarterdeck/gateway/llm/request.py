"""A caller's request as the provider wants it: the very bytes where both speak alike."""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import Any

import msgspec
from msgspec import Raw

from quarterdeck.malformed import MALFORMED
from quarterdeck.wire.client import Origin

from ..call import Call, is_header
from .formats.base import Format, Sent
from .formats.chat import Chat, Unfit, read
from .route import ModelRoute
from .signature import sign

FORWARDED_KEY = b"x-quarterdeck-forward-authorization"
CHAT, EMBEDDINGS = "chat/completions", "embeddings"
_STREAMS = {"sse": b"text/event-stream", "ndjson": b"application/x-ndjson", "eventstream": b"*/*"}
_fields = msgspec.json.Decoder(dict[str, Raw])


@dataclass(frozen=True, slots=True)
class Prepared:
    """``chat`` is the request where the answer has to be translated, ``embedding`` whether it is one of embeddings."""

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    chat: Chat | None = None
    embedding: bool = False


def prepare(route: ModelRoute, operation: str, asked: str, body: bytes) -> Prepared:
    """``asked`` is the model that the caller named. Raises Unfit."""
    if route.format is None:
        return Prepared(f"/{operation}{route.query}", _complete(route, operation, asked, body))
    if operation == CHAT:
        chat = read(_complete(route, operation, asked, body))
        return _prepared(route, route.format.request(route.model, chat), chat)
    if operation == EMBEDDINGS and route.format.embeddings is not None:
        try:
            document: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
        except MALFORMED as error:
            raise Unfit(f"the body is no request for embeddings: {error}") from None
        return _prepared(route, route.format.embeddings.request(route.model, document), None)
    raise Unfit(f"{operation} is not translated for provider {route.model.provider}")


def _prepared(route: ModelRoute, sent: Sent, chat: Chat | None) -> Prepared:
    path = sent.path
    if route.model.query:
        path += ("&" if "?" in path else "?") + route.model.query
    return Prepared(path, msgspec.json.encode(sent.body), sent.headers, chat, chat is None)


def _complete(route: ModelRoute, operation: str, asked: str, body: bytes) -> bytes:
    """The body with the upstream's model name and the ModelConfig's defaults; the very bytes when nothing changes."""
    model = route.model
    rename = asked in ("", route.label, model.name) and asked != model.model
    defaults = route.defaults if operation != EMBEDDINGS else {}
    if not rename and not defaults:
        return body
    fields = _fields.decode(body)
    missing = {k: v for k, v in defaults.items() if k not in fields and not _other_name(k, fields)}
    if not rename and not missing:
        return body
    fields.update(missing)
    if rename:
        fields["model"] = Raw(msgspec.json.encode(model.model))
    return msgspec.json.encode(fields)


def _other_name(field: str, fields: dict[str, Raw]) -> bool:
    """OpenAI refuses requests with both names of the longest answer."""
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}.get(field)
    return other is not None and other in fields


def encode(
    route: ModelRoute,
    call: Call,
    prepared: Prepared,
    *,
    token: str = "",
    at: tuple[Origin, str, str] | None = None,
    now: float | None = None,
) -> bytes:
    """The request's bytes. ``token``: a bearer token obtained for it; ``at``: origin, path prefix and authority other
    than the ModelConfig's; ``now``: time of a signature, in seconds since the epoch."""
    _, prefix, authority = at or (route.origin, route.prefix, route.authority)
    path, form = prefix + prepared.path, route.format
    own = {header.name.lower() for header in route.model.headers}
    lines = [(name, value) for name, value in prepared.headers if name not in own]
    if token:
        lines.append(("authorization", f"Bearer {token}"))
    access = route.model.access
    if access is not None and access.kind == "aws":
        plain, _, query = path.partition("?")
        signed = {"host": authority, "content-type": "application/json"}
        lines += sign(access, "POST", plain, signed, prepared.body, now or time(), query=query).items()
    parts = [f"POST {path} HTTP/1.1\r\nhost: {authority}\r\n".encode(), route.headers]
    parts += [f"{name}: {value}\r\n".encode() for name, value in lines if is_header(name, value)]
    if route.model.passthrough:
        parts.append(_forwarded(route, call.headers.get(FORWARDED_KEY, b"")))
    accept = call.headers.get(b"accept", b"*/*") if form is None else _accepted(form, prepared)
    parts.append(b"accept: %b\r\ntraceparent: %b\r\n" % (accept, call.traceparent))
    parts.append(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(prepared.body))
    parts.append(prepared.body)
    return b"".join(parts)


def _accepted(form: Format, prepared: Prepared) -> bytes:
    streams = prepared.chat is not None and prepared.chat.stream
    return _STREAMS[form.framing] if streams else b"application/json"


def _forwarded(route: ModelRoute, key: bytes) -> bytes:
    name = route.model.key_header.lower()
    if name != "authorization" and key[:7].lower() == b"bearer ":
        key = key[7:].strip()
    return b"%b: %b\r\n" % (name.encode(), key)
