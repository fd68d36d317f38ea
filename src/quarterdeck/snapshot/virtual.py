"""Virtual servers: a choice of other servers' tools under names and with arguments of their own.

The control plane asks this module which names clash, the gateway which name leads where: both get the same answer.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

from msgspec import Struct

KIND = "VirtualServer"


class Choice(Struct, frozen=True, omit_defaults=True):
    """Names by glob (``*`` and ``?``): those of ``include`` (None: all) without those of ``exclude``."""

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()


NOTHING = Choice(())
_KNOWN = 4096


class ChosenServer(Struct, frozen=True, omit_defaults=True):
    """One server behind a virtual one; ``server`` is the ``kind/namespace/name`` of one in :attr:`Snapshot.mcp`."""

    name: str
    """Its prefix, and what :attr:`ChosenTool.server` names."""
    server: str
    tools: Choice = Choice()
    prompts: Choice = NOTHING
    resources: Choice = NOTHING
    """By URI, or URI template."""


class ChosenTool(Struct, frozen=True, omit_defaults=True):
    """One way in which a tool is exposed. A tool may have several."""

    server: str
    tool: str
    """As its server calls it."""
    name: str = ""
    """The whole exposed name; empty: the one it would have without this entry."""
    title: str = ""
    description: str = ""
    annotations: dict[str, Any] = {}
    """Members that take the place of the server's."""
    defaults: dict[str, Any] = {}
    """Arguments that are filled in where the caller leaves them out."""
    fixed: dict[str, Any] = {}
    """Arguments that are always these; callers neither see nor send them."""
    hidden: tuple[str, ...] = ()
    """Parameters that callers neither see nor send."""

    @property
    def closed(self) -> tuple[str, ...]:
        """Parameters that callers may not send."""
        return tuple(dict.fromkeys((*self.hidden, *self.fixed)))


class VirtualServer(Struct, frozen=True, omit_defaults=True):
    """A server made of others', behind ``/mcp/{namespace}/virtualserver.{name}`` and what routes lead to it."""

    namespace: str
    name: str
    servers: tuple[ChosenServer, ...] = ()
    tools: tuple[ChosenTool, ...] = ()
    prefixed: bool = True
    """Whether names begin with their server's."""
    fail_open: bool = False
    """Whether a server that fails is left out of lists, instead of failing them."""
    title: str = ""
    instructions: str = ""
    """What clients are told when they connect."""


class Exposed(NamedTuple):
    """A tool under one of its names. ``entry`` None: nothing of it was changed."""

    name: str
    server: str
    tool: str
    entry: ChosenTool | None = None


class Clash(NamedTuple):
    """One exposed name of several tools. ``kept``: the one that has it because an entry of ``tools`` says so."""

    name: str
    tools: tuple[tuple[str, str], ...]
    """Server and its own name."""
    kept: tuple[str, str] | None = None


