"""Canaries of Agents: both tracks' objects, what is seen of them, and the story in status, condition and Events."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.errors import ConfigError, NotFound
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.owner import is_controlled_by
from quarterdeck.kube.resource import Object
from quarterdeck.resources.rollout import Rollout
from quarterdeck.translate.agent import replicas, selector, translate_agent
from quarterdeck.translate.agent_config import AgentInputs
from quarterdeck.translate.canary import SUFFIX, both_tracks, canary_objects, check_rollout, wanted_revision
from quarterdeck.translate.objects import ABORT, PROMOTE
from quarterdeck.translate.revision import kept_as, restored, revision_name

from . import canary_steps as steps
from .activity import Activity
from .agent_inputs import resolve
from .canary_steps import Next, Seen, State
from .context import Context, Verdict
from .revisions import Revisions
from .rollout import is_paused
from .workload import workload

_KEPT = 2000
_UNWATCHED = 60.0
_OWN = (k.SERVICE, k.DEPLOYMENT, k.SECRET, k.NETWORK_POLICY)
_CONDITION = "RolledOut"
_REASONS = {
    steps.STABLE: "Promoted",
    steps.PROGRESSING: "CanaryProgressing",
    steps.PAUSED: "CanaryPaused",
    steps.PROMOTING: "CanaryPromoting",
    steps.ABORTED: "CanaryAborted",
}


class Contents:
    """Specs kept in ControllerRevisions. They never change, so what was read once is kept."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self.known: OrderedDict[str, Object] = OrderedDict()
        """By name of the revision, which is unique: it is made from the owner's UID."""

    async def get(self, obj: Object, name: str) -> Object | None:
        """None when there is no such revision of ``obj`` (any more). Raises ApiError."""
        found = self.known.get(name)
        if found is None:
            try:
                revision = await self._client.get(k.CONTROLLER_REVISION, name, obj["metadata"]["namespace"])
            except NotFound:
                return None
            data: Any = revision.get("data")
            found = data.get("spec") if isinstance(data, dict) else None
            if found is None or not kept_as(obj, name, found):
                return None
            self.known[name] = found
            while len(self.known) > _KEPT:
                self.known.popitem(last=False)
        return found if kept_as(obj, name, found) else None

    async def read(self, agents: Iterable[Object]) -> None:
        """Have at hand what the Pods of these Agents run beside their specs. Raises ApiError."""
        for obj in agents:
            name = wanted_revision(obj)
            if name and name not in self.known:
                await self.get(obj, name)


@dataclass(frozen=True, slots=True)
class Tracks:
    """What an Agent's objects are now, and what is to be said once they are written."""

    objects: list[Object]
    next: Next | None = None
    """None without canaries."""
    drain: float | None = 0.0
    """Seconds until the objects of a canary that is over may go; None while one runs."""
    note: str = ""

    @property
    def state(self) -> State | None:
        return self.next.state if self.next is not None else None

    @property
    def look_again(self) -> float | None:
        """Seconds; what only the stable spec refers to is not watched while another spec is asked for."""
        times = [self.drain or None, self.next.look_again if self.next is not None else None]
        if self.state is not None and self.state.canary and self.state.phase != steps.PROMOTING:
            times.append(_UNWATCHED)
        due = [seconds for seconds in times if seconds is not None]
        return min(due) if due else None

    @property
    def busy(self) -> bool:
        """Whether two tracks run."""
        return self.state is not None and (self.state.running or self.state.phase == steps.PROMOTING)


