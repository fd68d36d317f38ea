"""Answers of a server that is one of several: ids that it gives lead back to it, its names are the client's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from quarterdeck.errors import UpstreamError
from quarterdeck.mcptypes import jsonrpc, lists
from quarterdeck.wire import sse
from quarterdeck.wire.http import Header

from . import ids, naming
from .groups import Member
from .relay import McpRelay


class MuxRelay(McpRelay):
    """A relay that opens an expired upstream session anew: a 404 means that nothing was executed."""

    __slots__ = ("again",)

    again: Callable[[], None] | None

    def on_head(self, status: int, headers: list[Header]) -> None:
        again = self.again
        if status == 404 and again is not None and not self.exchange.started:
            self.again = None
            self.abandon()
            again()
        else:
            super().on_head(status, headers)

    @property
    def rewrites(self) -> bool:
        return True

    def rewritten(self, event: sse.Event, *, answer: bool) -> bytes:
        call: Any = self.call
        member: Member = call.member
        data = event.data
        if answer:
            data = self.transform(data) if self.transform is not None else data
        elif data:
            data = outgoing(member, data)
        raw = event.raw if data is event.data else sse.with_data(event, data)
        return _with_id(raw, ids.event_out(member.name, event.id)) if event.id else raw


def outgoing(member: Member, data: bytes) -> bytes:
    """A server's request or notification with ids and names of the client's; the same bytes when there is no change.

    Raises UpstreamError when it is no JSON-RPC.
    """
    if b"list_changed" in data:
        member.route.changes += 1
    if not member.mark:
        return data
    message = jsonrpc.read(data)
    if message is None:
        raise UpstreamError("sent an event that is no JSON-RPC")
    if message.id is not UNSET:
        params = _with_token(member, message.params)
        return jsonrpc.request(ids.request_out(member.name, Raw(bytes(message.id))), message.method, params)
    params = naming.notice_out(member, message.method, message.params)
    return data if params is message.params else jsonrpc.notification(message.method, params)


def _with_id(raw: bytes, ident: bytes) -> bytes:
    lines = raw.split(b"\n")
    return b"\n".join(b"id: " + ident if line.startswith(b"id:") else line for line in lines)


def _with_token(member: Member, params: Any) -> Any:
    """The params of a server's request, in which a progress token leads back to it, too."""
    if not isinstance(params, Raw) or b'"progressToken"' not in bytes(params):
        return params
    fields: dict[str, Any] = dict(lists.members(params))
    meta: dict[str, Any] = dict(lists.members(fields.get("_meta", Raw(b"{}"))))
    token = meta.get("progressToken")
    if isinstance(token, Raw):
        meta["progressToken"] = ids.request_out(member.name, token)
        fields["_meta"] = meta
    return Raw(msgspec.json.encode(fields))
