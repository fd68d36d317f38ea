"""JSON-RPC 2.0 framing. Only what a decision needs is decoded; the rest stays as the bytes that came."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from quarterdeck.errors import QuarterdeckError
from quarterdeck.malformed import MALFORMED

from . import protocol


class Message(Struct, gc=False):
    """Any JSON-RPC message: request (method and id), notification (method) or response (id only)."""

    jsonrpc: str = ""
    id: Raw | UnsetType = UNSET
    method: str = ""
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class CallParams(Struct, gc=False):
    """Params of ``tools/call`` and ``prompts/get`` as far as a decision needs them."""

    name: str
    arguments: Raw | UnsetType = UNSET


class ErrorObject(Struct, gc=False):
    """The ``error`` member of a response."""

    code: int = 0
    message: str = ""


class ResultProbe(Struct, rename="camel", gc=False):
    """What of a result tells how a tool call went."""

    is_error: bool = False


class ResponseProbe(Struct, gc=False):
    """A response reduced to its outcome."""

    id: Raw | UnsetType = UNSET
    method: str = ""
    error: ErrorObject | None = None
    result: ResultProbe | None = None


class FramingError(QuarterdeckError):
    """A message that cannot be accepted; ``jsonrpc_code`` and ``http_status`` say how it is answered."""

    reason = "BadRequest"
    http_status = 400

    def __init__(self, message: str, code: int = protocol.INVALID_REQUEST) -> None:
        super().__init__(message)
        self.code = code


_message = msgspec.json.Decoder(Message)
_call = msgspec.json.Decoder(CallParams)
_response = msgspec.json.Decoder(ResponseProbe)
_fields = msgspec.json.Decoder(dict[str, Raw])
_KNOWN_TOP = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_KNOWN_PARAMS = frozenset({"name", "arguments", "uri", "_meta"})


def read(data: bytes) -> Message | None:
    """A message from a server, request, notification or response; None when the bytes are no JSON-RPC."""
    try:
        message = _message.decode(data)
    except MALFORMED:
        return None
    return None if message.id is UNSET and not message.method else message


def id_of(body: bytes) -> bytes:
    """The raw id of a message that is refused whatever else it says; empty when there is none to be read."""
    try:
        found = _message.decode(body).id
    except MALFORMED:
        return b""
    return b"" if found is UNSET else bytes(found)


def parse(body: bytes) -> Message:
    """One message out of a POST body. Raises FramingError for anything else, batches too (gone since 2025-06-18)."""
    try:
        message = _message.decode(body)
        if not body.isascii():
            body.decode()  # what is kept raw here is decoded later, or by others: it must be text as a whole
    except msgspec.ValidationError as error:
        text = "JSON-RPC batches are not supported" if body.lstrip()[:1] == b"[" else f"not a JSON-RPC message: {error}"
        raise FramingError(text) from None
    except MALFORMED as error:
        raise FramingError(f"the body is not valid JSON: {error}", protocol.PARSE_ERROR) from None
    if message.jsonrpc != "2.0":
        raise FramingError('"jsonrpc" must be "2.0"')
    if message.id is not UNSET and not valid_id(bytes(message.id)):
        raise FramingError('"id" must be a string or an integer')
    return message


class MirrorParams(Struct, gc=False):
    """What 2026-07-28 mirrors into ``Mcp-Name``."""

    name: str = ""
    uri: str = ""


_mirror = msgspec.json.Decoder(MirrorParams)


def mirror_params(message: Message) -> MirrorParams:
    """Raises FramingError when name or uri is not a string."""
    try:
        return _mirror.decode(message.params if message.params is not UNSET else b"{}")
    except MALFORMED as error:
        raise FramingError(f"invalid params of {message.method}: {error}", protocol.INVALID_PARAMS) from None


def valid_id(raw: bytes) -> bool:
    """Whether raw JSON is a string or an integer, the only ids that MCP allows."""
    return raw[:1] == b'"' or raw.removeprefix(b"-").isdigit()


def call_params(message: Message) -> CallParams:
    """The params of a call by name. Raises FramingError when there is no string ``name``."""
    try:
        return _call.decode(message.params if message.params is not UNSET else b"{}")
    except MALFORMED as error:
        raise FramingError(f"invalid params of {message.method}: {error}", protocol.INVALID_PARAMS) from None


def unambiguous(body: bytes, *keys: bytes) -> bool:
    """Whether each key occurs once, in these very letters and with no escapes: then every JSON parser reads the same.

    Parsers differ on duplicate members and some match member names without regard to case, so a body that fails this
    must be sent on in the form :func:`canonical` gives it.
    """
    if not body.isascii() or b"\\u" in body:
        return False
    lower = body.lower()
    for key in keys:  # noqa: SIM110 - a generator costs as much as the counting
        if lower.count(key) != 1 or key not in body:
            return False
    return True


def unambiguous_call(body: bytes, *, arguments: bool) -> bool:
    """:func:`unambiguous` for a message in which method, params, name and, where it says so, arguments were found."""
    if not body.isascii() or b"\\u" in body:
        return False
    lower = body.lower()
    return (
        lower.count(b'"method"') == 1
        and lower.count(b'"params"') == 1
        and lower.count(b'"name"') == 1
        and lower.count(b'"arguments"') == arguments
    )


def canonical(body: bytes) -> bytes:
    """The message written anew, each member once, the value that was decided on.

    Raises FramingError when a member's name differs from a known one only by letter case.
    """
    top = _fields.decode(body)
    _refuse_aliases(top, _KNOWN_TOP)
    params = top.get("params")
    if params is not None and bytes(params).lstrip()[:1] == b"{":
        members = _fields.decode(params)
        _refuse_aliases(members, _KNOWN_PARAMS)
        top["params"] = Raw(msgspec.json.encode(members))
    return msgspec.json.encode(top)


def _refuse_aliases(members: dict[str, Raw], known: frozenset[str]) -> None:
    for name in members:
        if name not in known and name.casefold() in known:
            raise FramingError(f'ambiguous member "{name}": use "{name.casefold()}"')


def probe(body: bytes) -> ResponseProbe | None:
    """How a response went; None when the bytes are no JSON-RPC response."""
    try:
        return _response.decode(body)
    except MALFORMED:
        return None


def answers(probe: ResponseProbe, raw_id: bytes) -> bool:
    """Whether a response is to that request; an error may also be to one whose id could not be read (null, none)."""
    ident = b"null" if probe.id is UNSET else bytes(probe.id)  # type: ignore[arg-type]  # as in error_response
    if ident == raw_id or (ident == b"null" and probe.error is not None):
        return True
    if ident[:1] != b'"' or raw_id[:1] != b'"':
        return False
    try:
        return bool(msgspec.json.decode(ident) == msgspec.json.decode(raw_id))
    except MALFORMED:
        return False


def error_response(raw_id: Raw | UnsetType | bytes, code: int, message: str, data: Any = None) -> bytes:
    """An error response. ``raw_id`` is the request's id as it came (JSON), or UNSET."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    ident = b"null" if raw_id is UNSET else bytes(raw_id)  # type: ignore[arg-type]  # pyright cannot narrow on UNSET
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (ident, msgspec.json.encode(error))


def result_response(raw_id: Raw | UnsetType | bytes, result: Any) -> bytes:
    """A success response around a JSON-encodable result."""
    ident = b"null" if raw_id is UNSET else bytes(raw_id)  # type: ignore[arg-type]  # pyright cannot narrow on UNSET
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (ident, msgspec.json.encode(result))


def response(ident: Raw | UnsetType, result: Raw | UnsetType, error: Raw | UnsetType) -> dict[str, Any]:
    """A response with parts of another one, to be encoded."""
    top: dict[str, Any] = {"jsonrpc": "2.0", "id": ident if ident is not UNSET else None}
    if error is not UNSET:
        top["error"] = error
    else:
        top["result"] = result if result is not UNSET else {}
    return top


def request(ident: int | str | Raw, method: str, params: Any = UNSET) -> bytes:
    """A request of our own."""
    message = {"jsonrpc": "2.0", "id": ident, "method": method}
    if params is not UNSET:
        message["params"] = params
    return msgspec.json.encode(message)


def notification(method: str, params: Any = UNSET) -> bytes:
    """A notification of our own."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not UNSET:
        message["params"] = params
    return msgspec.json.encode(message)
