"""Agent: resolve what it refers to, apply its objects, report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.errors import ApiError, ConfigError
from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import Controller, Result
from quarterdeck.kube.resource import Key, Object
from quarterdeck.translate.agent import replicas, selector
from quarterdeck.translate.canary import SUFFIX

from . import canary, memory, rollout, scaling, skills
from .agent_inputs import references, resolve, resolved_refs
from .canary import Canaries, Contents
from .context import PROGRAMMED, Context, Verdict
from .idle import Idle, asleep, scaled, soonest
from .revisions import Revisions
from .workload import Workload, workload

_REFERENCES = "references"


def controller(context: Context, contents: Contents, idle: Idle) -> Controller:
    revisions = Revisions(context)
    reconciler = AgentReconciler(context, revisions, Canaries(context, contents, idle.activity, revisions), idle)
    agents = context.set.informer(k.AGENT)
    agents.add_index(_REFERENCES, lambda obj: references(obj, context))

    def users(kind: str):
        def keys(obj: Object) -> Iterable[Key]:
            metadata = obj["metadata"]
            name = f"{kind}/{metadata.get('namespace', '')}/{metadata['name']}"
            return [_key(agent) for agent in agents.by_index(_REFERENCES, name)]

        return keys

    def hpa_target(obj: Object) -> Iterable[Key]:
        target = (obj.get("spec") or {}).get("scaleTargetRef") or {}
        return [Key(obj["metadata"]["namespace"], target["name"])] if target.get("kind") == "Deployment" else []

    def pod_agent(obj: Object) -> Iterable[Key]:
        name = (obj["metadata"].get("labels") or {}).get("kagent")
        namespace = obj["metadata"]["namespace"]
        return [Key(namespace, name), Key(namespace, name.removesuffix(SUFFIX))] if name else []

    return Controller(
        "agent",
        k.AGENT,
        reconciler.reconcile,
        owns=(k.DEPLOYMENT, k.SERVICE, k.SECRET, k.SERVICE_ACCOUNT, k.NETWORK_POLICY),
        maps=(
            (k.MODEL_CONFIG, users("ModelConfig")),
            (k.MCP_SERVER, users("MCPServer")),
            (k.REMOTE_MCP_SERVER, users("RemoteMCPServer")),
            (k.VIRTUAL_SERVER, users("VirtualServer")),
            (k.SERVICE, users("Service")),
            (k.AGENT, users("Agent")),
            (k.SECRET, users("Secret")),
            (k.CONFIG_MAP, users("ConfigMap")),
            (k.NAMESPACE, users("Namespace")),
            (k.HPA, hpa_target),
            (k.POD, pod_agent),
        ),
    )


def _key(obj: Object) -> Key:
    return Key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


@dataclass(slots=True)
class AgentReconciler:
    context: Context
    revisions: Revisions
    canaries: Canaries
    idle: Idle

    async def reconcile(self, key: Key) -> Result | None:
        obj = self.context.primary(k.AGENT, key)
        if obj is None:
            return None
        verdicts: list[Verdict] = []
        failure: ApiError | None = None
        seeded = (obj.get("status") or {}).get("seededReplicas")
        tried = (obj.get("status") or {}).get("rollout")
        look_again: list[float | None] = []
        try:
            inputs = resolve(self.context, obj)
            wanted = replicas(inputs).wanted
            decider = scaling.decider(self.context, obj, wanted)
            release = decider != "resource"
            tracks = await self.canaries.tracks(obj, inputs, autoscaled=release)
            rest = self.idle.rest(obj, inputs.spec.scale_to_zero, wanted, busy=tracks.busy)
            objects = tracks.objects if release else scaled(tracks.objects, key.name, rest.replicas)
            look_again = [rest.look_again, tracks.look_again]
            verdicts.append(Verdict("Accepted", True, "Reconciled", "Agent configuration accepted"))
            verdicts += [resolved_refs(self.context, inputs), *memory.verdicts(self.context, obj, inputs)]
            objects = rollout.steered(self.context, obj, objects)
            objects = await scaling.let_go(self.context, obj, objects, decider, wanted)
            await self.context.apply(obj, objects)
            await self.revisions.record(obj)
            seeded = await self.context.seed(k.AGENT, obj, replicas(inputs))
            if release:
                await self.idle.put(obj, rest)
            await self.canaries.settle(obj, tracks)
            tried = canary.status(tracks, inputs.spec.rollout)
            verdicts += [PROGRAMMED, *canary.verdicts(tracks, obj)]
        except ConfigError as error:
            accepted = bool(verdicts)
            verdicts += (
                [self.context.not_programmed(obj, error)]
                if accepted
                else self.context.rejected(error, "ReconcileFailed")
            )
        except ApiError as error:
            verdicts.append(self.context.not_programmed(obj, error))
            failure = error
        state = workload(self.context, key.namespace, key.name, selector(key.name), owner=obj)
        verdicts += [*rollout.verdicts(obj), *skills.verdicts(self.context, obj), asleep(obj, state) or ready(state)]
        labels = ",".join(f"{name}={value}" for name, value in selector(key.name).items())
        fields = {"replicas": state.total, "selector": labels, "seededReplicas": seeded, "rollout": tried}
        await self.context.set_status(k.AGENT, obj, verdicts, fields)
        if failure is not None:
            raise failure
        return soonest(None, *look_again)


def ready(state: Workload) -> Verdict:
    if not state.found:
        return Verdict("Ready", None, "DeploymentNotFound", "Deployment does not exist yet")
    if state.available >= 1:
        return Verdict("Ready", True, "DeploymentReady", f"Deployment is ready{state.yet}")
    if state.trouble is not None:
        return Verdict("Ready", False, *state.trouble)
    return Verdict("Ready", False, "DeploymentNotReady", state.not_ready)
