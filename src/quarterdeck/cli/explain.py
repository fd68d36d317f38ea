"""``qd explain``: what a field means. Our own kinds need no server."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any

import typer

from .complete import kinds as complete_kinds
from .target import As, Context, Kubeconfig, connect, run


def register(app: typer.Typer) -> None:
    app.command()(explain)


def explain(
    path: Annotated[str, typer.Argument(help="KIND or KIND.FIELD.FIELD", autocompletion=complete_kinds)],
    recursive: Annotated[bool, typer.Option("--recursive", help="All fields below it.")] = False,
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    as_user: As = "",
) -> None:
    """Describe a kind or a field of it."""
    from .output import emit

    kind, *fields = path.split(".")
    found = own_schema(kind) or run(_served_schema(kind, kubeconfig, context, as_user))
    emit(explained(found, fields, recursive=recursive))


def own_schema(word: str) -> tuple[dict[str, str], dict[str, Any]] | None:
    """Group, version and kind, and the schema, of one of our kinds by any of its names; None for other kinds."""
    from quarterdeck.resources.crd import GATEWAY_KINDS, crd, crds

    for definition in (*crds(), *map(crd, GATEWAY_KINDS)):
        names = definition["spec"]["names"]
        if word.lower() in (names["plural"], names["singular"], names["kind"].lower(), *names.get("shortNames", [])):
            version = next(v for v in definition["spec"]["versions"] if v["storage"])
            head = {"GROUP": definition["spec"]["group"], "KIND": names["kind"], "VERSION": version["name"]}
            return head, version["schema"]["openAPIV3Schema"]
    return None


async def _served_schema(
    word: str, kubeconfig: str, context: str, as_user: str
) -> tuple[dict[str, str], dict[str, Any]]:
    """From the server's OpenAPI v3 documents. Raises UsageError for a kind it does not describe."""
    from quarterdeck.errors import UsageError

    from .kinds import discover

    async with connect(kubeconfig, context, as_user) as client:
        res = (await discover(client)).find(word).resource
        root = f"/openapi/v3/apis/{res.group}/{res.version}" if res.group else f"/openapi/v3/api/{res.version}"
        schemas: dict[str, Any] = (await client.request("GET", root))["components"]["schemas"]
    wanted = {"group": res.group, "version": res.version, "kind": res.kind}
    for schema in schemas.values():
        if wanted in schema.get("x-kubernetes-group-version-kind", []):
            head = {"GROUP": res.group} if res.group else {}
            return head | {"KIND": res.kind, "VERSION": res.version}, {**schema, "definitions": schemas}
    raise UsageError(f"the server has no description of {word}")


def explained(found: tuple[dict[str, str], dict[str, Any]], fields: list[str], *, recursive: bool) -> str:
    """The text, in kubectl's shape. Raises UsageError naming the field that does not exist."""
    from quarterdeck.errors import UsageError

    head, root = found
    definitions: dict[str, Any] = root.get("definitions") or {}
    schema = root
    done: list[str] = []
    for field in fields:
        below: dict[str, Any] = _inner(schema, definitions).get("properties") or {}
        if field not in below:
            where = ".".join(done) or head["KIND"]
            raise UsageError(f'field "{field}" does not exist in {where}; it has: {", ".join(below) or "no fields"}')
        schema = below[field]
        done.append(field)
    lines = [f"{key + ':':11}{value}" for key, value in head.items()] + [""]
    if fields:
        lines += [f"FIELD: {fields[-1]} <{_type(schema, definitions)}>", ""]
    description = _resolved(schema, definitions).get("description") or schema.get("description") or "<empty>"
    lines += ["DESCRIPTION:", textwrap.indent(_wrapped(description, 76), "    ")]
    rows = _fields(_inner(schema, definitions), definitions, "  ", recursive=recursive, seen=0)
    if rows:
        lines += ["", "FIELDS:", *rows]
    return "\n".join(lines) + "\n"


def _fields(
    schema: dict[str, Any], definitions: dict[str, Any], margin: str, *, recursive: bool, seen: int
) -> list[str]:
    rows: list[str] = []
    required = set(schema.get("required") or [])
    for name, field in sorted((schema.get("properties") or {}).items()):
        mark = " -required-" if name in required else ""
        rows.append(f"{margin}{name}\t<{_type(field, definitions)}>{mark}")
        if recursive and seen < 12:
            rows += _fields(_inner(field, definitions), definitions, margin + "  ", recursive=True, seen=seen + 1)
        elif not recursive:
            text = field.get("description") or _resolved(field, definitions).get("description") or "<no description>"
            rows += [textwrap.indent(_wrapped(text, 74), margin + "  "), ""]
    return rows


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema a reference means, alone or in an ``allOf``."""
    for each in (schema, *(schema.get("allOf") or [])):
        if "$ref" in each:
            return definitions.get(str(each["$ref"]).rpartition("/")[2], {})
    return schema


def _inner(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """What fields are looked up in: the items of a list, the values of a map."""
    schema = _resolved(schema, definitions)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict) and not schema.get("properties"):
            return _inner(schema[key], definitions)
    return schema


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    reference = next((e["$ref"] for e in (schema, *(schema.get("allOf") or [])) if "$ref" in e), "")
    schema = _resolved(schema, definitions)
    if schema.get("x-kubernetes-int-or-string"):
        return "IntOrString"
    kind = schema.get("type")
    if kind == "array":
        return "[]" + _type(schema.get("items") or {}, definitions)
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map[string]{_type(schema['additionalProperties'], definitions)}"
    if reference and schema.get("properties"):
        return str(reference).rpartition(".")[2]
    return "Object" if kind in ("object", None) else str(kind)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in text.splitlines())
