"""A small in-memory Kubernetes API over real HTTP, enough for clients and controllers: no schemas, no authorization."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

from aiohttp import web

from quarterdeck.kube import resource as kinds
from quarterdeck.kube.client import ClientConfig
from quarterdeck.kube.resource import Object, Resource

NOW = "2026-01-01T00:00:00Z"
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


class FakeApi:
    """``history_from``: watches from older versions get 410. ``fail``: statuses to answer next, by method and path."""

    def __init__(self) -> None:
        known = [v for v in vars(kinds).values() if isinstance(v, Resource)]
        self.kinds = {(r.group, r.plural): r for r in known}
        self.objects: dict[tuple[str, str, str, str], Object] = {}
        self.log: list[tuple[int, str, tuple[str, str, str, str], Object]] = []
        self.version = 0
        self.history_from = 0
        self.changed = asyncio.Condition()
        self.requests: list[tuple[str, str]] = []
        self.fail: list[tuple[str, str, int, dict[str, str]]] = []
        self.kill_watches = asyncio.Event()
        self.plain_404: set[str] = set()
        """Kinds that are not served."""
        self.watched: list[str] = []
        """Versions that watches began at."""
        self.told = 0
        """Lines written to watches."""
        self.authorizations: list[str] = []
        self.config = ClientConfig("")

    async def start(self) -> ClientConfig:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        port = self.runner.addresses[0][1]
        return ClientConfig(f"http://127.0.0.1:{port}")

    async def stop(self) -> None:
        self.kill_watches.set()
        async with self.changed:
            self.changed.notify_all()
        await self.runner.cleanup()

    async def drop_watches(self) -> None:
        self.kill_watches.set()
        async with self.changed:
            self.changed.notify_all()
        self.kill_watches = asyncio.Event()

    def status(self, code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
        return web.json_response(body | {"code": code}, status=code, headers=headers)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        self.authorizations.append(request.headers.get("Authorization", ""))
        for entry in self.fail:
            method, part, code, headers = entry
            if method == request.method and part in request.path:
                self.fail.remove(entry)
                return self.status(code, {410: "Expired", 409: "Conflict"}.get(code, ""), "made to fail", headers)
        parts = request.path.strip("/").split("/")
        if parts == ["apis"]:
            groups = sorted({(r.group, r.version) for r in self.kinds.values() if r.group})
            listed = [{"name": g, "versions": [{"groupVersion": f"{g}/{v}"}],
                       "preferredVersion": {"groupVersion": f"{g}/{v}"}} for g, v in groups]  # fmt: skip
            return web.json_response({"kind": "APIGroupList", "groups": listed})
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        version = parts[1] if parts[0] == "api" else parts[2]
        if not rest:
            listed = [{"name": r.plural, "kind": r.kind, "namespaced": r.namespaced, "verbs": VERBS}
                      for r in self.kinds.values() if r.group == group and r.version == version]  # fmt: skip
            return web.json_response({"kind": "APIResourceList", "resources": listed})
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        if rest[0] in self.plain_404:
            return web.Response(status=404, text="404 page not found\n")
        res = self.kinds.get((group, rest[0]))
        if res is None:
            return self.status(404, "NotFound", "no such resource")
        name = rest[1] if len(rest) > 1 else ""
        sub = rest[2] if len(rest) > 2 else ""
        body = json.loads(await request.read() or b"null")
        if request.query.get("watch"):
            return await self.watch(request, res, namespace)
        if request.method == "POST":
            return await self.create(res, namespace, name, sub, body)
        if not name:
            return await self.collection(request, res, namespace)
        key = (res.group, res.plural, namespace, name)
        if key not in self.objects:
            return self.status(404, "NotFound", f'{res.plural} "{name}" not found')
        if request.method == "GET":
            return web.json_response(self.objects[key])
        if request.method == "DELETE":
            return await self.delete(key, body or {})
        return await self.update(request.method, key, sub, body)

    async def collection(self, request: web.Request, res: Resource, namespace: str) -> web.Response:
        found = [(k, o) for k, o in sorted(self.objects.items()) if self.selects(request, res, namespace, k, o)]
        if request.method == "DELETE":
            for key, _ in found:
                await self.delete(key, {})
            return web.json_response({"kind": "Status", "status": "Success"})
        limit, start = int(request.query.get("limit", "0")), int(request.query.get("continue", "0"))
        end = start + limit if limit else len(found)
        metadata = {"resourceVersion": str(self.version)} | ({"continue": str(end)} if end < len(found) else {})
        items = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for _, o in found[start:end]]
        return web.json_response({"kind": f"{res.kind}List", "metadata": metadata, "items": items})

    def selects(self, request: web.Request, res: Resource, namespace: str, key: Any, obj: Object) -> bool:
        if key[:2] != (res.group, res.plural) or (namespace and key[2] != namespace):
            return False
        fields = request.query.get("fieldSelector", "")
        if fields.startswith("metadata.name=") and key[3] != fields.partition("=")[2]:
            return False
        labels = obj["metadata"].get("labels") or {}
        pairs = [p.partition("=") for p in request.query.get("labelSelector", "").split(",") if p]
        return all(labels.get(k) == v for k, _, v in pairs)

    async def watch(self, request: web.Request, res: Resource, namespace: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        self.watched.append(request.query["resourceVersion"])
        if since < self.history_from:
            return self.status(410, "Expired", "too old resource version")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        killed = self.kill_watches
        position = 0
        while not killed.is_set():
            for version, kind, key, obj in self.log[position:]:
                if version > since and self.selects(request, res, namespace, key, obj):
                    await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")
                    self.told += 1
                    if kind == "ERROR":
                        return response
            position = len(self.log)
            async with self.changed:
                if position == len(self.log) and not killed.is_set():
                    await self.changed.wait()
        return response

    async def tell(self, res: Resource, kind: str, obj: Object) -> None:
        """Write an event that changes nothing (BOOKMARK, ERROR) to the watches of a kind, and wait until it is out."""
        self.version += 1
        if kind == "BOOKMARK":
            obj = obj | {"metadata": {"resourceVersion": str(self.version)}}
        before = self.told
        self.log.append((self.version, kind, (res.group, res.plural, "", ""), {"metadata": {}} | obj))
        async with asyncio.timeout(30):
            while self.told == before:
                async with self.changed:
                    self.changed.notify_all()
                await asyncio.sleep(0.01)

    async def commit(self, kind: str, key: tuple[str, str, str, str], obj: Object) -> Object:
        self.version += 1
        obj = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(self.version)}}
        if kind == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = obj
        self.log.append((self.version, kind, key, obj))
        async with self.changed:
            self.changed.notify_all()
        return obj

    async def create(self, res: Resource, namespace: str, name: str, sub: str, body: Object) -> web.Response:
        if sub == "binding":
            pod = self.objects[(res.group, res.plural, namespace, name)]
            bound = pod | {"spec": pod["spec"] | {"nodeName": body["target"]["name"]}}
            await self.commit("MODIFIED", (res.group, res.plural, namespace, name), bound)
            return web.json_response({"kind": "Status", "status": "Success"}, status=201)
        metadata = dict(body["metadata"])
        if "name" not in metadata:
            metadata["name"] = metadata.pop("generateName") + uuid4().hex[:5]
        key = (res.group, res.plural, namespace, metadata["name"])
        if key in self.objects:
            return self.status(409, "AlreadyExists", f'{res.plural} "{metadata["name"]}" already exists')
        metadata |= {"uid": str(uuid4()), "creationTimestamp": NOW, "generation": 1}
        if res.namespaced:
            metadata["namespace"] = namespace
        obj = {"apiVersion": res.api_version, "kind": res.kind} | body | {"metadata": metadata}
        if res.kind == "Pod":
            obj["status"] = {"phase": "Pending"} | body.get("status", {})
        return web.json_response(await self.commit("ADDED", key, obj), status=201)

    async def update(self, method: str, key: tuple[str, str, str, str], sub: str, body: Object) -> web.Response:
        old = self.objects[key]
        version = body["metadata"].get("resourceVersion") if "metadata" in body else None
        if version is not None and version != old["metadata"]["resourceVersion"]:
            return self.status(409, "Conflict", "the object has been modified")
        new = merge(old, body) if method == "PATCH" else body
        if sub == "status":
            new = old | {"status": new.get("status", {})}
        elif sub != "finalize":
            new = new | ({"status": old["status"]} if "status" in old else {})
        if new == old:
            return web.json_response(old)
        generation = old["metadata"]["generation"] + (new.get("spec") != old.get("spec"))
        new = new | {"metadata": new["metadata"] | {"generation": generation}}
        if "deletionTimestamp" in new["metadata"] and self.may_go(key, new):
            return web.json_response(await self.commit("DELETED", key, new))
        return web.json_response(await self.commit("MODIFIED", key, new))

    def may_go(self, key: tuple[str, str, str, str], obj: Object) -> bool:
        held = obj["metadata"].get("finalizers") or (key[1] == "namespaces" and obj["spec"].get("finalizers"))
        return not held and not (key[1] == "pods" and obj["metadata"].get("deletionGracePeriodSeconds"))

    async def delete(self, key: tuple[str, str, str, str], options: Object) -> web.Response:
        obj = self.objects[key]
        uid = (options.get("preconditions") or {}).get("uid")
        if uid and uid != obj["metadata"]["uid"]:
            return self.status(409, "Conflict", "uid precondition failed")
        metadata = dict(obj["metadata"])
        extra = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(options.get("propagationPolicy", ""))
        if extra and extra not in (metadata.get("finalizers") or []):
            metadata["finalizers"] = [*(metadata.get("finalizers") or []), extra]
        metadata.setdefault("deletionTimestamp", NOW)
        new = obj | {"metadata": metadata}
        if key[1] == "pods":
            grace = options.get("gracePeriodSeconds", 30 if obj["spec"].get("nodeName") else 0)
            metadata["deletionGracePeriodSeconds"] = grace
        if key[1] == "namespaces":
            new["status"] = {"phase": "Terminating"}
        await self.commit("DELETED" if self.may_go(key, new) else "MODIFIED", key, new)
        return web.json_response({"kind": "Status", "status": "Success"})
