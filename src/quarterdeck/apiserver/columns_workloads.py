"""Printer columns of workloads, policy, networking, RBAC and the rest of the groups."""

from __future__ import annotations

from typing import Any

from quarterdeck.apiserver.columns import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    at,
    col,
    containers_cell,
    human,
    seconds_of,
    selector_cell,
    since,
)  # fmt: skip
from quarterdeck.apiserver.kinds import Column
from quarterdeck.kube.resource import Object

_TEMPLATE = "spec.template.spec.containers"


def _pair(ready: str, wanted: str) -> Any:
    left, right = at(ready, 0), at(wanted, 0)
    return lambda obj, now: f"{left(obj, now)}/{right(obj, now)}"


def _template_columns(template: str = _TEMPLATE, selector: str = "spec.selector") -> tuple[Column, ...]:
    return (
        col("Containers", containers_cell(template, "name"), wide=True),
        col("Images", containers_cell(template, "image"), wide=True),
        col("Selector", selector_cell(selector), wide=True),
    )


DEPLOYMENTS = (
    NAME, col("Ready", _pair("status.readyReplicas", "spec.replicas")),
    col("Up-to-date", at("status.updatedReplicas", 0), "integer"),
    col("Available", at("status.availableReplicas", 0), "integer"), AGE, *_template_columns(),
)  # fmt: skip
REPLICA_SETS = (
    NAME, col("Desired", at("spec.replicas", 0), "integer"), col("Current", at("status.replicas", 0), "integer"),
    col("Ready", at("status.readyReplicas", 0), "integer"), AGE, *_template_columns(),
)  # fmt: skip


