"""Subresources that are more than a part of the object: scale, binding, eviction, finalize, token, Pod streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

from quarterdeck.apiserver import faults, scale
from quarterdeck.apiserver.codec import Accept, decode_json, decode_object, encode, negotiate
from quarterdeck.apiserver.kinds import Kind
from quarterdeck.apiserver.objects import rfc3339
from quarterdeck.apiserver.options import WriteOptions, delete_options
from quarterdeck.apiserver.patch import json_patch, merge_patch
from quarterdeck.apiserver.requests import ApiRequest
from quarterdeck.apiserver.resources import ResourceVerbs
from quarterdeck.apiserver.respond import send_bytes, success
from quarterdeck.apiserver.security.tokens import ServiceAccountTokens
from quarterdeck.apiserver.selectors import format_selector, parse_labels
from quarterdeck.apiserver.versions import ready, to_served
from quarterdeck.errors import BadRequest, Cause, InternalError, MethodNotAllowed, NotFound, TooManyRequests
from quarterdeck.kube.resource import PDB, POD, Object
from quarterdeck.wire.http import Exchange

_VIOLATES = "Cannot evict pod as it would violate the pod's disruption budget."
_OBJECT_VERBS = frozenset({"get", "update", "patch"})
_VERBS = {
    "finalize": frozenset({"update"}), "binding": frozenset({"create"}), "eviction": frozenset({"create"}),
    "token": frozenset({"create"}), "log": frozenset({"get"}), "exec": frozenset({"get", "create"}),
    "attach": frozenset({"get", "create"}), "portforward": frozenset({"get", "create"}),
}  # fmt: skip


class PodStreams(Protocol):
    """The node's side of a Pod; see ``apiserver/pods``."""

    async def log(self, exchange: Exchange, namespace: str, name: str) -> None: ...

    async def exec(self, exchange: Exchange, namespace: str, name: str) -> None: ...

    async def attach(self, exchange: Exchange, namespace: str, name: str) -> None: ...

    async def port_forward(self, exchange: Exchange, namespace: str, name: str) -> None: ...


