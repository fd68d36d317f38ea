"""Which servers scaled to zero a request on the aggregated ``/mcp`` needs: one that it calls, or all it would list."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from quarterdeck.mcptypes import jsonrpc, lists, protocol

from ..policy.principal import Principal
from ..table import Table
from ..wake import Sleeper
from .names import Names
from .route import McpRoute

LIST_HOLD = 10.0
"""Seconds a list waits for servers that start; then it says who is missing, as for any server that is down."""
_NAMED = {
    protocol.TOOLS_CALL: ("name", "_"),
    protocol.PROMPTS_GET: ("name", "_"),
    protocol.RESOURCES_READ: ("uri", "+"),
}


def needed(table: Table, body: bytes, principal: Principal) -> tuple[list[Sleeper], bool]:
    """The sleepers that the caller may use, and whether the request is a list. What cannot be read needs nobody."""
    try:
        message = jsonrpc.parse(body)
        params = lists.members(message.params) if message.params is not UNSET else {}
    except (jsonrpc.FramingError, msgspec.DecodeError):
        return [], False
    if message.method in lists.LIST_KEYS:
        listed = [route for route in table.asleep if route.server.prefixed and _may(route, principal, message.method)]
        return [route.target for route in listed], True
    named = _NAMED.get(message.method)
    raw = params.get(named[0]) if named is not None else None
    if named is None or raw is None:
        return [], False
    exposed = msgspec.json.decode(raw)
    found = Names(table.servers, table.snapshot.default_namespace).resolve(str(exposed), named[1])
    if found is None or found[0] not in table.asleep or not _may(found[0], principal, message.method, found[1]):
        return [], False
    return [found[0].target], False


def _may(route: McpRoute, principal: Principal, method: str, name: str = "") -> bool:
    return route.lane(principal).decide(method, name if method == protocol.TOOLS_CALL else "").allow
