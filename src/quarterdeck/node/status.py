"""The PodStatus of a Pod, computed from what is known of its containers (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.quantity import parse_quantity
from quarterdeck.kube.resource import Object
from quarterdeck.node.core import Container, Decision, Terminated, is_sidecar, restarts

ISOLATED = "quarterdeck.dev/Isolated"
"""Pod condition: False where neither namespaces nor Landlock confine its processes."""

_LEVEL_REASONS = {
    "bwrap": "Namespaces",
    "landlock": "Landlock",
    "rlimits": "ResourceLimitsOnly",
    "container": "Container",
}


@dataclass(frozen=True, slots=True)
class Placement:
    """What the node knows of a Pod beside its containers. ``problem``: (condition type, reason, message);
    ``isolation``: (level applied, its meaning for each container)."""

    started_at: float
    host_ip: str
    pod_ip: str = ""
    sandbox_ready: bool = False
    problem: tuple[str, str, str] | None = None
    isolation: tuple[str, str] = ("", "")


def pod_status(
    pod: Object, containers: Mapping[str, Container], decision: Decision, place: Placement, now: float
) -> Object:
    """The whole status; conditions keep their lastTransitionTime while their status stays."""
    spec = pod["spec"]
    inits: list[Object] = spec.get("initContainers") or []
    mains: list[Object] = spec.get("containers") or []
    phase = phase_of(pod, containers, decision)
    status: Object = {
        "phase": phase,
        "hostIP": place.host_ip,
        "hostIPs": [{"ip": place.host_ip}],
        "startTime": timestamp(place.started_at),
        "qosClass": qos_class(spec),
        "containerStatuses": [_container(s, containers[s["name"]], spec, phase, inits) for s in mains],
    }
    if inits:
        status["initContainerStatuses"] = [_container(s, containers[s["name"]], spec, phase, None) for s in inits]
    if place.pod_ip:
        status["podIP"] = place.pod_ip
        status["podIPs"] = [{"ip": place.pod_ip}]
    if decision.failed is not None and decision.failed[0]:
        status["reason"], status["message"] = decision.failed
    old = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or ()}
    wanted = _conditions(pod, containers, phase, place)
    status["conditions"] = _keep_transitions(old, wanted, now)
    observed = pod["metadata"].get("generation")
    if observed is not None:
        status["observedGeneration"] = observed
    return status


def phase_of(pod: Object, containers: Mapping[str, Container], decision: Decision) -> str:
    """Pending, Running, Succeeded or Failed; a terminal phase is never left."""
    known = (pod.get("status") or {}).get("phase")
    if known in ("Succeeded", "Failed"):
        return known
    if decision.failed is not None and decision.finished:
        return "Failed"
    mains = [containers[s["name"]] for s in pod["spec"].get("containers") or ()]
    policy = pod["spec"].get("restartPolicy", "Always")
    ends = [c.terminated for c in mains]
    done = all(t is not None and not restarts(policy, t.exit_code) for t in ends)
    if done and mains and (decision.finished or pod["metadata"].get("deletionTimestamp")):
        return "Failed" if any(t is not None and t.exit_code != 0 for t in ends) else "Succeeded"
    return "Running" if any(c.attempt > 0 and c.container_id for c in mains) else "Pending"


def initialized(pod: Object, containers: Mapping[str, Container]) -> list[str]:
    """Names of the init containers that are not complete yet (a sidecar: not started)."""
    missing: list[str] = []
    for spec in pod["spec"].get("initContainers") or ():
        container = containers[spec["name"]]
        if is_sidecar(spec):
            complete = container.state == "running" and container.started
        else:
            complete = container.terminated is not None and container.terminated.exit_code == 0
        if not complete:
            missing.append(spec["name"])
    return missing


def _conditions(pod: Object, containers: Mapping[str, Container], phase: str, place: Placement) -> list[dict[str, Any]]:
    spec = pod["spec"]
    begun = any(containers[s["name"]].attempt > 0 for s in spec["containers"])
    waiting_inits = [] if begun else initialized(pod, containers)
    sidecars = [s["name"] for s in spec.get("initContainers") or () if is_sidecar(s)]
    unready = [n for n in (*sidecars, *(s["name"] for s in spec["containers"])) if not containers[n].ready]
    over = phase in ("Succeeded", "Failed")
    ready_reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")
    ready_message = "" if over else f"containers with unready status: [{' '.join(unready)}]"
    ready = not unready and not over
    conditions = [
        _condition("PodReadyToStartContainers", place.sandbox_ready and not over),
        _condition(
            "Initialized",
            not waiting_inits,
            *(
                ("PodCompleted", "") if over and phase == "Succeeded" and not waiting_inits
                else ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(waiting_inits)}]")
                if waiting_inits else ("", "")
            ),
        ),
        _condition("Ready", ready, *(("", "") if ready else (ready_reason, ready_message))),
        _condition("ContainersReady", ready, *(("", "") if ready else (ready_reason, ready_message))),
        _condition("PodScheduled", True),
    ]  # fmt: skip
    level, meaning = place.isolation
    if level and meaning:
        isolated = level != "rlimits"
        conditions.append(_condition(ISOLATED, isolated, _LEVEL_REASONS.get(level, level), meaning))
    gates = [g["conditionType"] for g in spec.get("readinessGates") or ()]
    known = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or ()}
    failed = [g for g in gates if known.get(g) != "True"]
    if ready and failed:
        message = f"corresponding condition of pod readiness gate {failed[0]!r} does not exist."
        conditions[2] = _condition("Ready", False, "ReadinessGatesNotReady", message)
    if place.problem is not None:
        conditions.append(_condition(place.problem[0], True, *place.problem[1:]))
    return conditions


def _condition(kind: str, value: bool, reason: str = "", message: str = "") -> dict[str, Any]:
    condition: dict[str, Any] = {"type": kind, "status": "True" if value else "False"}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _keep_transitions(
    old: Mapping[str, dict[str, Any]], wanted: Sequence[dict[str, Any]], now: float
) -> list[dict[str, Any]]:
    """Foreign conditions (readiness gates) stay; ours keep their transition time unless the status flipped."""
    result: list[dict[str, Any]] = []
    for condition in wanted:
        before = old.get(condition["type"])
        same = before is not None and before.get("status") == condition["status"]
        at = before.get("lastTransitionTime") if before is not None and same else None
        result.append({**condition, "lastProbeTime": None, "lastTransitionTime": at or timestamp(now)})
    ours = {c["type"] for c in wanted} | {"PortConflict"}
    result += [c for kind, c in old.items() if kind not in ours]
    return result


def _container(
    spec: Object, container: Container, pod_spec: Object, phase: str, inits: list[Object] | None
) -> dict[str, Any]:
    """One v1.ContainerStatus; ``inits`` are the init containers when ``spec`` is a main container, else None."""
    status: dict[str, Any] = {
        "name": container.name,
        "image": container.image or spec.get("image", ""),
        "imageID": container.image_id,
        "ready": container.ready,
        "started": container.started,
        "restartCount": container.restarts,
        "state": {},
        "lastState": {},
    }
    if inits is None and not is_sidecar(spec):
        status["ready"] = container.terminated is not None and container.terminated.exit_code == 0
    if container.container_id:
        status["containerID"] = container.container_id
    last = container.last
    if container.state == "running":
        status["state"] = {"running": {"startedAt": timestamp(container.started_at)}}
    elif container.terminated is not None:
        ended = container.terminated
        policy = "Always" if is_sidecar(spec) else pod_spec.get("restartPolicy", "Always")
        if inits is None and not is_sidecar(spec):
            policy = "Never" if policy == "Never" or ended.exit_code == 0 else "OnFailure"
        if restarts(policy, ended.exit_code) and phase not in ("Succeeded", "Failed"):
            last = ended
            delay = int(max(10.0, container.not_before - ended.finished_at))
            status["state"] = {"waiting": {
                "reason": container.reason or "CrashLoopBackOff",
                "message": container.message
                or f"back-off {_duration(delay)} restarting failed container={container.name}",
            }}  # fmt: skip
        else:
            status["state"] = {"terminated": _terminated(ended)}
    else:
        waiting = {"reason": container.reason or ("PodInitializing" if inits else "ContainerCreating")}
        if container.message:
            waiting["message"] = container.message
        status["state"] = {"waiting": waiting}
    if last is not None:
        status["lastState"] = {"terminated": _terminated(last)}
    return status


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _terminated(ended: Terminated) -> dict[str, Any]:
    result: dict[str, Any] = {
        "exitCode": ended.exit_code,
        "reason": ended.reason,
        "startedAt": timestamp(ended.started_at),
        "finishedAt": timestamp(ended.finished_at),
    }
    if ended.signal:
        result["signal"] = ended.signal
    if ended.message:
        result["message"] = ended.message
    if ended.container_id:
        result["containerID"] = ended.container_id
    return result


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, by the rules of core/v1 PodQOSClass."""
    guaranteed = True
    anything = False
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = limits.get(name), requests.get(name, limits.get(name))
            if limit is not None or request is not None:
                anything = True
            if limit is None or request is None or parse_quantity(limit) != parse_quantity(request):
                guaranteed = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
