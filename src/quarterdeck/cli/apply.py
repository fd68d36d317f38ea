"""``qd apply`` (server-side apply) and ``qd delete``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .complete import kinds as complete_kinds
from .complete import objects as complete_objects
from .target import AllNamespaces, As, Context, Kubeconfig, Namespace, Selector, connect, run

if TYPE_CHECKING:
    from quarterdeck.errors import QuarterdeckError
    from quarterdeck.kube.client import KubeClient

    from .kinds import Kind
    from .manifests import Manifest

FIELD_MANAGER = "qd"
_ESTABLISHED_SECONDS = 30.0
_UNKNOWN_FIELD = re.compile(r'(?:unknown|duplicate) field "([^"]+)"')
_NO_FIELD = re.compile(r"\.([\w.\[\]]+): field not declared in schema")
_VALIDATION = {"strict": "Strict", "true": "Strict", "warn": "Warn", "ignore": "Ignore", "false": "Ignore"}
Files = Annotated[list[str] | None, typer.Option("--filename", "-f", help="FILE, folder, - or URL; again for more.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-R", help="Folders with everything below them.")]


def register(app: typer.Typer) -> None:
    app.command()(apply)
    app.command()(delete)


@dataclass(frozen=True, slots=True)
class Options:
    dry_run: str
    validation: str
    force: bool
    output: str


def apply(
    filename: Files = None,
    recursive: Recursive = False,
    namespace: Namespace = "",
    dry_run: Annotated[str, typer.Option("--dry-run", help="none, server or client.")] = "none",
    validate: Annotated[str, typer.Option("--validate", help="Unknown fields: strict, warn or ignore.")] = "strict",
    force_conflicts: Annotated[bool, typer.Option("--force-conflicts", help="Take over fields of others.")] = False,
    server_side: Annotated[bool, typer.Option("--server-side", help="Always so; accepted as kubectl's.")] = True,
    output: Annotated[str, typer.Option("--output", "-o", help="json, yaml, name, jsonpath=….")] = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Create or change objects to be as written in files (server-side apply, field manager qd)."""
    from quarterdeck.errors import UsageError

    from .manifests import read

    del server_side
    if dry_run not in ("none", "server", "client"):
        raise UsageError(f"--dry-run={dry_run}: must be none, server or client")
    if validate not in _VALIDATION:
        raise UsageError(f"--validate={validate}: must be strict, warn or ignore")
    manifests = read(filename or [], recursive=recursive)
    options = Options(dry_run, _VALIDATION[validate], force_conflicts, output)

    async def work() -> bool:
        async with connect(kubeconfig, context, as_user, namespace) as client:
            return await apply_all(client, manifests, options, namespace)

    if not run(work()):
        raise typer.Exit(1)


async def apply_all(client: KubeClient, manifests: list[Manifest], options: Options, namespace: str) -> bool:
    """Apply one after the other; a failure is reported with its place and the rest still applied."""
    from quarterdeck.errors import ApiError, ConfigError

    from .kinds import discover
    from .output import emit, formatter, note, object_name, without_managed_fields

    show = None if options.output == "name" else formatter(options.output)
    kinds = await discover(client)
    good = True
    for manifest in manifests:
        try:
            kind = kinds.of(manifest.body["apiVersion"], manifest.body["kind"])
            done, obj = await _apply_one(client, kind, manifest, options, namespace)
        except (ApiError, ConfigError) as error:
            good = False
            note(f"error: {explain_failure(manifest, error)}")
            continue
        if show is not None:
            emit(("---\n" if options.output == "yaml" else "") + show(without_managed_fields(obj)))
        else:
            print(
                object_name(kind, obj) if options.output == "name" else f"{object_name(kind, obj)} {done}", flush=True
            )
        if manifest.body["kind"] == "CustomResourceDefinition" and options.dry_run == "none":
            await _established(client, kind, manifest.name)
            kinds.all[:] = (await discover(client)).all
    return good


async def _apply_one(
    client: KubeClient, kind: Kind, manifest: Manifest, options: Options, namespace: str
) -> tuple[str, dict[str, Any]]:
    """What was done, as kubectl words it, and the object as it is now."""
    from quarterdeck.errors import NotFound

    body = manifest.body
    res = kind.resource
    where = scope_of(client, kind, manifest, namespace)
    path = res.path(where, manifest.name)
    try:
        before: dict[str, Any] | None = await client.request("GET", path)
    except NotFound:
        before = None
    if options.dry_run == "client":
        return ("configured" if before else "created") + " (dry run)", before or body
    params = {"fieldManager": FIELD_MANAGER, "fieldValidation": options.validation}
    if options.force:
        params["force"] = "true"
    if options.dry_run == "server":
        params["dryRun"] = "All"
    after: dict[str, Any] = await client.request(
        "PATCH", path, params=params, body=body, content_type="application/apply-patch+yaml"
    )
    done = "created" if before is None else "unchanged" if _same(before, after) else "configured"
    return done + (" (server dry run)" if options.dry_run == "server" else ""), after


