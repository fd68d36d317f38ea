"""Writes shared by the workload controllers: Pods made and removed in batches, status written only when it changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from quarterdeck import errors
from quarterdeck.kube.events import EventRecorder
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.owner import controller_of, owner_reference
from quarterdeck.kube.resource import POD, Object, Resource

from .pods import matches


async def slow_start(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Batches of 1, 2, 4, …: a quota or a bad template fails once, not a thousand times. Raises the first error."""
    start, batch = 0, 1
    while start < len(calls):
        results = await asyncio.gather(*(call() for call in calls[start : start + batch]), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        start, batch = start + batch, batch * 2


class PodControl:
    """Create and delete Pods for an owner, with upstream's Events; the cache sees the result at once."""

    def __init__(self, pods: Informer, recorder: EventRecorder) -> None:
        self._client = pods.client
        self._pods = pods
        self._recorder = recorder

    async def create(self, pod: Object, owner: Object) -> Object:
        try:
            made = await self._client.create(POD, pod)
        except errors.ApiError as error:
            self._recorder.event(owner, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        made.setdefault("apiVersion", "v1")
        made.setdefault("kind", "Pod")
        self._pods.observe(made)
        self._recorder.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return made

    async def delete(self, pod: Object, owner: Object) -> None:
        metadata = pod["metadata"]
        try:
            await self._client.delete(POD, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except (errors.NotFound, errors.Conflict):
            return  # gone already, or another Pod of that name
        except errors.ApiError as error:
            self._recorder.event(owner, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        self._pods.observe_deletion(pod)
        self._recorder.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {metadata['name']}")


async def claim(
    informer: Informer, res: Resource, owner: Object, candidates: Sequence[Object], *, may_adopt: bool
) -> list[Object]:
    """The children of ``owner``: orphans its selector matches are adopted, children it no longer matches released."""
    selector = owner["spec"].get("selector")
    uid = owner["metadata"]["uid"]
    mine: list[Object] = []
    for child in candidates:
        reference = controller_of(child)
        fits = matches(selector, child["metadata"].get("labels"))
        if reference is not None:
            if reference["uid"] != uid:
                continue
            if fits or "deletionTimestamp" in owner["metadata"]:
                mine.append(child)
            else:
                await _release(informer, res, child, uid)
        elif fits and may_adopt and "deletionTimestamp" not in child["metadata"]:
            mine.append(await _adopt(informer, res, child, owner))
    return mine


async def _adopt(informer: Informer, res: Resource, child: Object, owner: Object) -> Object:
    metadata = child["metadata"]
    references = [*(metadata.get("ownerReferences") or ()), owner_reference(owner)]
    body = {"metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
                         "ownerReferences": references}}  # fmt: skip
    adopted = await informer.client.patch(res, metadata["name"], body, metadata["namespace"])
    informer.observe(adopted)
    return adopted


async def _release(informer: Informer, res: Resource, child: Object, uid: str) -> None:
    metadata = child["metadata"]
    references = [r for r in metadata.get("ownerReferences") or () if r["uid"] != uid]
    body = {"metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
                         "ownerReferences": references or None}}  # fmt: skip
    informer.observe(await informer.client.patch(res, metadata["name"], body, metadata["namespace"]))


async def write_status(informer: Informer, res: Resource, obj: Object, status: Object) -> bool:
    """Replace the status when it differs; whether it did. Raises errors.Conflict when ``obj`` is outdated."""
    wanted = {key: value for key, value in status.items() if value not in (None, [], {})}
    if _significant(obj.get("status") or {}) == _significant(wanted):
        return False
    written = await informer.client.replace(res, obj | {"status": wanted}, subresource="status")
    informer.observe(written)
    return True


def _significant(status: Object) -> Object:
    """Without zero values: servers differ in whether they store them."""
    return {key: value for key, value in status.items() if value not in (None, 0, [], {}, "")}


def controller_uid(obj: Object) -> list[str]:
    reference = controller_of(obj)
    return [reference["uid"]] if reference else []


def orphan_namespace(obj: Object) -> list[str]:
    return [] if controller_of(obj) else [obj["metadata"].get("namespace", "")]