@dataclass(slots=True)
class Canaries:
    """The canary's part of the Agent reconciler."""

    context: Context
    contents: Contents
    activity: Activity
    revisions: Revisions

    async def tracks(self, obj: Object, inputs: AgentInputs, *, autoscaled: bool) -> Tracks:
        """One step of the rollout, and the objects as they are to be then. Raises ConfigError, ApiError."""
        rollout = inputs.spec.rollout
        options = self.context.options
        if rollout is None or rollout.strategy != "Canary":
            return Tracks(translate_agent(inputs, options, release_replicas=autoscaled))
        check_rollout(rollout)
        before = steps.parse((obj.get("status") or {}).get("rollout"))
        wanted = self._wanted(obj, inputs, autoscaled)
        now = self.context.set.clock.time()
        found = steps.advance(before, rollout, self._look(obj, before, wanted), now)
        state = found.state
        objects, note = await self._stable(obj, inputs, state, autoscaled)
        running = state.running or state.phase == steps.PROMOTING
        if running:
            number = steps.replicas(state, wanted)
            objects = both_tracks(objects, canary_objects(inputs, options, state.tag, number))
        return Tracks(objects, found, steps.draining(state, now) if not running else None, note)

    async def settle(self, obj: Object, tracks: Tracks) -> None:
        """After the objects are written: tell the story, and take away what is left of a canary."""
        for told in tracks.next.story if tracks.next is not None else ():
            self.context.event(obj, told.type, told.reason, told.message)
        if tracks.drain == 0.0:
            await self._remove(obj)

    async def _stable(
        self, obj: Object, inputs: AgentInputs, state: State, autoscaled: bool
    ) -> tuple[list[Object], str]:
        """The stable track's objects; none, and why, where its spec cannot be had: what runs goes on then."""
        options = self.context.options
        if state.stable == revision_name(obj):
            return translate_agent(inputs, options, release_replicas=autoscaled), ""
        content = await self.contents.get(obj, state.stable)
        if content is None:
            return [], f"ControllerRevision {state.stable} is gone or not ours: the stable track stays as it runs"
        kept = obj | {"spec": restored(obj.get("spec") or {}, content)}
        try:
            found = translate_agent(resolve(self.context, kept), options, release_replicas=autoscaled)
        except ConfigError as error:
            return [], f"the stable track stays as it runs, its spec ({state.stable}) cannot be used: {error}"
        return found, ""

    def _wanted(self, obj: Object, inputs: AgentInputs, autoscaled: bool) -> int:
        if autoscaled:
            live = self.context.get(k.DEPLOYMENT, obj["metadata"]["namespace"], obj["metadata"]["name"])
            return int(((live or {}).get("spec") or {}).get("replicas", 1))
        return replicas(inputs).wanted

    def _look(self, obj: Object, before: State | None, wanted: int) -> Seen:
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        annotations = obj["metadata"].get("annotations") or {}
        trial = workload(self.context, namespace, name + SUFFIX, selector(name + SUFFIX), owner=obj)
        counts = self.activity.counts(("Agent", namespace, name), before.epoch if before is not None else "")
        known = self.revisions.known(obj) if before is None else []
        resting = bool((obj.get("spec") or {}).get("scaleToZero"))
        return Seen(
            revision_name(obj),
            last=known[-1].name if known else "",
            available=self._up_to_date(namespace, name + SUFFIX),
            trouble=trial.trouble[1] if trial.trouble is not None else "",
            promoted=self._up_to_date(namespace, name) or wanted == 0,
            requests=counts.requests,
            errors=counts.errors,
            scaled_to_zero=wanted == 0 and not resting,
            paused=is_paused(obj),
            promote=annotations.get(PROMOTE, ""),
            abort=annotations.get(ABORT, ""),
        )

    def _up_to_date(self, namespace: str, name: str) -> bool:
        """Whether all Pods of a Deployment are of its newest template, and all that are wanted are available."""
        obj = self.context.get(k.DEPLOYMENT, namespace, name)
        if obj is None:
            return False
        status = obj.get("status") or {}
        wanted = int((obj.get("spec") or {}).get("replicas", 1))
        updated, total = int(status.get("updatedReplicas") or 0), int(status.get("replicas") or 0)
        current = int(status.get("observedGeneration") or 0) >= int(obj["metadata"].get("generation") or 0)
        return current and wanted <= updated == total and int(status.get("availableReplicas") or 0) >= wanted > 0

    async def _remove(self, obj: Object) -> None:
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"] + SUFFIX
        for res in _OWN:
            live = self.context.get(res, namespace, name)
            if live is None or not is_controlled_by(live, obj) or live["metadata"].get("deletionTimestamp"):
                continue
            try:
                await self.context.set.client.delete(res, name, namespace, uid=live["metadata"]["uid"])
            except NotFound:
                continue
            self.context.set.informer(res).observe_deletion(live)


def status(tracks: Tracks, rollout: Rollout | None) -> Object | None:
    """``status.rollout``."""
    return steps.dump(tracks.state, rollout) if tracks.state is not None and rollout is not None else None


def verdicts(tracks: Tracks, obj: Object) -> Sequence[Verdict]:
    """Whether the spec is what everybody is served; the Events are told as the story."""
    state = tracks.state
    if state is None:
        conditions = (obj.get("status") or {}).get("conditions") or ()
        if any(c.get("type") == _CONDITION for c in conditions):
            return (Verdict(_CONDITION, True, "RollingUpdate", "rollout.strategy is not Canary any more", quiet=True),)
        return ()
    text = "; ".join(part for part in (state.message, tracks.note) if part)
    return (Verdict(_CONDITION, state.phase == steps.STABLE, _REASONS[state.phase], text, quiet=True),)
