"""Printer columns of the core kinds, as kubectl users know them, and the pieces other column modules use."""

from __future__ import annotations

from calendar import timegm
from collections.abc import Callable, Mapping
from time import strptime
from typing import Any

from quarterdeck.apiserver.kinds import Column
from quarterdeck.apiserver.selectors import format_selector
from quarterdeck.kube.resource import Object

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"

Cell = Callable[[Object, float], Any]


def seconds_of(timestamp: Any) -> float | None:
    """Unix time of an RFC 3339 timestamp; None when there is none."""
    if not timestamp:
        return None
    return float(timegm(strptime(str(timestamp)[:19], "%Y-%m-%dT%H:%M:%S")))


def human(seconds: float) -> str:
    """A duration as kubectl shows it: 45s, 3m20s, 5h, 2d3h, 120d, 2y30d."""
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s <= 0:
        return "0s"
    if s < 120:
        return f"{s}s"
    minutes = s // 60
    if minutes < 10:
        return f"{minutes}m{s % 60}s" if s % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = s // 3600
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return f"{hours // 24}d{hours % 24}h" if hours % 24 else f"{hours // 24}d"
    days = hours // 24
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d" if days < 2920 and days % 365 else f"{days // 365}y"


def since(timestamp: Any, now: float) -> str:
    at = seconds_of(timestamp)
    return UNKNOWN if at is None else human(now - at)


def _age(obj: Object, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def at(path: str, default: Any = NONE) -> Cell:
    """The value under a dotted path."""
    keys = path.split(".")

    def value(obj: Object, now: float) -> Any:
        del now
        found: Any = obj
        for key in keys:
            if not isinstance(found, Mapping):
                return default
            found = found.get(key)
        return default if found is None or found == "" else found

    return value


def col(name: str, value: Cell, type_: str = "string", *, wide: bool = False, description: str = "") -> Column:
    return Column(name, type_, value, description, 1 if wide else 0)


NAME = Column("Name", "string", at("metadata.name", ""), "Name must be unique within a namespace.", 0, "name")
AGE = Column(
    "Age", "string", _age,
    "CreationTimestamp is a timestamp representing the server time when this object was created.",
)  # fmt: skip
GENERIC = (NAME, Column("Created At", "date", at("metadata.creationTimestamp", "")))


def labels_text(labels: Mapping[str, Any] | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


def selector_cell(path: str) -> Cell:
    """A LabelSelector as text."""
    get = at(path, None)

    def value(obj: Object, now: float) -> str:
        selector = get(obj, now)
        return (format_selector(selector) or NONE) if selector else NONE

    return value


def containers_cell(path: str, key: str) -> Cell:
    """Names or images of the containers of a Pod template."""
    get = at(path, None)

    def value(obj: Object, now: float) -> str:
        return ",".join(str(c.get(key, "")) for c in get(obj, now) or ())

    return value


# -- pods
def _restarts(statuses: list[Object]) -> tuple[int, float | None]:
    total, last = 0, None
    for status in statuses:
        total += int(status.get("restartCount") or 0)
        ended = seconds_of(((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt"))
        if ended is not None and (last is None or ended > last):
            last = ended
    return total, last


def _init_reason(pod: Object) -> str:
    """The status of a Pod whose init containers are not done; "" when they are."""
    statuses: list[Object] = (pod.get("status") or {}).get("initContainerStatuses") or []
    specs = {c.get("name"): c for c in (pod.get("spec") or {}).get("initContainers") or ()}
    for index, status in enumerate(statuses):
        state: Object = status.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended is not None and ended.get("exitCode") == 0:
            continue
        if specs.get(status.get("name"), {}).get("restartPolicy") == "Always" and status.get("started"):
            continue
        if ended is not None:
            signal = ended.get("signal")
            why = ended.get("reason") or (f"Signal:{signal}" if signal else f"ExitCode:{ended.get('exitCode')}")
            return f"Init:{why}"
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{len(specs)}"
    return ""


def _container_reason(statuses: list[Object], reason: str) -> str:
    running = False
    for status in reversed(statuses):
        state: Object = status.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        if waiting.get("reason"):
            reason = str(waiting["reason"])
        elif ended:
            signal = ended.get("signal")
            reason = ended.get("reason") or (f"Signal:{signal}" if signal else f"ExitCode:{ended.get('exitCode')}")
        elif status.get("ready") and state.get("running") is not None:
            running = True
    return "Running" if reason == "Completed" and running else reason


def pod_status(pod: Object, now: float) -> str:
    """The STATUS column."""
    del now
    status: Object = pod.get("status") or {}
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    waiting = _init_reason(pod)
    reason = waiting or _container_reason(status.get("containerStatuses") or [], reason)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return reason


def _pod_ready(pod: Object, now: float) -> str:
    del now
    total = len((pod.get("spec") or {}).get("containers") or ())
    ready = sum(1 for c in (pod.get("status") or {}).get("containerStatuses") or () if c.get("ready"))
    return f"{ready}/{total}"


def _pod_restarts(pod: Object, now: float) -> str:
    status: Object = pod.get("status") or {}
    chosen: list[Object] = status.get("containerStatuses") or []
    if _init_reason(pod):
        chosen = status.get("initContainerStatuses") or []
    total, last = _restarts(chosen)
    return f"{total} ({human(now - last)} ago)" if total and last is not None else str(total)


def _readiness_gates(pod: Object, now: float) -> str:
    del now
    gates = (pod.get("spec") or {}).get("readinessGates") or ()
    if not gates:
        return NONE
    true = {c.get("type") for c in (pod.get("status") or {}).get("conditions") or () if c.get("status") == "True"}
    return f"{sum(1 for g in gates if g.get('conditionType') in true)}/{len(gates)}"


PODS = (
    NAME, col("Ready", _pod_ready), col("Status", pod_status), col("Restarts", _pod_restarts), AGE,
    col("IP", at("status.podIP"), wide=True), col("Node", at("spec.nodeName"), wide=True),
    col("Nominated Node", at("status.nominatedNodeName"), wide=True),
    col("Readiness Gates", _readiness_gates, wide=True),
)  # fmt: skip


# -- services and endpoints
def _external_ip(service: Object, now: float) -> str:
    del now
    spec: Object = service.get("spec") or {}
    external: list[str] = list(spec.get("externalIPs") or ())
    if spec.get("type") == "LoadBalancer":
        ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        found = [str(i.get("ip") or i.get("hostname") or "") for i in ingress] + external
        return ",".join(found) or "<pending>"
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName") or NONE)
    return ",".join(external) or NONE


def _service_ports(service: Object, now: float) -> str:
    del now
    shown: list[str] = []
    for port in (service.get("spec") or {}).get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or NONE


def _plain_selector(obj: Object, now: float) -> str:
    del now
    return labels_text((obj.get("spec") or {}).get("selector"))


SERVICES = (
    NAME, col("Type", at("spec.type")), col("Cluster-IP", at("spec.clusterIP")), col("External-IP", _external_ip),
    col("Port(s)", _service_ports), AGE, col("Selector", _plain_selector, wide=True),
)  # fmt: skip


def _limited(items: list[str], limit: int = 3) -> str:
    if not items:
        return NONE
    more = f" + {len(items) - limit} more..." if len(items) > limit else ""
    return ",".join(items[:limit]) + more


def _endpoints(obj: Object, now: float) -> str:
    del now
    found: list[str] = []
    for subset in obj.get("subsets") or ():
        for address in subset.get("addresses") or ():
            ports = subset.get("ports") or ()
            found += [f"{address.get('ip')}:{p.get('port')}" for p in ports] or [str(address.get("ip"))]
    return _limited(found)


ENDPOINTS = (NAME, col("Endpoints", _endpoints), AGE)


def _slice_ports(obj: Object, now: float) -> str:
    del now
    return _limited([str(p.get("port") or "*") for p in obj.get("ports") or ()]) if obj.get("ports") else UNSET


def _slice_endpoints(obj: Object, now: float) -> str:
    del now
    found = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    return _limited(found) if found else UNSET


ENDPOINT_SLICES = (
    NAME, col("AddressType", at("addressType")), col("Ports", _slice_ports), col("Endpoints", _slice_endpoints), AGE,
)  # fmt: skip


# -- configuration, accounts, namespaces
def _count(*keys: str) -> Cell:
    def value(obj: Object, now: float) -> int:
        del now
        return sum(len(obj.get(key) or ()) for key in keys)

    return value


CONFIG_MAPS = (NAME, col("Data", _count("data", "binaryData"), "integer"), AGE)
SECRETS = (NAME, col("Type", at("type")), col("Data", _count("data"), "integer"), AGE)
SERVICE_ACCOUNTS = (NAME, col("Secrets", _count("secrets"), "integer"), AGE)
NAMESPACES = (NAME, col("Status", at("status.phase", "")), AGE)
LIMIT_RANGES = (NAME, Column("Created At", "date", at("metadata.creationTimestamp", "")))


def _quota(pattern: Callable[[str], bool]) -> Cell:
    def value(obj: Object, now: float) -> str:
        del now
        status: Object = obj.get("status") or {}
        hard: Object = status.get("hard") or (obj.get("spec") or {}).get("hard") or {}
        used: Object = status.get("used") or {}
        return ", ".join(f"{k}: {used.get(k, 0)}/{hard[k]}" for k in sorted(hard) if pattern(k))

    return value


RESOURCE_QUOTAS = (
    NAME, col("Request", _quota(lambda k: not k.startswith("limits."))),
    col("Limit", _quota(lambda k: k.startswith("limits."))), AGE,
)  # fmt: skip


# -- nodes
def _node_status(node: Object, now: float) -> str:
    del now
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = next((c for c in conditions if c.get("type") == "Ready"), None)
    shown = "Unknown" if ready is None else {"True": "Ready", "False": "NotReady"}.get(ready.get("status"), "Unknown")
    return f"{shown},SchedulingDisabled" if (node.get("spec") or {}).get("unschedulable") else shown


def _node_roles(node: Object, now: float) -> str:
    del now
    prefix = "node-role.kubernetes.io/"
    labels: dict[str, str] = node["metadata"].get("labels") or {}
    roles = {k[len(prefix) :] for k in labels if k.startswith(prefix) and len(k) > len(prefix)}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    return ",".join(sorted(roles)) or NONE


def _node_address(kind: str) -> Cell:
    def value(node: Object, now: float) -> str:
        del now
        addresses = (node.get("status") or {}).get("addresses") or ()
        return next((str(a.get("address")) for a in addresses if a.get("type") == kind), NONE)

    return value


_INFO = "status.nodeInfo."
NODES = (
    NAME, col("Status", _node_status), col("Roles", _node_roles), AGE, col("Version", at(_INFO + "kubeletVersion", "")),
    col("Internal-IP", _node_address("InternalIP"), wide=True),
    col("External-IP", _node_address("ExternalIP"), wide=True),
    col("OS-Image", at(_INFO + "osImage", UNKNOWN), wide=True),
    col("Kernel-Version", at(_INFO + "kernelVersion", UNKNOWN), wide=True),
    col("Container-Runtime", at(_INFO + "containerRuntimeVersion", UNKNOWN), wide=True),
)  # fmt: skip


# -- events
def _event_last(event: Object) -> Any:
    series: Object = event.get("series") or {}
    return (
        series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
        or event.get("deprecatedLastTimestamp") or event.get("firstTimestamp")
    )  # fmt: skip


def _event_object(event: Object, now: float) -> str:
    del now
    target: Object = event.get("involvedObject") or event.get("regarding") or {}
    return f"{str(target.get('kind', '')).lower()}/{target.get('name', '')}"


def _event_source(event: Object, now: float) -> str:
    del now
    source: Object = event.get("source") or event.get("deprecatedSource") or {}
    parts = [source.get("component") or event.get("reportingComponent") or "", source.get("host") or ""]
    return ", ".join(p for p in parts if p)


def _event_message(event: Object, now: float) -> str:
    del now
    return str(event.get("message") or event.get("note") or "").strip()


def _event_seen(event: Object, now: float) -> str:
    return since(_event_last(event), now)


def _event_first(event: Object, now: float) -> str:
    return since(event.get("firstTimestamp") or event.get("eventTime") or event.get("deprecatedFirstTimestamp"), now)


def _event_count(event: Object, now: float) -> int:
    del now
    return int((event.get("series") or {}).get("count") or event.get("count") or event.get("deprecatedCount") or 1)


EVENTS = (
    col("Last Seen", _event_seen), col("Type", at("type", "")), col("Reason", at("reason", "")),
    col("Object", _event_object), col("Subobject", at("involvedObject.fieldPath", ""), wide=True),
    col("Source", _event_source, wide=True), col("Message", _event_message), col("First Seen", _event_first, wide=True),
    col("Count", _event_count, wide=True), Column("Name", "string", at("metadata.name", ""), "", 1, "name"),
)  # fmt: skip


# -- claims
def _modes(obj: Object, now: float) -> str:
    del now
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(str(m), str(m)) for m in (obj.get("status") or {}).get("accessModes") or ())


PERSISTENT_VOLUME_CLAIMS = (
    NAME, col("Status", at("status.phase", "")), col("Volume", at("spec.volumeName", "")),
    col("Capacity", at("status.capacity.storage", "")), col("Access Modes", _modes),
    col("StorageClass", at("spec.storageClassName", "")),
    col("VolumeAttributesClass", at("spec.volumeAttributesClassName", UNSET)), AGE,
    col("VolumeMode", at("spec.volumeMode", ""), wide=True),
)  # fmt: skip
