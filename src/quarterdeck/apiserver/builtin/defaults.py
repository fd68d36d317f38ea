"""Defaults of the other built-in kinds, one function a kind (upstream pkg/apis/*/v*/defaults.go and strategies)."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any

from .pod_defaults import default_pod_spec

Json = dict[str, Any]

_RBAC = "rbac.authorization.k8s.io"


def default_pod(obj: Json) -> None:
    default_pod_spec(obj.setdefault("spec", {}), template=False)


def _template(spec: Json) -> None:
    template = spec.setdefault("template", {})
    default_pod_spec(template.setdefault("spec", {}), template=True)


def default_deployment(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    _template(spec)


def default_replica_set(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    _template(spec)


def _default_job_spec(spec: Json) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 2**31 - 1 if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern.setdefault("status", "True")
    _template(spec)


def default_job(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    _default_job_spec(spec)
    spec.setdefault("manualSelector", False)
    labels = spec["template"].get("metadata", {}).get("labels")
    if labels and not obj.get("metadata", {}).get("labels"):
        obj.setdefault("metadata", {})["labels"] = dict(labels)


def prepare_job(obj: Json) -> None:
    """The selector and labels that tie a Job to its Pods, generated unless ``manualSelector`` (job strategy)."""
    spec, metadata = obj["spec"], obj.setdefault("metadata", {})
    if spec.get("manualSelector"):
        return
    uid = metadata.setdefault("uid", str(uuid.uuid4()))
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels.setdefault(f"{prefix}controller-uid", uid)
        if metadata.get("name"):
            labels.setdefault(f"{prefix}job-name", metadata["name"])
    match = spec.setdefault("selector", {}).setdefault("matchLabels", {})
    match.setdefault("batch.kubernetes.io/controller-uid", uid)


def default_cron_job(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    job = spec.setdefault("jobTemplate", {}).setdefault("spec", {})
    # A job template keeps what the Job itself will be given; only its pod template is defaulted here.
    _template(job)


def default_service(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    kind = spec.setdefault("type", "ClusterIP")
    if spec.setdefault("sessionAffinity", "None") == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client.setdefault("timeoutSeconds", 10800)
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if not port.get("targetPort"):
            port["targetPort"] = port.get("port")
    if kind in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if kind != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")


def default_endpoints(obj: Json) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            port.setdefault("protocol", "TCP")


def default_endpoint_slice(obj: Json) -> None:
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def default_secret(obj: Json) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if plain:
        data = obj.setdefault("data", {})
        for key, value in plain.items():
            data[key] = base64.b64encode(str(value).encode()).decode()


def default_namespace(obj: Json) -> None:
    metadata = obj.setdefault("metadata", {})
    name = metadata.get("name")
    if name:
        metadata.setdefault("labels", {}).setdefault("kubernetes.io/metadata.name", name)


def prepare_namespace(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    finalizers = spec.setdefault("finalizers", [])
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")
    obj["status"] = {"phase": "Active"}


def prepare_pod(obj: Json) -> None:
    obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj["spec"])}


def prepare_claim(obj: Json) -> None:
    obj["status"] = {"phase": "Pending"}


def qos_class(spec: Json) -> str:
    """Guaranteed, Burstable or BestEffort, from the resources of all containers."""
    guaranteed, anything = True, False
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        anything = anything or any(name in limits or name in requests for name in ("cpu", "memory"))
        for name in ("cpu", "memory"):
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def default_claim(obj: Json) -> None:
    obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def default_limit_range(obj: Json) -> None:
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        largest = item.get("max") or {}
        if largest:
            item["default"] = {**largest, **(item.get("default") or {})}
        fallback = {**(item.get("min") or {}), **(item.get("default") or {})}
        if fallback:
            item["defaultRequest"] = {**fallback, **(item.get("defaultRequest") or {})}


def default_network_policy(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")


def default_hpa(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if not behavior:
        return
    up, down = behavior.setdefault("scaleUp", {}), behavior.setdefault("scaleDown", {})
    up.setdefault("stabilizationWindowSeconds", 0)
    for rules in (up, down):
        rules.setdefault("selectPolicy", "Max")
    up.setdefault(
        "policies",
        [{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}],
    )
    down.setdefault("policies", [{"type": "Percent", "value": 100, "periodSeconds": 15}])


def default_binding(obj: Json) -> None:
    reference = obj.get("roleRef")
    if reference is not None:
        reference["apiGroup"] = reference.get("apiGroup") or _RBAC
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = subject.get("apiGroup") or _RBAC


def default_crd(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", f"{names['kind']}List")
    conversion = spec.setdefault("conversion", {"strategy": "None"})
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
    if service is not None:
        service.setdefault("port", 443)


def default_node(obj: Json) -> None:
    status = obj.get("status")
    if status and status.get("capacity"):
        status.setdefault("allocatable", dict(status["capacity"]))


DEFAULTS: dict[str, Callable[[Json], None]] = {
    "Pod": default_pod,
    "Deployment": default_deployment,
    "ReplicaSet": default_replica_set,
    "Job": default_job,
    "CronJob": default_cron_job,
    "Service": default_service,
    "Endpoints": default_endpoints,
    "EndpointSlice": default_endpoint_slice,
    "Secret": default_secret,
    "Namespace": default_namespace,
    "PersistentVolumeClaim": default_claim,
    "LimitRange": default_limit_range,
    "NetworkPolicy": default_network_policy,
    "HorizontalPodAutoscaler": default_hpa,
    "RoleBinding": default_binding,
    "ClusterRoleBinding": default_binding,
    "CustomResourceDefinition": default_crd,
    "Node": default_node,
}

PREPARE: dict[str, Callable[[Json], None]] = {
    "Job": prepare_job,
    "Namespace": prepare_namespace,
    "Pod": prepare_pod,
    "PersistentVolumeClaim": prepare_claim,
}
