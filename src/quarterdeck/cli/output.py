"""What commands print: tables, JSON, YAML, names, JSONPath and custom columns, in the shapes kubectl prints them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from quarterdeck.errors import UsageError

if TYPE_CHECKING:
    from .kinds import Kind

Object = dict[str, Any]
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but line end and tab, and those that turn the direction of writing."""
_FORMATS = "json, yaml, name, wide, jsonpath=TEMPLATE, custom-columns=SPEC"


def table(rows: list[list[str]], *, header: list[str] | None = None) -> str:
    """Columns aligned as Go's tabwriter does for kubectl: at least six wide, three blanks between."""
    lines = [header, *rows] if header is not None else rows
    if not lines:
        return ""
    widths = [max(6, *(len(line[i]) + 3 for line in lines)) for i in range(len(lines[0]) - 1)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)) + "\n" for line in lines
    )


def cell_text(value: Any) -> str:
    """A cell of a server's Table; a text stops at its first line end."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    first, newline, _ = value.partition("\n")
    return first + "..." if newline else first


def to_json(value: Any) -> str:
    return json.dumps(value, indent=4, sort_keys=True, ensure_ascii=False) + "\n"


def to_yaml(value: Any) -> str:
    """As kubectl writes it: keys sorted, texts of several lines as blocks, long ones folded."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what would read as another type with double quotes, as Go's library does."""

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        tag = "tag:yaml.org,2002:str"
        if "\n" in data:
            return dumper.represent_scalar(tag, data, style="|")
        resolved = dumper.resolve(yaml.ScalarNode, data, (True, False))
        ambiguous = resolved != tag or data in ("y", "n", "Y", "N")
        return dumper.represent_scalar(tag, data, style='"' if ambiguous else None)

    Dumper.add_representer(str, text)
    Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
    return yaml.dump(value, Dumper=Dumper, default_flow_style=False, allow_unicode=True, width=80)


def formatted(value: Any, output: str) -> str:
    """For ``--output`` of what is no Kubernetes object: as JSON or YAML. Raises UsageError."""
    if output not in ("json", "yaml"):
        raise UsageError(f"--output={output}: must be json or yaml")
    return to_json(value) if output == "json" else to_yaml(value)


def as_list(items: list[Object]) -> Object:
    return {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}


def without_managed_fields(obj: Object) -> Object:
    if "managedFields" not in obj.get("metadata", {}):
        return obj
    return obj | {"metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}


def formatter(output: str) -> Callable[[Object], str] | None:
    """How one object (or List) becomes text; None means a table. Raises UsageError for an unknown format."""
    name, equals, argument = output.partition("=")
    if output in ("", "wide"):
        return None
    if output == "json":
        return to_json
    if output == "yaml":
        return to_yaml
    if name == "jsonpath" and equals:
        from quarterdeck.apiserver.crd.jsonpath import render

        return lambda obj: render(argument, obj)
    if name == "custom-columns" and equals:
        return _custom_columns(argument)
    raise UsageError(f"unable to match a printer suitable for the output format {output!r}; there are: {_FORMATS}")


def _custom_columns(spec: str) -> Callable[[Object], str]:
    from quarterdeck.apiserver.crd.jsonpath import evaluate, text_of

    columns: list[tuple[str, str]] = []
    for part in spec.split(","):
        title, colon, path = part.partition(":")
        if not colon or not title or not path:
            raise UsageError(f"custom-columns: {part!r} is not HEADER:PATH, for example NAME:.metadata.name")
        columns.append((title, path))

    def show(obj: Object) -> str:
        rows: list[list[str]] = []
        for item in obj["items"] if obj.get("kind") == "List" else [obj]:
            found = [evaluate(path, item) for _, path in columns]
            rows.append([",".join(text_of(value) for value in values) or "<none>" for values in found])
        return table(rows, header=[title for title, _ in columns])

    return show


def object_name(kind: Kind, obj: Object) -> str:
    """``pod/x``, ``agent.kagent.dev/y``."""
    return f"{kind.qualified}/{obj['metadata']['name']}"


def emit(text: str) -> None:
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def note(text: str) -> None:
    """A message for the person, never part of the data."""
    print(visible(text) if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """What a terminal would obey as something to read: what agents and tools say must not paint over what we ask."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))
