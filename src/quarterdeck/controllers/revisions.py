"""Keeps the history of Agents and MCPServers as ControllerRevisions (translate/revision.py says what it should be)."""

from __future__ import annotations

from collections.abc import Mapping

from quarterdeck.errors import AlreadyExists, Conflict, NotFound
from quarterdeck.kube import resource as k
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.resource import Object
from quarterdeck.translate import revision
from quarterdeck.translate.revision import Revision

from .context import Context

_BY_OWNER = "owner"


class Revisions:
    """The history of all owners. Content stays at the server: only metadata is cached."""

    def __init__(self, context: Context) -> None:
        self._client = context.set.client
        self._informer: Informer = context.set.informer(
            k.CONTROLLER_REVISION, label_selector=revision.OWNER, metadata_only=True
        )
        self._informer.add_index(_BY_OWNER, lambda obj: [_owner(obj, obj["metadata"].get("labels") or {})])

    def known(self, owner: Object) -> list[Revision]:
        """Revisions of ``owner``, the current one last."""
        found = self._informer.by_index(_BY_OWNER, _owner(owner, {revision.OWNER: owner["metadata"]["uid"]}))
        return sorted(
            (revision.read(obj) for obj in found if "deletionTimestamp" not in obj["metadata"]), key=lambda r: r.number
        )

    async def record(self, owner: Object) -> int:
        """Make the spec of ``owner`` its current revision; gives the number. Nothing is sent when it already is."""
        plan = revision.plan(owner, self.known(owner))
        if plan.create:
            wanted = revision.controller_revision(owner, plan.number)
            try:
                self._observe(await self._client.create(k.CONTROLLER_REVISION, wanted))
            except AlreadyExists as error:
                raise Conflict(error.message) from error  # the cache is behind: look again
        elif plan.renumber:
            body = {"revision": plan.number, "metadata": {"annotations": revision.marks(owner, plan.number)}}
            namespace = owner["metadata"]["namespace"]
            self._observe(await self._client.patch(k.CONTROLLER_REVISION, plan.renumber, body, namespace))
        for name in plan.surplus:
            await self._delete(owner["metadata"]["namespace"], name)
        return plan.number

    async def _delete(self, namespace: str, name: str) -> None:
        try:
            await self._client.delete(k.CONTROLLER_REVISION, name, namespace)
        except NotFound:
            return
        gone = self._informer.get(namespace, name)
        if gone is not None:
            self._informer.observe_deletion(gone)

    def _observe(self, written: Object) -> None:
        self._informer.observe({key: written[key] for key in ("apiVersion", "kind", "metadata") if key in written})


def _owner(obj: Object, labels: Mapping[str, str]) -> str:
    """Key of the index. The label is anybody's word, so it counts in its own namespace only."""
    return f"{obj['metadata']['namespace']}/{labels.get(revision.OWNER, '')}"