def _same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """The content decides, of metadata all but the bookkeeping.

    A first apply of no fields (a Namespace by its name) leaves no manager, so the second one, as kube-apiserver has it,
    records the owners of what is there: a new resourceVersion, and nothing that the person wrote has changed.
    """
    quiet = ("resourceVersion", "managedFields", "generation")

    def content(obj: dict[str, Any]) -> dict[str, Any]:
        return obj | {"metadata": {k: v for k, v in obj["metadata"].items() if k not in quiet}}

    return content(before) == content(after)


def scope_of(client: KubeClient, kind: Kind, manifest: Manifest, namespace: str) -> str | None:
    """The object's namespace. Raises ConfigError when it and ``-n`` disagree, as kubectl does."""
    from quarterdeck.errors import ConfigError

    if not kind.resource.namespaced:
        return None
    own = str(manifest.body["metadata"].get("namespace") or "")
    if own and namespace and own != namespace:
        raise ConfigError(
            f'the namespace from the provided object "{own}" does not match the namespace "{namespace}"; '
            f"pass '--namespace={own}' to perform this operation"
        )
    return own or client.config.namespace


def explain_failure(manifest: Manifest, error: QuarterdeckError) -> str:
    """The error with file, document, line and object; one line for each field that is wrong."""
    from quarterdeck.errors import Conflict, Invalid

    title = f"{manifest.body['kind']} {manifest.name}"
    text = str(error)
    causes = getattr(error, "causes", ())
    if isinstance(error, Invalid) and causes:
        return "\nerror: ".join(f"{manifest.at(c.field)}: {title}: {c.field}: {c.message}" for c in causes)
    fields = _UNKNOWN_FIELD.findall(text) + _NO_FIELD.findall(text)
    if fields:
        lines = [manifest.at(field) for field in fields]
        return f"{lines[0]}: {title}: {text}; correct the field or use --validate=warn"
    if isinstance(error, Conflict):
        text += "; --force-conflicts takes the fields over"
    return f"{manifest.at()}: {title}: {text}"


async def _established(client: KubeClient, kind: Kind, name: str) -> None:
    import asyncio

    from quarterdeck.errors import TimedOut

    try:
        async with asyncio.timeout(_ESTABLISHED_SECONDS):
            while True:
                obj = await client.request("GET", kind.resource.path(None, name))
                conditions = (obj.get("status") or {}).get("conditions") or []
                if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise TimedOut(
            f"CustomResourceDefinition {name} was not established within {_ESTABLISHED_SECONDS:g} s; "
            f"see: qd get crd {name} -o yaml"
        ) from None


def delete(
    kind: Annotated[str, typer.Argument(help="KIND or KIND/NAME.", autocompletion=complete_kinds)] = "",
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=complete_objects)] = None,
    filename: Files = None,
    recursive: Recursive = False,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    every: Annotated[bool, typer.Option("--all", help="All objects of the kind in the namespace.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until the objects are gone.")] = True,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait; 0 is for ever.")] = "0",
    cascade: Annotated[str, typer.Option("--cascade", help="background, foreground or orphan.")] = "background",
    grace_period: Annotated[int, typer.Option("--grace-period", help="Seconds; negative: the object's own.")] = -1,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="Missing objects are no error.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="name")] = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Delete objects named on the command line or in files."""
    from .removal import Removal, remove

    async def work() -> bool:
        async with connect(kubeconfig, context, as_user, namespace) as client:
            removal = Removal(
                words=[kind, *(names or [])] if kind else [],
                files=filename or [],
                recursive=recursive,
                namespace=namespace,
                all_namespaces=all_namespaces,
                selector=selector,
                every=every,
                wait=wait,
                timeout=timeout,
                cascade=cascade,
                grace_period=grace_period,
                ignore_not_found=ignore_not_found or (every and not names) or bool(selector),
                output=output,
            )
            return await remove(client, removal)

    if not run(work()):
        raise typer.Exit(1)


Cascade = Literal["Background", "Foreground", "Orphan"]
CASCADES: dict[str, Cascade] = {"background": "Background", "foreground": "Foreground", "orphan": "Orphan"}
