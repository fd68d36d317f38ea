"""Scalars, and the messages whose JSON form is not an object of their fields.

The forms are those of the MarshalJSON methods in k8s.io/apimachinery. Each function gives the JSON value and whether it
differs from Go's zero value; None means null, which is left out of objects.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from quarterdeck.apiserver.protobuf.wire import LENGTH, Malformed, RawField, Reader, varint
from quarterdeck.malformed import MALFORMED

Value = tuple[Any, bool]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GO_ZERO_TIME = -62135596800
_PACKED = frozenset({"int32", "int64", "bool"})


def scalar(kind: str, field: RawField) -> Any:
    """A protobuf scalar as JSON: bytes in base64, whole floats as integers. Raises Malformed."""
    match kind:
        case "string":
            return field.text()
        case "int32":
            return field.signed(32)
        case "int64":
            return field.signed()
        case "bool":
            return field.unsigned() != 0
        case "bytes":
            return base64.b64encode(field.span()).decode()
        case _:
            return _number(struct.unpack("<d", field.fixed64())[0])


SCALARS: dict[str, Any] = {"string": "", "int32": 0, "int64": 0, "bool": False, "bytes": "", "double": 0}
"""Zero values, which map entries leave out."""


def unpacked(kind: str, field: RawField) -> list[RawField]:
    """Repeated integers may come packed into one field; everything else is one value per field."""
    if kind not in _PACKED or field.wire != LENGTH:
        return [field]
    found: list[RawField] = []
    at = 0
    while at < len(field.data):
        value, at = varint(field.data, at)
        found.append(RawField(field.number, 0, value, field.data[:0]))
    return found


def _number(value: float) -> Any:
    if not math.isfinite(value):
        raise Malformed(f"{value} has no JSON form")
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _quantity(data: memoryview, reader: Reader) -> Value:
    text = _last(data, reader, 1)
    value = text.text() if text else ""
    return value or "0", value not in ("", "0")


def _int_or_string(data: memoryview, reader: Reader) -> Value:
    parts = {field.number: field for field in reader.fields(data)}
    if 1 in parts and parts[1].signed() not in (0, 1):
        raise Malformed("an IntOrString is of type 0 or 1")
    if 1 in parts and parts[1].signed() == 1:
        return (parts[3].text() if 3 in parts else ""), True
    value = parts[2].signed(32) if 2 in parts else 0
    return value, value != 0


def _time(data: memoryview, reader: Reader) -> Value:
    """Whole seconds; fractions of metav1.Time do not survive JSON."""
    made, _ = _instant(data, reader)
    return (made.isoformat().replace("+00:00", "Z"), True) if made else (None, False)


def _micro_time(data: memoryview, reader: Reader) -> Value:
    made, nanos = _instant(data, reader)
    if made is None:
        return None, False
    return f"{made.isoformat().removesuffix('+00:00')}.{nanos // 1000:06d}Z", True


def _instant(data: memoryview, reader: Reader) -> tuple[datetime | None, int]:
    if not data:
        return None, 0
    parts = {field.number: field for field in reader.fields(data)}
    seconds = parts[1].signed() if 1 in parts else 0
    nanos = parts[2].signed(32) if 2 in parts else 0
    if not 0 <= nanos < 1_000_000_000:
        raise Malformed(f"{nanos} is no fraction of a second in nanoseconds")
    if seconds == _GO_ZERO_TIME and not nanos:
        return None, 0
    try:
        return _EPOCH + timedelta(seconds=seconds), nanos
    except OverflowError as error:
        raise Malformed(f"{seconds} seconds is no time between the years 1 and 9999") from error


def _raw(data: memoryview, reader: Reader) -> Value:
    """RawExtension, FieldsV1 and JSON carry JSON text."""
    text = _last(data, reader, 1)
    if text is None or not text.span():
        return None, False
    try:
        return msgspec.json.decode(text.span()), True
    except MALFORMED as error:
        raise Malformed(f"the embedded JSON cannot be read: {error}") from error


def _last(data: memoryview, reader: Reader, number: int) -> RawField | None:
    found = None
    for field in reader.fields(data):
        if field.number == number:
            found = field
    return found


_META = "apimachinery.pkg.apis.meta.v1"
SPECIAL: dict[str, Callable[[memoryview, Reader], Value]] = {
    f"{_META}.Time": _time,
    f"{_META}.MicroTime": _micro_time,
    f"{_META}.FieldsV1": _raw,
    "apimachinery.pkg.runtime.RawExtension": _raw,
    "apimachinery.pkg.api.resource.Quantity": _quantity,
    "apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    "apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON": _raw,
}