def _owner(obj: Object, now: float) -> str:
    del now
    owner = next((o for o in obj["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return NONE
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    kind = str(owner.get("kind", "")).lower()
    return f"{kind}.{group}/{owner.get('name')}" if group else f"{kind}/{owner.get('name')}"


CONTROLLER_REVISIONS = (NAME, col("Controller", _owner), col("Revision", at("revision", 0), "integer"), AGE)


def _completions(job: Object, now: float) -> str:
    del now
    spec, status = job.get("spec") or {}, job.get("status") or {}
    done = status.get("succeeded") or 0
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _job_duration(job: Object, now: float) -> str:
    status: Object = job.get("status") or {}
    start, end = seconds_of(status.get("startTime")), seconds_of(status.get("completionTime"))
    return "" if start is None else human((now if end is None else end) - start)


def _job_status(job: Object, now: float) -> str:
    del now
    conditions = {c.get("type") for c in (job.get("status") or {}).get("conditions") or () if c.get("status") == "True"}
    for name in ("Complete", "Failed"):
        if name in conditions:
            return name
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for name in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if name in conditions:
            return name
    return "Running"


JOBS = (
    NAME, col("Status", _job_status), col("Completions", _completions), col("Duration", _job_duration), AGE,
    *_template_columns(),
)  # fmt: skip


def _last_schedule(obj: Object, now: float) -> str:
    last = (obj.get("status") or {}).get("lastScheduleTime")
    return since(last, now) if last else NONE


def _truth(path: str) -> Any:
    get = at(path, False)
    return lambda obj, now: "True" if get(obj, now) is True else "False"


def _active(obj: Object, now: float) -> int:
    del now
    return len((obj.get("status") or {}).get("active") or ())


CRON_JOBS = (
    NAME, col("Schedule", at("spec.schedule", "")), col("Timezone", at("spec.timeZone")),
    col("Suspend", _truth("spec.suspend")), col("Active", _active, "integer"), col("Last Schedule", _last_schedule),
    AGE, *_template_columns("spec.jobTemplate.spec.template.spec.containers", "spec.jobTemplate.spec.selector"),
)  # fmt: skip


# -- autoscaling
def _target(spec: Object, current: Object) -> str:
    """One metric of an HPA: ``cpu: 12%/50%``."""
    kind = str(spec.get("type", ""))
    key = {"Resource": "resource", "ContainerResource": "containerResource", "Pods": "pods", "Object": "object",
           "External": "external"}.get(kind, "")  # fmt: skip
    wanted: Object = (spec.get(key) or {}).get("target") or {}
    now: Object = (current.get(key) or {}).get("current") or {}
    label = f"{spec[key].get('name')}: " if key in ("resource", "containerResource") else ""
    if wanted.get("averageUtilization") is not None:
        seen = now.get("averageUtilization")
        return f"{label}{UNKNOWN if seen is None else f'{seen}%'}/{wanted['averageUtilization']}%"
    suffix = " (avg)" if wanted.get("averageValue") is not None and key not in ("resource", "containerResource") else ""
    goal = wanted.get("averageValue") or wanted.get("value") or UNKNOWN
    return f"{label}{now.get('averageValue') or now.get('value') or UNKNOWN}/{goal}{suffix}"


def _targets(hpa: Object, now: float) -> str:
    del now
    metrics: list[Object] = (hpa.get("spec") or {}).get("metrics") or []
    current: list[Object] = (hpa.get("status") or {}).get("currentMetrics") or []
    if not metrics:
        return NONE
    shown = [_target(m, current[i] if i < len(current) else {}) for i, m in enumerate(metrics)]
    return ", ".join(shown[:2]) + (f" + {len(shown) - 2} more..." if len(shown) > 2 else "")


def _reference(obj: Object, now: float) -> str:
    del now
    target: Object = (obj.get("spec") or {}).get("scaleTargetRef") or {}
    return f"{target.get('kind', '')}/{target.get('name', '')}"


HPAS = (
    NAME, col("Reference", _reference), col("Targets", _targets), col("MinPods", at("spec.minReplicas", UNKNOWN)),
    col("MaxPods", at("spec.maxReplicas", 0), "integer"), col("Replicas", at("status.currentReplicas", 0), "integer"),
    AGE,
)  # fmt: skip


# -- coordination, networking, policy
LEASES = (NAME, col("Holder", at("spec.holderIdentity", "")), AGE)
NETWORK_POLICIES = (NAME, col("Pod-Selector", selector_cell("spec.podSelector")), AGE)


def _hosts(obj: Object, now: float) -> str:
    del now
    hosts = [str(r.get("host")) for r in (obj.get("spec") or {}).get("rules") or () if r.get("host")]
    return (",".join(hosts[:3]) + (f" + {len(hosts) - 3} more..." if len(hosts) > 3 else "")) or "*"


def _ingress_address(obj: Object, now: float) -> str:
    del now
    found = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return ",".join(str(i.get("ip") or i.get("hostname") or "") for i in found)


def _ingress_ports(obj: Object, now: float) -> str:
    del now
    return "80, 443" if (obj.get("spec") or {}).get("tls") else "80"


INGRESSES = (
    NAME, col("Class", at("spec.ingressClassName")), col("Hosts", _hosts), col("Address", _ingress_address),
    col("Ports", _ingress_ports), AGE,
)  # fmt: skip
PDBS = (
    NAME, col("Min Available", at("spec.minAvailable", "N/A")),
    col("Max Unavailable", at("spec.maxUnavailable", "N/A")),
    col("Allowed Disruptions", at("status.disruptionsAllowed", 0), "integer"), AGE,
)  # fmt: skip


# -- rbac, crds
def _role_ref(obj: Object, now: float) -> str:
    del now
    ref: Object = obj.get("roleRef") or {}
    return f"{ref.get('kind', '')}/{ref.get('name', '')}"


def _subjects(kind: str) -> Any:
    def value(obj: Object, now: float) -> str:
        del now
        found = [s for s in obj.get("subjects") or () if s.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{s.get('namespace', '')}/{s.get('name', '')}" for s in found)
        return ", ".join(str(s.get("name", "")) for s in found)

    return value


_CREATED = Column("Created At", "date", at("metadata.creationTimestamp", ""))
ROLES = (NAME, _CREATED)
ROLE_BINDINGS = (
    NAME, col("Role", _role_ref), AGE, col("Users", _subjects("User"), wide=True),
    col("Groups", _subjects("Group"), wide=True), col("ServiceAccounts", _subjects("ServiceAccount"), wide=True),
)  # fmt: skip
CRDS = (NAME, _CREATED)
