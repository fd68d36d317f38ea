"""Message classes for the schema, made in a descriptor pool of our own, and JSON from and to them."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from google.protobuf import any_pb2, empty_pb2, json_format, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from quarterdeck.a2atypes import Json
from quarterdeck.a2atypes.errors import InvalidParams

from .schema import ENUMS, MESSAGES, PACKAGE

_SCALARS: Final = {
    kind: FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}") for kind in ("string", "bytes", "bool", "int32")
}
_REPEATED: Final = FieldDescriptorProto.Label.Value("LABEL_REPEATED")
_OPTIONAL: Final = FieldDescriptorProto.Label.Value("LABEL_OPTIONAL")
_KNOWN: Final = ("Struct", "Value", "Timestamp", "Any")
_RPC = """
Status: code 1 int32, message 2 string, details 3 Any*
ErrorInfo: reason 1 string, domain 2 string, metadata 3 map:string
BadRequest: field_violations 1 FieldViolation*
FieldViolation: field 1 string, description 2 string
"""


def encode(name: str, value: Json) -> bytes:
    """A message of that name as bytes. Members that it does not know are left out."""
    return json_format.ParseDict(
        value, _class(name)(), ignore_unknown_fields=True, max_recursion_depth=100
    ).SerializeToString()


def decode(name: str, data: bytes) -> Json:
    """Raises InvalidParams for what is no such message."""
    message = _class(name)()
    try:
        message.ParseFromString(data)
        return json_format.MessageToDict(message)
    except (DecodeError, json_format.Error, ValueError) as error:
        raise InvalidParams(f"request: is no {name}: {error}") from error


def status(code: int, message: str, details: list[Json]) -> bytes:
    """``google.rpc.Status`` for ``grpc-status-details-bin``; ``details`` as errors.details gives them."""
    packed: list[Message] = []
    for detail in details:
        url = str(detail["@type"])
        name = url.rpartition(".")[2]
        if name == "ErrorInfo":
            body = _parse("google.rpc.ErrorInfo", {k: v for k, v in detail.items() if k != "@type"})
        else:
            body = _parse("google.rpc.BadRequest", {"fieldViolations": detail["fieldViolations"]})
        packed.append(_class("google.protobuf.Any")(type_url=url, value=body.SerializeToString()))
    found: Any = _class("google.rpc.Status")(code=code, message=message)
    found.details.extend(packed)
    return found.SerializeToString()


def _parse(name: str, value: Json) -> Message:
    return json_format.ParseDict(value, _class(name)())


@cache
def _class(name: str) -> type[Message]:
    full = name if "." in name else f"google.protobuf.{name}" if name == "Empty" else f"{PACKAGE}.{name}"
    return GetMessageClass(_pool().FindMessageTypeByName(full))


@cache
def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for module in (any_pb2, empty_pb2, struct_pb2, timestamp_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in (_file(PACKAGE, MESSAGES, ENUMS), _file("google.rpc", _RPC, {})):
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _file(package: str, messages: str, enums: dict[str, tuple[str, ...]]) -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend(f"google/protobuf/{name}.proto" for name in ("any", "empty", "struct", "timestamp"))
    for name, values in enums.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for line in messages.replace("\n  ", " ").strip().splitlines():
        name, _, fields = line.partition(": ")
        message = file.message_type.add(name=name)
        for field in fields.split(", "):
            _add_field(message, field, package, enums)
        _add_presence(message)
    return file


def _add_field(message: DescriptorProto, text: str, package: str, enums: dict[str, tuple[str, ...]]) -> None:
    name, number, kind = text.split()
    field = message.field.add(name=name, number=int(number), json_name=_camel(name), label=_OPTIONAL)
    kind, _, oneof = kind.partition("|")
    if oneof:
        names = [each.name for each in message.oneof_decl]
        if oneof not in names:
            message.oneof_decl.add(name=oneof)
            names.append(oneof)
        field.oneof_index = names.index(oneof)
    if kind.endswith("?"):
        field.proto3_optional, kind = True, kind[:-1]
    if kind.startswith("map:"):
        entry = message.nested_type.add(name=f"{_camel(name)[0].upper()}{_camel(name)[1:]}Entry")
        entry.options.map_entry = True
        _set_type(entry.field.add(name="key", number=1, json_name="key", label=_OPTIONAL), "string", package, enums)
        _set_type(entry.field.add(name="value", number=2, json_name="value", label=_OPTIONAL), kind[4:], package, enums)
        field.label, field.type = _REPEATED, FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{package}.{message.name}.{entry.name}"
        return
    if kind.endswith("*"):
        field.label, kind = _REPEATED, kind[:-1]
    _set_type(field, kind, package, enums)


def _set_type(field: FieldDescriptorProto, kind: str, package: str, enums: dict[str, tuple[str, ...]]) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    field.type = FieldDescriptorProto.TYPE_ENUM if kind in enums else FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = f".google.protobuf.{kind}" if kind in _KNOWN else f".{package}.{kind}"


def _add_presence(message: DescriptorProto) -> None:
    """Each optional field is a oneof of its own, after the real ones."""
    for field in message.field:
        if field.proto3_optional:
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(each.capitalize() for each in rest)
