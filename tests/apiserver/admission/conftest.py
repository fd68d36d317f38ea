from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quarterdeck.apiserver.security.pki import Pki, ensure_pki


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


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return ensure_pki(Path(tmp_path_factory.mktemp("data")))
