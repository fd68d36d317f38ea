"""``qd get``: objects as tables rendered by the server, or in another format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .complete import kinds as complete_kinds
from .complete import objects as complete_objects
from .target import AllNamespaces, As, Context, Kubeconfig, Namespace, Selector, connect, run

if TYPE_CHECKING:
    from quarterdeck.kube.client import KubeClient

    from .kinds import Kind, Kinds

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@dataclass(slots=True)
class Query:
    """What was asked for. ``targets`` are kinds, with the names wanted of each (none: all)."""

    targets: list[tuple[Kind, list[str]]]
    namespace: str | None
    selector: str = ""
    field_selector: str = ""
    output: str = ""
    show_labels: bool = False
    no_headers: bool = False
    managed_fields: bool = False
    ignore_not_found: bool = False
    with_namespace: bool = False
    """A table with the NAMESPACE column was printed: the ones below it keep the column, as kubectl's do."""
    errors: list[str] = field(default_factory=list[str])


def register(app: typer.Typer) -> None:
    app.command()(get)
    app.command("api-resources")(api_resources)


def get(
    kind: Annotated[str, typer.Argument(help="KIND, KIND,KIND, all or KIND/NAME.", autocompletion=complete_kinds)],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=complete_objects)] = None,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    field_selector: Annotated[str, typer.Option("--field-selector", help="Field selector.")] = "",
    output: Annotated[
        str, typer.Option("--output", "-o", help="wide, json, yaml, name, jsonpath=…, custom-columns=….")
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with changes as they happen.")] = False,
    show_labels: Annotated[bool, typer.Option("--show-labels", help="Labels as the last column.")] = False,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="No header line.")] = False,
    show_managed_fields: Annotated[bool, typer.Option("--show-managed-fields")] = False,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="Missing objects are no error.")] = False,
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Show objects."""

    async def work() -> list[str]:
        from .kinds import discover

        async with connect(kubeconfig, context, as_user, namespace) as client:
            found = await discover(client)
            query = Query(
                targets=parse_targets(found, kind, names or []),
                namespace=None if all_namespaces else client.config.namespace,
                selector=selector,
                field_selector=field_selector,
                output=output,
                show_labels=show_labels,
                no_headers=no_headers,
                managed_fields=show_managed_fields,
                ignore_not_found=ignore_not_found,
            )
            await _get(client, query, watch=watch)
            return query.errors

    if run(work()):
        raise typer.Exit(1)


def parse_targets(found: Kinds, kind: str, names: list[str]) -> list[tuple[Kind, list[str]]]:
    """``agents``, ``deploy,pods``, ``all``, ``deploy/x agent/y``, ``pod a b``. Raises UsageError."""
    from quarterdeck.errors import UsageError

    words = [kind, *names]
    if any("/" in word for word in words):
        targets: list[tuple[Kind, list[str]]] = []
        for word in words:
            name, slash, object_name = word.partition("/")
            if not slash or not object_name:
                raise UsageError(f"{word!r}: when one argument is KIND/NAME, all must be")
            targets.append((found.find(name), [object_name]))
        return targets
    return [(each, names) for each in found.expand(kind)]


async def _get(client: KubeClient, query: Query, *, watch: bool) -> None:
    from quarterdeck.errors import UsageError

    from .output import formatter

    show = None if query.output == "name" else formatter(query.output)
    if watch:
        if len(query.targets) != 1 or len(query.targets[0][1]) > 1:
            raise UsageError("--watch follows one kind, or one object")
        from .follow import follow

        await follow(client, query, show)
        return
    if show is None and query.output != "name":
        await _tables(client, query)
        return
    await _objects(client, query, show)


async def _objects(client: KubeClient, query: Query, show: Any) -> None:
    from .output import as_list, emit, object_name, without_managed_fields

    found: list[tuple[Kind, dict[str, Any]]] = []
    for kind, names in query.targets:
        found += [(kind, obj) for obj in await _fetch(client, query, kind, names)]
    if query.output == "name":
        emit("".join(f"{object_name(kind, obj)}\n" for kind, obj in found))
        return
    items = [obj if query.managed_fields else without_managed_fields(obj) for _, obj in found]
    single = len(query.targets) == 1 and len(query.targets[0][1]) == 1
    if single and not items:
        return
    emit(show(items[0] if single else as_list(items)))


async def _fetch(client: KubeClient, query: Query, kind: Kind, names: list[str]) -> list[dict[str, Any]]:
    if not names:
        listed = await client.list(
            kind.resource, _scope(query, kind), label_selector=query.selector, field_selector=query.field_selector
        )
        return listed.items
    return await _each(query, kind, names, lambda path: client.request("GET", path))


async def _each(query: Query, kind: Kind, names: list[str], fetch: Any) -> list[dict[str, Any]]:
    """Named objects; a missing one is reported and the rest still shown."""
    from quarterdeck.errors import NotFound

    from .output import note

    found: list[dict[str, Any]] = []
    for name in names:
        try:
            found.append(await fetch(kind.resource.path(_scope(query, kind), name)))
        except NotFound as error:
            if not query.ignore_not_found:
                query.errors.append(str(error))
                note(f"Error from server (NotFound): {error}")
    return found


def _scope(query: Query, kind: Kind) -> str | None:
    return query.namespace if kind.resource.namespaced else None


async def _tables(client: KubeClient, query: Query) -> None:
    from .output import emit, note

    shown = 0
    for kind, names in query.targets:
        tables = await fetch_tables(client, query, kind, names)
        rows = [row for each in tables for row in each.get("rows", [])]
        if not rows:
            continue
        if shown and not query.no_headers:
            emit("\n")
        shown += 1
        prefix = f"{kind.qualified}/" if len(query.targets) > 1 else ""
        emit(render(query, kind, tables[0]["columnDefinitions"], rows, prefix=prefix))
    if not shown and not query.errors and not query.ignore_not_found:
        scoped = query.namespace is not None and any(kind.resource.namespaced for kind, _ in query.targets)
        note(f"No resources found in {query.namespace} namespace." if scoped else "No resources found")


async def fetch_tables(client: KubeClient, query: Query, kind: Kind, names: list[str]) -> list[dict[str, Any]]:
    """Table objects, one for a list, one for each name."""
    if names:
        return await _each(query, kind, names, lambda path: client.request("GET", path, accept=TABLE))
    selectors = {"labelSelector": query.selector, "fieldSelector": query.field_selector, "limit": "500"}
    params = {key: value for key, value in selectors.items() if value}
    tables: list[dict[str, Any]] = []
    while True:
        page = await client.request("GET", kind.resource.path(_scope(query, kind)), params=params, accept=TABLE)
        tables.append(page)
        token = (page.get("metadata") or {}).get("continue")
        if not token:
            return tables
        params["continue"] = token


def render(
    query: Query,
    kind: Kind,
    columns: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    *,
    prefix: str = "",
    header: bool = True,
) -> str:
    """Rows of a server's Table as text."""
    from .output import cell_text, table

    wide = query.output == "wide"
    chosen = [i for i, column in enumerate(columns) if wide or not column.get("priority")]
    query.with_namespace |= query.namespace is None and kind.resource.namespaced
    lines: list[list[str]] = []
    for row in rows:
        metadata = (row.get("object") or {}).get("metadata") or {}
        cells = [cell_text(row["cells"][i]) for i in chosen]
        if prefix and chosen:
            cells[0] = prefix + cells[0]
        if query.with_namespace:
            cells.insert(0, metadata.get("namespace", ""))
        if query.show_labels:
            labels = metadata.get("labels") or {}
            cells.append(",".join(f"{k}={labels[k]}" for k in sorted(labels)) or "<none>")
        lines.append(cells)
    titles = [columns[i]["name"].upper() for i in chosen]
    if query.with_namespace:
        titles.insert(0, "NAMESPACE")
    if query.show_labels:
        titles.append("LABELS")
    return table(lines, header=titles if header and not query.no_headers else None)


def api_resources(kubeconfig: Kubeconfig = "", context: Context = "", as_user: As = "") -> None:
    """Show the kinds the server has."""

    async def work() -> None:
        from .kinds import discover
        from .output import emit, table

        async with connect(kubeconfig, context, as_user) as client:
            found = await discover(client)
        rows = [
            [k.resource.plural, ",".join(k.short_names), k.resource.api_version, str(k.resource.namespaced).lower(),
             k.resource.kind]
            for k in sorted(found.all, key=lambda k: (k.resource.group, k.resource.plural))
            if k.preferred
        ]  # fmt: skip
        emit(table(rows, header=["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]))

    run(work())
