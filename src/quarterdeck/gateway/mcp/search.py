"""Who has a name, where names have no prefixes (``prefixMode: never``): found in the servers' lists.

What two servers have under one name is nobody's: calls could not tell them apart. What was found is remembered for a
moment.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from time import monotonic

from msgspec import Raw

from quarterdeck.mcptypes import lists, protocol

from . import naming
from .call import McpCall, text_of
from .groups import Member
from .merge import Part

ListOne = Callable[[Member, str, str], Awaitable[Part]]
"""Lists one member: method and key of the list."""

_TOOLS = (("tools", protocol.TOOLS_LIST),)
_PROMPTS = (("prompts", protocol.PROMPTS_LIST),)
_RESOURCES = (("resources", protocol.RESOURCES_LIST), ("resourceTemplates", protocol.TEMPLATES_LIST))
_REMEMBERED = 10_000
_TTL = 10.0


class Search:
    """Finds owners."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str, str], tuple[str, float]] = {}

    async def owner(
        self, call: McpCall, params: dict[str, Raw], members: list[Member], list_one: ListOne
    ) -> naming.Found | str:
        """The member that a request of a routed method is for; the name when it is nobody's."""
        kinds, name = _wanted(call.method, params)
        key = (call.group.edition, call.principal.id, kinds[0][0], name)
        known, until = self._known.get(key, ("", 0.0))
        if until < monotonic() or known not in call.group.by_name:
            known = await self._find(kinds, name, members, list_one)
            if not known:
                return name
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = (known, monotonic() + _TTL)
        return call.group.by_name[known], name, name, dict(params)

    async def _find(
        self, kinds: tuple[tuple[str, str], ...], name: str, members: list[Member], list_one: ListOne
    ) -> str:
        for key, method in kinds:
            parts = await asyncio.gather(*(list_one(member, method, key) for member in members))
            owners = [part.name for part in parts if any(_is(key, item, name) for item in part.items)]
            if owners:
                return owners[0] if len(owners) == 1 else ""
        return ""


def _wanted(method: str, params: dict[str, Raw]) -> tuple[tuple[tuple[str, str], ...], str]:
    """Lists to look in, and what for."""
    if method == naming.COMPLETE:
        reference = lists.members(params["ref"]) if "ref" in params else {}
        if text_of(reference.get("type")) == "ref/resource":
            return _RESOURCES, text_of(reference.get("uri"))
        return _PROMPTS, text_of(reference.get("name"))
    if method == protocol.TOOLS_CALL:
        return _TOOLS, text_of(params.get("name"))
    if method == protocol.PROMPTS_GET:
        return _PROMPTS, text_of(params.get("name"))
    return _RESOURCES, text_of(params.get("uri"))


def _is(key: str, item: Raw, name: str) -> bool:
    label = naming.label_of(key, item)
    return label == name or (key == "resourceTemplates" and _fits(label, name))


def _fits(template: str, uri: str) -> bool:
    """Whether a URI may come of a template (RFC 6570): simple expressions stay within a segment."""
    parts = re.split(r"(\{[^{}]*\})", template)
    pattern = "".join(
        ("[^/?#]*" if part[1:2].isalnum() else ".*") if part.startswith("{") else re.escape(part) for part in parts
    )
    return re.fullmatch(pattern, uri) is not None
