"""Request bodies in ``application/vnd.kubernetes.protobuf``: kubectl's typed clients send nothing else.

Only decoding: answers are JSON, which those clients accept. Field numbers are in ``protobuf_fields.json``, made by
``protobuf_generate`` out of the struct tags of the Kubernetes API. Wire format: protobuf encoding; frame: ``k8s\\0`` +
runtime.Unknown (https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding).
"""

from __future__ import annotations

import base64
import importlib.resources
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec

from quarterdeck.apiserver.objects import rfc3339
from quarterdeck.errors import BadRequest
from quarterdeck.kube.resource import Object

MAGIC = b"k8s\x00"
_META = "k8s.io/apimachinery/pkg/apis/meta/v1"
_MAX_DEPTH = 64

Row = tuple[str, str, bool]
"""(JSON name, type, whether a zero value is kept)."""


@cache
def _messages() -> dict[str, dict[int, Row]]:
    raw = importlib.resources.files("quarterdeck.apiserver").joinpath("protobuf_fields.json").read_bytes()
    found: dict[str, list[tuple[int, str, str, int]]] = msgspec.json.decode(raw)
    return {
        name: {number: (key, kind, bool(keep)) for number, key, kind, keep in rows} for name, rows in found.items()
    }


def decode(body: bytes) -> Object:
    """The object in an envelope, as JSON data. Raises BadRequest for what is no Kubernetes protobuf."""
    if not body.startswith(MAGIC):
        raise BadRequest("the request body is not in the Kubernetes protobuf format: it does not begin with k8s\\0")
    try:
        api_version = kind = ""
        raw = b""
        for number, value in _fields(body[len(MAGIC) :]):
            if number == 1:
                names = {n: bytes(v).decode() for n, v in _fields(value)}
                api_version, kind = names.get(1, ""), names.get(2, "")
            elif number == 2:
                raw = value
        name = _message_name(api_version, kind)
        return {"apiVersion": api_version, "kind": kind, **_message(name, raw, 0)}
    except (IndexError, ValueError, TypeError, struct.error) as error:
        raise BadRequest(f"the protobuf request body cannot be decoded: {error}") from error


def _message_name(api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    if group == "rbac.authorization.k8s.io":
        group = "rbac"
    package = group.removesuffix(".k8s.io") if group else "core"
    names = [f"k8s.io/api/{package}/{version}.{kind}", f"{_META}.{kind}"]
    found = next((name for name in names if name in _messages()), None)
    if found is None:
        raise BadRequest(f"no protobuf form of {api_version} {kind} is known; send application/json")
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint is too long")


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value): int for varints, bytes for the length-delimited and fixed ones."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} is not used by Kubernetes")
        if at + size > end:
            raise ValueError("a field is longer than the body")
        yield number, data[at : at + size]
        at += size


def _message(name: str, data: bytes, depth: int) -> Object:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    rows = _messages()[name]
    made: Object = {}
    for number, raw in _fields(data):
        row = rows.get(number)
        if row is None:
            continue  # a field of a newer Kubernetes
        key, kind, keep_zero = row
        if kind.startswith("list:"):
            made.setdefault(key, []).append(_value(kind[5:], raw, depth))
        elif kind.startswith("map:"):
            entry = dict(_fields(raw))
            value = entry.get(2, 0 if kind[4:] in ("int", "bool") else b"")
            made.setdefault(key, {})[bytes(entry.get(1, b"")).decode()] = _value(kind[4:], value, depth)
        else:
            value = _value(kind, raw, depth)
            if not key:
                made.update(value)
            elif value is not None and (keep_zero or isinstance(value, dict) or value not in (0, "", False)):
                made[key] = value
    return made


def _value(kind: str, raw: Any, depth: int) -> Any:
    if kind.startswith("msg:"):
        return _message(kind[4:], raw, depth + 1)
    if kind.startswith("items:"):
        return [_value(kind[6:], value, depth) for number, value in _fields(raw) if number == 1]
    match kind:
        case "string":
            return bytes(raw).decode()
        case "int":
            return raw - (1 << 64) if raw >= 1 << 63 else raw
        case "bool":
            return bool(raw)
        case "bytes":
            return base64.b64encode(raw).decode()
        case "double":
            return struct.unpack("<d", raw)[0]
        case "quantity":
            return next((bytes(v).decode() for n, v in _fields(raw) if n == 1), "0")
        case "time" | "microtime":
            return _time(dict(_fields(raw)), micro=kind == "microtime")
        case "intstr":
            parts = dict(_fields(raw))
            return bytes(parts.get(3, b"")).decode() if parts.get(1) else _value("int", parts.get(2, 0), depth)
        case _:  # raw: JSON inside
            inner = next((v for n, v in _fields(raw) if n == 1), b"")
            return msgspec.json.decode(inner) if inner else None


def _time(parts: dict[int, Any], *, micro: bool) -> str | None:
    if not parts:
        return None
    seconds = int(_value("int", parts.get(1, 0), 0))
    text = rfc3339(seconds)
    return f"{text[:-1]}.{parts.get(2, 0) // 1000:06d}Z" if micro else text
