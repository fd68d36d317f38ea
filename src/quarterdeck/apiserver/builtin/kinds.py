"""The ``KindSchema`` of every built-in kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from quarterdeck.apiserver.patch.json_patch import copy_json
from quarterdeck.apiserver.schema import SchemaNode, kind_node
from quarterdeck.apiserver.schema.decode import decode, unknown_fields
from quarterdeck.errors import Cause
from quarterdeck.kube.resource import Object, Resource

from . import config, names, network, workloads
from .defaults import DEFAULTS, PREPARE
from .pods import pod_spec, pod_update

Validate = Callable[[Object, Object | None], list[Cause]]


def _pod(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    return pod_spec(spec, "spec") if old is None else pod_update(spec, old.get("spec") or {})


_VALIDATE: dict[str, Validate] = {
    "Pod": _pod,
    "Deployment": workloads.deployment,
    "ReplicaSet": workloads.replica_set,
    "Job": workloads.job,
    "CronJob": workloads.cron_job,
    "HorizontalPodAutoscaler": workloads.autoscaler,
    "PodDisruptionBudget": workloads.disruption_budget,
    "ConfigMap": config.config_map,
    "Secret": config.secret,
    "PersistentVolumeClaim": config.claim,
    "ResourceQuota": config.resource_quota,
    "LimitRange": config.limit_range,
    "Role": config.role,
    "ClusterRole": config.role,
    "RoleBinding": config.role_binding,
    "ClusterRoleBinding": config.role_binding,
    "Service": network.service,
    "Endpoints": network.endpoints,
    "EndpointSlice": network.endpoint_slice,
    "NetworkPolicy": network.network_policy,
    "Ingress": network.ingress,
    "Lease": network.lease,
}

# Kinds whose metadata.generation counts changes of what the user wants.
_GENERATION = frozenset(
    {
        "Deployment", "ReplicaSet", "Job", "CronJob", "NetworkPolicy", "Ingress", "PodDisruptionBudget", "Pod",
        "EndpointSlice", "CustomResourceDefinition",
    }
)  # fmt: skip
# Status is not a subresource of its own here: a client creates it with the object.
_STATUS_WITH_OBJECT = frozenset({"Node"})
_NO_SUCH_NAME = frozenset({"Event"})


class BuiltinSchema:
    """Schema, defaults and validation of one built-in kind; cheap until its schema is first used."""

    def __init__(self, resource: Resource, validate: Validate | None = None) -> None:
        self.resource = resource
        self._validate = validate or _VALIDATE.get(resource.kind)
        self._default = DEFAULTS.get(resource.kind)
        self._prepare = PREPARE.get(resource.kind)

    @cached_property
    def root(self) -> SchemaNode:
        return kind_node(self.resource.group, self.resource.version, self.resource.kind)

    @property
    def has_status(self) -> bool:
        return "status" in self.root.properties

    def unknown_fields(self, obj: Object) -> list[str]:
        return unknown_fields(self.root, obj)

    def prune(self, obj: Object) -> None:
        """Check types and drop unknown fields. Raises BadRequest as the API server's decoder would."""
        decode(self.root, obj, self.resource.version, self.resource.kind)

    def default(self, obj: Object) -> None:
        if self._default is not None:
            self._default(obj)

    def prepare_create(self, obj: Object) -> None:
        kind = self.resource.kind
        metadata = obj.setdefault("metadata", {})
        if kind in _GENERATION:
            metadata["generation"] = 1
        else:
            metadata.pop("generation", None)
        if self.has_status and kind not in _STATUS_WITH_OBJECT:
            obj.pop("status", None)
        if self._prepare is not None:
            self._prepare(obj)

    def prepare_update(self, obj: Object, old: Object, subresource: str = "") -> None:
        if subresource == "status":
            self._keep_all_but_status(obj, old)
            return
        if self.has_status and not subresource:
            _carry_over(obj, old, "status")
        metadata, before = obj.setdefault("metadata", {}), old.get("metadata", {})
        if "generation" in before:
            metadata["generation"] = before["generation"]
        if self.resource.kind in _GENERATION and self._wanted(obj) != self._wanted(old):
            metadata["generation"] = before.get("generation", 0) + 1

    def _keep_all_but_status(self, obj: Object, old: Object) -> None:
        """A status write leaves the rest as it was; only resourceVersion (precondition) and ownership are taken."""
        kept = copy_json({key: value for key, value in old.items() if key != "status"})
        for key in ("managedFields", "resourceVersion"):
            value = obj.get("metadata", {}).get(key)
            if value is None:
                kept["metadata"].pop(key, None)
            else:
                kept["metadata"][key] = value
        status = obj.get("status")
        obj.clear()
        obj.update(kept)
        if status is not None:
            obj["status"] = status

    def _wanted(self, obj: Object) -> Any:
        kind = self.resource.kind
        if kind == "EndpointSlice":
            return {key: value for key, value in obj.items() if key != "metadata"}
        if kind == "Deployment":
            return obj.get("spec"), obj.get("metadata", {}).get("annotations")
        return obj.get("spec")

    def validate(self, obj: Object, old: Object | None, subresource: str = "") -> list[Cause]:
        causes: list[Cause] = []
        if self.resource.kind not in _NO_SUCH_NAME:
            causes += names.object_meta(obj, kind=self.resource.kind, namespaced=self.resource.namespaced)
        if old is not None:
            causes += names.object_meta_update(obj, old)
        if self._validate is not None and subresource != "status":
            causes += self._validate(obj, old)
        return causes


def _carry_over(obj: Object, old: Object, key: str) -> None:
    if key in old:
        obj[key] = old[key]
    else:
        obj.pop(key, None)


def kind_schema(resource: Resource, validate: Validate | None = None) -> BuiltinSchema:
    """The schema of a built-in kind. ``validate(obj, old)`` replaces the kind's own rules (used for CRD objects)."""
    return BuiltinSchema(resource, validate)
