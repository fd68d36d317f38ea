"""A VirtualServer to what the gateway serves, and to what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.errors import ConfigError, RefNotFound, RefNotPermitted
from quarterdeck.kube.owner import controller_of
from quarterdeck.kube.resource import Object
from quarterdeck.kube.selector import selects
from quarterdeck.resources.base import parse
from quarterdeck.resources.virtual_server import Selection, ServerChoice, ToolChoice, VirtualServerSpec
from quarterdeck.snapshot.virtual import NOTHING, Choice, ChosenServer, ChosenTool, Clash, Names, VirtualServer

from .reference import Target
from .service import is_mcp_service

KINDS = ("MCPServer", "RemoteMCPServer", "Service")
"""What may be behind a virtual server."""


@dataclass(frozen=True, slots=True)
class Servers:
    """The MCP servers that there are."""

    get: Callable[[str, str, str], Object | None]
    """By kind, namespace and name."""
    all: Callable[[str, str], Iterable[Object]]
    """Of a kind in a namespace."""
    admits: Callable[[Target, str], bool]
    """Whether a server lets another namespace use it."""


@dataclass(slots=True)
class Resolution:
    """``server`` None: the spec cannot be used as it is, see ``error``."""

    server: VirtualServer | None = None
    error: ConfigError | None = None
    missing: list[ConfigError] = field(default_factory=list[ConfigError])
    """References that lead nowhere, or may not be followed; the rest is served."""
    clashes: list[str] = field(default_factory=list[str])
    """Servers of one name."""
    targets: dict[str, Target] = field(default_factory=dict[str, Target])
    """By the name of the server in the virtual one."""


def resolve(obj: Object, servers: Servers) -> Resolution:
    """What a VirtualServer means, by the servers that there are."""
    metadata = obj["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    try:
        spec = parse(VirtualServerSpec, obj.get("spec") or {}, f"VirtualServer {namespace}/{name}")
        _check(spec, f"VirtualServer {namespace}/{name}")
    except ConfigError as error:
        return Resolution(error=error)
    found = Resolution()
    chosen: dict[str, ChosenServer] = {}
    for choice in spec.servers:
        if choice.ref is not None:
            _take(found, chosen, choice, _referred(found, choice, namespace, servers))
    named = set(found.targets.values())
    for choice in spec.servers:
        if choice.selector is not None:
            _take(found, chosen, choice, [t for t in _selected(choice, namespace, servers) if t not in named])
    _tell_unknown(found, spec, chosen)
    found.server = VirtualServer(
        namespace,
        name,
        tuple(chosen[key] for key in sorted(chosen)),
        tuple(_tool(tool) for tool in spec.tools or ()),
        _prefixed(spec),
        spec.failure_mode == "FailOpen",
        spec.title or "",
        spec.instructions or "",
    )
    return found


def _prefixed(spec: VirtualServerSpec) -> bool:
    """By what is written, not by what is there now: a server that comes or goes renames no tool of others."""
    if spec.prefix_mode == "Conditional":
        return len(spec.servers) != 1 or spec.servers[0].selector is not None
    return spec.prefix_mode == "Always"


def _check(spec: VirtualServerSpec, where: str) -> None:
    """Raises ConfigError for what no server's tools can make right."""
    names: dict[str, int] = {}
    for place, choice in enumerate(spec.servers):
        if choice.ref is None:
            continue
        name = choice.name or choice.ref.name
        if name in names:
            raise ConfigError(
                f"{where}: servers[{names[name]}] and servers[{place}] are both called {name}; set name on one of them"
            )
        names[name] = place
    given: dict[str, int] = {}
    for place, tool in enumerate(spec.tools or ()):
        if tool.name and tool.name in given:
            raise ConfigError(
                f"{where}: tools[{given[tool.name]}] and tools[{place}] are both exposed as {tool.name}; rename one"
            )
        if tool.name:
            given[tool.name] = place
        both = sorted({*(tool.defaults or {})} & {*(tool.fixed or {})})
        if both:
            raise ConfigError(f"{where}: tools[{place}]: {', '.join(both)} cannot be in defaults and in fixed")
    _check_plain(spec, where)


def _check_plain(spec: VirtualServerSpec, where: str) -> None:
    """Of the entries that leave a tool its name there can be one only."""
    plain: dict[tuple[str, str], int] = {}
    for place, tool in enumerate(spec.tools or ()):
        if tool.name:
            continue
        key = (tool.server, tool.tool)
        if key in plain:
            raise ConfigError(
                f"{where}: tools[{plain[key]}] and tools[{place}] both expose {tool.tool} of {tool.server} under its "
                "own name; give one of them a name"
            )
        plain[key] = place


def _referred(found: Resolution, choice: ServerChoice, namespace: str, servers: Servers) -> list[Target]:
    ref = choice.ref
    assert ref is not None
    target = (ref.kind, ref.namespace or namespace, ref.name)
    where = f"{ref.kind} {target[1]}/{ref.name}"
    if target[1] != namespace and not servers.admits(target, namespace):
        found.missing.append(
            RefNotPermitted(
                f"servers: {where} is not there, or does not allow namespace {namespace}; its owner allows it in "
                "spec.allowedNamespaces"
                if ref.kind == "RemoteMCPServer"
                else f"servers: {where}: a {ref.kind} is used in its own namespace only; create one in {namespace}"
            )
        )
        return []
    obj = servers.get(*target)
    if obj is None:
        found.missing.append(RefNotFound(f"servers: {where} not found; create it or correct the name"))
        return []
    if ref.kind == "Service" and not is_mcp_service(obj):
        found.missing.append(
            RefNotFound(f'servers: {where} is no MCP server; label it kagent.dev/mcp-service: "true" if it is')
        )
        return []
    return [target]


