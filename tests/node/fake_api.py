"""An in-memory stand-in for the API server with KubeClient's methods, for tests of the node alone."""

from __future__ import annotations

import asyncio
import copy
import uuid
from typing import Any

from quarterdeck.errors import AlreadyExists, NotFound
from quarterdeck.kube.client import ClientConfig, ObjectList, WatchEvent
from quarterdeck.kube.resource import POD, SERVICE_ACCOUNT, Object, Resource


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
    def __init__(self) -> None:
        self.config = ClientConfig("https://127.0.0.1:6443")
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.version = 0
        self.changed = asyncio.Condition()
        self.log: list[tuple[int, str, str, Object]] = []
        self.writes = 0

    def _key(self, res: Resource, namespace: str | None, name: str) -> tuple[str, str, str]:
        return res.plural, namespace or "", name

    async def _store(self, kind: str, res: Resource, obj: Object) -> Object:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.log.append((self.version, kind, res.plural, copy.deepcopy(obj)))
        async with self.changed:
            self.changed.notify_all()
        return copy.deepcopy(obj)

    async def get(self, res: Resource, name: str, namespace: str | None = None, **_: Any) -> Object:
        try:
            return copy.deepcopy(self.objects[self._key(res, namespace, name)])
        except KeyError:
            raise NotFound(f'{res.plural} "{name}" not found') from None

    async def list(self, res: Resource, namespace: str | None = None, **_: Any) -> ObjectList:
        found = [
            copy.deepcopy(o)
            for (p, ns, _n), o in self.objects.items()
            if p == res.plural and (namespace is None or ns == namespace)
        ]
        return ObjectList(found, str(self.version))

    async def create(self, res: Resource, obj: Object, namespace: str | None = None, **kw: Any) -> Object:
        if res is SERVICE_ACCOUNT and kw.get("subresource") == "token":
            return {
                "status": {"token": f"token-{obj['spec']['audiences']}", "expirationTimestamp": "2099-01-01T00:00:00Z"}
            }
        obj = copy.deepcopy(obj)
        key = self._key(res, namespace or obj["metadata"].get("namespace"), obj["metadata"]["name"])
        if key in self.objects:
            raise AlreadyExists(f'{res.plural} "{key[2]}" already exists')
        obj["metadata"].setdefault("uid", str(uuid.uuid4()))
        obj.setdefault("kind", res.kind)
        self.objects[key] = obj
        return await self._store("ADDED", res, obj)

    async def patch(self, res: Resource, name: str, body: Any, namespace: str | None = None, **_: Any) -> Object:
        key = self._key(res, namespace, name)
        if key not in self.objects:
            raise NotFound(f'{res.plural} "{name}" not found')
        self.objects[key] = merge(self.objects[key], copy.deepcopy(body))
        self.writes += 1
        return await self._store("MODIFIED", res, self.objects[key])

    async def delete(self, res: Resource, name: str, namespace: str | None = None, **kw: Any) -> None:
        key = self._key(res, namespace, name)
        if key not in self.objects:
            raise NotFound(f'{res.plural} "{name}" not found')
        obj = self.objects[key]
        if res is POD and kw.get("grace_seconds") != 0:
            obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            obj["metadata"]["deletionGracePeriodSeconds"] = obj["spec"].get("terminationGracePeriodSeconds", 30)
            await self._store("MODIFIED", res, obj)
            return
        del self.objects[key]
        await self._store("DELETED", res, obj)

    async def watch(self, res: Resource, namespace: str | None = None, *, resource_version: str, **_: Any):
        seen = int(resource_version)
        while True:
            for version, kind, plural, obj in list(self.log):
                if version > seen:
                    seen = version
                    if plural == res.plural:
                        yield WatchEvent(kind, copy.deepcopy(obj))
            async with self.changed:
                if self.version <= seen:
                    await self.changed.wait()

    async def wait(self, name: str, condition: Any, seconds: float = 90, namespace: str = "default") -> Object:
        """The Pod once ``condition(pod)`` holds (pod None when it is gone)."""
        async with asyncio.timeout(seconds), self.changed:
            while True:
                pod = self.objects.get(("pods", namespace, name))
                if condition(pod):
                    return copy.deepcopy(pod) if pod else {}
                await self.changed.wait()
