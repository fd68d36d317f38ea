"""Subresources that are more than a part of the object: scale, binding, eviction, finalize, token, Pod streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from quarterdeck.apiserver import faults, scale
from quarterdeck.apiserver.codec import Accept, decode_json, decode_object, encode, negotiate
from quarterdeck.apiserver.kinds import Kind
from quarterdeck.apiserver.objects import rfc3339
from quarterdeck.apiserver.options import delete_options
from quarterdeck.apiserver.patch import json_patch, merge_patch
from quarterdeck.apiserver.requests import ApiRequest
from quarterdeck.apiserver.resources import ResourceVerbs
from quarterdeck.apiserver.respond import send_bytes, success
from quarterdeck.apiserver.security.tokens import ServiceAccountTokens
from quarterdeck.apiserver.selectors import format_selector, parse_labels
from quarterdeck.apiserver.versions import to_served
from quarterdeck.errors import BadRequest, MethodNotAllowed, NotFound, TooManyRequests
from quarterdeck.kube.resource import PDB, POD, Object
from quarterdeck.wire.http import Exchange


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
            shown = scale.to_scale(kind, to_served(kind, entry.load()))
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
        target: Object = body.get("target") or {}
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
        labels: dict[str, str] = pod["metadata"].get("labels") or {}
        for budget in self.verbs.store.list(PDB, namespace):
            selector: Object = (budget.get("spec") or {}).get("selector") or {}
            matched = all(r.matches(labels) for r in parse_labels(format_selector(selector)))
            if matched and not (budget.get("status") or {}).get("disruptionsAllowed"):
                raise TooManyRequests(
                    f"Cannot evict pod as it would violate the pod's disruption budget {budget['metadata']['name']}.",
                    retry_after=10,
                )
        options = delete_options(body.get("deleteOptions") or {}, request.query, request.dry_run)
        await self.verbs.deletion.delete(kind, namespace, request.name, options)
        send_bytes(request.exchange, 201, encode({**success({}), "code": 201}) + b"\n", Accept())