def _selected(choice: ServerChoice, namespace: str, servers: Servers) -> list[Target]:
    selector: Mapping[str, Any] = choice.selector or {}
    found: list[Target] = []
    for kind in KINDS:
        for obj in servers.all(kind, namespace):
            if kind == "Service" and (not is_mcp_service(obj) or controller_of(obj) is not None):
                continue
            if selects(selector, obj["metadata"].get("labels") or {}):
                found.append((kind, namespace, obj["metadata"]["name"]))
    return sorted(found, key=lambda target: (target[2], KINDS.index(target[0])))


def _take(found: Resolution, chosen: dict[str, ChosenServer], choice: ServerChoice, targets: Sequence[Target]) -> None:
    for target in targets:
        name = choice.name or target[2]
        if name in chosen:
            if found.targets[name] != target:
                found.clashes.append(
                    f"{target[0]} {target[1]}/{target[2]} is left out: {chosen[name].server} is called {name} already; "
                    "name it in servers with a name of its own"
                )
            continue
        found.targets[name] = target
        chosen[name] = ChosenServer(
            name,
            "/".join(target),
            _choice(choice.tools, Choice()),
            _choice(choice.prompts, NOTHING),
            _choice(choice.resources, NOTHING),
        )


def _choice(selection: Selection | None, default: Choice) -> Choice:
    if selection is None:
        return default
    include = tuple(selection.include) if selection.include is not None else None
    return Choice(include, tuple(selection.exclude or ()))


def _tool(tool: ToolChoice) -> ChosenTool:
    return ChosenTool(
        tool.server,
        tool.tool,
        tool.name or "",
        tool.title or "",
        tool.description or "",
        tool.annotations or {},
        tool.defaults or {},
        tool.fixed or {},
        tuple(tool.hidden or ()),
    )


def _tell_unknown(found: Resolution, spec: VirtualServerSpec, chosen: Mapping[str, ChosenServer]) -> None:
    """Entries for servers that are not there; what a reference has failed to find is told already."""
    lost = {choice.name or choice.ref.name for choice in spec.servers if choice.ref is not None}
    for place, tool in enumerate(spec.tools or ()):
        if tool.server not in chosen and tool.server not in lost:
            known = ", ".join(sorted(chosen)) or "none"
            found.missing.append(
                RefNotFound(f"tools[{place}]: there is no server {tool.server}; the servers are: {known}")
            )


# -- the tools


@dataclass(slots=True)
class Offer:
    """What a virtual server shows, by what its servers offer, and what is wrong with it."""

    tools: list[Object] = field(default_factory=list[Object])
    """``name``, ``description``, ``server``, ``tool``, by name."""
    missing: list[str] = field(default_factory=list[str])
    """Entries for tools, or parameters, that are not there."""
    clashes: list[str] = field(default_factory=list[str])


def offer(virtual: VirtualServer, definitions: Mapping[str, Sequence[Object]]) -> Offer:
    """``definitions``: the tools of the servers that have been heard of, by the servers' names.

    Only ``name`` is needed; without ``inputSchema`` parameters are not looked at.
    """
    names = Names(virtual)
    known = {server: {str(tool.get("name", "")): tool for tool in tools} for server, tools in definitions.items()}
    shown, clashes = names.exposed(known)
    found = Offer(clashes=[_clash(clash) for clash in clashes])
    for each in shown:
        own = known[each.server][each.tool]
        described = each.entry.description if each.entry is not None else ""
        text = described or str(own.get("description") or "")
        found.tools.append({"name": each.name, "description": text, "server": each.server, "tool": each.tool})
    for place, entry in enumerate(virtual.tools):
        if entry.server not in known:
            continue
        tool = known[entry.server].get(entry.tool)
        where = f"tools[{place}]"
        if tool is None:
            found.missing.append(f"{where}: {entry.server} offers no tool {entry.tool}")
        elif names.excludes(entry.server, entry.tool):
            found.missing.append(f"{where}: {entry.tool} of {entry.server} is excluded by servers[].tools.exclude")
        else:
            found.missing += [f"{where}: {problem}" for problem in _parameters(entry, tool)]
    return found


def _clash(clash: Clash) -> str:
    tools = " and ".join(f"{own} of {server}" for server, own in clash.tools)
    if clash.kept is None:
        return f"{clash.name} is the name of {tools}: none of them is exposed under it"
    server, own = clash.kept
    return f"{clash.name} is the name of {tools}: it is {own} of {server}, the other is not exposed"


def _parameters(entry: ChosenTool, tool: Object) -> list[str]:
    """What an entry says of parameters that cannot be."""
    schema = tool.get("inputSchema")
    if not isinstance(schema, dict):
        return []
    properties: dict[str, Any] = schema.get("properties") or {}
    required: list[str] = schema.get("required") or []
    problems: list[str] = []
    touched = dict.fromkeys((*entry.defaults, *entry.fixed, *entry.hidden))
    if schema.get("additionalProperties") is False or properties:
        unknown = [name for name in touched if name not in properties]
        if unknown:
            problems.append(f"{entry.tool} has no parameter {', '.join(unknown)}")
    empty = [n for n in entry.hidden if n in required and n not in entry.defaults and n not in entry.fixed]
    if empty:
        problems.append(f"{', '.join(empty)} of {entry.tool} is required: a hidden one needs a value in defaults")
    headed = [name for name in touched if "x-mcp-header" in (properties.get(name) or {})]
    if headed:
        problems.append(
            f"{', '.join(headed)} of {entry.tool} travels in a header (x-mcp-header): it cannot be filled in"
        )
    return problems
