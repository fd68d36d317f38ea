"""How the models of configuration files say what becomes of each field, and what a value is read as.

Every field of a model has one class. A field is *enforced* by the test that its model's ``proof`` names, or the one in
its own :class:`Enforced`; :class:`Harmless` ones are accepted with a warning: leaving them out changes neither who may
do what nor where it goes; :class:`Refused` ones make the file unusable and say what to do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Union, cast, get_args, get_origin

from msgspec import Struct
from msgspec.structs import fields as struct_fields


@dataclass(frozen=True, slots=True)
class Enforced:
    """``test``: FILE::NAME below ``tests/gateway/config``."""

    test: str


@dataclass(frozen=True, slots=True)
class Harmless:
    """``why`` nothing is lost, as a clause: "this gateway …"."""

    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """``instead``: what to do, as a clause."""

    instead: str


Class = Enforced | Harmless | Refused

Kind = Literal["duration", "secret", "file", "cel", "raw"]


@dataclass(frozen=True, slots=True)
class Read:
    """How the text of a value becomes what the model holds."""

    kind: Kind


Duration = Annotated[float, Read("duration")]
"""Seconds, written as Go does: ``1m30s``."""
Secret = Annotated[str, Read("secret")]
"""Text, or ``{file: PATH}``: the file's content without the newline at its end."""
File = Annotated[str, Read("file")]
"""A path, relative to the working directory; the model holds the content."""
Raw = Annotated[str, Read("raw")]
"""Text as it stands, dollar signs included."""
Cel = Annotated[str, Read("cel")]
"""A CEL expression that compiles."""


class Model(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of all models: fields in camelCase, unknown ones refused."""

    proof: ClassVar[str] = ""
    """The test that covers the fields without a class of their own."""
    lenient: ClassVar[bool] = False
    """Whether unknown fields are passed over with a warning: files that other programs keep their own things in."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it is written in a file."""

    name: str
    attribute: str
    type: Any
    cls: Class | None
    required: bool
    default: str | int | float | bool | None = None
    """What is meant when it is left out; None: nothing, or no single value."""


@cache
def fields_of(model: type[Model]) -> dict[str, Field]:
    """The model's fields by the name they have in a file."""
    found: dict[str, Field] = {}
    for info in struct_fields(model):
        marks = cast("tuple[Any, ...]", getattr(info.type, "__metadata__", ()))
        own = next((mark for mark in marks if isinstance(mark, Enforced | Harmless | Refused)), None)
        default = Enforced(model.proof) if model.proof else None
        plain: Any = info.default if isinstance(info.default, str | int | float | bool) else None
        found[info.encode_name] = Field(info.encode_name, info.name, info.type, own or default, info.required, plain)
    return found


@cache
def alternatives(annotation: Any) -> tuple[tuple[Any, Kind | None], ...]:
    """The plain types an annotation allows, each with how it is read; ``None`` as :class:`NoneType`."""
    if get_origin(annotation) is Annotated:
        marks: tuple[Any, ...] = annotation.__metadata__
        read = next((mark for mark in marks if isinstance(mark, Read)), None)
        inner = alternatives(get_args(annotation)[0])
        return inner if read is None else tuple((plain, read.kind) for plain, _ in inner)
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return tuple(pair for part in get_args(annotation) for pair in alternatives(part))
    return ((annotation, None),)


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Model)


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns)")


def seconds(text: str) -> float:
    """Go's ``time.ParseDuration`` for positive durations. Raises ValueError."""
    if text == "0":
        return 0.0
    position, total = 0, 0.0
    while position < len(text):
        match = _PART.match(text, position)
        if match is None:
            raise ValueError(f"{text!r} is not a duration; write it as 500ms, 30s or 1m30s")
        total += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    if not position:
        raise ValueError("a duration is missing; write it as 500ms, 30s or 1m30s")
    return total
