"""The pod state machine: pure decisions, no clock, no I/O.

``decide(pod, containers, now)`` says what to do next with the containers of one Pod, as kubelet's syncPod does; the
worker (:mod:`quarterdeck.node.worker`) does it and reports back through :class:`Container`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quarterdeck.kube.clock import parse_timestamp
from quarterdeck.kube.resource import Object

BACKOFF_START = 10.0
BACKOFF_MAX = 300.0
BACKOFF_RESET = 600.0
"""Seconds: first delay, longest delay, and how long a container must run for the delay to start over."""

UNKNOWN_EXIT = 137  # kubelet's code for ContainerStatusUnknown


@dataclass(slots=True)
class Terminated:
    """How one run of a container ended; times in seconds since the epoch."""

    exit_code: int
    reason: str
    started_at: float
    finished_at: float
    message: str = ""
    signal: int = 0
    container_id: str = ""


@dataclass(slots=True)
class Container:
    """What is known of one container; persisted, so that a restarted node goes on where the old one was."""

    name: str
    state: Literal["waiting", "running", "terminated"] = "waiting"
    reason: str = ""
    message: str = ""
    started_at: float = 0.0
    terminated: Terminated | None = None
    last: Terminated | None = None
    restarts: int = 0
    attempt: int = 0
    container_id: str = ""
    image: str = ""
    image_id: str = ""
    ready: bool = False
    started: bool = False
    unhealthy: str = ""
    stopping: bool = False
    backoff: float = 0.0
    not_before: float = 0.0

    def begin(self, container_id: str, now: float, *, probed_ready: bool, probed_start: bool) -> None:
        """The process runs. Without a readiness probe it is ready at once; likewise started."""
        if self.terminated is not None:
            self.last, self.terminated = self.terminated, None
            self.restarts += 1
        self.state, self.reason, self.message = "running", "", ""
        self.started_at, self.container_id = now, container_id
        self.ready = not probed_ready and not probed_start
        self.started = not probed_start
        self.unhealthy, self.stopping = "", False

    def end(self, exit_code: int, now: float, *, reason: str = "", message: str = "", signal: int = 0) -> None:
        """The process ended; computes the delay before the next run."""
        why = reason or ("Completed" if exit_code == 0 else "Error")
        self.terminated = Terminated(exit_code, why, self.started_at, now, message, signal, self.container_id)
        self.state, self.ready, self.started, self.stopping = "terminated", False, False, False
        self.unhealthy = ""
        if now - self.started_at >= BACKOFF_RESET:
            self.backoff = 0.0
        self.not_before = now + self.backoff
        self.backoff = min(max(BACKOFF_START, self.backoff * 2), BACKOFF_MAX)

    def refuse(self, reason: str, message: str, now: float) -> None:
        """It could not be started (image, configuration): try again later, with back-off."""
        if self.state != "terminated":
            self.state = "waiting"
        self.reason, self.message = reason, message
        self.not_before = now + max(self.backoff, 2.0)
        self.backoff = min(max(BACKOFF_START, self.backoff * 2), BACKOFF_MAX)


@dataclass(frozen=True, slots=True)
class Start:
    name: str
    init: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    name: str
    grace: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Finalize:
    """Everything has ended and the Pod is being deleted: remove it."""


Action = Start | Stop | Finalize


@dataclass(slots=True)
class Decision:
    """``wake_at``: when to decide again even if nothing happens; ``failed``: (reason, message) that end the Pod."""

    actions: list[Action] = field(default_factory=list)
    wake_at: float | None = None
    failed: tuple[str, str] | None = None
    finished: bool = False

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def is_sidecar(spec: Object) -> bool:
    """An init container that keeps running beside the others (KEP-753)."""
    return spec.get("restartPolicy") == "Always"


def all_specs(pod: Object) -> Iterator[tuple[Object, bool]]:
    """(container spec, is an init container), in start order."""
    for spec in pod["spec"].get("initContainers") or ():
        yield spec, True
    for spec in pod["spec"].get("containers") or ():
        yield spec, False


def grace_of(pod: Object) -> float:
    """Seconds a container gets between SIGTERM and SIGKILL."""
    value = pod["metadata"].get("deletionGracePeriodSeconds")
    if value is None:
        value = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return float(value)


def _unhealthy_grace(pod: Object, name: str) -> float:
    """As :func:`grace_of`, for a container that failed its liveness or startup probe: the probe may give it less."""
    spec = next((s for s, _ in all_specs(pod) if s["name"] == name), {})
    probe = spec.get("livenessProbe") or spec.get("startupProbe") or {}
    return float(probe.get("terminationGracePeriodSeconds", grace_of(pod)))


def restarts(policy: str, exit_code: int) -> bool:
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def decide(pod: Object, containers: Mapping[str, Container], now: float, *, started_at: float) -> Decision:
    """The next actions. ``started_at`` is when the node accepted the Pod (status.startTime)."""
    decision = Decision()
    if pod["metadata"].get("deletionTimestamp"):
        if _stop_all(pod, containers, decision, grace_of(pod)):
            decision.actions.append(Finalize())
        return decision
    deadline = pod["spec"].get("activeDeadlineSeconds")
    if deadline is not None:
        if now >= started_at + float(deadline):
            decision.failed = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            decision.finished = _stop_all(pod, containers, decision, grace_of(pod))
            return decision
        decision.wake(started_at + float(deadline))
    for name, container in containers.items():
        if container.state == "running" and container.unhealthy and not container.stopping:
            decision.actions.append(Stop(name, _unhealthy_grace(pod, name), container.unhealthy))
    if _initialize(pod, containers, now, decision):
        _run_main(pod, containers, now, decision)
    if decision.failed is not None:
        decision.finished = _stop_all(pod, containers, decision, grace_of(pod))
    return decision


def _initialize(pod: Object, containers: Mapping[str, Container], now: float, decision: Decision) -> bool:
    """Bring up init containers in order; True when the main containers may start (or have been started already)."""
    policy = pod["spec"].get("restartPolicy", "Always")
    begun = any(containers[s["name"]].attempt > 0 for s in pod["spec"].get("containers") or ())
    over = begun and _mains_over(pod, containers, policy)
    for spec in pod["spec"].get("initContainers") or ():
        container = containers[spec["name"]]
        if is_sidecar(spec):
            if container.state != "running" and not over:
                _start(container, decision, now, init=True)
            if not begun and not (container.state == "running" and container.started):
                return False
            continue
        if begun:
            continue  # they ran to completion before the first main container
        if container.state == "running":
            return False
        ended = container.terminated
        if ended is None:
            _start(container, decision, now, init=True)
            return False
        if ended.exit_code != 0:
            if policy == "Never":
                decision.failed = ("", "")
            else:
                _start(container, decision, now, init=True)
            return False
    return True


def _mains_over(pod: Object, containers: Mapping[str, Container], policy: str) -> bool:
    return all(
        (t := containers[s["name"]].terminated) is not None and not restarts(policy, t.exit_code)
        for s in pod["spec"].get("containers") or ()
    )


def _run_main(pod: Object, containers: Mapping[str, Container], now: float, decision: Decision) -> None:
    policy = pod["spec"].get("restartPolicy", "Always")
    if _mains_over(pod, containers, policy):
        decision.finished = _stop_all(pod, containers, decision, grace_of(pod))
        return
    for spec in pod["spec"].get("containers") or ():
        container = containers[spec["name"]]
        if container.state == "running":
            continue
        if container.terminated is not None and not restarts(policy, container.terminated.exit_code):
            continue
        _start(container, decision, now, init=False)


def _start(container: Container, decision: Decision, now: float, *, init: bool) -> None:
    if now >= container.not_before:
        decision.actions.append(Start(container.name, init))
    else:
        decision.wake(container.not_before)


def _stop_all(pod: Object, containers: Mapping[str, Container], decision: Decision, grace: float) -> bool:
    """Stop what runs, sidecars last and in reverse order; True when nothing runs."""
    sidecars = [s["name"] for s, init in all_specs(pod) if init and is_sidecar(s)]
    running = [name for name, c in containers.items() if c.state == "running"]
    mains = [name for name in running if name not in sidecars]
    for name in mains or [n for n in reversed(sidecars) if n in running][:1]:
        if not containers[name].stopping:
            decision.actions.append(Stop(name, grace))
    return not running


def deletion_deadline(pod: Object) -> float | None:
    """When the grace period of a deleted Pod is over, seconds since the epoch."""
    at = pod["metadata"].get("deletionTimestamp")
    return parse_timestamp(at) if at else None


def probes_of(spec: Object) -> dict[str, Any]:
    """The probes a container declares, by kind: startup, liveness, readiness."""
    kinds = ("startup", "liveness", "readiness")
    return {kind: spec[f"{kind}Probe"] for kind in kinds if spec.get(f"{kind}Probe")}
