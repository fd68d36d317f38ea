"""CronJob → Jobs, named ``<cronjob>-<minutes since the epoch of the scheduled time>`` so that none is made twice."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from quarterdeck import errors
from quarterdeck.kube.clock import parse_timestamp, timestamp
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.owner import owner_reference
from quarterdeck.kube.resource import CRON_JOB, JOB, Key, Object

from . import cron
from .control import controller_uid, write_status
from .job_plan import is_finished
from .pods import created

_MISSED_LIMIT = 100
_SLACK = 0.1


@dataclass(frozen=True, slots=True)
class Due:
    """``time``: the newest scheduled time that passed and is not too late; ``following``: the one after now."""

    time: float | None
    missed: int
    following: float | None


def due(cronjob: Object, now: float) -> Due:
    """Raises ValueError when the schedule is malformed."""
    spec, status = cronjob["spec"], cronjob.get("status") or {}
    schedule = cron.parse(spec["schedule"], spec.get("timeZone"))
    last = status.get("lastScheduleTime")
    since = parse_timestamp(last) if last else created(cronjob)
    late = spec.get("startingDeadlineSeconds")
    if late is not None:
        since = max(since, now - late)
    latest: float | None = None
    missed = 0
    moment = schedule.next_after(since)
    while moment is not None and moment <= now:
        latest, missed = moment, missed + 1
        # Far behind, not every missed run is walked.
        moment = _recent(schedule, now) if missed == _MISSED_LIMIT + 1 else schedule.next_after(moment)
    return Due(latest, missed, schedule.next_after(now))


def _recent(schedule: cron.Schedule, now: float) -> float | None:
    """A scheduled time shortly before ``now`` (one is known to exist somewhere before it)."""
    window = 3600.0
    while True:
        moment = schedule.next_after(now - window)
        if moment is None or moment <= now:
            return moment
        window *= 8


def job_for(cronjob: Object, scheduled: float) -> Object:
    template = deepcopy(cronjob["spec"]["jobTemplate"])
    metadata = template.get("metadata") or {}
    stamp = {"batch.kubernetes.io/cronjob-scheduled-timestamp": timestamp(scheduled)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{cronjob['metadata']['name']}-{int(scheduled) // 60}",
            "namespace": cronjob["metadata"]["namespace"],
            "labels": metadata.get("labels") or {},
            "annotations": {**(metadata.get("annotations") or {}), **stamp},
            "ownerReferences": [owner_reference(cronjob)],
        },
        "spec": template["spec"],
    }


class CronJobs:
    def __init__(self, controllers: ControllerSet) -> None:
        self._client = controllers.client
        self._clock = controllers.clock
        self._recorder = controllers.recorder("cronjob-controller")
        self._cronjobs = controllers.informer(CRON_JOB)
        self._jobs = controllers.informer(JOB)
        self._jobs.add_index("controller", controller_uid)
        controllers.add(Controller("cronjob", CRON_JOB, self.reconcile, owns=[JOB]))

    async def reconcile(self, key: Key) -> Result:
        cronjob = self._cronjobs.get(*key)
        if cronjob is None or "deletionTimestamp" in cronjob["metadata"]:
            return DONE
        jobs = self._jobs.by_index("controller", cronjob["metadata"]["uid"])
        await self._trim_history(cronjob, jobs)
        now = self._clock.time()
        status = dict(cronjob.get("status") or {})
        finished = [job for job in jobs if is_finished(job)]
        ends = [(job.get("status") or {}).get("completionTime") for job in finished]
        ends = [end for end in [*ends, status.get("lastSuccessfulTime")] if end]
        if ends:
            status["lastSuccessfulTime"] = max(ends, key=parse_timestamp)
        result = DONE
        active = [job for job in jobs if not is_finished(job)]
        if not cronjob["spec"].get("suspend"):
            try:
                when = due(cronjob, now)
            except ValueError as error:
                self._recorder.event(cronjob, "Warning", "UnparseableSchedule", f"unparseable schedule: {error}")
                return DONE
            if when.time is not None:
                active = await self._start(cronjob, when, active, status)
            result = Result(max(when.following - now, 0) + _SLACK if when.following is not None else None)
        status["active"] = [_reference(job) for job in sorted(active, key=lambda j: j["metadata"]["name"])]
        await write_status(self._cronjobs, CRON_JOB, cronjob, status)
        return result

    async def _start(self, cronjob: Object, when: Due, active: list[Object], status: Object) -> list[Object]:
        assert when.time is not None
        if when.missed > _MISSED_LIMIT:
            text = (
                f"too many missed start times: {when.missed}. Set or decrease .spec.startingDeadlineSeconds or check "
                "clock skew"
            )
            self._recorder.event(cronjob, "Warning", "TooManyMissedTimes", text)
        policy = cronjob["spec"].get("concurrencyPolicy", "Allow")
        if policy == "Forbid" and active:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._recorder.event(cronjob, "Normal", "JobAlreadyActive", text)
            return active
        if policy == "Replace":
            for job in active:
                await self._delete(cronjob, job)
            active = []
        wanted = job_for(cronjob, when.time)
        metadata = wanted["metadata"]
        try:
            job = await self._client.create(JOB, wanted)
        except errors.AlreadyExists:
            job = await self._client.get(JOB, metadata["name"], metadata["namespace"])
        else:
            self._recorder.event(cronjob, "Normal", "SuccessfulCreate", f"Created job {metadata['name']}")
        self._jobs.observe(job)
        status["lastScheduleTime"] = timestamp(when.time)
        others = [other for other in active if other["metadata"]["uid"] != job["metadata"]["uid"]]
        return others if is_finished(job) else [*others, job]

    async def _trim_history(self, cronjob: Object, jobs: list[Object]) -> None:
        for outcome, field, default in (
            ("Complete", "successfulJobsHistoryLimit", 3),
            ("Failed", "failedJobsHistoryLimit", 1),
        ):
            ended = [j for j in jobs if get_condition((j.get("status") or {}).get("conditions"), outcome)]
            ended.sort(key=created)
            keep = cronjob["spec"].get(field, default)
            for job in ended[: max(0, len(ended) - keep)]:
                await self._delete(cronjob, job)

    async def _delete(self, cronjob: Object, job: Object) -> None:
        metadata = job["metadata"]
        if "deletionTimestamp" in metadata:
            return
        try:
            await self._client.delete(
                JOB, metadata["name"], metadata["namespace"], propagation="Background", uid=metadata["uid"]
            )
        except errors.NotFound:
            return
        self._jobs.observe_deletion(job)
        self._recorder.event(cronjob, "Normal", "SuccessfulDelete", f"Deleted job {metadata['name']}")


def _reference(job: Object) -> Object:
    metadata = job["metadata"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
    }
