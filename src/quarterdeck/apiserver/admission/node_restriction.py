"""NodeRestriction: a node writes only its own Node and Pods, and asks only for tokens bound to its Pods."""

from __future__ import annotations

from quarterdeck.apiserver.security.identity import NODE_PREFIX, NODES, ObjectReader, forbidden_object
from quarterdeck.errors import Forbidden
from quarterdeck.kube.resource import POD, Object

from .attributes import AdmissionAttributes

_MIRROR = "kubernetes.io/config.mirror"


def check_node_restriction(reader: ObjectReader, a: AdmissionAttributes) -> None:
    """Raises Forbidden when a ``system:node:<name>`` writes what concerns another node."""
    if NODES not in a.user.groups or not a.user.name.startswith(NODE_PREFIX):
        return
    node = a.user.name.removeprefix(NODE_PREFIX)
    name = a.name or (a.obj.get("metadata") or {}).get("name", "")
    match a.qualified:
        case ("", "nodes") if name != node:
            raise _refused(a, name, f'node "{node}" is not allowed to modify node "{name}"')
        case ("", "pods"):
            _check_pod(reader, a, node, name)
        case ("", "serviceaccounts") if a.subresource == "token":
            _check_token(reader, a, node, name)
        case ("coordination.k8s.io", "leases") if name != node:
            raise _refused(a, name, "can only access node lease with the same name as the requesting node")
        case _:
            pass


def _check_pod(reader: ObjectReader, a: AdmissionAttributes, node: str, name: str) -> None:
    if a.creates_pod and _MIRROR not in (a.obj["metadata"].get("annotations") or {}):
        why = f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods'
        raise _refused(a, name, why)
    pod = a.obj if a.creates_pod else a.old or reader.get(POD, a.namespace, name)
    if pod is not None and _node_of(pod) != node:
        raise _refused(a, name, f'node "{node}" can only modify pods with spec.nodeName set to itself')


def _check_token(reader: ObjectReader, a: AdmissionAttributes, node: str, name: str) -> None:
    reference = (a.obj.get("spec") or {}).get("boundObjectRef") or {}
    if reference.get("kind") != "Pod" or not reference.get("name"):
        raise _refused(a, name, "node requested token not bound to a pod")
    if not reference.get("uid"):
        raise _refused(a, name, "node requested token with a pod binding without a uid")
    pod = reader.get(POD, a.namespace, reference["name"])
    if pod is None or pod["metadata"].get("uid") != reference["uid"] or _node_of(pod) != node:
        raise _refused(a, name, "node requested token bound to a pod scheduled on a different node")


def _node_of(pod: Object) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "")


def _refused(a: AdmissionAttributes, name: str, why: str) -> Forbidden:
    return forbidden_object(a.resource.group, a.resource.plural, name, why)
