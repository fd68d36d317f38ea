"""Agents and MCP servers that rest while nobody calls: ``spec.scaleToZero``.

The Deployment's number of Pods is the state, the spec is never written: 0 is asleep and stays 0 until a gateway asks
for a Pod, anything else is awake. An autoscaler on the Deployment goes on where it was: it leaves a Deployment of 0
alone, and takes over again from the one Pod that was woken.
"""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.errors import BadRequest, Forbidden, NotFound
from quarterdeck.kube import resource as k
from quarterdeck.kube.controller import Result
from quarterdeck.kube.owner import belongs_to
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.resources.rollout import ScaleToZero
from quarterdeck.translate.objects import duration

from .activity import Activity, Target
from .context import COMPONENT, Context, Verdict
from .workload import Workload

_KINDS: dict[str, Resource] = {"Agent": k.AGENT, "MCPServer": k.MCP_SERVER}


@dataclass(frozen=True, slots=True)
class Rest:
    """``replicas`` of the Deployment, whether that ends its last Pods now, and when to look again (seconds)."""

    replicas: int
    falls_asleep: bool = False
    look_again: float | None = None


def decide(after: float, wanted: int, live: int | None, idle: float) -> Rest:
    """From the spec's replicas, the Deployment's (None: it is not there yet) and the seconds since it was used."""
    if live == 0 or (live is None and wanted == 0):
        return Rest(0)
    if live is None or idle < after:
        return Rest(max(1, wanted), False, after if live is None else after - idle)
    return Rest(0, True)


@dataclass(slots=True)
class Idle:
    """Applies :func:`decide`, and wakes what is asleep."""

    context: Context
    activity: Activity

    def rest(self, obj: Object, rest: ScaleToZero | None, wanted: int, *, busy: bool = False) -> Rest:
        """How many Pods the Deployment of ``obj`` has to have. ``busy``: it must not rest now."""
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        target = (obj["kind"], namespace, name)
        if rest is None:
            self.activity.forget(target)
            return Rest(wanted)
        if busy:
            return Rest(max(1, wanted))
        live = self.context.get(k.DEPLOYMENT, namespace, name)
        replicas = int((live.get("spec") or {}).get("replicas", 1)) if live is not None else None
        found = decide(duration(rest.after), wanted, replicas, self.activity.idle(target))
        if found.falls_asleep:
            text = f"nobody called for {rest.after}: Pods are ended, the next call starts one"
            self.context.event(obj, "Normal", "ScaledToZero", text)
        return found

    async def put(self, obj: Object, rest: Rest) -> None:
        """End the Pods of a Deployment whose number an autoscaler owns."""
        if rest.falls_asleep:
            namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
            await self._scale(namespace, name, 0)

    async def wake(self, target: Target) -> int:
        """Start a Pod of what is asleep; gives the Deployment's replicas.

        Raises BadRequest, NotFound, NotLeader, and Forbidden where it does not rest by ``scaleToZero``.
        """
        kind, namespace, name = target
        res = _KINDS.get(kind)
        if res is None:
            raise BadRequest(f"kind must be {' or '.join(_KINDS)}, not {kind[:50]!r}")
        owner = self.context.get(res, namespace, name)
        live = self.context.get(k.DEPLOYMENT, namespace, name)
        if owner is None or live is None or not belongs_to(live, owner):
            raise NotFound(f"{kind} {namespace}/{name} is not there, or has no Deployment of its own yet")
        spec = owner.get("spec") or {}
        if not spec.get("scaleToZero"):
            raise Forbidden(f"{kind} {namespace}/{name} has no spec.scaleToZero: it is scaled by its owner only")
        self.activity.use(target)
        replicas = int((live.get("spec") or {}).get("replicas", 1))
        if replicas:
            return replicas
        wanted = 1 if self.context.autoscaled(namespace, name) else max(1, int(spec.get("replicas") or 1))
        await self._scale(namespace, name, wanted)
        full = {"apiVersion": res.api_version, "kind": kind} | owner
        self.context.event(full, "Normal", "Woken", f"a call came: Deployment {name} gets {wanted} Pod(s)")
        return wanted

    async def _scale(self, namespace: str, name: str, replicas: int) -> None:
        patch = {"spec": {"replicas": replicas}}
        written = await self.context.set.client.patch(k.DEPLOYMENT, name, patch, namespace, field_manager=COMPONENT)
        self.context.set.informer(k.DEPLOYMENT).observe(written)


def soonest(result: Result | None, *others: float | None) -> Result | None:
    """The reconcile that is due first; None when none is."""
    times = (result.requeue_after if result is not None else None, *others)
    due = [seconds for seconds in times if seconds is not None]
    return Result(min(due)) if due else None


def scaled(objects: list[Object], name: str, replicas: int) -> list[Object]:
    """``objects`` with that number of Pods for the Deployment of that name."""
    return [
        obj | {"spec": obj["spec"] | {"replicas": replicas}}
        if obj["kind"] == "Deployment" and obj["metadata"]["name"] == name
        else obj
        for obj in objects
    ]


def asleep(obj: Object, state: Workload) -> Verdict | None:
    """The Ready condition of what rests: it can be called."""
    if not (obj.get("spec") or {}).get("scaleToZero") or not state.found or state.wanted:
        return None
    return Verdict("Ready", True, "ScaledToZero", "no Pods run while nobody calls; the next call starts one")
