"""The state of an owned Deployment, as conditions speak of it."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.kube import resource as k
from quarterdeck.kube.conditions import get_condition
from quarterdeck.kube.owner import belongs_to
from quarterdeck.kube.resource import Object

from .context import Context
from .refusals import refused_pods

# Waiting reasons a person must act on; anything else passes by itself.
_IMAGE_REASONS = {
    "ImageNotRunnable", "ImageVersionMismatch", "ErrImagePull", "ImagePullBackOff", "InvalidImageName",
    "ErrImageNeverPull",
}  # fmt: skip
_STUCK_REASONS = {
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PortConflict", "SandboxUnavailable",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Workload:
    """Counts of a Deployment, and what holds its Pods back."""

    found: bool
    current: bool
    """Whether the Deployment's controller has seen its newest generation."""
    wanted: int
    available: int
    total: int
    trouble: tuple[str, str] | None
    """(reason, message) of a Pod that cannot start."""
    log: str = ""
    """The command that shows what its containers say."""

    @property
    def not_ready(self) -> str:
        """The message while nothing is wrong with the Pods but that they are not ready."""
        return f"Deployment is not ready, {self.available}/{self.wanted} pods are ready; `{self.log}` may say why"

    @property
    def yet(self) -> str:
        """What a Deployment that serves is held back by all the same: its newest Pods cannot start."""
        return f"; but of its newest revision: {self.trouble[1]}" if self.trouble is not None else ""


def workload(
    context: Context, namespace: str, name: str, labels: dict[str, str], *, owner: Object | None = None
) -> Workload:
    """The Deployment of that name and its Pods (those with ``labels``); another's than ``owner``'s is as if absent."""
    obj = context.get(k.DEPLOYMENT, namespace, name)
    if obj is None or (owner is not None and not belongs_to(obj, owner)):
        return Workload(False, False, 0, 0, 0, None)
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    available = int(status.get("availableReplicas") or 0)
    wanted = spec.get("replicas")
    return Workload(
        True,
        int(status.get("observedGeneration") or 0) >= int(obj["metadata"].get("generation") or 0),
        1 if wanted is None else int(wanted),
        available,
        int(status.get("replicas") or 0),
        _refused(obj) or _trouble(context, namespace, labels),
        f"kubectl logs -n {namespace} deploy/{name}",
    )


def _refused(deployment: Object) -> tuple[str, str] | None:
    """(reason, message) when the API server does not let the Deployment create its Pods."""
    failure = get_condition((deployment.get("status") or {}).get("conditions"), "ReplicaFailure") or {}
    if failure.get("status") != "True":
        return None
    return refused_pods(str(failure.get("message") or "no reason is given"), deployment["metadata"]["namespace"])


def _trouble(context: Context, namespace: str, labels: dict[str, str]) -> tuple[str, str] | None:
    for pod in context.pods(namespace, labels):
        if pod["metadata"].get("deletionTimestamp"):
            continue
        found = pod_trouble(pod)
        if found is not None:
            return found
    return None


def pod_trouble(pod: Object) -> tuple[str, str] | None:
    """(reason, message) when a container of the Pod waits for something that does not pass by itself."""
    status = pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason") or ""
        if reason in _IMAGE_REASONS | _STUCK_REASONS:
            shown = "ImageNotRunnable" if reason in _IMAGE_REASONS and reason != "ImageVersionMismatch" else reason
            return shown, f"container {container.get('name', '')}: {waiting.get('message') or reason}"
        if reason == "CrashLoopBackOff":
            last = (container.get("lastState") or {}).get("terminated") or {}
            name, said = container.get("name", ""), str(last.get("message") or "").strip()
            log = f"kubectl logs -n {pod['metadata']['namespace']} {pod['metadata']['name']} -c {name} --previous"
            why = f": {said}" if said else ""
            return reason, f"container {name} exits with code {last.get('exitCode')}{why}; see `{log}`"
    return None
