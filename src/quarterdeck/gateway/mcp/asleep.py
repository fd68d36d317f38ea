"""Which servers scaled to zero a request to several servers needs: one that it calls, or all it would list."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from quarterdeck.mcptypes import jsonrpc, lists, protocol

from ..policy.principal import Principal
from ..wake import Sleeper
from . import naming
from .groups import McpGroup
from .route import McpRoute

LIST_HOLD = 10.0
"""Seconds a list waits for servers that start; then it says who is missing, as for any server that is down."""


def needed(group: McpGroup, body: bytes, principal: Principal) -> tuple[list[Sleeper], bool]:
    """The sleepers that the caller may use, and whether the request is a list. What cannot be read needs nobody."""
    try:
        message = jsonrpc.parse(body)
        params = lists.members(message.params) if message.params is not UNSET else {}
    except (jsonrpc.FramingError, msgspec.DecodeError):
        return [], False
    if message.method in lists.LIST_KEYS:
        routes = (member.route for member in group.members)
        return [r.target for r in routes if _sleeps(r) and _may(r, principal, message.method)], True
    if not naming.routed(message.method):
        return [], False
    try:
        found = naming.find(group, message.method, params)
    except msgspec.DecodeError:
        return [], False
    if isinstance(found, str) or not _sleeps(found[0].route):
        return [], False
    route = found[0].route
    return ([route.target], False) if _may(route, principal, message.method, found[2]) else ([], False)


def _sleeps(route: McpRoute) -> bool:
    return route.server.wake > 0 and not route.server.endpoints


def _may(route: McpRoute, principal: Principal, method: str, name: str = "") -> bool:
    return route.lane(principal).decide(method, name if method == protocol.TOOLS_CALL else "").allow
