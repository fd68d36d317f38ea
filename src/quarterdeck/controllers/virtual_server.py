"""VirtualServer: what it is made of is checked against what its servers offer; the gateway serves it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object, Resource
from quarterdeck.snapshot.virtual import KIND
from quarterdeck.translate.objects import duration
from quarterdeck.translate.options import server_path
from quarterdeck.translate.reference import Target, allowed
from quarterdeck.translate.virtual import Offer, Resolution, Servers, offer, resolve

from .context import RESOLVED, Context, Verdict
from .discovery import DISABLED, Discovery, Found

_REFERENCES, _SELECTORS = "servers", "selectors"
_KINDS: dict[str, Resource] = {
    "MCPServer": k.MCP_SERVER,
    "RemoteMCPServer": k.REMOTE_MCP_SERVER,
    "Service": k.SERVICE,
}
_AGAIN = 60.0
"""Seconds until definitions are compared anew: nobody tells when a tool's parameters change."""
_SHOWN = 10


def controller(context: Context, discovery: Discovery) -> Controller:
    virtual = context.set.informer(k.VIRTUAL_SERVER)
    virtual.add_index(_REFERENCES, _references)
    virtual.add_index(_SELECTORS, _selects)

    def users(kind: str):
        def keys(obj: Object) -> Iterable[Key]:
            namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
            named = virtual.by_index(_REFERENCES, f"{kind}/{namespace}/{name}")
            return [k.key_of(each) for each in (*named, *virtual.by_index(_SELECTORS, namespace))]

        return keys

    def of_namespace(obj: Object) -> Iterable[Key]:
        """An ``allowedNamespaces`` selector may look at its labels."""
        return [k.key_of(each) for each in virtual.list(obj["metadata"]["name"])]

    return Controller(
        "virtualserver",
        k.VIRTUAL_SERVER,
        VirtualServerReconciler(context, discovery).reconcile,
        maps=(*((res, users(kind)) for kind, res in _KINDS.items()), (k.NAMESPACE, of_namespace)),
        workers=2,
    )


def _references(obj: Object) -> list[str]:
    namespace = obj["metadata"]["namespace"]
    refs = [choice.get("ref") or {} for choice in (obj.get("spec") or {}).get("servers") or ()]
    return [
        f"{ref.get('kind') or 'MCPServer'}/{ref.get('namespace') or namespace}/{ref['name']}"
        for ref in refs
        if ref.get("name")
    ]


def _selects(obj: Object) -> list[str]:
    choices = (obj.get("spec") or {}).get("servers") or ()
    return [obj["metadata"]["namespace"]] if any(choice.get("selector") is not None for choice in choices) else []


def servers(context: Context) -> Servers:
    """The MCP servers that there are now."""

    def admits(target: Target, source: str) -> bool:
        kind, namespace, name = target
        obj = context.get(_KINDS[kind], namespace, name)
        if obj is None or kind != "RemoteMCPServer":
            return False
        rule = (obj.get("spec") or {}).get("allowedNamespaces")
        return allowed(rule, namespace, source, context.namespace_labels(source))

    return Servers(
        lambda kind, namespace, name: context.get(_KINDS[kind], namespace, name),
        lambda kind, namespace: context.list(_KINDS[kind], namespace),
        admits,
    )


def look_again(context: Context, slot: Target) -> None:
    """Have the virtual servers of a server look again: it offers other tools."""
    virtual = context.set.informer(k.VIRTUAL_SERVER)
    named = virtual.by_index(_REFERENCES, "/".join(slot))
    for obj in (*named, *virtual.by_index(_SELECTORS, slot[1])):
        context.set.enqueue("virtualserver", k.key_of(obj))


def timeout(context: Context, obj: Object) -> float:
    """Seconds that the slowest server behind it may take. Raises ConfigError for a duration that is none."""
    found = resolve(obj, servers(context)).targets.values()
    specs = [(context.get(_KINDS[kind], *key) or {}).get("spec") or {} for kind, *key in found if kind != "Service"]
    return max((duration(str(spec.get("timeout") or "")) for spec in specs), default=duration(""))


