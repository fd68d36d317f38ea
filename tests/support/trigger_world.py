"""Triggers around a database, without an API server: informers are filled by hand, time passes when told to."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from quarterdeck.controllers import trigger
from quarterdeck.controllers.context import Context
from quarterdeck.controllers.triggers import Access, Triggers
from quarterdeck.errors import NotLeader
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Timer, timestamp
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.server.database import Database, Row
from quarterdeck.server.runs_store import Draft, RunStore
from quarterdeck.server.triggers import Engine
from quarterdeck.server.triggers_store import TriggerStore
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.translate.options import Options

NOON = 1_780_315_200.0
"""2026-06-01T12:00:00Z, a Monday."""


class Clock:
    """Stands still."""

    def __init__(self) -> None:
        self.now = NOON

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        raise AssertionError("nobody waits here")


@dataclass
class Api:
    """What the engine asks of an API server: what ServiceAccounts may do. ``allowed``: (user, namespace, resource)."""

    allowed: set[tuple[str, str, str]] = field(default_factory=lambda: {(USER, "kagent", "runs")})
    leads: bool = True
    asked: int = 0
    statuses: dict[str, Object] = field(default_factory=dict[str, Any])

    def gate(self) -> None:
        if not self.leads:
            raise NotLeader("another one leads")

    async def request(self, method: str, path: str, *, body: Any) -> Any:
        assert method == "POST" and path.endswith("localsubjectaccessreviews")
        self.asked += 1
        spec = body["spec"]
        what = spec["resourceAttributes"]
        allowed = (spec["user"], what["namespace"], what["resource"]) in self.allowed
        return {"status": {"allowed": allowed}}

    async def apply(self, res: Resource, body: Object, *, field_manager: str, subresource: str) -> None:
        """A status is written; it is in :attr:`statuses`, by name."""
        assert (field_manager, subresource) == ("quarterdeck", "status")
        self.statuses[body["metadata"]["name"]] = body["status"]


USER = "system:serviceaccount:kagent:starter"


class Controller:
    """One control plane on the database: what it has seen, and its engine."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.api = Api()
        self.clock = clock
        client = cast(KubeClient, self.api)
        self.set = ControllerSet(client, clock=clock)
        context = Context(self.set, Options())
        self.triggers = Triggers(context)
        self.controller = trigger.controller(context, self.triggers)
        self.set.add(self.controller)
        self.triggers.follow_events()
        self.runs = RunStore(database, clock=clock.time)
        self.store = TriggerStore(database, self.runs, clock.time)
        self.woken: list[str] = []
        self.registry = Registry()
        self.revoked = ""
        access = Access(client, clock)
        self.engine = Engine(self.triggers, self.store, access, self.registry, self._wake, lambda found: self.revoked)
        self.set.informer(k.TRIGGER).synced.set()
        self.put(k.AGENT, "helper", {"type": "Declarative", "declarative": {"tools": []}})
        self.put(k.SERVICE_ACCOUNT, "starter")
        data = {"key": base64.b64encode(b"sesame").decode()}
        self.put(k.SECRET, "hook", data=data)
        self.put(k.NAMESPACE, "kagent", namespace="")
        self._version = 10

    async def _wake(self, agent: str) -> None:
        self.woken.append(agent)

    def put(
        self, res: Resource, name: str, spec: Object | None = None, namespace: str = "kagent", **more: Any
    ) -> Object:
        """An object appears, or is changed."""
        version = getattr(self, "_version", 1) + 1
        self._version = version
        labels = more.pop("labels", {})
        metadata = {
            "name": name, "namespace": namespace, "uid": f"uid-{res.kind}-{namespace}-{name}", "generation": version,
            "resourceVersion": str(version), "creationTimestamp": timestamp(NOON - 30), "labels": labels,
        }  # fmt: skip
        obj = {"metadata": metadata} | ({"spec": spec} if spec is not None else {}) | more
        self.set.informer(res).observe(obj)
        return obj

    def trigger(self, name: str = "t", **spec: Any) -> None:
        base: Object = {"agent": "helper", "serviceAccountName": "starter", "message": "look"}
        self.put(k.TRIGGER, name, base | spec)

    def event(self, name: str, count: int = 1, namespace: str = "kagent", **more: Any) -> None:
        """An Event of Kubernetes is told."""
        about = {"kind": "Pod", "namespace": namespace, "name": "web-1"}
        said = {"involvedObject": about, "type": "Warning", "reason": "BackOff", "message": "m", "count": count,
                "lastTimestamp": timestamp(self.clock.now)}  # fmt: skip
        self.put(k.EVENT, name, None, namespace, **(said | more))

    async def status(self, name: str = "t") -> Object:
        """What the controller writes into the trigger's status."""
        await self.controller.reconcile(k.Key("kagent", name))
        return self.api.statuses[name]

    async def all(self) -> list[Row]:
        """The runs there are, newest first."""
        return await self.runs.select()

    async def message(self, row: Row) -> str:
        return (await self.runs.events(row))[0].data["message"]["parts"][0]["text"]

    async def finish(self, row: Row, state: str = "completed") -> None:
        """Do a run's work."""
        taken = await self.runs.claim(row["agent"], "pod/boot", 1, row["id"])
        final = Draft("final", 0, {"state": state, "reason": "", "text": "done", "usage": {}})
        await self.runs.append(row["agent"], row["id"], taken[0][0]["fence"], f"end/{row['id']}", [final])
