"""What a Job needs next, from its spec, its Pods and what was counted before. Pure; upstream's rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from quarterdeck.kube.clock import parse_timestamp
from quarterdeck.kube.conditions import condition_is, get_condition
from quarterdeck.kube.resource import Object

from .pods import is_active, is_ready, is_terminating, phase, restarts

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
_BACKOFF = 10.0
_BACKOFF_LIMIT = 600.0
Finish = tuple[str, str, str]
"""(Complete or Failed, reason, message)"""


@dataclass(slots=True)
class Plan:
    """``create``: completion indexes to start a Pod for (None: not indexed); ``finish``: how the Job ends now."""

    create: list[int | None] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    finish: Finish | None = None
    wait: float | None = None


def is_finished(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions")
    return condition_is(conditions, "Complete") or condition_is(conditions, "Failed")


def is_indexed(job: Object) -> bool:
    return job["spec"].get("completionMode") == "Indexed"


def pod_ended(pod: Object) -> str:
    """``Succeeded``, ``Failed`` or empty while it may still run. Deleted before it got a node, or
    let go by its node while only our finalizer holds it: failed."""
    if phase(pod) in ("Succeeded", "Failed"):
        return phase(pod)
    gone = not (pod.get("spec") or {}).get("nodeName") or pod["metadata"].get("deletionGracePeriodSeconds") == 0
    return "Failed" if is_terminating(pod) and gone else ""


def index_of(pod: Object) -> int | None:
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isdigit() else None


def parse_indexes(text: str) -> set[int]:
    """``1,3-5`` as a set."""
    result: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        result.update(range(int(first), int(last or first) + 1))
    return result


def format_indexes(indexes: Iterable[int]) -> str:
    parts: list[str] = []
    ordered = sorted(indexes)
    start = 0
    for at in range(1, len(ordered) + 1):
        if at == len(ordered) or ordered[at] != ordered[at - 1] + 1:
            first, last = ordered[start], ordered[at - 1]
            parts.append(str(first) if first == last else f"{first}{',' if last == first + 1 else '-'}{last}")
            start = at
    return ",".join(parts)


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known to have ended: counted ones and those not yet written as counted."""

    succeeded: int
    failed: int
    indexes: frozenset[int] = frozenset()
    last_failure: float = 0.0


def plan(job: Object, pods: Sequence[Object], progress: Progress, now: float) -> Plan:
    spec = job["spec"]
    active = [pod for pod in pods if is_active(pod)]
    finish = _outcome(job, pods, active, progress, now)
    if finish is not None:
        return Plan(delete=active, finish=finish)
    if spec.get("suspend"):
        return Plan(delete=active)
    wait = _deadline_left(job, now)
    parallelism = spec.get("parallelism", 1)
    wanted = parallelism
    completions = spec.get("completions")
    if completions is not None:
        wanted = min(parallelism, completions - progress.succeeded)
    elif progress.succeeded:
        wanted = min(parallelism, len(active))  # a work queue Job that saw a success starts no more
    if len(active) > wanted:
        ordered = sorted(active, key=lambda pod: (is_ready(pod), pod["metadata"].get("creationTimestamp", "")))
        return Plan(delete=ordered[: len(active) - max(wanted, 0)], wait=wait)
    missing = wanted - len(active)
    if spec.get("podReplacementPolicy") == "Failed":
        missing -= sum(is_terminating(pod) and not pod_ended(pod) for pod in pods)
    if missing <= 0:
        return Plan(wait=wait)
    pause = _backoff_left(progress, now)
    if pause > 0:
        return Plan(wait=pause if wait is None else min(pause, wait))
    return Plan(create=_slots(job, active, progress, missing), wait=wait)


def _slots(job: Object, active: Sequence[Object], progress: Progress, missing: int) -> list[int | None]:
    if not is_indexed(job):
        return [None] * missing
    taken = progress.indexes | {index_of(pod) for pod in active}
    free = (index for index in range(job["spec"].get("completions") or 0) if index not in taken)
    return [index for _, index in zip(range(missing), free, strict=False)]


def _outcome(
    job: Object, pods: Sequence[Object], active: Sequence[Object], progress: Progress, now: float
) -> Finish | None:
    spec = job["spec"]
    for decided, outcome in (("FailureTarget", "Failed"), ("SuccessCriteriaMet", "Complete")):
        condition = get_condition((job.get("status") or {}).get("conditions"), decided)
        if condition is not None and condition["status"] == "True":
            return outcome, condition.get("reason", ""), condition.get("message", "")
    rule = _failed_by_policy(job, pods)
    if rule:
        return "Failed", "PodFailurePolicy", rule
    limit = spec.get("backoffLimit", 6)
    on_failure = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy") == "OnFailure"
    tries = progress.failed + (sum(restarts(pod) for pod in active) if on_failure else 0)
    if tries > limit or (on_failure and limit and tries >= limit):
        return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    left = _deadline_left(job, now)
    if left is not None and left <= 0:
        return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
    completions = spec.get("completions")
    done = progress.succeeded > 0 and not active if completions is None else progress.succeeded >= completions
    if done and not spec.get("suspend"):
        return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
    return None


def _failed_by_policy(job: Object, pods: Sequence[Object]) -> str:
    """The message of the first FailJob rule by exit code that a Pod meets."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or ()):
        codes = rule.get("onExitCodes")
        if rule.get("action") != "FailJob" or not codes:
            continue
        for pod in pods:
            for container in (pod.get("status") or {}).get("containerStatuses") or ():
                ended = (container.get("state") or {}).get("terminated")
                if not ended or not ended.get("exitCode") or phase(pod) != "Failed":
                    continue
                if codes.get("containerName") not in (None, container["name"]):
                    continue
                if (ended["exitCode"] in codes["values"]) == (codes["operator"] == "In"):
                    metadata = pod["metadata"]
                    return (
                        f"Container {container['name']} for pod {metadata['namespace']}/{metadata['name']} failed with "
                        f"exit code {ended['exitCode']} matching FailJob rule at index {number}"
                    )
    return ""


def _deadline_left(job: Object, now: float) -> float | None:
    seconds = job["spec"].get("activeDeadlineSeconds")
    started = (job.get("status") or {}).get("startTime")
    if seconds is None or not started or job["spec"].get("suspend"):
        return None
    return parse_timestamp(started) + seconds - now


def _backoff_left(progress: Progress, now: float) -> float:
    if not progress.failed or not progress.last_failure:
        return 0.0
    return progress.last_failure + min(_BACKOFF * 2 ** min(progress.failed - 1, 16), _BACKOFF_LIMIT) - now
