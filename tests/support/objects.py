"""Objects in memory, for what only reads them (``ObjectReader``)."""

from __future__ import annotations

from typing import Any


class Objects:
    """An ObjectReader over a dict; ``version`` counts the changes."""

    def __init__(self) -> None:
        self.store: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self.version = 0

    def put(self, resource: Any, obj: dict[str, Any]) -> dict[str, Any]:
        meta = obj["metadata"]
        meta.setdefault("uid", f"uid-{meta['name']}")
        self.store[(resource.group, resource.plural, meta.get("namespace") or "", meta["name"])] = obj
        self.version += 1
        return obj

    def drop(self, resource: Any, namespace: str | None, name: str) -> None:
        del self.store[(resource.group, resource.plural, namespace or "", name)]
        self.version += 1

    def get(self, resource: Any, namespace: str | None, name: str) -> dict[str, Any] | None:
        return self.store.get((resource.group, resource.plural, namespace or "", name))

    def list(self, resource: Any, namespace: str | None = None) -> list[dict[str, Any]]:
        return [
            obj
            for (group, plural, ns, _), obj in self.store.items()
            if (group, plural) == (resource.group, resource.plural) and (namespace is None or ns == namespace)
        ]
