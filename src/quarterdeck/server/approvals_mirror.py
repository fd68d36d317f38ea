"""``Approval`` objects: copies of what the database says, for ``kubectl get approvals``. Nothing is read from them.

A copy that somebody edited is put right, one that nobody asked for goes away, and neither changes what is approved.
"""

from __future__ import annotations

import asyncio
import logging

from quarterdeck.errors import Conflict, NotFound, QuarterdeckError
from quarterdeck.kube.apply import apply_if_changed, apply_status_if_changed
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import APPROVAL, Object

from . import approvals as a
from .approvals import Approval
from .approvals_store import ApprovalStore

log = logging.getLogger(__name__)
_CONDITIONS = {"Pending": "Unknown", "Approved": "True", "Consumed": "True"}


class ApprovalMirror:
    """``take`` is told of changes; :meth:`run` writes them, and :meth:`settle` puts all copies right."""

    def __init__(self, client: KubeClient, store: ApprovalStore, namespaces: tuple[str, ...] = ()) -> None:
        """``namespaces``: the only ones that may be looked at; all when empty."""
        self._client = client
        self._namespaces = namespaces
        self._store = store
        self._changed: dict[str, Approval] = {}
        self._wake = asyncio.Event()
        self._said = ""

    async def take(self, approval: Approval) -> None:
        self._changed[approval.id] = approval
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._changed:
                _, approval = self._changed.popitem()
                await self._quietly(self.write(approval, None))

    async def settle(self) -> None:
        """Compare all copies with the database."""
        try:
            lists = [await self._client.list(APPROVAL, where) for where in self._namespaces or (None,)]
        except QuarterdeckError as error:
            self._say(error)
            return
        live = {(obj["metadata"]["namespace"], obj["metadata"]["name"]): obj for found in lists for obj in found.items}
        kept = {(one.namespace, one.name): one for one in await self._store.find()}
        for key, approval in kept.items():
            await self._quietly(self.write(approval, live.get(key)))
        for namespace, name in live.keys() - kept.keys():
            await self._quietly(self._remove(namespace, name))

    async def write(self, approval: Approval, live: Object | None) -> None:
        """Make the copy say what the approval is; nothing is sent when it does. Raises QuarterdeckError."""
        desired = {
            "metadata": {"name": approval.name, "namespace": approval.namespace},
            "spec": _spec(approval),
        }
        written = await apply_if_changed(self._client, APPROVAL, desired, live) or live
        if written is not None:
            await apply_status_if_changed(self._client, APPROVAL, written, _status(approval, written))

    async def _remove(self, namespace: str, name: str) -> None:
        try:
            await self._store.get(namespace, name)  # made since the list was read
        except NotFound:
            await self._client.delete(APPROVAL, name, namespace)

    async def _quietly(self, work: object) -> None:
        try:
            await work  # type: ignore[misc]  # a coroutine
            self._said = ""
        except (Conflict, NotFound):
            return  # the next look puts it right
        except QuarterdeckError as error:
            self._say(error)

    def _say(self, error: QuarterdeckError) -> None:
        if self._said != str(error):
            self._said = str(error)
            log.warning("Approval objects cannot be written (what is approved is not affected): %s", error)


def _spec(approval: Approval) -> Object:
    wanted = approval.wanted
    spec: Object = {
        "server": f"{wanted.kind}/{wanted.namespace}/{wanted.server}",
        "tool": wanted.tool,
        "argumentsHash": wanted.arguments_hash,
        "agent": wanted.agent or None,
        "requester": wanted.requester.id or None,
        "run": wanted.run or None,
        "step": wanted.step or None,
        "policies": list(wanted.rules),
        "expiresAt": a.when(approval.expires),
    }
    return {name: value for name, value in spec.items() if value is not None}


def _status(approval: Approval, live: Object) -> Object:
    generation = int(live["metadata"].get("generation") or 1)
    changed = a.when(approval.changed)
    condition = {
        "type": "Ready",
        "status": _CONDITIONS.get(approval.state, "False"),
        "reason": approval.state,
        "message": approval.message,
        "observedGeneration": generation,
        "lastTransitionTime": changed,
    }
    decisions = [
        {"by": d.person.name, "verdict": d.verdict, "at": a.when(d.at)} | ({"reason": d.reason} if d.reason else {})
        for d in approval.decisions
    ]
    status: Object = {"phase": approval.state, "message": approval.message, "observedGeneration": generation}
    return status | {"conditions": [condition], "decisions": decisions}
