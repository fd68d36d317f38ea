"""Requests towards MCP servers as bytes: only headers we know, those configured, and the body that was decided on."""

from __future__ import annotations

from quarterdeck.mcptypes import protocol
from quarterdeck.mcptypes.headers import encode_value
from quarterdeck.wire.client import Origin

from .call import NAMED, McpCall, mirrored

_FORWARD = b"x-quarterdeck-forward-"
ACCEPT = b"application/json, text/event-stream"


def _start_of_head(call: McpCall, origin: Origin) -> bytes:
    """The lines that are the same for every request of one client in one session."""
    parts = [b"%b %b HTTP/1.1\r\n" % (call.exchange.method.encode(), call.route.path), call.lane.headers]
    if not call.route.host_line:
        socket = origin[0].startswith("/")
        parts.append(b"host: localhost\r\n" if socket else b"host: %b:%d\r\n" % (origin[0].encode(), origin[1]))
    accept = call.headers.get(b"accept")
    parts.append(b"accept: %b\r\n" % (accept if accept is not None and accept != b"*/*" else ACCEPT))
    if call.version is not None:
        parts.append(b"%b: %b\r\n" % (protocol.H_VERSION, call.version))
    if call.session is not None:
        parts.append(b"%b: %b\r\n" % (protocol.H_SESSION, call.session.upstream.encode("latin-1")))
    return b"".join(parts)


def request_bytes(call: McpCall, origin: Origin) -> bytes:
    """The whole request of a call to the member that was chosen."""
    lane = call.lane
    headers = call.headers
    key = (
        call.exchange.method, origin, headers.get(b"accept"), call.version,
        call.session.upstream if call.session is not None else "",
    )  # fmt: skip
    start = lane.starts.get(key)
    if start is None:
        start = lane.remember(key, _start_of_head(call, origin))
    parts = [start]
    last_event = headers.get(protocol.H_LAST_EVENT)
    if last_event is not None and not call.modern:
        parts.append(b"%b: %b\r\n" % (protocol.H_LAST_EVENT, last_event))
    if call.modern and call.message is not None:
        parts.append(b"%b: %b\r\n" % (protocol.H_METHOD, call.method.encode()))
        if call.method in NAMED:
            parts.append(b"%b: %b\r\n" % (protocol.H_NAME, encode_value(mirrored(call.message))))
        parts.extend(b"%b: %b\r\n" % (k, v) for k, v in call.exchange.headers if k.startswith(protocol.H_PARAM_PREFIX))
    for name in lane.forward:
        value = headers.get(_FORWARD + name)
        if value is not None:
            parts.append(b"%b: %b\r\n" % (name, value))
    if call.member.chain is not None:
        parts.append(call.member.chain.outgoing_lines(call))
    parts.append(b"traceparent: %b\r\n" % call.traceparent)
    if call.exchange.method == "POST":
        parts.append(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(call.body))
        parts.append(call.body)
    else:
        parts.append(b"\r\n")
    return b"".join(parts)
