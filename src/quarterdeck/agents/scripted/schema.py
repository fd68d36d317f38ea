"""Tool definitions read into typed values: what a parameter is called, takes, and gives as example."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

from .text import STOP, first_sentence, split, stem, stems, words
from .values import shape

_DEPTH = 6
MISSING: Any = object()
_SAMPLE = re.compile(r"['\"`“‘]([^'\"`”’\s]{1,80})['\"`”’]")
_TEMPLATE = re.compile(r"\b[A-Z]{1,4}(?:[:\-/.][A-Z]{1,4})+\b")
_FALLBACK = re.compile(
    r"(?:use|defaults?(?: to| is|:)?)\s+['\"`]([^'\"`]+)['\"`][^.]*\b(?:no|not|unless|without|missing|omitted)\b", re.I
)


@dataclass(frozen=True)
class Parameter:
    """One property of an object schema. ``types`` empty means anything; ``default`` MISSING when there is none;
    ``kin``: example values of like-named parameters of other tools."""

    label: str
    types: tuple[str, ...]
    description: str
    required: bool
    enum: tuple[Any, ...] = ()
    default: Any = MISSING
    examples: tuple[Any, ...] = ()
    format: str = ""
    items: Parameter | None = None
    properties: tuple[Parameter, ...] = ()
    minimum_items: int = 0
    kin: tuple[str, ...] = ()

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(stem(w) for w in split(self.label) if w not in STOP or len(split(self.label)) == 1)

    @cached_property
    def described(self) -> frozenset[str]:
        """Stems of the description, of its examples none."""
        return stems(_SAMPLE.sub(" ", self.description))

    @cached_property
    def samples(self) -> tuple[str, ...]:
        """Example values: the schema's own, and those its description quotes."""
        fallback = self.fallback
        quoted = [s.rstrip(".,") for s in _SAMPLE.findall(self.description)] if "string" in self.types else []
        return tuple(str(e) for e in self.examples) + tuple(q for q in quoted if q != fallback)

    @cached_property
    def shapes(self) -> frozenset[str]:
        """The builds a value may have; empty means any. Follows examples and templates such as ``AA:BB``."""
        if not self.types or "string" not in self.types or self.enum:
            return frozenset()
        templates = _TEMPLATE.findall(self.description)
        found = {shape(t).replace("a", "0") for t in templates}
        builds = {shape(s) for s in self.samples}
        if any(b in ("a", "0") or "*" in b for b in builds):
            return frozenset(found)
        return frozenset(found | builds)

    @cached_property
    def fallback(self) -> str | None:
        """The value its description says to use when the user gives none."""
        match = _FALLBACK.search(self.description)
        return match.group(1) if match else None


@dataclass(frozen=True)
class Tool:
    """A function the model may call; ``schema`` is its parameters' JSON schema as given."""

    name: str
    description: str
    schema: Any
    parameters: tuple[Parameter, ...] = field(default=())

    @cached_property
    def label_stems(self) -> tuple[str, ...]:
        """Stems of its own words, in order."""
        return tuple(stem(w) for w in split(self.name))

    @cached_property
    def summary(self) -> str:
        return first_sentence(self.description)[0]

    @cached_property
    def fields(self) -> tuple[tuple[float, frozenset[str]], ...]:
        """Where a word may match, with how much it says there."""
        sentence, rest = first_sentence(self.description)
        flat = list(_flatten(self.parameters))
        return (
            (1.0, frozenset(self.label_stems)),
            (0.85, stems(sentence)),
            (0.7, frozenset(w for p in flat for w in p.words)),
            (0.6, frozenset(s for p in flat for e in p.enum if isinstance(e, str) for s in stems(e))),
            (0.5, stems(rest)),
            (0.45, frozenset(w for p in flat for w in p.described)),
        )

    @property
    def required(self) -> list[Parameter]:
        return [p for p in self.parameters if p.required]

    @cached_property
    def deprecated(self) -> bool:
        return "deprecated" in words(self.description)


def _flatten(parameters: tuple[Parameter, ...]) -> list[Parameter]:
    found: list[Parameter] = []
    for parameter in parameters:
        found.append(parameter)
        inner = parameter.properties or (parameter.items.properties if parameter.items else ())
        found.extend(_flatten(inner))
    return found


