"""Job → Pods.

Each Pod carries a finalizer until its end is counted, so that a Pod deleted early, or a crash between seeing and
counting, neither loses nor doubles a result: its uid is written to ``status.uncountedTerminatedPods``, then the
finalizer goes, then the counter rises.
"""

from __future__ import annotations

import asyncio
from copy import deepcopy
from functools import partial
from typing import Any

from quarterdeck import errors
from quarterdeck.kube.clock import parse_timestamp, timestamp
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.owner import owner_reference
from quarterdeck.kube.resource import JOB, POD, Key, Object

from .control import PodControl, claim, controller_uid, orphan_namespace, slow_start, write_status
from .job_plan import (
    INDEX,
    TRACKING,
    Finish,
    Plan,
    Progress,
    format_indexes,
    index_of,
    is_finished,
    is_indexed,
    parse_indexes,
    plan,
    pod_ended,
)  # fmt: skip
from .pods import from_template, is_active, is_ready, is_terminating


class Jobs:
    def __init__(self, controllers: ControllerSet) -> None:
        self._client = controllers.client
        self._clock = controllers.clock
        self._recorder = controllers.recorder("job-controller")
        self._jobs = controllers.informer(JOB)
        self._pods = controllers.informer(POD)
        self._pods.add_index("controller", controller_uid)
        self._pods.add_index("orphans", orphan_namespace)
        self._pods.add_index("tracked", _tracked_by)
        self._control = PodControl(self._pods, self._recorder)
        maps = [(POD, _lost_owner)]
        controllers.add(Controller("job", JOB, self.reconcile, owns=[POD], maps=maps, workers=2))

    async def reconcile(self, key: Key) -> Result:
        job = self._jobs.get(*key)
        if job is None:
            await self._release_lost(key)
            return DONE
        candidates = self._pods.by_index("controller", job["metadata"]["uid"])
        candidates += self._pods.by_index("orphans", key.namespace)
        deleting = "deletionTimestamp" in job["metadata"]
        if "selector" in job["spec"]:
            pods = await claim(self._pods, POD, job, candidates, may_adopt=not deleting)
        else:  # a server that generates none: the reference alone decides
            pods = self._pods.by_index("controller", job["metadata"]["uid"])
        if deleting or is_finished(job):
            await self._release(pods)
            return await self._expire(job) if not deleting else DONE
        now = self._clock.time()
        progress, uncounted = tally(job, pods)
        wanted = plan(job, pods, progress, now)
        status = status_of(job, pods, progress, uncounted, wanted, now)
        await write_status(self._jobs, JOB, job, status)
        job = self._jobs.get(*key) or job
        ended = [pod for pod in pods if pod_ended(pod)]
        await self._release(ended)
        await self._act(job, wanted)
        if uncounted or wanted.create or wanted.delete:
            return Result(0.05)  # count what was released just now
        if wanted.finish is not None and not any(is_active(p) or is_terminating(p) for p in pods):
            await self._announce(job, wanted.finish)
        return Result(wanted.wait)

    async def _act(self, job: Object, wanted: Plan) -> None:
        await slow_start([partial(self._create, job, index) for index in wanted.create])
        await slow_start([partial(self._control.delete, pod, job) for pod in wanted.delete])

    async def _create(self, job: Object, index: int | None) -> None:
        metadata = job["metadata"]
        template = deepcopy(job["spec"]["template"])
        prefix = metadata["name"] if index is None else f"{metadata['name']}-{index}"
        pod = from_template(template, job, owner_reference(job), prefix)
        pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), **_pod_labels(job)}
        pod["metadata"]["finalizers"] = [*(pod["metadata"].get("finalizers") or ()), TRACKING]
        if index is not None:
            pod["metadata"].setdefault("annotations", {})[INDEX] = str(index)
            pod["metadata"].setdefault("labels", {})[INDEX] = str(index)
            pod["spec"].setdefault("hostname", prefix)
            value = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
            for container in [*pod["spec"].get("containers", ()), *pod["spec"].get("initContainers", ())]:
                container["env"] = [*(container.get("env") or ()), value]
        await self._control.create(pod, job)

    async def _release(self, pods: list[Object]) -> None:
        await asyncio.gather(*(self._drop_finalizer(pod) for pod in pods if _is_tracked(pod)))

    async def _drop_finalizer(self, pod: Object) -> None:
        metadata = pod["metadata"]
        left = [f for f in metadata["finalizers"] if f != TRACKING]
        body = {"metadata": {"uid": metadata["uid"], "finalizers": left or None}}
        try:
            self._pods.observe(await self._client.patch(POD, metadata["name"], body, metadata["namespace"]))
        except errors.NotFound:
            return

    async def _release_lost(self, key: Key) -> None:
        """Pods of a Job that is gone must not hang on the finalizer."""
        await self._release(self._pods.by_index("tracked", str(key)))

    async def _announce(self, job: Object, finish: Finish) -> None:
        outcome, reason, message = finish
        if outcome == "Complete":
            self._recorder.event(job, "Normal", "Completed", "Job completed")
        else:
            self._recorder.event(job, "Warning", reason, message)

    async def _expire(self, job: Object) -> Result:
        """ttlSecondsAfterFinished."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return DONE
        conditions = (job.get("status") or {}).get("conditions")
        end = get_condition(conditions, "Complete") or get_condition(conditions, "Failed") or {}
        left = parse_timestamp(end["lastTransitionTime"]) + ttl - self._clock.time()
        if left > 0:
            return Result(left)
        metadata = job["metadata"]
        try:
            await self._client.delete(
                JOB, metadata["name"], metadata["namespace"], propagation="Foreground", uid=metadata["uid"]
            )
        except errors.NotFound:
            return DONE
        return DONE


def tally(job: Object, pods: list[Object]) -> tuple[Progress, dict[str, list[str]]]:
    """What has ended so far, and the uids whose end is not in the counters yet (still carrying the finalizer)."""
    status = job.get("status") or {}
    known = status.get("uncountedTerminatedPods") or {}
    uncounted: dict[str, list[str]] = {"succeeded": [], "failed": []}
    by_uid = {pod["metadata"]["uid"]: pod for pod in pods}
    counts = {"succeeded": status.get("succeeded", 0), "failed": status.get("failed", 0)}
    indexes = parse_indexes(status.get("completedIndexes", ""))
    for outcome in counts:
        for uid in known.get(outcome) or ():
            if uid in by_uid and _is_tracked(by_uid[uid]):
                uncounted[outcome].append(uid)
            else:
                counts[outcome] += 1
    last_failure = 0.0
    for uid, pod in by_uid.items():
        ended = pod_ended(pod).lower()
        if ended == "failed":
            last_failure = max(last_failure, _ended_at(pod))
        if ended and _is_tracked(pod) and uid not in uncounted[ended]:
            uncounted[ended].append(uid)
        index = index_of(pod)
        if ended == "succeeded" and is_indexed(job) and index is not None:
            indexes.add(index)
    succeeded = len(indexes) if is_indexed(job) else counts["succeeded"] + len(uncounted["succeeded"])
    failed = counts["failed"] + len(uncounted["failed"])
    progress = Progress(succeeded, failed, frozenset(indexes), last_failure)
    return progress, {key: uids for key, uids in uncounted.items() if uids}


def status_of(
    job: Object, pods: list[Object], progress: Progress, uncounted: dict[str, list[str]], wanted: Plan, now: float
) -> Object:
    old = job.get("status") or {}
    text = timestamp(now)
    active = [pod for pod in pods if is_active(pod)]
    terminating = sum(is_terminating(pod) and not pod_ended(pod) for pod in pods)
    status: Object = {
        "active": len(active),
        "ready": sum(is_ready(pod) for pod in active),
        "terminating": terminating,
        "succeeded": progress.succeeded - (0 if is_indexed(job) else len(uncounted.get("succeeded", ()))),
        "failed": progress.failed - len(uncounted.get("failed", ())),
        "uncountedTerminatedPods": uncounted or None,
        "startTime": old.get("startTime") or text,
        "conditions": list(old.get("conditions") or ()),
    }
    if is_indexed(job):
        status["completedIndexes"] = format_indexes(progress.indexes)
    suspended = bool(job["spec"].get("suspend"))
    was = get_condition(status["conditions"], "Suspended")
    if suspended or was is not None:
        reason, message = ("JobSuspended", "Job suspended") if suspended else ("JobResumed", "Job resumed")
        if was is None or (was["status"] == "True") != suspended:
            _put(status["conditions"], "Suspended", "True" if suspended else "False", reason, message, text)
            status["startTime"] = text
    if suspended:
        status["startTime"] = None
    if wanted.finish is not None:
        _finish(status, wanted.finish, not active and not terminating and not uncounted, text)
    return status


def _finish(status: Object, finish: Finish, settled: bool, now: str) -> None:
    outcome, reason, message = finish
    first = "SuccessCriteriaMet" if outcome == "Complete" else "FailureTarget"
    if get_condition(status["conditions"], first) is None:
        _put(status["conditions"], first, "True", reason, message, now)
    if settled:
        _put(status["conditions"], outcome, "True", reason, message, now)
        if outcome == "Complete":
            status["completionTime"] = now


def _put(conditions: list[Any], kind: str, status: str, reason: str, message: str, now: str) -> None:
    conditions[:] = [c for c in conditions if c["type"] != kind]
    conditions.append(
        {"type": kind, "status": status, "lastProbeTime": now, "lastTransitionTime": now, "reason": reason,
         "message": message}
    )  # fmt: skip


def _pod_labels(job: Object) -> dict[str, str]:
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    return {
        "batch.kubernetes.io/job-name": name,
        "job-name": name,
        "batch.kubernetes.io/controller-uid": uid,
        "controller-uid": uid,
    }


def _is_tracked(pod: Object) -> bool:
    return TRACKING in (pod["metadata"].get("finalizers") or ())


def _tracked_by(pod: Object) -> list[str]:
    return [str(key) for key in _lost_owner(pod)]


def _lost_owner(pod: Object) -> list[Key]:
    if not _is_tracked(pod):
        return []
    references = pod["metadata"].get("ownerReferences") or ()
    return [Key(pod["metadata"]["namespace"], r["name"]) for r in references if r["kind"] == "Job"]


def _ended_at(pod: Object) -> float:
    times = [
        parse_timestamp(ended["finishedAt"])
        for container in (pod.get("status") or {}).get("containerStatuses") or ()
        if (ended := (container.get("state") or {}).get("terminated")) and ended.get("finishedAt")
    ]
    return max(times, default=0.0)