@dataclass(slots=True)
class Subresources:
    """Serves what :class:`ResourceVerbs` does not."""

    verbs: ResourceVerbs
    tokens: ServiceAccountTokens | None = None
    pods: PodStreams | None = None

    async def handle(self, request: ApiRequest, kind: Kind) -> None:
        """Raises NotFound for a subresource the kind does not have."""
        name = request.subresource
        if name not in kind.subresources:
            raise NotFound("the server could not find the requested resource")
        if request.verb not in _VERBS.get(name, _OBJECT_VERBS):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        if name == "status":
            await self.verbs.handle(request, kind)
        elif name == "scale":
            await self._scale(request, kind)
        elif name == "finalize":
            await self._finalize(request, kind)
        elif name == "binding":
            await self._bind(request, kind)
        elif name == "eviction":
            await self._evict(request, kind)
        elif name == "token" and self.tokens is not None:
            body = decode_object(request.exchange.body, request.header(b"content-type"))[0]
            made = self.tokens.request(request.namespace or "", request.name, body)
            send_bytes(request.exchange, 201, encode(made) + b"\n", Accept())
        else:
            await self._stream(request, name)

    async def _stream(self, request: ApiRequest, name: str) -> None:
        if self.pods is None:
            raise NotFound(f"pods/{name} is not served: no node is running")
        call = {
            "log": self.pods.log, "exec": self.pods.exec, "attach": self.pods.attach,
            "portforward": self.pods.port_forward,
        }[name]  # fmt: skip
        await call(request.exchange, request.namespace or "", request.name)

    async def _scale(self, request: ApiRequest, kind: Kind) -> None:
        accept = negotiate(request.header(b"accept"))
        verbs, namespace = self.verbs, request.namespace or ""
        if request.verb == "get":
            entry = verbs.store.entry(kind.key, namespace, request.name)
            if entry is None:
                raise faults.not_found(kind, request.name)
            await ready(kind, [entry])
            shown = scale.to_scale(kind, to_served(kind, entry))
            send_bytes(request.exchange, 200, encode(shown) + b"\n", accept)
            return
        options = verbs.options(request)
        media = request.header(b"content-type").partition(";")[0].strip()
        if request.verb == "update":
            body = decode_object(request.exchange.body, media)[0]
        elif request.verb == "patch":
            body = decode_json(request.exchange.body)[0]
        else:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")

        def change(live: Object) -> Object:
            wanted: Any = body
            if request.verb == "patch":
                now = scale.to_scale(kind, live)
                wanted = json_patch(now, body) if media.startswith("application/json-patch") else merge_patch(now, body)
            return scale.from_scale(kind, live, wanted)

        done = await verbs.writes.modify(kind, namespace, request.name, change, options, "scale")
        send_bytes(request.exchange, 200, encode(scale.to_scale(kind, done.obj)) + b"\n", accept, options.warnings)

    async def _finalize(self, request: ApiRequest, kind: Kind) -> None:
        options = self.verbs.options(request)
        body = self.verbs.body(request, kind, options)

        def change(live: Object) -> Object:
            wanted = (body.get("spec") or {}).get("finalizers") or []
            live.setdefault("spec", {})["finalizers"] = wanted
            version = (body.get("metadata") or {}).get("resourceVersion")
            if version:
                live["metadata"]["resourceVersion"] = version
            return live

        done = await self.verbs.writes.modify(kind, "", request.name, change, options, "finalize")
        self.verbs.answer(request, kind, done, options, Accept())

    async def _bind(self, request: ApiRequest, kind: Kind) -> None:
        options = self.verbs.options(request)
        body = decode_object(request.exchange.body, request.header(b"content-type"))[0]
        target = _mapping(body, "target")
        node = str(target.get("name") or "")
        if not node or target.get("kind", "Node") not in ("", "Node"):
            raise BadRequest("target.name: Required value: a Binding names the Node")
        now = rfc3339(self.verbs.now())

        def change(live: Object) -> Object:
            spec: Object = live.setdefault("spec", {})
            if spec.get("nodeName"):
                text = f'pod {request.name} is already assigned to node "{spec["nodeName"]}"'
                raise faults.conflict(kind, request.name, text)
            spec["nodeName"] = node
            status: Object = live.setdefault("status", {})
            conditions = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
            conditions.append(
                {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
            )
            status["conditions"] = conditions
            return live

        await self.verbs.writes.modify(kind, request.namespace or "", request.name, change, options, "binding")
        body_out = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        send_bytes(request.exchange, 201, encode(body_out) + b"\n", Accept())

    async def _evict(self, request: ApiRequest, kind: Kind) -> None:
        body = decode_object(request.exchange.body, request.header(b"content-type"))[0]
        namespace = request.namespace or ""
        pod = self.verbs.store.get(POD, namespace, request.name)
        if pod is None:
            raise faults.not_found(kind, request.name)
        budget = self._budget(pod)
        options = delete_options(_mapping(body, "deleteOptions"), request.query, request.dry_run)
        options.user = request.user
        if budget is not None and not options.dry_run:
            await self._spend(budget, request.name)
        await self.verbs.deletion.delete(kind, namespace, request.name, options)
        send_bytes(request.exchange, 201, encode({**success({}), "code": 201}) + b"\n", Accept())

    def _budget(self, pod: Object) -> Object | None:
        """The budget an eviction of ``pod`` draws on. Raises TooManyRequests when it allows none now."""
        status: Object = pod.get("status") or {}
        if status.get("phase") in ("Pending", "Succeeded", "Failed") or pod["metadata"].get("deletionTimestamp"):
            return None  # its end disrupts nothing
        budgets = [b for b in self.verbs.store.list(PDB, pod["metadata"]["namespace"]) if _covers(b, pod)]
        if len(budgets) > 1:
            raise InternalError(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        if not budgets:
            return None
        name, now = budgets[0]["metadata"]["name"], cast(Object, budgets[0].get("status") or {})
        healthy, desired = int(now.get("currentHealthy") or 0), int(now.get("desiredHealthy") or 0)
        ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
        always = (budgets[0].get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow"
        if not ready and (always or (healthy >= desired > 0)):
            return None  # as upstream: it does not count as healthy, so its end takes nothing away
        if int(now.get("disruptionsAllowed") or 0) < 1:
            text = f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
            raise TooManyRequests(
                _VIOLATES, causes=(Cause("", text, "DisruptionBudget"),), retry_after=10
            )  # fmt: skip
        return budgets[0]

    async def _spend(self, budget: Object, pod: str) -> None:
        """One disruption less until the controller has counted again, so that two evictions cannot share one."""
        kind = self.verbs.writes.registry.get(PDB.group, PDB.version, PDB.plural)
        if kind is None:
            return

        def change(live: Object) -> Object:
            status: Object = live.setdefault("status", {})
            left = int(status.get("disruptionsAllowed") or 0)
            if left < 1:
                raise TooManyRequests(_VIOLATES, retry_after=10)
            status["disruptionsAllowed"] = left - 1
            status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod: rfc3339(self.verbs.now())}
            return live

        metadata: Object = budget["metadata"]
        options = WriteOptions("kube-apiserver")
        await self.verbs.writes.modify(kind, metadata["namespace"], metadata["name"], change, options, "status")


def _covers(budget: Object, pod: Object) -> bool:
    """Whether a budget's selector matches; without a selector it covers nothing."""
    selector: Object | None = (budget.get("spec") or {}).get("selector")
    labels: dict[str, str] = pod["metadata"].get("labels") or {}
    return selector is not None and all(r.matches(labels) for r in parse_labels(format_selector(selector)))


def _mapping(body: Object, key: str) -> Object:
    """A part of a body that must be an object. Raises BadRequest."""
    value: Any = body.get(key)
    if value is not None and not isinstance(value, dict):
        raise BadRequest(f"{key} must be an object, not {type(value).__name__}")
    return cast(Object, value or {})
