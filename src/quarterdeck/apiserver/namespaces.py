"""Namespaces as containers: they must exist, and take nothing new while they end."""

from __future__ import annotations

from typing import Any, cast

from quarterdeck.apiserver import faults
from quarterdeck.apiserver.kinds import Kind
from quarterdeck.apiserver.store import Store
from quarterdeck.errors import Forbidden, NotFound
from quarterdeck.kube.resource import NAMESPACE, Object

SYSTEM = ("default", "kube-system", "kube-public", "kube-node-lease")
IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


def default_namespace(kind: Kind, namespace: str) -> str:
    """Where an object goes: "" for cluster-scoped kinds."""
    return namespace if kind.resource.namespaced else ""


def check_namespace_exists(store: Store, kind: Kind, namespace: str, name: str) -> None:
    """Raises NotFound or Forbidden (cause NamespaceTerminating) when nothing may be created there."""
    if not kind.resource.namespaced:
        return
    entry = store.entry("namespaces", "", namespace)
    if entry is None:
        raise NotFound(f'namespaces "{namespace}" not found', name=namespace, kind="namespaces")
    if b'"Terminating"' in entry.raw and (entry.load().get("status") or {}).get("phase") == "Terminating":
        raise faults.terminating(kind, name, namespace)


def new_namespace(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


class NamespaceRules:
    """What the server sets on Namespaces (a hook of :class:`Writes`)."""

    def prepare(self, kind: Kind, obj: Object, old: Object | None) -> None:
        """The name label on all, finalizer and phase on new ones."""
        if kind.resource != NAMESPACE:
            return
        labels = cast(dict[str, Any], obj["metadata"].setdefault("labels", {}) or {})
        labels["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
        obj["metadata"]["labels"] = labels
        if old is None:
            spec = cast(dict[str, Any], obj.get("spec") or {})
            spec["finalizers"] = sorted({*(spec.get("finalizers") or ()), "kubernetes"})
            obj["spec"], obj["status"] = spec, {"phase": "Active"}


def check_deletable(kind: Kind, name: str) -> None:
    """Raises Forbidden for the namespaces that Kubernetes never deletes."""
    if kind.resource == NAMESPACE and name in IMMORTAL:
        raise Forbidden(
            f'namespaces "{name}" is forbidden: this namespace may not be deleted', name=name, kind="namespaces"
        )
