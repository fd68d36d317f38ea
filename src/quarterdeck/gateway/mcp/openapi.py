"""OpenAPI 3.0 and 3.1 documents as tools: each operation is one, named by its ``operationId``.

Arguments are grouped as agentgateway groups them: ``path``, ``query``, ``header`` and ``body``. Pure functions; calls
are made in :mod:`.rest`. Reference: agentgateway_and_peers.md §2.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from quarterdeck.errors import ConfigError

Json = dict[str, Any]
GROUPS = ("path", "query", "header", "body")
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_IGNORED_HEADERS = frozenset({"accept", "content-type", "authorization", "host", "content-length", "transfer-encoding"})
"""Not parameters by the specification (§4.8.12.1), or not ours to set."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_JSON_LIKE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+\+json")
_PATH = "/{}%:@!$&'()*+,;=~"
"""What of a path stays as it is written; anything else is escaped, so that it cannot end the request line."""
_DEPTH = 64


class Parameter(NamedTuple):
    name: str
    where: str
    required: bool
    style: str
    explode: bool


class Operation(NamedTuple):
    """One tool and how it is called."""

    tool: Json
    method: str
    path: str
    """With the base path, and names of parameters in braces."""
    parameters: tuple[Parameter, ...]
    body_type: str
    """Content type of the body; empty: there is none."""


class Prepared(NamedTuple):
    """A request that is ready to be sent."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


def operations(document: Json) -> dict[str, Operation]:
    """By name. Raises ConfigError naming the operation that cannot be a tool."""
    found: dict[str, Operation] = {}
    base = base_path(document)
    for path, item in _members(document.get("paths")).items():
        shared = _list(_resolved(document, item).get("parameters"))
        for method in _METHODS:
            operation = _members(item).get(method)
            if not isinstance(operation, dict):
                continue
            made = _operation(document, base + path, method, cast(Json, operation), shared)
            name = made.tool["name"]
            if name in found:
                raise ConfigError(f"openapi: two operations are called {name!r}; operationId must be unique")
            found[name] = made
    return found


def base_path(document: Json) -> str:
    """The path that the first server's URL has, without a slash at its end."""
    servers = _list(document.get("servers"))
    server = _members(servers[0]) if servers else {}
    url = str(server.get("url", ""))
    for name, variable in _members(server.get("variables")).items():
        url = url.replace(f"{{{name}}}", str(_members(variable).get("default", "")))
    path = urlsplit(url).path.rstrip("/")
    return path if path.startswith("/") or not path else f"/{path}"


def _operation(document: Json, path: str, method: str, operation: Json, shared: list[Any]) -> Operation:
    name = operation.get("operationId")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"openapi: {method.upper()} {path} has no operationId, which names its tool: add one")
    groups: dict[str, Json] = {}
    parameters: dict[tuple[str, str], Parameter] = {}
    for raw in (*shared, *_list(operation.get("parameters"))):
        _add_parameter(document, _resolved(document, raw), groups, parameters)
    body_type, body, required = _body(document, operation)
    schema: Json = {"type": "object", "properties": dict(groups)}
    needed = [group for group, properties in groups.items() if properties.get("required")]
    if body_type:
        schema["properties"]["body"] = body
        needed += ["body"] if required else []
    if needed:
        schema["required"] = needed
    definitions = _definitions(document, schema)
    if definitions:
        schema["$defs"] = definitions
    tool: Json = {"name": name, "inputSchema": schema, "annotations": _annotations(method, operation)}
    description = operation.get("description") or operation.get("summary")
    if description:
        tool["description"] = str(description)
    return Operation(tool, method.upper(), quote(path, safe=_PATH), tuple(parameters.values()), body_type)


def _add_parameter(
    document: Json, parameter: Json, groups: dict[str, Json], parameters: dict[tuple[str, str], Parameter]
) -> None:
    name, where = str(parameter.get("name", "")), str(parameter.get("in", ""))
    if where not in ("path", "query", "header") or not name or name.lower() in _IGNORED_HEADERS:
        return
    if where == "header" and not _TOKEN.fullmatch(name):
        raise ConfigError(f"openapi: parameter {name!r} cannot be a header")
    content = _members(parameter.get("content"))
    raw = parameter.get("schema") if not content else _members(next(iter(content.values()))).get("schema")
    schema = _schema(document, raw if raw is not None else {})
    if isinstance(schema, dict) and parameter.get("description") and "description" not in schema:
        schema["description"] = str(parameter["description"])
    group = groups.setdefault(where, {"type": "object", "properties": {}})
    group["properties"][name] = schema
    required = parameter.get("required") is True or where == "path"
    names = cast(list[str], group.get("required", []))
    if required and name not in names:
        group["required"] = [*names, name]
    style = str(parameter.get("style", "form" if where == "query" else "simple"))
    explode = parameter.get("explode", style == "form") is True
    parameters[where, name] = Parameter(name, where, required, style, explode)


def _body(document: Json, operation: Json) -> tuple[str, Any, bool]:
    """Content type, schema, and whether it is required."""
    body = _resolved(document, operation.get("requestBody"))
    content = _members(body.get("content"))
    for media, spec in content.items():
        kind = media.partition(";")[0].strip().lower()
        if kind in ("application/json", "*/*") or _JSON_LIKE.fullmatch(kind):
            sent = "application/json" if kind == "*/*" else kind
            schema = _schema(document, _members(spec).get("schema", {}))
            return sent, schema, body.get("required") is True
    return "", None, False


