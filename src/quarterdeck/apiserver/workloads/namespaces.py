"""Namespace lifecycle: a deleted namespace loses all its content, then its ``kubernetes`` finalizer."""

from __future__ import annotations

from dataclasses import dataclass, field

from quarterdeck import errors
from quarterdeck.kube.clock import timestamp
from quarterdeck.kube.conditions import set_condition
from quarterdeck.kube.controller import DONE, Controller, ControllerSet, Result
from quarterdeck.kube.resource import NAMESPACE, Key, Object

from .control import write_status
from .discovery import Served, served_resources

_FINALIZER = "kubernetes"
_AGAIN = 1.0


@dataclass(slots=True)
class Content:
    """What is left after one deletion round: counts by resource and by finalizer, and what went wrong."""

    remaining: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    undiscovered: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.remaining or self.failures or self.undiscovered)


def conditions_of(namespace: Object, content: Content, now: str) -> list[Object]:
    """The five deletion conditions with upstream's types, reasons and texts."""
    conditions: list[Object] = (namespace.get("status") or {}).get("conditions") or []
    remaining = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(content.remaining.items()))
    finalizers = ", ".join(
        f"{name} in {count} resource instances" for name, count in sorted(content.finalizers.items())
    )
    table = (
        ("NamespaceDeletionDiscoveryFailure", "; ".join(content.undiscovered), "DiscoveryFailed",
         "ResourcesDiscovered", "All resources successfully discovered", "Discovery failed for some groups: "),
        ("NamespaceDeletionGroupVersionParsingFailure", "", "", "ParsedGroupVersions",
         "All legacy kube types successfully parsed", ""),
        ("NamespaceDeletionContentFailure", "; ".join(content.failures), "ContentDeletionFailed", "ContentDeleted",
         "All content successfully deleted, may be waiting on finalization", "Failed to delete all resource types: "),
        ("NamespaceContentRemaining", remaining, "SomeResourcesRemain", "ContentRemoved",
         "All content successfully removed", "Some resources are remaining: "),
        ("NamespaceFinalizersRemaining", finalizers, "SomeFinalizersRemain", "ContentHasNoFinalizers",
         "All content-preserving finalizers finished", "Some content in the namespace has finalizers remaining: "),
    )  # fmt: skip
    for kind, problem, bad, good, text, prefix in table:
        reason, message = (bad, prefix + problem) if problem else (good, text)
        conditions = set_condition(conditions, kind, "True" if problem else "False", reason, message, None, now)
    return conditions


class Namespaces:
    def __init__(self, controllers: ControllerSet) -> None:
        self._client = controllers.client
        self._clock = controllers.clock
        self._namespaces = controllers.informer(NAMESPACE)
        controllers.add(Controller("namespace", NAMESPACE, self.reconcile))

    async def reconcile(self, key: Key) -> Result:
        namespace = self._namespaces.get(None, key.name)
        if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
            return DONE
        if _FINALIZER not in ((namespace.get("spec") or {}).get("finalizers") or ()):
            return DONE
        content = await self._delete_content(key.name)
        status = dict(namespace.get("status") or {}) | {
            "phase": "Terminating",
            "conditions": conditions_of(namespace, content, timestamp(self._clock.time())),
        }
        if not content.empty:
            await write_status(self._namespaces, NAMESPACE, namespace, status)
            return Result(_AGAIN)
        live = await self._client.get(NAMESPACE, key.name)
        left = [f for f in live["spec"].get("finalizers") or () if f != _FINALIZER]
        live["spec"] = live["spec"] | {"finalizers": left}
        await self._client.replace(NAMESPACE, live, subresource="finalize")
        return DONE

    async def _delete_content(self, name: str) -> Content:
        served, failed = await served_resources(self._client)
        content = Content(undiscovered=failed)
        for kind in served:
            if kind.resource.namespaced and {"list", "delete"} <= kind.verbs:
                try:
                    await self._delete_kind(kind, name, content)
                except (errors.NotFound, errors.MethodNotAllowed):
                    continue  # a CRD that went away meanwhile
                except errors.ApiError as error:
                    content.failures.append(f"{kind.resource.plural}: {error}")
        return content

    async def _delete_kind(self, kind: Served, name: str, content: Content) -> None:
        res = kind.resource
        found = (await self._client.list(res, name, metadata_only=True)).items
        if not found:
            return
        if "deletecollection" in kind.verbs:
            if any("deletionTimestamp" not in obj["metadata"] for obj in found):
                await self._client.delete_collection(res, name)
        else:
            for obj in found:
                if "deletionTimestamp" not in obj["metadata"]:
                    await self._client.delete(res, obj["metadata"]["name"], name)
        left = (await self._client.list(res, name, metadata_only=True)).items
        if left:
            content.remaining[f"{res.plural}.{res.group}"] = len(left)
        for obj in left:
            for finalizer in obj["metadata"].get("finalizers") or ():
                content.finalizers[finalizer] = content.finalizers.get(finalizer, 0) + 1