@dataclass(slots=True)
class VirtualServerReconciler:
    context: Context
    discovery: Discovery

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.VIRTUAL_SERVER, key)
        slot = (KIND, key.namespace, key.name)
        if obj is None:
            self.context.tools.pop(slot, None)
            return None
        found = resolve(obj, servers(self.context))
        if found.server is None:
            assert found.error is not None
            self._tell(slot, ())
            verdicts = [
                *self.context.rejected(found.error, "Invalid"),
                Verdict("Programmed", False, "Invalid", "It is not served: its spec cannot be used as it is"),
                Verdict("Ready", False, "Invalid", str(found.error)),
            ]
            fields: Object = {"discoveredTools": None, "tools": 0, "servers": 0, "path": None}
            await self.context.set_status(k.VIRTUAL_SERVER, obj, verdicts, fields)
            return None
        heard, silent = self._definitions(found)
        offered = offer(found.server, heard)
        self._tell(slot, tuple(tool["name"] for tool in offered.tools))
        fields = {
            "discoveredTools": Found(offered.tools).listed("server", "tool"),
            "tools": len(offered.tools),
            "servers": len(found.targets),
            "path": f"/mcp/{key.namespace}/{server_path(key.name, KIND)}",
        }
        await self.context.set_status(k.VIRTUAL_SERVER, obj, _verdicts(found, offered, silent), fields)
        return Result(_AGAIN)

    def _definitions(self, found: Resolution) -> tuple[dict[str, Sequence[Object]], list[str]]:
        """The tools of each server that has been heard of, and the names of those that will be."""
        heard: dict[str, Sequence[Object]] = {}
        silent: list[str] = []
        for name, target in found.targets.items():
            obj = self.context.get(_KINDS[target[0]], *target[1:]) or {"metadata": {}}
            if (obj["metadata"].get("labels") or {}).get(DISABLED) == "disabled":
                continue
            tools = self.discovery.known(target)
            if tools is None and target in self.context.tools:
                tools = [{"name": tool} for tool in self.context.tools[target]]
            if tools is None:
                tools = (obj.get("status") or {}).get("discoveredTools")
            if tools is None:
                silent.append(name)
            else:
                heard[name] = tools
        return heard, sorted(silent)

    def _tell(self, slot: Target, names: tuple[str, ...]) -> None:
        """Have the agents that name it look again when its tools are others."""
        if self.context.tools.get(slot) == names:
            return
        self.context.tools[slot] = names
        for agent in self.context.set.informer(k.AGENT).by_index("references", "/".join(slot)):
            self.context.set.enqueue("agent", k.key_of(agent))


def _verdicts(found: Resolution, offered: Offer, silent: list[str]) -> list[Verdict]:
    assert found.server is not None
    verdicts = [Verdict("Accepted", True, "Accepted", "The virtual server is accepted"), _resolved(found, offered)]
    clashes = [*found.clashes, *offered.clashes]
    if clashes:
        verdicts.append(Verdict("Conflicted", True, "NameConflict", _some(clashes)))
    else:
        verdicts.append(Verdict("Conflicted", False, "NoConflicts", "Every name is one tool's"))
    path = f"/mcp/{found.server.namespace}/{server_path(found.server.name, KIND)}"
    verdicts.append(Verdict("Programmed", True, "Programmed", f"Served at {path}"))
    return [*verdicts, _ready(verdicts, found, offered, silent)]


def _resolved(found: Resolution, offered: Offer) -> Verdict:
    if found.missing:
        texts = [*map(str, found.missing), *offered.missing]
        return Verdict("ResolvedRefs", False, found.missing[0].reason, _some(texts))
    if offered.missing:
        return Verdict("ResolvedRefs", False, "ToolsNotFound", _some(offered.missing))
    return RESOLVED


def _ready(verdicts: list[Verdict], found: Resolution, offered: Offer, silent: list[str]) -> Verdict:
    """Whether it is all that its spec says; what is there is served anyway."""
    problem = next((v for v in verdicts if v.status is (v.type == "Conflicted")), None)
    if problem is not None:
        return Verdict("Ready", False, problem.reason, problem.message)
    if not found.targets:
        return Verdict("Ready", False, "NoServers", "No server of this namespace has the labels that are looked for")
    if silent:
        text = f"The tools of {', '.join(silent)} are not known yet"
        return Verdict("Ready", False, "ToolsNotKnown", text, early=True)
    servers = f"{len(found.targets)} server" + ("s" if len(found.targets) != 1 else "")
    return Verdict("Ready", True, "Ready", f"{len(offered.tools)} tools of {servers}")


def _some(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more
