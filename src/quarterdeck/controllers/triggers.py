"""The Triggers of now, for their controller and for the control plane that fires them: plans, secrets, permissions.

A trigger acts within its own namespace: agent, ServiceAccount, Secret and MCP server are looked for nowhere else. What
its ServiceAccount may do is asked of the API server each time (an answer is good for seconds), and no answer is a no.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quarterdeck.errors import ConfigError, NotFound, NotLeader, RefNotFound
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Clock
from quarterdeck.kube.informer import NotLoaded
from quarterdeck.kube.resource import Key, Object
from quarterdeck.kube.selector import selects
from quarterdeck.translate.triggers import Plan, plan

from .context import Context

log = logging.getLogger(__name__)
_GOOD = 10.0
_ANSWERS = 4096
_EVENTS = 10_000
_REVIEW = "/apis/authorization.k8s.io/v1/namespaces/{}/localsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database says of a trigger; times in seconds since the epoch, 0: never."""

    active: int = 0
    started: int = 0
    skipped: int = 0
    deduplicated: int = 0
    limited: int = 0
    last_at: float = 0.0
    last_outcome: str = ""
    last_run: str = ""


class Access:
    """What ServiceAccounts may do, by LocalSubjectAccessReview: a Role is enough to ask."""

    def __init__(self, client: KubeClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._answers: dict[tuple[str, ...], tuple[float, bool]] = {}

    async def may_start(self, found: Plan) -> bool:
        """Whether the trigger's ServiceAccount may create runs in its namespace. Raises QuarterdeckError."""
        return await self._ask(found, found.namespace, "quarterdeck.dev", "runs", "create")

    async def may_see_events(self, found: Plan, namespace: str) -> bool:
        """Whether it may list events there; the Events of its own namespace are the trigger's anyway."""
        return namespace == found.namespace or await self._ask(found, namespace, "", "events", "list")

    async def _ask(self, found: Plan, namespace: str, group: str, resource: str, verb: str) -> bool:
        key = (found.user, namespace, group, resource, verb)
        kept = self._answers.get(key)
        now = self._clock.monotonic()
        if kept is None or now - kept[0] > _GOOD:
            home = found.namespace
            spec = {
                "user": found.user,
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{home}", "system:authenticated"],
                "resourceAttributes": {"namespace": namespace, "group": group, "resource": resource, "verb": verb},
            }
            review = {
                "apiVersion": "authorization.k8s.io/v1", "kind": "LocalSubjectAccessReview",
                "metadata": {"namespace": namespace}, "spec": spec,
            }  # fmt: skip
            answer = await self._client.request("POST", _REVIEW.format(namespace), body=review)
            if len(self._answers) >= _ANSWERS:
                self._answers.clear()
            kept = self._answers[key] = (now, bool((answer.get("status") or {}).get("allowed")))
        return kept[1]


class Triggers:
    """``facts`` is filled by the control plane's service, by UID; :meth:`tell` wakes the controller."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._informer = context.set.informer(k.TRIGGER)
        self._plans: dict[Key, tuple[tuple[str, int], Plan | ConfigError]] = {}
        self._facts: Mapping[str, Facts] | None = None
        self.changed = asyncio.Event()
        """Set when a Trigger changes; whoever waits clears it."""
        self.events: dict[str, Object] = {}
        """Events that have come since they were looked at, by :func:`event_key`."""
        self.on_event = asyncio.Event()
        self._following = False
        self._informer.on_change(lambda *_: self.changed.set())

    @property
    def leading(self) -> bool:
        """Whether controllers work in this process now."""
        gate = self._context.set.client.gate
        try:
            if gate is not None:
                gate()
        except NotLeader:
            return False
        return self._informer.synced.is_set()

    @property
    def gateway(self) -> str:
        """URL of the gateway's listener for workloads."""
        return self._context.options.gateway_url

    @property
    def clock(self) -> Clock:
        return self._context.set.clock

    def all(self) -> list[Plan]:
        """Those that can be used."""
        found = (self._of(obj) for obj in self._informer.list() if not obj["metadata"].get("deletionTimestamp"))
        return [one for one in found if isinstance(one, Plan)]

    def uids(self) -> set[str]:
        """Of all that there are, those that cannot be used, too."""
        return {str(obj["metadata"].get("uid") or "") for obj in self._informer.list()}

    def get(self, namespace: str, name: str) -> Plan:
        """Raises NotFound, and ConfigError for one that cannot be used."""
        obj = self._informer.get(namespace, name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            raise NotFound(f"trigger {namespace}/{name} does not exist; see: qd trigger list", name=name)
        found = self._of(obj)
        if isinstance(found, ConfigError):
            raise found
        return found

    def object(self, namespace: str, name: str) -> Object | None:
        return self._informer.get(namespace, name)

    def _of(self, obj: Object) -> Plan | ConfigError:
        metadata = obj["metadata"]
        key, mark = k.key_of(obj), (str(metadata.get("uid") or ""), int(metadata.get("generation") or 1))
        kept = self._plans.get(key)
        if kept is None or kept[0] != mark:
            try:
                found: Plan | ConfigError = plan(obj)
            except ConfigError as error:
                found = error
            if len(self._plans) > 2 * len(self._informer.list()) + 100:
                self._plans.clear()
            kept = self._plans[key] = (mark, found)
        return kept[1]

    # -- what it refers to
    def problem(self, found: Plan) -> ConfigError | None:
        """What is missing that it refers to; Secrets aside. All of it is in its own namespace."""
        agent = self._context.get(k.AGENT, found.namespace, found.spec.agent)
        if agent is None:
            return RefNotFound(f"Agent {found.agent} does not exist")
        if ((agent.get("spec") or {}).get("type") or "Declarative") != "Declarative":
            return NotHosted(f"Agent {found.agent} is of type BYO: triggers start runs of declarative agents only")
        account = found.spec.service_account_name
        if self._context.get(k.SERVICE_ACCOUNT, found.namespace, account) is None:
            return RefNotFound(f"ServiceAccount {found.namespace}/{account} does not exist")
        server = found.spec.mcp_resources.server if found.spec.mcp_resources is not None else None
        if server is None:
            return None
        res = k.MCP_SERVER if server.kind == "MCPServer" else k.REMOTE_MCP_SERVER
        if self._context.get(res, found.namespace, server.name) is None:
            return RefNotFound(f"{server.kind} {found.namespace}/{server.name} does not exist")
        granted = _granted(agent, server.kind, server.name)
        if not granted:
            return NotGranted(
                f"Agent {found.agent} has no tools of {server.kind} {server.name}: a trigger follows what its agent has"
            )
        if all(ref.get("toolNames") for ref in granted):
            return NotGranted(
                f"Agent {found.agent} has {server.kind} {server.name} with toolNames: who is granted tools alone reads "
                "no resources"
            )
        return None

    async def secret(self, found: Plan) -> bytes:
        """What senders prove themselves with. Raises RefNotFound; ApiError when it cannot be read."""
        ref = found.secret
        if ref is None:
            return b""
        informer = self._context.set.informer(k.SECRET)
        try:
            obj = informer.get(found.namespace, ref.name)
        except NotLoaded as missing:
            await missing.load()
            obj = informer.get(found.namespace, ref.name)
        value = ((obj or {}).get("data") or {}).get(ref.key)
        if not value:
            what = f"has no key {ref.key!r}" if obj is not None else "does not exist"
            raise RefNotFound(f"Secret {found.namespace}/{ref.name} {what}")
        return b64decode(value).rstrip(b"\r\n")  # files end so; other bytes may be a key's own

    # -- Events of Kubernetes
    def follow_events(self) -> None:
        """Begin to watch Events: only where a trigger asks for them."""
        if self._following:
            return
        self._following = True
        informer = self._context.set.informer(k.EVENT)
        informer.trim = _of_event
        informer.on_change(lambda kind, _old, new: self._take(new) if kind != "deleted" and new is not None else None)

    def all_events(self) -> Iterable[Object]:
        """Those that the API server has now."""
        return self._context.set.informer(k.EVENT).list() if self._following else ()

    def _take(self, event: Object) -> None:
        if len(self.events) < _EVENTS:
            self.events[event_key(event)] = event
            self.on_event.set()

    def selects(self, found: Plan, namespace: str) -> bool:
        """Whether Events of a namespace are looked at by its selector."""
        spec = found.spec.kubernetes_events
        if spec is None or spec.namespace_selector is None:
            return namespace == found.namespace
        return selects(spec.namespace_selector, self._context.namespace_labels(namespace))

    # -- what the database says
    def facts(self, uid: str) -> Facts | None:
        """None while the database has not been asked: what the status says stays."""
        return self._facts.get(uid, Facts()) if self._facts is not None else None

    def tell(self, facts: Mapping[str, Facts] | None) -> None:
        """Have the controller write what has changed into the status; None: it is not known any more."""
        before, self._facts = self._facts or {}, facts
        if facts is None:
            return
        for obj in self._informer.list():
            uid = str(obj["metadata"].get("uid") or "")
            if before.get(uid) != facts.get(uid):
                self._context.set.enqueue("trigger", k.key_of(obj))


def event_key(event: Object) -> str:
    """One coming of an Event: it is counted up when the same happens again."""
    count = event.get("count") or (event.get("series") or {}).get("count") or 1
    return f"{event['metadata'].get('uid')}/{count}"


class NotHosted(ConfigError):
    reason = "AgentNotHosted"


class NotGranted(ConfigError):
    reason = "ServerNotGranted"


def _granted(agent: Object, kind: str, name: str) -> list[Object]:
    """The agent's references to a server of its own namespace."""
    tools: list[Any] = ((agent.get("spec") or {}).get("declarative") or {}).get("tools") or []
    refs = [tool.get("mcpServer") or {} for tool in tools if isinstance(tool, dict)]
    home = agent["metadata"]["namespace"]
    return [
        ref
        for ref in refs
        if ref.get("name") == name
        and (ref.get("kind") or "MCPServer") == kind
        and ref.get("namespace") in (None, "", home)
    ]


def _of_event(event: Object) -> Object:
    """What triggers look at; a cluster has many."""
    names = (
        "involvedObject", "type", "reason", "message", "count", "firstTimestamp", "lastTimestamp", "eventTime",
        "reportingComponent", "series",
    )  # fmt: skip
    known = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    metadata = {name: event["metadata"][name] for name in known if name in event["metadata"]}
    return {"metadata": metadata} | {name: event[name] for name in names if name in event}
