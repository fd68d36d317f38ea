"""From a body to JSON data: the envelope, then messages by their tables.

Envelope: ``k8s\\0`` and a runtime.Unknown with type, content and encoding
(https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding).

What JSON omits: Go's encoder sends every field that is not a pointer, zero or not, and only pointers that are set. A
zero that was sent is therefore written or omitted as the struct's JSON tag says (``Field.keep_zero``), as a client that
sends JSON would have done. Nulls (unset times, nil lists without ``omitempty``) are left out.
"""

from __future__ import annotations

from typing import Any

from quarterdeck.apiserver.protobuf.tables import Field, Tables, tables
from quarterdeck.apiserver.protobuf.values import SCALARS, SPECIAL, Value, scalar, unpacked
from quarterdeck.apiserver.protobuf.wire import LENGTH, Malformed, RawField, Reader
from quarterdeck.errors import BadRequest
from quarterdeck.kube.resource import Object

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
MAX_DEPTH = 64

_DELETE_OPTIONS = "apimachinery.pkg.apis.meta.v1.DeleteOptions"
_SCHEMA = "apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
_EMPTY = RawField(0, LENGTH, 0, memoryview(b""))


def decode(body: bytes) -> Object:
    """The object in ``body`` as its JSON form would be. Raises BadRequest naming what is wrong and where."""
    if not body.startswith(MAGIC):
        raise BadRequest(
            f"the request body is not Kubernetes protobuf: it does not begin with k8s\\0; send it as {MEDIA_TYPE} "
            "with that prefix, or as application/json"
        )
    reader = Reader()
    try:
        api_version, kind, raw = _envelope(memoryview(body)[len(MAGIC) :], reader)
        message = _message_of(api_version, kind)
        made, _ = _Decoder(tables(), reader).message(message, raw, 0)
    except Malformed as error:
        raise BadRequest(f"error decoding the protobuf request body: {error}") from error
    return {"apiVersion": api_version, "kind": kind, **made}


def _envelope(data: memoryview, reader: Reader) -> tuple[str, str, memoryview]:
    api_version = kind = ""
    raw = data[:0]
    for field in reader.fields(data):
        match field.number:
            case 1:
                names = {part.number: part for part in reader.fields(field.span())}
                api_version = names[1].text() if 1 in names else ""
                kind = names[2].text() if 2 in names else ""
            case 2:
                raw = field.span()
            case 3 if field.text():
                raise Malformed(f"content encoding {field.text()!r} is not supported; send the object as it is")
            case 4 if field.text() not in ("", MEDIA_TYPE):
                raise Malformed(f"the envelope holds {field.text()!r}, not {MEDIA_TYPE}")
            case _:
                pass
    return api_version, kind, raw


def _message_of(api_version: str, kind: str) -> str:
    if not api_version or not kind:
        raise Malformed("the envelope must name both apiVersion and kind")
    if kind == "DeleteOptions":  # registered in every group and version
        return _DELETE_OPTIONS
    found = tables().kinds.get(api_version, {}).get(kind)
    if found is None:
        raise Malformed(f"no kind {kind!r} is known for version {api_version!r}; send it as application/json")
    return found


class _Decoder:
    def __init__(self, known: Tables, reader: Reader) -> None:
        self._known = known
        self._reader = reader

    def message(self, name: str, data: memoryview, depth: int) -> tuple[Object, bool]:
        """The fields of a message as an object, and whether any differs from zero."""
        if depth > MAX_DEPTH:
            raise Malformed(f"messages are nested more than {MAX_DEPTH} deep")
        rows = self._known.messages[name]
        made: Object = {}
        differs = False
        for raw in self._reader.fields(data):
            field = rows.get(raw.number)
            if field is None:
                continue  # of a newer Kubernetes: dropped, as kube-apiserver does
            try:
                differs = self._put(made, field, raw, depth) or differs
            except Malformed as error:
                raise error.under(field.name) from error
        return made, differs

    def _put(self, made: Object, field: Field, raw: RawField, depth: int) -> bool:
        """Adds one field to the object; whether that makes the object differ from Go's zero value."""
        if field.label == "repeated":
            values: list[Any] = made.setdefault(field.name, [])
            values.extend(self._value(field.type, part, depth)[0] for part in unpacked(field.type, raw))
            return True
        if field.label == "map":
            entry = {part.number: part for part in self._reader.fields(raw.span())}
            key = entry[1].text() if 1 in entry else ""
            value = self._value(field.type, entry[2], depth)[0] if 2 in entry else self._zero(field.type, depth)
            made.setdefault(field.name, {})[key] = value
            return True
        value, differs = self._value(field.type, raw, depth)
        if not field.name:
            made.update(value)
        elif field.name in made:
            raise Malformed("the field is sent twice")
        elif value is not None and (differs or field.keep_zero):
            made[field.name] = value
        return differs

    def _value(self, kind: str, raw: RawField, depth: int) -> Value:
        if kind in SCALARS:
            value = scalar(kind, raw)
            return value, value != SCALARS[kind]
        special = SPECIAL.get(kind)
        if special is not None:
            return special(raw.span(), self._reader)
        if kind in self._known.lists:
            item = self._known.lists[kind]
            parts = self._reader.fields(raw.span())
            return [self._value(item, part, depth)[0] for part in parts if part.number == 1], True
        if kind.startswith(_SCHEMA) and kind != _SCHEMA:
            return self._schema_or(kind, raw.span(), depth), True
        return self.message(kind, raw.span(), depth + 1)

    def _zero(self, kind: str, depth: int) -> Any:
        return SCALARS[kind] if kind in SCALARS else self._value(kind, _EMPTY, depth)[0]

    def _schema_or(self, kind: str, data: memoryview, depth: int) -> Any:
        """A schema or a boolean, several schemas, or property names: which of them is set decides the JSON form."""
        schema: Object | None = None
        several: list[Any] = []
        allows = False
        either_bool = kind == f"{_SCHEMA}OrBool"
        for field in self._reader.fields(data):
            if field.number == (2 if either_bool else 1):
                schema = self.message(_SCHEMA, field.span(), depth + 1)[0]
            elif either_bool and field.number == 1:
                allows = field.unsigned() != 0
            elif field.number == 2:
                item = "string" if kind == f"{_SCHEMA}OrStringArray" else _SCHEMA
                several.append(self._value(item, field, depth)[0])
        return several or (allows if either_bool and schema is None else schema)
