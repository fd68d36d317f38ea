"""``qd describe``, ``qd events``, ``qd wait``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .complete import kinds as complete_kinds
from .complete import objects as complete_objects
from .target import AllNamespaces, As, Context, Kubeconfig, Namespace, Selector, connect, run

if TYPE_CHECKING:
    from quarterdeck.kube.client import KubeClient

    from .kinds import Kind

KindWord = Annotated[str, typer.Argument(help="KIND or KIND/NAME.", autocompletion=complete_kinds)]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=complete_objects)]
_HIDDEN = ("managedFields", "name", "namespace", "labels", "annotations", "creationTimestamp", "resourceVersion", "uid")


def register(app: typer.Typer) -> None:
    app.command()(describe)
    app.command()(events)
    app.command()(wait)


def describe(
    kind: KindWord,
    names: Names = None,
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Show all about objects: settings, state, conditions and events."""

    async def work() -> None:
        from .get import parse_targets
        from .kinds import discover
        from .output import emit

        async with connect(kubeconfig, context, as_user, namespace) as client:
            first = True
            for each, wanted in parse_targets(await discover(client), kind, names or []):
                scope = client.config.namespace if each.resource.namespaced else None
                objects = [await client.get(each.resource, name, scope) for name in wanted]
                for obj in objects or (await client.list(each.resource, scope)).items:
                    emit(("" if first else "\n\n") + await _described(client, obj))
                    first = False

    run(work())


async def _described(client: KubeClient, obj: dict[str, Any]) -> str:
    from .output import to_yaml

    metadata: dict[str, Any] = obj["metadata"]
    status: dict[str, Any] = dict(obj.get("status") or {})
    conditions: list[dict[str, Any]] = status.pop("conditions", None) or []
    lines = [f"{'Name:':13}{metadata['name']}\n"]
    if metadata.get("namespace"):
        lines.append(f"{'Namespace:':13}{metadata['namespace']}\n")
    for title, field in (("Labels:", "labels"), ("Annotations:", "annotations")):
        pairs = [f"{key}={value}" for key, value in sorted((metadata.get(field) or {}).items())]
        lines += [f"{title if i == 0 else '':13}{pair}\n" for i, pair in enumerate(pairs or ["<none>"])]
    lines.append(f"{'API Version:':13}{obj['apiVersion']}\n{'Kind:':13}{obj['kind']}\n")
    lines.append(f"{'Created:':13}{metadata.get('creationTimestamp', '')}\n")
    rest = {key: value for key, value in metadata.items() if key not in _HIDDEN}
    shown = {
        "metadata": rest,
        **{k: v for k, v in obj.items() if k not in ("apiVersion", "kind", "metadata", "status")},
    }
    for key, value in {**shown, "status": status}.items():
        if value:
            lines.append(f"{key[0].upper()}{key[1:]}:\n" + _indented(to_yaml(value)))
    if conditions:
        fields = ("type", "status", "reason", "message")
        rows = [[str(c.get(f, "")) for f in fields] for c in conditions]
        lines.append("Conditions:\n" + _indented(_table(rows, ["TYPE", "STATUS", "REASON", "MESSAGE"])))
    found = await _events_of(client, metadata.get("namespace"), f"involvedObject.uid={metadata.get('uid', '')}")
    lines.append("Events:" + (f"\n{_indented(_table(*_event_rows(found)))}" if found else "      <none>\n"))
    return "".join(lines)


def events(
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    target: Annotated[str, typer.Option("--for", help="Only of KIND/NAME.")] = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Show events, oldest first."""

    async def work() -> None:
        from .get import parse_targets
        from .kinds import discover
        from .output import emit, note

        async with connect(kubeconfig, context, as_user, namespace) as client:
            selector = ""
            if target:
                ((each, (name, *_)),) = parse_targets(await discover(client), target, [])
                selector = f"involvedObject.kind={each.resource.kind},involvedObject.name={name}"
            scope = None if all_namespaces else client.config.namespace
            found = await _events_of(client, scope, selector)
            if not found:
                note("No events found" + ("." if all_namespaces else f" in {scope} namespace."))
                return
            rows, header = _event_rows(found)
            if all_namespaces:
                rows = [[e["metadata"]["namespace"], *row] for e, row in zip(found, rows, strict=True)]
                header = ["NAMESPACE", *header]
            emit(_table(rows, header))

    run(work())


async def _events_of(client: KubeClient, namespace: str | None, selector: str) -> list[dict[str, Any]]:
    from quarterdeck.kube.resource import EVENT

    listed = await client.list(EVENT, namespace, field_selector=selector)
    return sorted(listed.items, key=_when)


def _when(event: dict[str, Any]) -> str:
    series: dict[str, Any] = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
               or event["metadata"].get("creationTimestamp") or "")  # fmt: skip


def _event_rows(found: list[dict[str, Any]]) -> tuple[list[list[str]], list[str]]:
    rows: list[list[str]] = []
    for event in found:
        about: dict[str, Any] = event.get("involvedObject") or {}
        message = str(event.get("message", "")).strip().replace("\n", " ")
        count = event.get("count") or 1
        times = f" (x{count})" if count > 1 else ""
        rows.append([_when(event)[:19], str(event.get("type", "")), str(event.get("reason", "")),
                     f"{about.get('kind', '')}/{about.get('name', '')}", message + times])  # fmt: skip
    return rows, ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]


def _table(rows: list[list[str]], header: list[str]) -> str:
    from .output import table

    return table(rows, header=header)


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def wait(
    kind: KindWord,
    names: Names = None,
    condition: Annotated[str, typer.Option("--for", help="condition=X[=V], delete, jsonpath=PATH[=V] or create.")] = "",
    namespace: Namespace = "",
    selector: Selector = "",
    every: Annotated[bool, typer.Option("--all", help="All objects of the kind in the namespace.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait.")] = "30s",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Wait until objects are as asked; exit code 5 when the time is over."""
    from .durations import seconds
    from .waiting import Goal, until

    goal = Goal.parse(condition)
    limit = seconds(timeout, "--timeout")

    async def work() -> None:
        from quarterdeck.errors import UsageError

        from .get import parse_targets
        from .kinds import discover

        async with connect(kubeconfig, context, as_user, namespace) as client:
            victims: list[tuple[Kind, str]] = []
            for each, wanted in parse_targets(await discover(client), kind, names or []):
                scope = client.config.namespace if each.resource.namespaced else None
                if not wanted and not (selector or every):
                    raise UsageError("name the objects to wait for, or use -l or --all")
                if not wanted:
                    listed = await client.list(each.resource, scope, label_selector=selector, metadata_only=True)
                    wanted = [obj["metadata"]["name"] for obj in listed.items]
                victims += [(each, name) for name in wanted]
            await until(client, victims, goal, limit)

    run(work())
