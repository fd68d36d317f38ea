"""The reference of all fields, made from the models.

``python -m quarterdeck.gateway.config.table > docs/gateway-fields.md``
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from .agentgateway import now, oct
from .fields import Class, Enforced, Field, Harmless, Model, Refused, alternatives, fields_of, is_model
from .mcp_json import McpJson

ROOTS: dict[str, type[Model]] = {
    "agentgateway, October 2025 (v0.10.5)": oct.Root,
    "agentgateway, today (1.x)": now.Root,
    "mcp.json": McpJson,
}
HEAD = """# Fields of configuration files

Made from the models in `src/quarterdeck/gateway/config` (`python -m quarterdeck.gateway.config.table`); a test keeps
it up to date. Every field has one class: **enforced** by the named test below `tests/gateway/config`; *harmless*:
accepted with a warning; refused: the file is not served, and the message says what to do. What stands below a harmless
or refused field is read and checked, and shares its class. How such files are used:
[gateway.md](gateway.md#configuration-files); what differs between the generations:
[migrate-agentgateway.md](migrate-agentgateway.md).

"""


@dataclass(frozen=True, slots=True)
class Row:
    """One field at one place of a file."""

    path: str
    type: str
    cls: Class | None
    field: Field


def rows(root: type[Model]) -> Iterator[Row]:
    """All fields below ``root``, each model once per place; a model inside itself ends there."""
    yield from _below(root, "", None, ())


def _below(model: type[Model], path: str, inherited: Class | None, above: tuple[type[Model], ...]) -> Iterator[Row]:
    for field in fields_of(model).values():
        here = f"{path}.{field.name}" if path else field.name
        cls = inherited or field.cls
        suffix, inner, names = _inner(field.type)
        yield Row(here + suffix, names, cls, field)
        if inner is not None and inner not in above:
            below = cls if isinstance(cls, Harmless | Refused) else None
            yield from _below(inner, here + suffix, below, (*above, inner))


def _inner(annotation: Any) -> tuple[str, type[Model] | None, str]:
    """How a path goes on below a field, the model there, and the type in words."""
    suffix, inner, names = "", None, list[str]()
    for plain, kind in alternatives(annotation):
        origin = get_origin(plain)
        if plain is type(None):
            continue
        if is_model(plain):
            inner = plain
            names.append("mapping")
        elif origin in (list, tuple):
            more, found, words = _inner(get_args(plain)[0])
            suffix, inner = f"[]{more}", found or inner
            names.append(f"list of {words}")
        elif origin is dict:
            more, found, words = _inner(get_args(plain)[1])
            suffix, inner = f".*{more}" if found else "", found or inner
            names.append(f"map of {words}")
        else:
            names.append(_word(plain, kind))
    return suffix, inner, " or ".join(dict.fromkeys(names))


_WORDS: dict[Any, str] = {str: "text", int: "number", float: "number", bool: "true/false", Any: "anything"}
_KINDS = {"duration": "duration", "secret": "text or {file}", "file": "path", "cel": "CEL", "raw": "text"}


def _word(plain: Any, kind: str | None) -> str:
    if kind is not None:
        return _KINDS[kind]
    values = get_args(plain)
    return "\\|".join(str(value) for value in values) if values else _WORDS.get(plain, "text")


def _told(cls: Class | None) -> str:
    if isinstance(cls, Enforced):
        return f"**enforced** `{cls.test}`"
    if isinstance(cls, Harmless):
        return f"*harmless*: {cls.why}"
    return f"refused: {cls.instead}" if cls is not None else "UNCLASSIFIED"


def render() -> str:
    """The whole page: each model once, with a place where it stands."""
    parts = [HEAD]
    told: set[type[Model]] = set()
    for title, root in ROOTS.items():
        found = list(rows(root))
        counts = {kind: sum(isinstance(row.cls, kind) for row in found) for kind in (Enforced, Harmless, Refused)}
        parts.append(f"## {title}\n\n")
        parts.append(
            f"At all places together: {counts[Enforced]} fields enforced, {counts[Harmless]} harmless, "
            f"{counts[Refused]} refused.\n\n"
        )
        quiet: list[str] = []
        for model, path, inherited in _models(root):
            if model in told or not fields_of(model):
                continue
            told.add(model)
            if inherited is None:
                parts.append(_section(model, path))
            else:
                quiet.append(
                    f"| `{path}` | {', '.join(f'`{name}`' for name in fields_of(model))} | {_told(inherited)} |"
                )
        if quiet:
            parts.append(
                "### Read, and refused or without effect as a whole\n\n| at | fields | class |\n|---|---|---|\n"
            )
            parts.append("\n".join(quiet) + "\n\n")
    return "".join(parts).rstrip("\n") + "\n"


def _section(model: type[Model], path: str) -> str:
    told = f"{model.__doc__.replace('``', '`')}\n\n" if model.__doc__ else ""
    lines = [f"### {f'`{path}`' if path else 'The file'}\n\n{told}| field | type | class |\n|---|---|---|\n"]
    for field in fields_of(model).values():
        suffix, _, words = _inner(field.type)
        need = ", required" if field.required else _default(field)
        lines.append(f"| `{field.name}{suffix}` | {words}{need} | {_told(field.cls)} |\n")
    return "".join(lines) + "\n"


def _default(field: Field) -> str:
    """Of seconds as a duration is written."""
    value = field.default
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return f", default {str(value).lower()}"
    if any(kind == "duration" for _, kind in alternatives(field.type)):
        return f", default {value:g}s"
    return f", default {value:g}" if isinstance(value, float) else f", default {value}"


def _models(root: type[Model]) -> list[tuple[type[Model], str, Class | None]]:
    """Every model with the first place where it has fields of its own class, else the first at all."""
    best: dict[type[Model], tuple[str, Class | None]] = {root: ("", None)}
    waiting: list[tuple[type[Model], str, Class | None]] = [(root, "", None)]
    while waiting:
        model, path, inherited = waiting.pop(0)
        for field in fields_of(model).values():
            suffix, inner, _ = _inner(field.type)
            cls = inherited or (field.cls if isinstance(field.cls, Harmless | Refused) else None)
            here = f"{path}.{field.name}{suffix}" if path else f"{field.name}{suffix}"
            if inner is not None and (inner not in best or (best[inner][1] is not None and cls is None)):
                best[inner] = (here, cls)
                waiting.append((inner, here, cls))
    return [(model, path, cls) for model, (path, cls) in best.items()]


if __name__ == "__main__":
    sys.stdout.write(render())
