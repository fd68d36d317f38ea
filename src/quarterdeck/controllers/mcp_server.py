"""MCPServer: apply its objects, report whether it can be called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.errors import ApiError, ConfigError
from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object
from quarterdeck.resources.base import parse
from quarterdeck.resources.mcp_server import MCPServerSpec
from quarterdeck.translate.mcp_server import replicas, selector, translate_mcp_server
from quarterdeck.translate.snapshot import hosted_server

from . import pinning, rollout, scaling
from .context import PROGRAMMED, Context, Verdict
from .discovery import DISABLED, Discovery
from .idle import Idle, Rest, asleep, scaled, soonest
from .revisions import Revisions
from .sources import Source, hashes, missing, sources_in_pod
from .workload import Workload, workload

_REFERENCES = "references"


def controller(context: Context, discovery: Discovery, idle: Idle) -> Controller:
    servers = context.set.informer(k.MCP_SERVER)
    servers.add_index(_REFERENCES, _references)

    def users(kind: str):
        def keys(obj: Object) -> Iterable[Key]:
            name = f"{kind}/{obj['metadata']['namespace']}/{obj['metadata']['name']}"
            return [Key(s["metadata"]["namespace"], s["metadata"]["name"]) for s in servers.by_index(_REFERENCES, name)]

        return keys

    def hpa_target(obj: Object) -> Iterable[Key]:
        target = (obj.get("spec") or {}).get("scaleTargetRef") or {}
        return [Key(obj["metadata"]["namespace"], target["name"])] if target.get("kind") == "Deployment" else []

    def pod_server(obj: Object) -> Iterable[Key]:
        labels = obj["metadata"].get("labels") or {}
        name = labels.get("app.kubernetes.io/instance")
        mine = labels.get("app.kubernetes.io/managed-by") == "kmcp"
        return [Key(obj["metadata"]["namespace"], name)] if name and mine else []

    return Controller(
        "mcpserver",
        k.MCP_SERVER,
        MCPServerReconciler(context, discovery, Revisions(context), idle).reconcile,
        owns=(k.DEPLOYMENT, k.SERVICE, k.CONFIG_MAP, k.SERVICE_ACCOUNT, k.NETWORK_POLICY),
        maps=(
            (k.SECRET, users("Secret")),
            (k.CONFIG_MAP, users("ConfigMap")),
            (k.HPA, hpa_target),
            (k.POD, pod_server),
        ),
        reads=(k.ENDPOINT_SLICE,),
        workers=8,
    )


def _references(obj: Object) -> set[str]:
    namespace = obj["metadata"]["namespace"]
    return {f"{source.kind}/{namespace}/{source.name}" for source in _sources(obj)}


def _sources(obj: Object) -> set[Source]:
    """What the Pods mount or have in their environment."""
    deployment: Object = (obj.get("spec") or {}).get("deployment") or {}
    found = {Source("Secret", ref.get("name") or "") for ref in deployment.get("secretRefs") or ()}
    found |= {Source("ConfigMap", ref.get("name") or "") for ref in deployment.get("configMapRefs") or ()}
    found |= sources_in_pod({"volumes": deployment.get("volumes"), "containers": deployment.get("sidecars")})
    return {source for source in found if source.name}


@dataclass(slots=True)
class MCPServerReconciler:
    context: Context
    discovery: Discovery
    revisions: Revisions
    idle: Idle

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.MCP_SERVER, key)
        if obj is None:
            self.context.tools.pop(("MCPServer", key.namespace, key.name), None)
            self.discovery.forget("MCPServer", key)
            return None
        failure: ApiError | None = None
        verdicts: list[Verdict] = []
        seeded = (obj.get("status") or {}).get("seededReplicas")
        rest: Rest | None = None
        try:
            spec = parse(MCPServerSpec, obj.get("spec") or {}, f"MCPServer {key}")
            wanted = replicas(obj, spec).wanted
            release = (decider := scaling.decider(self.context, obj, wanted)) != "resource"
            mounted = hashes(self.context, key.namespace, key.name, _sources(obj))
            objects = translate_mcp_server(obj, spec, self.context.options, mounted, release_replicas=release)
            verdicts += [
                Verdict("Accepted", True, "Accepted", "MCPServer configuration is valid"),
                self._resolved(obj, key.namespace),
            ]
            rest = self.idle.rest(obj, spec.scale_to_zero, wanted)
            objects = rollout.steered(self.context, obj, objects)
            objects = await scaling.let_go(self.context, obj, objects, decider, wanted)
            if release:
                await self.idle.put(obj, rest)
            else:
                objects = scaled(objects, key.name, rest.replicas)
            await self.context.apply(obj, objects)
            await self.revisions.record(obj)
            seeded = await self.context.seed(k.MCP_SERVER, obj, replicas(obj, spec))
            verdicts.append(PROGRAMMED)
        except ConfigError as error:
            accepted = bool(verdicts)
            verdicts += (
                [self.context.not_programmed(obj, error)] if accepted else self.context.rejected(error, "InvalidConfig")
            )
        except ApiError as error:
            verdicts.append(self.context.not_programmed(obj, error))
            failure = error
        labels = selector(key.name)
        state = workload(self.context, key.namespace, key.name, labels, owner=obj)
        resting = asleep(obj, state)
        verdicts += [*rollout.verdicts(obj), resting or ready(state)]
        shown = ",".join(f"{n}={v}" for n, v in labels.items())
        fields = {"replicas": state.total, "selector": shown, "seededReplicas": seeded}
        await self.context.set_status(k.MCP_SERVER, obj, verdicts, fields)
        if failure is not None:
            raise failure
        awake = verdicts[-1].status and resting is None
        return soonest(await self._discover(key) if awake else None, rest.look_again if rest is not None else None)

    async def _discover(self, key: Key) -> Result | None:
        """Ask the running server for its tools, after its conditions are written."""
        obj = self.context.primary(k.MCP_SERVER, key)
        if obj is None or (obj["metadata"].get("labels") or {}).get(DISABLED) == "disabled":
            self.discovery.forget("MCPServer", key)
            return None
        server = hosted_server(obj, self.context.services())
        if server is None or not server.endpoints:
            return Result(1.0)
        found = self.discovery.tools(server)
        if found is None:
            return None
        if not found.error:
            slot = ("MCPServer", key.namespace, key.name)
            self.context.tools[slot] = found.names
            pinned = pinning.verdicts(obj, self.context.pins.get(slot, {}), found.tools)
            await self.context.set_status(k.MCP_SERVER, obj, pinned, {"discoveredTools": found.listed()})
        return Result(found.again_in)

    def _resolved(self, obj: Object, namespace: str) -> Verdict:
        absent = missing(self.context, namespace, _sources(obj))
        if absent:
            return Verdict("ResolvedRefs", False, "RefNotFound", f"not found: {', '.join(absent)}; create them")
        return Verdict("ResolvedRefs", True, "ResolvedRefs", "All references resolved successfully")


def ready(state: Workload) -> Verdict:
    if not state.found:
        return Verdict("Ready", False, "NotAvailable", "Deployment does not exist yet")
    if state.trouble is not None and state.available == 0:
        return Verdict("Ready", False, *state.trouble)
    if state.available >= 1 and state.available >= state.wanted and state.current:
        return Verdict("Ready", True, "Available", f"Deployment is ready and all pods are running{state.yet}")
    return Verdict("Ready", False, "PodsNotReady", state.not_ready)