class Names:
    """Which tools of a virtual server are exposed, and how they are called.

    A name that an entry of ``tools`` gives is that entry's: a tool that has it by itself is not exposed under it. A
    name that two entries give, or that several tools have by themselves, is nobody's.
    """

    def __init__(self, virtual: VirtualServer) -> None:
        self.virtual = virtual
        self.servers = {server.name: server for server in virtual.servers}
        self._tools = {server.name: _Matcher(server.tools) for server in virtual.servers}
        self._prompts = {server.name: _Matcher(server.prompts) for server in virtual.servers}
        self._resources = {server.name: _Matcher(server.resources) for server in virtual.servers}
        self._excluded = {server.name: _Globs(server.tools.exclude) for server in virtual.servers}
        self._entries: dict[tuple[str, str], list[ChosenTool]] = {}
        for entry in virtual.tools:
            if entry.server in self.servers and not self._excluded[entry.server](entry.tool):
                self._entries.setdefault((entry.server, entry.tool), []).append(entry)
        self.given: dict[str, Exposed] = {}
        """By exposed name, what entries give."""
        self._known: dict[tuple[str, str], list[Exposed]] = {}
        self.twice: set[str] = set()
        """Names that two entries give."""
        for entry in (entry for entries in self._entries.values() for entry in entries):
            name = entry.name or self.plain(entry.server, entry.tool)
            if name in self.given:
                self.twice.add(name)
            self.given[name] = Exposed(name, entry.server, entry.tool, entry)
        for name in self.twice:
            del self.given[name]

    def plain(self, server: str, own: str) -> str:
        """What a server's tool or prompt is called where no entry says otherwise."""
        return f"{server}_{own}" if self.virtual.prefixed else own

    def of(self, server: str, own: str) -> list[Exposed]:
        """All names of a server's tool; none when it is not exposed."""
        found = self._known.get((server, own))
        if found is None:
            if len(self._known) >= _KNOWN:  # callers choose names
                self._known.clear()
            found = self._known[server, own] = self._of(server, own)
        return found

    def _of(self, server: str, own: str) -> list[Exposed]:
        entries = self._entries.get((server, own))
        if entries is not None:
            names = (entry.name or self.plain(server, own) for entry in entries)
            return [self.given[name] for name in names if name in self.given]
        name = self.plain(server, own)
        if not self.chooses(server, "tools", own) or name in self.given or name in self.twice:
            return []
        return [Exposed(name, server, own)] if self._split(name) in ((server, own), None) else []

    def find(self, name: str) -> Exposed | None:
        """Whose name it is. None: nobody's, or, where servers share names without prefixes, not to be told by it."""
        found = self.given.get(name)
        if found is not None or name in self.twice:
            return found
        split = self._split(name)
        if split is None or split in self._entries or not self.chooses(split[0], "tools", split[1]):
            return None
        return Exposed(name, *split)

    def exposes(self, server: str, own: str, name: str) -> bool:
        """Whether a server's tool is exposed under a name, other servers' tools aside."""
        return any(found.name == name for found in self.of(server, own))

    def excludes(self, server: str, own: str) -> bool:
        """Whether the server's choice leaves a tool out by name, so that entries cannot take it in."""
        return server in self._excluded and self._excluded[server](own)

    def prompt(self, name: str) -> tuple[str, str] | None:
        """Server and own name of an exposed prompt; None as for :meth:`find`."""
        split = self._split(name)
        return split if split is not None and self.chooses(split[0], "prompts", split[1]) else None

    def chooses(self, server: str, kind: Literal["tools", "prompts", "resources"], own: str) -> bool:
        """Whether the server's choice takes something of its own name (or URI) in."""
        matchers = {"tools": self._tools, "prompts": self._prompts, "resources": self._resources}[kind]
        return server in matchers and matchers[server](own)

    def exposed(self, offers: Mapping[str, Iterable[str]]) -> tuple[list[Exposed], list[Clash]]:
        """All that is exposed, by name, and the names that clash, given each server's tools by their own names."""
        found: dict[str, list[Exposed]] = {}
        clashes: list[Clash] = []
        for server, own in [(of, own) for of in sorted(offers) for own in sorted(set(offers[of]))]:
            for each in self.of(server, own):
                found.setdefault(each.name, []).append(each)
            clashes += self._lost(server, own)
        for name, several in found.items():
            if len(several) > 1:
                clashes.append(Clash(name, tuple((each.server, each.tool) for each in several)))
        clashes += [Clash(name, self._givers(name)) for name in self.twice]
        return [found[name][0] for name in sorted(found) if len(found[name]) == 1], sorted(clashes)

    def _lost(self, server: str, own: str) -> Iterator[Clash]:
        """Where a tool would be exposed, were its name not another's."""
        if (server, own) in self._entries or not self.chooses(server, "tools", own):
            return
        name = self.plain(server, own)
        given, split = self.given.get(name), self._split(name)
        if given is not None:
            kept = (given.server, given.tool)
            yield Clash(name, (kept, (server, own)), kept)
        elif split is not None and split != (server, own):
            yield Clash(name, (split, (server, own)), split)

    def _givers(self, name: str) -> tuple[tuple[str, str], ...]:
        entries = (entry for entries in self._entries.values() for entry in entries)
        return tuple((e.server, e.tool) for e in entries if (e.name or self.plain(e.server, e.tool)) == name)

    def _split(self, name: str) -> tuple[str, str] | None:
        """Server and own name by the prefix: the longest known one wins."""
        if not self.virtual.prefixed:
            return (self._only, name) if self._only else None
        at = len(name)
        while (at := name.rfind("_", 0, at)) > 0:
            if name[:at] in self.servers:
                return name[:at], name[at + 1 :]
        return None

    @cached_property
    def _only(self) -> str:
        return self.virtual.servers[0].name if len(self.virtual.servers) == 1 else ""


class _Globs:
    """Whether a name matches one of some globs."""

    __slots__ = ("_pattern",)

    def __init__(self, globs: Iterable[str]) -> None:
        patterns = [fnmatch.translate(glob.replace("[", "[[]")) for glob in globs]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def __call__(self, name: str) -> bool:
        return self._pattern is not None and self._pattern.match(name) is not None


class _Matcher:
    """Whether a choice takes a name in."""

    __slots__ = ("_all", "_exclude", "_include")

    def __init__(self, choice: Choice) -> None:
        self._all = choice.include is None
        self._include = _Globs(choice.include or ())
        self._exclude = _Globs(choice.exclude)

    def __call__(self, name: str) -> bool:
        return (self._all or self._include(name)) and not self._exclude(name)
