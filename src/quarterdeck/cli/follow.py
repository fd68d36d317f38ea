"""``qd get -w``: what is there now, then each change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quarterdeck import errors
from quarterdeck.kube.client import KubeClient

from .get import TABLE, Query, fetch_tables, render
from .kinds import Kind
from .output import emit, object_name, without_managed_fields


async def follow(client: KubeClient, query: Query, show: Callable[[dict[str, Any]], str] | None) -> None:
    """Print until interrupted. A history that was compacted away is listed again."""
    kind, names = query.targets[0]
    if names:
        query.field_selector = ",".join(filter(None, [query.field_selector, f"metadata.name={names[0]}"]))
    query.targets = [(kind, [])]
    printer = _Rows(client, query, kind) if show is None and query.output != "name" else _Objects(query, kind, show)
    scope = query.namespace if kind.resource.namespaced else None
    while True:
        listed = await client.list(
            kind.resource, scope, label_selector=query.selector, field_selector=query.field_selector
        )
        await printer.initial(listed.items)
        version = listed.resource_version
        try:
            while True:
                async for event in client.watch(
                    kind.resource, scope, resource_version=version,
                    label_selector=query.selector, field_selector=query.field_selector,
                ):  # fmt: skip
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        await printer.changed(event.type, event.object)
        except errors.Expired:
            continue


class _Objects:
    def __init__(self, query: Query, kind: Kind, show: Callable[[dict[str, Any]], str] | None) -> None:
        self._query = query
        self._kind = kind
        self._show = show

    async def initial(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            await self.changed("ADDED", item)

    async def changed(self, change: str, obj: dict[str, Any]) -> None:
        del change
        if self._show is None:
            emit(f"{object_name(self._kind, obj)}\n")
            return
        separator = "---\n" if self._query.output == "yaml" else ""
        emit(separator + self._show(obj if self._query.managed_fields else without_managed_fields(obj)))


class _Rows:
    """Lines of a table. Rows are rendered by the server; of a deleted object the last one known is shown."""

    def __init__(self, client: KubeClient, query: Query, kind: Kind) -> None:
        self._client = client
        self._query = query
        self._kind = kind
        self._columns: list[dict[str, Any]] = []
        self._rows: dict[str, dict[str, Any]] = {}
        self._header = True

    async def initial(self, items: list[dict[str, Any]]) -> None:
        del items
        tables = await fetch_tables(self._client, self._query, self._kind, [])
        self._print(tables)

    async def changed(self, change: str, obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        if change == "DELETED":
            row = self._rows.pop(metadata["uid"], None)
            if row is not None:
                self._emit([row])
            return
        path = self._kind.resource.path(metadata.get("namespace"), metadata["name"])
        try:
            self._print([await self._client.request("GET", path, accept=TABLE)])
        except errors.NotFound:
            return  # its DELETED event follows

    def _print(self, tables: list[dict[str, Any]]) -> None:
        self._columns = tables[0]["columnDefinitions"]
        rows = [row for each in tables for row in each.get("rows", [])]
        for row in rows:
            self._rows[(row.get("object") or {}).get("metadata", {}).get("uid", "")] = row
        if rows:
            self._emit(rows)

    def _emit(self, rows: list[dict[str, Any]]) -> None:
        emit(render(self._query, self._kind, self._columns, rows, header=self._header))
        self._header = False