def read_tools(definitions: Any) -> list[Tool]:
    """The usable entries of a request's ``tools``; anything malformed is left out."""
    tools: list[Tool] = []
    for entry in cast(list[Any], definitions) if isinstance(definitions, list) else []:
        function = entry.get("function") if isinstance(entry, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            continue
        schema: Any = function.get("parameters")
        schema = cast(dict[str, Any], schema) if isinstance(schema, dict) else {"type": "object", "properties": {}}
        description = function.get("description")
        tools.append(
            Tool(function["name"], description if isinstance(description, str) else "", schema, read_object(schema))
        )
    return _acquainted(tools)


def _acquainted(tools: list[Tool]) -> list[Tool]:
    """Parameters that share a word of their label learn each other's examples."""
    known = [p for t in tools for p in t.parameters if p.samples]
    if not known:
        return tools
    return [
        replace(t, parameters=tuple(replace(p, kin=_kin(p, known)) if p.shapes else p for p in t.parameters))
        for t in tools
    ]


def _kin(parameter: Parameter, known: list[Parameter]) -> tuple[str, ...]:
    like = [s for other in known if other.words & parameter.words for s in other.samples]
    return tuple(dict.fromkeys(s for s in like if shape(s) in parameter.shapes))[:100]


def read_object(schema: Any) -> tuple[Parameter, ...]:
    """The properties of an object schema, required ones as it says."""
    return _properties(_resolve(schema, schema, 0), schema, 0)


def _properties(schema: Mapping[str, Any], root: Any, depth: int) -> tuple[Parameter, ...]:
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, Mapping) or depth > _DEPTH:
        return ()
    wanted = set(map(str, cast(list[Any], required))) if isinstance(required, list) else set[str]()
    return tuple(_parameter(str(k), v, root, str(k) in wanted, depth + 1) for k, v in properties.items())


def _parameter(label: str, schema: Any, root: Any, required: bool, depth: int) -> Parameter:
    flat = _resolve(schema, root, depth)
    kinds = flat.get("type")
    types = tuple(str(k) for k in kinds if k != "null") if isinstance(kinds, list) else ((kinds,) if kinds else ())
    types = tuple(t for t in types if isinstance(t, str))
    if not types and isinstance(flat.get("properties"), Mapping):
        types = ("object",)
    enum = flat.get("enum")
    choices = tuple(cast(list[Any], enum)) if isinstance(enum, list) else ()
    if "const" in flat:
        choices = (flat["const"],)
    examples, minimum = flat.get("examples"), flat.get("minItems")
    text = flat.get("description")
    return Parameter(
        label=label,
        types=types,
        description=text if isinstance(text, str) else "",
        required=required,
        enum=tuple(c for c in choices if c is not None),
        default=flat.get("default", MISSING),
        examples=tuple(cast(list[Any], examples)) if isinstance(examples, list) else (),
        format=flat["format"] if isinstance(flat.get("format"), str) else "",
        items=_parameter("", flat.get("items", {}), root, True, depth + 1)
        if "array" in types and depth <= _DEPTH
        else None,
        properties=_properties(flat, root, depth),
        minimum_items=minimum if isinstance(minimum, int) else 0,
    )


def _resolve(schema: Any, root: Any, depth: int) -> dict[str, Any]:
    """The schema with local references and the first real alternative merged in."""
    flat: dict[str, Any] = {}
    pending, seen = [schema], 0
    while pending and seen < 20:
        seen += 1
        current = pending.pop(0)
        if not isinstance(current, Mapping):
            continue
        for key, value in current.items():
            flat.setdefault(str(key), value)
        reference = current.get("$ref")
        if isinstance(reference, str):
            pending.append(_pointer(root, reference))
        for key in ("allOf", "anyOf", "oneOf"):
            branches = current.get(key)
            if isinstance(branches, list):
                real = [
                    b for b in cast(list[Any], branches) if not (isinstance(b, Mapping) and b.get("type") == "null")
                ]
                pending.extend(real if key == "allOf" else real[:1])
    return flat if depth <= _DEPTH else {}


def _pointer(root: Any, reference: str) -> Any:
    """RFC 6901 within the document; references elsewhere are not followed."""
    if not reference.startswith("#"):
        return None
    target = root
    for part in reference[1:].split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        target = target.get(part) if isinstance(target, Mapping) else None
    return target
