"""APIs described by OpenAPI as tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from quarterdeck import snapshot as s
from quarterdeck.errors import ConfigError
from quarterdeck.gateway.mcp import openapi
from quarterdeck.snapshot import routing as r
from quarterdeck.wire.http import Exchange, Server

from ..conftest import Rig
from .servers import Client, ask

PETS: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Pets", "version": "2", "description": "About pets."},
    "servers": [{"url": "https://example.org/{version}", "variables": {"version": {"default": "v1"}}}],
    "paths": {
        "/pets/{id}": {
            "parameters": [{"$ref": "#/components/parameters/Id"}],
            "get": {
                "operationId": "getPet",
                "summary": "One pet",
                "parameters": [
                    {"name": "fields", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                    {"name": "filter", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
                    {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
                    {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                ],
            },
            "put": {
                "operationId": "putPet",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}},
                },
            },
        }
    },
    "components": {
        "parameters": {"Id": {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}},
        "schemas": {
            "Pet": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "nullable": True},
                    "parent": {"$ref": "#/components/schemas/Pet"},
                    "age": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
                },
            }
        },
    },
}


def test_tools_have_grouped_arguments_and_schemas_of_today() -> None:
    found = openapi.operations(PETS)
    get, put = found["getPet"].tool, found["putPet"].tool
    assert get["inputSchema"]["required"] == ["path"]
    assert list(get["inputSchema"]["properties"]) == ["path", "query", "header"]
    assert list(get["inputSchema"]["properties"]["header"]["properties"]) == ["X-Trace"]
    assert (get["description"], get["annotations"]["readOnlyHint"]) == ("One pet", True)
    assert put["inputSchema"]["required"] == ["path", "body"]
    assert put["inputSchema"]["properties"]["body"] == {"$ref": "#/$defs/Pet"}
    pet = put["inputSchema"]["$defs"]["Pet"]["properties"]
    assert pet["name"] == {"type": ["string", "null"]} and pet["parent"] == {"$ref": "#/$defs/Pet"}
    assert pet["age"] == {"type": "integer", "exclusiveMinimum": 0}
    assert found["getPet"].path == "/v1/pets/{id}"


@pytest.mark.parametrize(
    "paths", [{"/a": {"get": {}}}, {"/a": {"get": {"operationId": "x"}, "put": {"operationId": "x"}}}]
)
def test_operations_that_are_no_tools_are_named(paths: Any) -> None:
    with pytest.raises(ConfigError, match="operationId"):
        openapi.operations({"openapi": "3.1.0", "paths": paths})


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "path.id is missing"),
        ({"path": {"id": ".."}}, "segment"),
        ({"path": []}, "must be an object"),
        ({"path": {"id": 1}, "header": {"X-Trace": "a\r\nb"}}, "header"),
    ],
)
def test_arguments_that_no_request_can_be_made_of(arguments: Any, problem: str) -> None:
    with pytest.raises(openapi.ArgumentError, match=problem):
        openapi.prepare(openapi.operations(PETS)["getPet"], arguments)


def test_a_value_stays_in_its_place() -> None:
    made = openapi.prepare(
        openapi.operations(PETS)["getPet"],
        {"path": {"id": "../a?b#c/d"}, "query": {"fields": ["a&b=c", "d"], "filter": {"x": True}}},
    )
    assert made.target == "/v1/pets/..%2Fa%3Fb%23c%2Fd?fields=a%26b%3Dc&fields=d&filter%5Bx%5D=true"


def test_what_a_document_names_cannot_end_a_line_of_the_request() -> None:
    parameters = [{"name": "my id", "in": "path", "required": True}]
    content = {"x/y\r\nx-evil: 1+json": {"schema": {}}, "application/vnd.a+json": {"schema": {}}}
    operation = {"operationId": "x", "parameters": parameters, "requestBody": {"content": content}}
    document = {"openapi": "3.1.0", "paths": {"/a b HTTP/1.1\r\nx: y/{my id}/\u00e9": {"post": operation}}}
    made = openapi.prepare(openapi.operations(document)["x"], {"path": {"my id": "1/2"}, "body": 1})
    assert made.target == "/a%20b%20HTTP/1.1%0D%0Ax:%20y/1%2F2/%C3%A9"
    assert (b"content-type", b"application/vnd.a+json") in made.headers
    wrong = {"operationId": "x", "parameters": [{"name": "x-a: b\r\nx-c", "in": "header"}]}
    with pytest.raises(ConfigError, match="cannot be a header"):
        openapi.operations({"openapi": "3.1.0", "paths": {"/": {"get": wrong}}})


@pytest.fixture
async def api() -> AsyncIterator[tuple[int, list[Exchange]]]:
    seen: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        seen.append(exchange)
        status = {b"/v1/pets/404": 404, b"/v1/pets/500": 500}.get(exchange.raw_path, 200)
        exchange.respond(status, b'{"name":"Rex"}', [(b"content-type", b"application/json")])

    server = Server(handle, name="api")
    _, port = await server.listen("127.0.0.1", 0)
    yield port, seen
    await server.stop(0)


async def test_calls_of_both_eras_become_requests(bare: Rig, api: tuple[int, list[Exchange]]) -> None:
    port, seen = api
    header = s.HeaderValue("x-key", "k", secret=True)
    server = s.McpServer(
        "ns", "pets", "Target", "", endpoints=(s.Endpoint("127.0.0.1", port),), headers=(header,), openapi=PETS
    )
    group = r.RouteBackend(mcp=r.McpBackend("all", (r.McpTarget("pets", "Target/ns/pets"),)))
    group = msgspec.structs.replace(group, policies=r.Policies(open=True))
    front = r.Listener(
        "front", 0, "127.0.0.1", routes=(r.Route("r", policies=r.Policies(open=True), backends=(group,)),)
    )
    bare.gateway.use(s.Snapshot(version="v1", mcp=(server,), listeners=(front,)))
    await bare.gateway.listeners.settled()
    client = Client(bare)
    said = (await client.initialize())["result"]
    assert (said["serverInfo"]["name"], said["instructions"]) == ("Pets", "About pets.")
    assert [t["name"] for t in (await client.call("tools/list"))["result"]["tools"]] == ["getPet", "putPet"]
    put = {"path": {"id": 7}, "body": {"name": "Rex"}}
    answer = (await client.call("tools/call", name="putPet", arguments=put))["result"]
    assert answer["structuredContent"] == {"name": "Rex"}
    assert (seen[0].method, seen[0].target, seen[0].body) == ("PUT", b"/v1/pets/7", b'{"name":"Rex"}')
    assert seen[0].header(b"x-key") == b"k" and seen[0].header(b"content-type") == b"application/json"
    missing = (await client.call("tools/call", name="getPet", arguments={"path": {"id": 404}}))["result"]
    assert missing["isError"] and missing["content"][0]["text"].startswith("HTTP 404")
    assert (
        "HTTP 500"
        in (await client.call("tools/call", name="getPet", arguments={"path": {"id": 500}}))["error"]["message"]
    )
    assert (await client.call("tools/call", name="getPet", arguments={}))["result"]["isError"]
    modern = (await ask(bare, "tools/call", name="getPet", arguments={"path": {"id": 1}}))["result"]
    assert modern["structuredContent"] == {"name": "Rex"} and modern["resultType"] == "complete"
    assert [t["name"] for t in (await ask(bare, "tools/list"))["result"]["tools"]] == ["getPet", "putPet"]