def _annotations(method: str, operation: Json) -> Json:
    hints: Json = {"openWorldHint": True, "readOnlyHint": method in ("get", "head", "options", "trace")}
    if not hints["readOnlyHint"]:
        hints["destructiveHint"] = method in ("delete", "put", "patch")
        hints["idempotentHint"] = method in ("delete", "put")
    return hints | ({"title": str(operation["summary"])} if operation.get("summary") else {})


# -- schemas


def _schema(document: Json, raw: Any, depth: int = 0) -> Any:
    """A schema as JSON Schema 2020-12 has it; references to components lead to ``$defs``."""
    if depth > _DEPTH:
        return {}
    if isinstance(raw, list):
        return [_schema(document, item, depth + 1) for item in cast(list[Any], raw)]
    if not isinstance(raw, dict):
        return raw
    schema: Json = {key: _schema(document, value, depth + 1) for key, value in cast(Json, raw).items()}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        schema["$ref"] = reference.replace("#/components/schemas/", "#/$defs/")
    if str(document.get("openapi", "")).startswith("3.0"):
        _modernize(schema)
    for key in ("example", "xml", "externalDocs", "discriminator"):
        if key in schema and not isinstance(schema[key], bool):
            schema.pop(key)
    return schema


def _modernize(schema: Json) -> None:
    """What OpenAPI 3.0 says in its own way."""
    if schema.pop("nullable", False) is True and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    for limit, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        exclusive = schema.get(limit)
        if isinstance(exclusive, bool):
            schema.pop(limit)
            if exclusive and bound in schema:
                schema[limit] = schema.pop(bound)


def _definitions(document: Json, schema: Json) -> Json:
    """The components that a schema leads to, directly or not."""
    components = _members(_members(document.get("components")).get("schemas"))
    found: Json = {}
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop()
        if name not in found and name in components:
            found[name] = _schema(document, components[name])
            waiting += _references(found[name])
    return dict(sorted(found.items()))


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for item in cast(list[Any], schema) for name in _references(item)]
    if not isinstance(schema, dict):
        return []
    node = cast(Json, schema)
    reference = node.get("$ref")
    own = [reference.removeprefix("#/$defs/")] if isinstance(reference, str) and "#/$defs/" in reference else []
    return own + [name for value in node.values() for name in _references(value)]


def _resolved(document: Json, node: Any) -> Json:
    """A parameter, body or path that may be a reference within the document. Never another document's."""
    for _ in range(_DEPTH):
        members = _members(node)
        reference = members.get("$ref")
        if not isinstance(reference, str):
            return members
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = _members(node).get(part.replace("~1", "/").replace("~0", "~"))
    return {}


def _members(node: Any) -> Json:
    return cast(Json, node) if isinstance(node, dict) else {}


def _list(node: Any) -> list[Any]:
    return cast(list[Any], node) if isinstance(node, list) else []


# -- calls


class ArgumentError(ValueError):
    """Arguments that no request can be made of; the text says which and why."""


def prepare(operation: Operation, arguments: Mapping[str, Any]) -> Prepared:
    """The request of a call. Raises ArgumentError."""
    groups: dict[str, Json] = {}
    for group in ("path", "query", "header"):
        given = arguments.get(group)
        if given is not None and not isinstance(given, dict):
            raise ArgumentError(f"argument {group} must be an object")
        groups[group] = _members(given)
    path, query, headers = operation.path, list[tuple[str, str]](), list[tuple[bytes, bytes]]()
    for parameter in operation.parameters:
        value = groups[parameter.where].get(parameter.name)
        if value is None:
            if parameter.required:
                raise ArgumentError(f"argument {parameter.where}.{parameter.name} is missing")
        elif parameter.where == "path":
            text = _simple(value)
            if text in ("", ".", ".."):
                raise ArgumentError(f"argument path.{parameter.name} must be a segment of a path")
            path = path.replace(f"{{{quote(parameter.name, safe=_PATH)}}}", quote(text, safe=""))
        elif parameter.where == "query":
            query += _query(parameter, value)
        else:
            headers.append((parameter.name.lower().encode(), _header(parameter.name, value)))
    body = b""
    if operation.body_type and "body" in arguments:
        body = msgspec.json.encode(arguments["body"])
        headers.append((b"content-type", operation.body_type.encode()))
    return Prepared(operation.method, path + (f"?{urlencode(query)}" if query else ""), headers, body)


def _query(parameter: Parameter, value: Any) -> list[tuple[str, str]]:
    """Styles form and deepObject of the specification (§4.8.12.4)."""
    name = parameter.name
    if isinstance(value, dict):
        members = cast(Json, value)
        if parameter.style == "deepObject":
            return [(f"{name}[{key}]", _scalar(item)) for key, item in members.items()]
        if parameter.explode:
            return [(key, _scalar(item)) for key, item in members.items()]
    if isinstance(value, list) and parameter.explode:
        return [(name, _scalar(item)) for item in cast(list[Any], value)]
    return [(name, _simple(value))]


def _header(name: str, value: Any) -> bytes:
    text = _simple(value)
    if any(c in text for c in "\r\n\0") or not text.isascii():
        raise ArgumentError(f"argument header.{name} has characters that no header can have")
    return text.encode()


def _simple(value: Any) -> str:
    """Style simple: items and members with commas between them."""
    if isinstance(value, list):
        return ",".join(_scalar(item) for item in cast(list[Any], value))
    if isinstance(value, dict):
        return ",".join(f"{key},{_scalar(item)}" for key, item in cast(Json, value).items())
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
