"""Gateway API: compiled with the gateway's configuration, and what came of it told to each object's controller."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quarterdeck import snapshot
from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.informer import Callback, ChangeKind
from quarterdeck.kube.resource import Key, Object, Resource
from quarterdeck.kube.selector import selects
from quarterdeck.resources.gateway_api import CLASS, CONTROLLER
from quarterdeck.snapshot import McpServer, Snapshot
from quarterdeck.translate.gateway_api.compile import Result, compile_gateways, own_snapshot, with_gateways
from quarterdeck.translate.gateway_api.status import Name, Statuses
from quarterdeck.translate.gateway_api.workload import GatewayPods, replicas_of
from quarterdeck.translate.gateway_api.world import GatewayWorld
from quarterdeck.translate.resolve import Services
from quarterdeck.translate.snapshot import Lookup, Values

SOURCES: dict[str, Resource] = {
    "classes": k.GATEWAY_CLASS,
    "gateways": k.GATEWAY,
    "http_routes": k.HTTP_ROUTE,
    "grpc_routes": k.GRPC_ROUTE,
    "grants": k.REFERENCE_GRANT,
    "backends": k.BACKEND,
    "agentgateway_backends": k.AGENTGATEWAY_BACKEND,
    "traffic_policies": k.TRAFFIC_POLICY,
    "agentgateway_policies": k.AGENTGATEWAY_POLICY,
}
_OURS: Object = {"metadata": {"name": CLASS}, "spec": {"controllerName": CONTROLLER}}
_VERSIONS = 64
"""Compiled versions whose content is remembered until they are acknowledged."""


class _Version(msgspec.Struct):
    version: str = ""


Generations = dict[tuple[str, str], int]
"""Of Gateways by namespace and name."""


@dataclass(slots=True)
class Replica:
    """What one gateway process said. ``serves``: Gateways and generations in the newest version it took."""

    version: str = ""
    serves: Generations = field(default_factory=dict[tuple[str, str], int])
    problems: dict[str, str] = field(default_factory=dict[str, str])
    """Listeners of that version that it cannot serve, by name, and why."""
    refused: str = ""
    """Why it did not take the newest version."""


class GatewayApi:
    """Holds the newest result; controllers read from it. ``pods`` says how Gateways are run."""

    def __init__(self, controllers: ControllerSet, pods: GatewayPods, default: str) -> None:
        self._set = controllers
        self.sources = {name: res for name, res in SOURCES.items() if res.namespaced or not controllers.namespaces}
        """Without rights in the whole cluster classes cannot be looked at; the one of our name is taken for ours."""
        self.pods = pods
        self.default = default
        """``namespace/name`` of the default gateway's process."""
        self.result = Result({}, Statuses())
        self._newest = self._compiled = self.result
        """What :meth:`publish` takes over, and what was compiled last, perhaps without data that is not loaded yet."""
        self.lines: dict[str, bytes] = {}
        """Snapshots of the gateways besides the default one, by ``namespace/name``."""
        self._sent: dict[str, OrderedDict[str, Generations]] = {}
        self._replicas: dict[str, dict[str, Replica]] = {}
        self._parsed: dict[tuple[Any, ...], Any] = {}

    def follow(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever something must be compiled anew."""

        def callback(kind: ChangeKind, old: Object | None, new: Object | None) -> None:
            del kind
            if old is None or new is None or _matters(old, new):
                changed()

        listener: Callback = callback
        for res in self.sources.values():
            self._set.informer(res).on_change(listener)

    def compile(
        self,
        base: Snapshot,
        services: Callable[[], Services],
        values: Values,
        secret: Lookup,
        labels: Mapping[str, Mapping[str, str]],
    ) -> Snapshot:
        """The default gateway's snapshot with the Gateways that it serves; the rest waits for :meth:`settle`."""
        objects = {name: self._objects(res) for name, res in self.sources.items()}
        if not any(objects.values()):
            self._compiled = Result({}, Statuses())
            return base
        objects.setdefault("classes", [_OURS])
        world = GatewayWorld(
            classes=objects["classes"],
            gateways=objects["gateways"],
            http_routes=objects["http_routes"],
            grpc_routes=objects["grpc_routes"],
            grants=objects["grants"],
            backends=objects["backends"],
            agentgateway_backends=objects["agentgateway_backends"],
            traffic_policies=objects["traffic_policies"],
            agentgateway_policies=objects["agentgateway_policies"],
            services=self._set.informer(k.SERVICE).list(),
            endpoints=services(),
            values=values,
            secret=secret,
            secrets=self._secrets,
            labels=labels,
            servers={f"{s.kind}/{s.namespace}/{s.name}": s for s in base.mcp},
            virtual={f"{v.namespace}/{v.name}": v for v in base.virtual},
            shared=bool(self.pods.shared),
            parsed=self._parsed,
        )
        self._compiled = result = compile_gateways(world)
        ours = [part for key, part in sorted(result.gateways.items()) if self.process_of(*key) == self.default]
        return with_gateways(base, ours)

    def settle(self) -> None:
        """What was compiled last lacks nothing: publish it next."""
        self._newest = self._compiled

    def publish(self, base: Snapshot, line: bytes) -> bool:
        """Take over what was compiled last, with all else that ``base`` (the default gateway's, in ``line``) says.

        True when a line of another gateway than the default one changed.
        """
        before, self.result = self.result, self._newest
        result = self.result
        lines: dict[str, bytes] = {}
        known: dict[str, McpServer] = {f"{s.kind}/{s.namespace}/{s.name}": s for s in base.mcp}
        for (namespace, name), part in result.gateways.items():
            process = self.process_of(namespace, name)
            if process != self.default:
                obj = self._set.informer(k.GATEWAY).get(namespace, name) or {"metadata": {}}
                own = own_snapshot(base, process, part, known, replicas_of(obj))
                lines[process] = snapshot.encode(own)
        changed = lines != self.lines
        self.lines = lines
        for process, text in ((self.default, line), *lines.items()):
            self._remember(process, msgspec.json.decode(text, type=_Version).version, result)
        self._wake(before, result)
        return changed

    def owner_of_class(self, name: str) -> str:
        """The controller of a GatewayClass; empty when nothing is known of it."""
        if "classes" not in self.sources:
            return CONTROLLER if name == CLASS else ""
        found = self._set.informer(k.GATEWAY_CLASS).get("", name) or {}
        return str((found.get("spec") or {}).get("controllerName") or "")

    def process_of(self, namespace: str, name: str) -> str:
        """The gateway process that serves the Gateway, as ``namespace/name``."""
        return self.default if self.pods.shared else f"{namespace}/{name}"

    def acknowledge(
        self, process: str, replica: str, version: str, errors: tuple[str, ...], problems: Mapping[str, str]
    ) -> None:
        """What a replica said of a version; ``errors``: why it is not taken."""
        state = self._replicas.setdefault(process, {}).setdefault(replica, Replica())
        if errors:
            state.refused = "; ".join(errors)
        else:
            state.refused = ""
            state.version = version
            state.serves = self._sent.get(process, OrderedDict()).get(version, state.serves)
            state.problems = dict(problems)
        for key in self.result.gateways:
            if self.process_of(*key) == process:
                self._set.enqueue("gateway", Key(*key))

    def replicas(self, process: str) -> list[Replica]:
        """What the replicas said that are still there."""
        namespace = process.partition("/")[0]
        known = self._replicas.get(process, {})
        pods = self._set.informer(k.POD)
        for gone in [name for name in known if name and pods.get(namespace, name) is None]:
            del known[gone]
        return list(known.values())

    def _remember(self, process: str, version: str, result: Result) -> None:
        gateways = self._set.informer(k.GATEWAY)
        generations: Generations = {}
        for key in result.gateways:
            obj = gateways.get(*key)
            if obj is not None and self.process_of(*key) == process:
                generations[key] = int(obj["metadata"].get("generation") or 0)
        sent = self._sent.setdefault(process, OrderedDict())
        sent[version] = generations
        sent.move_to_end(version)
        while len(sent) > _VERSIONS:
            sent.popitem(last=False)
        for state in self._replicas.get(process, {}).values():
            if state.version == version:  # the same content under a new generation is served already
                state.serves = generations

    def _wake(self, before: Result, after: Result) -> None:
        """Ask those to be looked at of whom something else is said now."""
        for name in _changed(before.statuses.gateways, after.statuses.gateways):
            self._set.enqueue("gateway", Key(*name))
        for name in _changed(_used(before), _used(after)):
            self._set.enqueue("gateway", Key(*name))
        for old, new in (
            (before.statuses.routes, after.statuses.routes),
            (before.statuses.backends, after.statuses.backends),
            (before.statuses.policies, after.statuses.policies),
        ):
            for kind, namespace, name in _changed(dict[Name, Any](old), dict[Name, Any](new)):
                self._set.enqueue(kind.lower(), Key(namespace, name))

    def _objects(self, res: Resource) -> list[Object]:
        """Those that are there to stay."""
        found = self._set.informer(res).list()
        return [{"kind": res.kind} | obj for obj in found if not obj["metadata"].get("deletionTimestamp")]

    def _secrets(self, namespace: str, labels: Mapping[str, str]) -> list[str]:
        found = self._set.informer(k.SECRET).list(namespace)
        wanted = {"matchLabels": dict(labels)}
        return [o["metadata"]["name"] for o in found if selects(wanted, o["metadata"].get("labels") or {})]


def _used(result: Result) -> dict[tuple[str, str], frozenset[str]]:
    return {key: part.used for key, part in result.gateways.items()}


def _changed(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[Any]:
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def _matters(old: Object, new: Object) -> bool:
    """Whether a change shows in what is compiled: our own statuses do not."""
    return any(
        old["metadata"].get(part) != new["metadata"].get(part)
        for part in ("generation", "labels", "annotations", "deletionTimestamp", "uid")
    )
