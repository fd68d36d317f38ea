"""The built-in kinds that are served: names, columns, subresources, field selectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quarterdeck.apiserver import columns
from quarterdeck.apiserver import columns_workloads as more
from quarterdeck.apiserver.events import convert_event, event_fields
from quarterdeck.apiserver.kinds import ALL_VERBS, Column, Kind, ScaleSpec
from quarterdeck.apiserver.schema.node import KindSchema
from quarterdeck.kube import resource as r
from quarterdeck.kube.resource import Object, Resource

SchemaOf = Callable[[Resource], KindSchema]
"""What is known about the objects of a kind."""

_EVENTS_V1 = Resource("events.k8s.io", "v1", "Event", "events")
_NOT_ACTED_ON = "{kind} is stored but not acted on by Quarterdeck's embedded API server"


def _fields(**paths: str) -> Callable[[Object], dict[str, str]]:
    """Field selector values from dotted paths; underscores in names stand for dots."""
    compiled = [(name.replace("_", "."), path.split(".")) for name, path in paths.items()]

    def value(obj: Object) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, keys in compiled:
            at: Any = obj
            for key in keys:
                at = at.get(key) if isinstance(at, dict) else None
            if at is not None:
                found[name] = str(at).lower() if isinstance(at, bool) else str(at)
        return found

    return value


def _paths(*names: str) -> Callable[[Object], dict[str, str]]:
    return _fields(**{name.replace(".", "_"): name for name in names})


_POD_FIELDS = (
    "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
    "status.phase", "status.podIP", "status.nominatedNodeName",
)  # fmt: skip
_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": _POD_FIELDS,
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "replicasets": ("status.replicas",),
    "jobs": ("status.successful",),
}
_EVENT_SELECTORS = frozenset(
    {
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
        "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
        "reportingComponent", "source", "type", "regarding.kind", "regarding.namespace", "regarding.name",
        "regarding.uid", "regarding.apiVersion", "regarding.resourceVersion", "regarding.fieldPath",
        "reportingController",
    }
)  # fmt: skip

# resource, singular, short names, columns, subresources, categories
_Row = tuple[Resource, tuple[str, ...], tuple[Column, ...], tuple[str, ...], tuple[str, ...]]
_ALL = ("all",)
_ROWS: tuple[_Row, ...] = (
    (r.NAMESPACE, ("ns",), columns.NAMESPACES, ("status", "finalize"), ()),
    (r.NODE, ("no",), columns.NODES, ("status",), ()),
    (
        r.POD, ("po",), columns.PODS,
        ("status", "log", "exec", "attach", "portforward", "binding", "eviction"), _ALL,
    ),
    (r.SERVICE, ("svc",), columns.SERVICES, ("status",), _ALL),
    (r.ENDPOINTS, ("ep",), columns.ENDPOINTS, (), ()),
    (r.CONFIG_MAP, ("cm",), columns.CONFIG_MAPS, (), ()),
    (r.SECRET, (), columns.SECRETS, (), ()),
    (r.SERVICE_ACCOUNT, ("sa",), columns.SERVICE_ACCOUNTS, ("token",), ()),
    (r.EVENT, ("ev",), columns.EVENTS, (), ()),
    (_EVENTS_V1, ("ev",), columns.EVENTS, (), ()),
    (r.PERSISTENT_VOLUME_CLAIM, ("pvc",), columns.PERSISTENT_VOLUME_CLAIMS, ("status",), ()),
    (r.RESOURCE_QUOTA, ("quota",), columns.RESOURCE_QUOTAS, ("status",), ()),
    (r.LIMIT_RANGE, ("limits",), columns.LIMIT_RANGES, (), ()),
    (r.DEPLOYMENT, ("deploy",), more.DEPLOYMENTS, ("status", "scale"), _ALL),
    (r.REPLICA_SET, ("rs",), more.REPLICA_SETS, ("status", "scale"), _ALL),
    (r.CONTROLLER_REVISION, (), more.CONTROLLER_REVISIONS, (), ()),
    (r.JOB, (), more.JOBS, ("status",), _ALL),
    (r.CRON_JOB, ("cj",), more.CRON_JOBS, ("status",), _ALL),
    (r.HPA, ("hpa",), more.HPAS, ("status",), _ALL),
    (r.ENDPOINT_SLICE, (), columns.ENDPOINT_SLICES, (), ()),
    (r.LEASE, (), more.LEASES, (), ()),
    (r.NETWORK_POLICY, ("netpol",), more.NETWORK_POLICIES, (), ()),
    (r.INGRESS, ("ing",), more.INGRESSES, ("status",), ()),
    (r.PDB, ("pdb",), more.PDBS, ("status",), ()),
    (r.ROLE, (), more.ROLES, (), ()),
    (r.ROLE_BINDING, (), more.ROLE_BINDINGS, (), ()),
    (r.CLUSTER_ROLE, (), more.ROLES, (), ()),
    (r.CLUSTER_ROLE_BINDING, (), more.ROLE_BINDINGS, (), ()),
    (r.CRD, ("crd", "crds"), more.CRDS, ("status",), ("api-extensions",)),
)  # fmt: skip
_STORED_ONLY = frozenset({"persistentvolumeclaims", "ingresses", "networkpolicies"})


def builtin_kinds(schema_of: SchemaOf) -> list[Kind]:
    """All built-in kinds; ``schema_of`` gives the schema of each."""
    return [_kind(row, schema_of) for row in _ROWS]


def _kind(row: _Row, schema_of: SchemaOf) -> Kind:
    resource, short, cols, subresources, categories = row
    selectable = _FIELDS.get(resource.plural, ())
    event = resource.plural == "events"
    warning = _NOT_ACTED_ON.format(kind=resource.kind) if resource.plural in _STORED_ONLY else ""
    return Kind(
        resource=resource,
        singular=resource.kind.lower(),
        schema=schema_of(resource),
        short_names=short,
        verbs=tuple(v for v in ALL_VERBS if v != "deletecollection") if resource == r.NAMESPACE else ALL_VERBS,
        categories=categories,
        subresources=frozenset(subresources),
        columns=cols,
        storage_version=resource.version,
        stored_as="v1" if event else "",
        stored_warning=warning,
        convert=convert_event if event else None,
        scale=ScaleSpec() if "scale" in subresources else None,
        selectable=_EVENT_SELECTORS if event else frozenset(selectable),
        fields_of=event_fields if event else _paths(*selectable),
    )
