"""The MCP server that the conformance suite's scenarios need: its tools, prompts and resources, on the official SDK.

``python everything.py --port 0`` serves Streamable HTTP in both eras and prints its URL; ``--stdio`` serves standard
input and output. ``--era legacy`` refuses 2026-07-28, as servers of older SDKs do; ``--era modern`` all that is older.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

warnings.simplefilter("ignore")  # the scenarios use what 2026-07-28 deprecates

Json = dict[str, Any]
Context = Any
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
SILENCE = base64.b64encode(
    b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0"
).decode()
MISSING_CAPABILITY = -32021
NO_ARGUMENTS: Json = {"type": "object", "properties": {}}


def text(value: str) -> Json:
    return {"type": "text", "text": value}


def elicitation(message: str, **properties: Json) -> Json:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def sampling(prompt: str, tokens: int = 100) -> Json:
    message = {"role": "user", "content": text(prompt)}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": tokens}}


STRING: Json = {"type": "string"}
ROOTS: Json = {"method": "roots/list", "params": {}}
NAME = elicitation("What is your name?", name=STRING)

bus = InMemorySubscriptionBus()
Tool = Callable[[Context, types.CallToolRequestParams], Awaitable[Any]]
TOOLS: dict[str, tuple[Tool, Json]] = {}


def tool(schema: Json = NO_ARGUMENTS, name: str = "") -> Callable[[Tool], Tool]:
    def add(function: Tool) -> Tool:
        TOOLS[name or function.__name__] = (function, schema)
        return function

    return add


def result(*content: Json, **more: Any) -> types.CallToolResult:
    return types.CallToolResult.model_validate({"content": list(content), **more})


def ask(requests: Json, state: str | None = None) -> types.InputRequiredResult:
    return types.InputRequiredResult.model_validate({"inputRequests": requests, "requestState": state})


def answers(params: Any) -> Json:
    """The client's answers as plain JSON."""
    given = params.input_responses or {}
    return {
        key: value.model_dump(mode="json", by_alias=True, exclude_none=True) if hasattr(value, "model_dump") else value
        for key, value in given.items()
    }


def accepted(answer: Any, field: str) -> Any:
    """A field of an accepted elicitation; None when it is no such answer."""
    content = answer.get("content") if isinstance(answer, dict) and answer.get("action") == "accept" else None
    return content.get(field) if isinstance(content, dict) else None


# -- content


@tool()
async def test_simple_text(ctx: Context, params: Any) -> Any:
    return result(text("This is a simple text response for testing."))


@tool()
async def test_image_content(ctx: Context, params: Any) -> Any:
    return result({"type": "image", "data": PIXEL, "mimeType": "image/png"})


@tool()
async def test_audio_content(ctx: Context, params: Any) -> Any:
    return result({"type": "audio", "data": SILENCE, "mimeType": "audio/wav"})


@tool()
async def test_embedded_resource(ctx: Context, params: Any) -> Any:
    resource = {"uri": "test://embedded-resource", "mimeType": "text/plain"}
    return result({"type": "resource", "resource": resource | {"text": "This is an embedded resource content."}})


@tool()
async def test_multiple_content_types(ctx: Context, params: Any) -> Any:
    resource = {"uri": "test://mixed-content-resource", "mimeType": "application/json"}
    return result(
        text("Multiple content types test:"),
        {"type": "image", "data": PIXEL, "mimeType": "image/png"},
        {"type": "resource", "resource": resource | {"text": json.dumps({"test": "data", "value": 123})}},
    )


@tool()
async def test_error_handling(ctx: Context, params: Any) -> Any:
    return result(text("This tool intentionally returns an error for testing"), isError=True)


@tool({
    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
    "$defs": {"address": {
        "$anchor": "addressDef", "type": "object", "properties": {"street": STRING, "city": STRING},
    }},
    "properties": {
        "name": STRING, "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]}, "phone": STRING, "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]}, "else": {"required": ["email"]},
    "additionalProperties": False,
})  # fmt: skip
async def json_schema_2020_12_tool(ctx: Context, params: Any) -> Any:
    return result(text(f"called with {json.dumps(params.arguments)}"))


@tool({"type": "object", "properties": {
    "region": {"type": "string", "x-mcp-header": "Region"}, "priority": {"type": "integer", "x-mcp-header": "Priority"},
    "verbose": {"type": "boolean", "x-mcp-header": "Verbose"}, "query": STRING,
}})  # fmt: skip
async def test_custom_headers(ctx: Context, params: Any) -> Any:
    return result(text(json.dumps(params.arguments)))


@tool({"type": "object", "properties": {"value": {"type": "string", "x-mcp-header": "Value"}}})
async def test_x_mcp_header(ctx: Context, params: Any) -> Any:
    return result(text(json.dumps(params.arguments)))


# -- notifications


@tool()
async def test_tool_with_logging(ctx: Context, params: Any) -> Any:
    for message in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", message, related_request_id=ctx.request_id)
        await asyncio.sleep(0.05)
    return result(text("Tool with logging executed successfully"))


@tool()
async def test_logging_tool(ctx: Context, params: Any) -> Any:
    await ctx.session.send_log_message("info", "a line", related_request_id=ctx.request_id)
    return result(text("logged where it was asked for"))


@tool()
async def test_tool_with_progress(ctx: Context, params: Any) -> Any:
    for progress in (0, 50, 100):
        await ctx.session.report_progress(progress, 100, f"{progress} of 100")
        await asyncio.sleep(0.05)
    return result(text("Tool with progress executed successfully"))


@tool()
async def test_streaming_elicitation(ctx: Context, params: Any) -> Any:
    await ctx.session.report_progress(1, 2)
    return ask({"user_name": NAME}) if not answers(params) else result(text("done"))


@tool()
async def test_trigger_tool_change(ctx: Context, params: Any) -> Any:
    await bus.publish(ToolsListChanged())
    if ctx.protocol_version < "2026":
        await ctx.session.send_tool_list_changed()
    return result(text("tools changed"))


@tool()
async def test_trigger_prompt_change(ctx: Context, params: Any) -> Any:
    await bus.publish(PromptsListChanged())
    if ctx.protocol_version < "2026":
        await ctx.session.send_prompt_list_changed()
    return result(text("prompts changed"))


@tool()
async def test_reconnection(ctx: Context, params: Any) -> Any:
    """Closes its stream in the middle of the call; the client polls with Last-Event-ID (SEP-1699)."""
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
        await asyncio.sleep(0.1)
    return result(text("Reconnection test completed successfully"))


# -- requests to the client, sessions (until 2025-11-25)


@tool({"type": "object", "properties": {"prompt": STRING}, "required": ["prompt"]})
async def test_sampling(ctx: Context, params: Any) -> Any:
    request = sampling(params.arguments["prompt"])
    if ctx.protocol_version >= "2026":
        given = answers(params)
        return result(text(f"LLM response: {given['sample']}")) if "sample" in given else ask({"sample": request})
    message = types.SamplingMessage.model_validate(request["params"]["messages"][0])
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return result(text(f"LLM response: {answer.content.text}"))


async def elicited(ctx: Context, params: Any, request: Json, title: str) -> Any:
    """Ask for input in the way of the era."""
    if ctx.protocol_version >= "2026":
        given = answers(params)
        if "input" not in given:
            return ask({"input": request})
        action, content = given["input"].get("action"), given["input"].get("content")
    else:
        asked = request["params"]
        answer = await ctx.session.elicit_form(asked["message"], asked["requestedSchema"], ctx.request_id)
        action, content = answer.action, answer.content
    return result(text(f"{title}: action={action}, content={json.dumps(content)}"))


@tool({"type": "object", "properties": {"message": STRING}, "required": ["message"]})
async def test_elicitation(ctx: Context, params: Any) -> Any:
    fields = {
        "username": STRING | {"description": "User's response"},
        "email": STRING | {"description": "User's email address"},
    }
    return await elicited(ctx, params, elicitation(params.arguments["message"], **fields), "User response")


@tool()
async def test_elicitation_sep1034_defaults(ctx: Context, params: Any) -> Any:
    request = elicitation(
        "Please review and update the form fields with defaults",
        name=STRING | {"default": "John Doe"}, age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status=STRING | {"enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )  # fmt: skip
    request["params"]["requestedSchema"]["required"] = []
    return await elicited(ctx, params, request, "Elicitation completed")


@tool()
async def test_elicitation_sep1330_enums(ctx: Context, params: Any) -> Any:
    options = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second"), 1)]
    request = elicitation(
        "Please select options from the enum fields",
        untitledSingle=STRING | {"enum": options}, titledSingle=STRING | {"oneOf": titled},
        legacyEnum=STRING | {"enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        untitledMulti={"type": "array", "items": STRING | {"enum": options}},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )  # fmt: skip
    request["params"]["requestedSchema"]["required"] = []
    return await elicited(ctx, params, request, "Elicitation completed")


# -- input_required (from 2026-07-28)


@tool()
async def test_input_required_result_elicitation(ctx: Context, params: Any) -> Any:
    name = accepted(answers(params).get("user_name"), "name")
    return result(text(f"Hello, {name}!")) if isinstance(name, str) else ask({"user_name": NAME})


@tool()
async def test_input_required_result_sampling(ctx: Context, params: Any) -> Any:
    given = answers(params).get("capital_question")
    if given is None:
        return ask({"capital_question": sampling("What is the capital of France?")})
    return result(text(json.dumps(given["content"])))


@tool()
async def test_input_required_result_list_roots(ctx: Context, params: Any) -> Any:
    given = answers(params).get("client_roots")
    return ask({"client_roots": ROOTS}) if given is None else result(text(json.dumps(given["roots"])))


@tool()
async def test_input_required_result_request_state(ctx: Context, params: Any) -> Any:
    if params.request_state == "asked" and "confirm" in answers(params):
        return result(text("state-ok"))
    return ask({"confirm": elicitation("Please confirm", ok={"type": "boolean"})}, "asked")


@tool()
async def test_input_required_result_tampered_state(ctx: Context, params: Any) -> Any:
    return await test_input_required_result_request_state(ctx, params)


@tool()
async def test_input_required_result_multiple_inputs(ctx: Context, params: Any) -> Any:
    given = answers(params)
    if {"user_name", "greeting", "client_roots"} <= given.keys():
        return result(text(f"{accepted(given['user_name'], 'name')}: all three answered"))
    return ask({"user_name": NAME, "greeting": sampling("Generate a greeting", 50), "client_roots": ROOTS}, "asked")


@tool()
async def test_input_required_result_multi_round(ctx: Context, params: Any) -> Any:
    given, state = answers(params), params.request_state or ""
    if state.startswith("name:") and (color := accepted(given.get("step2"), "color")) is not None:
        return result(text(f"{state[5:]} likes {color}"))
    if state == "begun" and (name := accepted(given.get("step1"), "name")) is not None:
        return ask({"step2": elicitation("Step 2: What is your favorite color?", color=STRING)}, f"name:{name}")
    return ask({"step1": elicitation("Step 1: What is your name?", name=STRING)}, "begun")


@tool()
async def test_input_required_result_capabilities(ctx: Context, params: Any) -> Any:
    has = ctx.session.client_capabilities
    requests: Json = {}
    if has is not None and has.sampling is not None:
        requests["sample"] = sampling("What is the capital of France?")
    if has is not None and has.elicitation is not None:
        requests["user_name"] = NAME
    return ask(requests) if requests and not answers(params) else result(text("nothing to ask"))


@tool()
async def test_missing_capability(ctx: Context, params: Any) -> Any:
    has = ctx.session.client_capabilities
    if has is None or has.sampling is None:
        needed = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_CAPABILITY, "this tool needs the client's sampling capability", needed)
    return result(text("the client can sample"))


# -- resources, prompts, completion


async def list_tools(ctx: Context, params: Any) -> types.ListToolsResult:
    listed = [{"name": n, "description": f"Fixture {n}", "inputSchema": schema} for n, (_, schema) in TOOLS.items()]
    return types.ListToolsResult.model_validate({"tools": listed})


async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> Any:
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    return await to_the_end(TOOLS[params.name][0], ctx, params)


KINDS: dict[str, tuple[Any, Any]] = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}


async def to_the_end(handler: Any, ctx: Context, params: Any) -> Any:
    """Where sessions are spoken, what a handler asks for is asked of the client at once, in the middle of the call."""
    outcome = await handler(ctx, params)
    while ctx.protocol_version < "2026" and isinstance(outcome, types.InputRequiredResult):
        asked = outcome.model_dump(mode="json", by_alias=True, exclude_none=True)["inputRequests"]
        given = await asyncio.gather(*(put(ctx, key, question) for key, question in asked.items()))
        answered = {"inputResponses": dict(zip(asked, given, strict=True)), "requestState": outcome.request_state}
        whole = params.model_dump(mode="json", by_alias=True, exclude_none=True) | answered
        outcome = await handler(ctx, type(params).model_validate(whole))
    return outcome


async def put(ctx: Context, key: str, question: Json) -> Json:
    request, answer = KINDS[question["method"]]
    named = question["params"] | {"_meta": {"dev.quarterdeck/inputKey": key}}
    body = request.model_validate({"method": question["method"], "params": named})
    metadata = ServerMessageMetadata(related_request_id=ctx.request_id)
    given = await ctx.session.send_request(body, answer, metadata=metadata)
    return given.model_dump(mode="json", by_alias=True, exclude_none=True)


RESOURCES: dict[str, Json] = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PIXEL},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched resource content."},
}


async def list_resources(ctx: Context, params: Any) -> types.ListResourcesResult:
    listed = [
        {"uri": uri, "name": uri[7:], "description": f"Fixture {uri}", "mimeType": content["mimeType"]}
        for uri, content in RESOURCES.items()
    ]
    return types.ListResourcesResult.model_validate({"resources": listed})


async def list_templates(ctx: Context, params: Any) -> types.ListResourceTemplatesResult:
    template = {
        "uriTemplate": "test://template/{id}/data", "name": "template", "description": "A template",
        "mimeType": "application/json",
    }  # fmt: skip
    return types.ListResourceTemplatesResult.model_validate({"resourceTemplates": [template]})


async def read_resource(ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = str(params.uri)
    content = RESOURCES.get(uri)
    if uri.startswith("test://template/") and uri.endswith("/data"):
        id_ = uri.removeprefix("test://template/").removesuffix("/data")
        data = {"id": id_, "templateTest": True, "data": f"Data for ID: {id_}"}
        content = {"mimeType": "application/json", "text": json.dumps(data, separators=(",", ":"))}
    if content is None:
        raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
    return types.ReadResourceResult.model_validate({"contents": [{"uri": uri} | content]})


async def subscribe(ctx: Context, params: Any) -> types.EmptyResult:
    return types.EmptyResult()


PROMPTS: dict[str, list[str]] = {
    "test_simple_prompt": [], "test_prompt_with_arguments": ["arg1", "arg2"], "test_prompt_with_image": [],
    "test_prompt_with_embedded_resource": ["resourceUri"], "test_input_required_result_prompt": [],
}  # fmt: skip


async def list_prompts(ctx: Context, params: Any) -> types.ListPromptsResult:
    listed = [
        {
            "name": name, "description": f"Fixture {name}",
            "arguments": [{"name": a, "description": a, "required": True} for a in arguments],
        }
        for name, arguments in PROMPTS.items()
    ]  # fmt: skip
    return types.ListPromptsResult.model_validate({"prompts": listed})


async def get_prompt(ctx: Context, params: types.GetPromptRequestParams) -> Any:
    given = params.arguments or {}
    if params.name not in PROMPTS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    content: list[Json]
    if params.name == "test_input_required_result_prompt":
        context = accepted(answers(params).get("user_context"), "context")
        if context is None:
            return ask({"user_context": elicitation("What context should the prompt use?", context=STRING)})
        content = [text(f"Context: {context}")]
    elif params.name == "test_prompt_with_arguments":
        content = [text(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")]
    elif params.name == "test_prompt_with_embedded_resource":
        resource = {"uri": given.get("resourceUri"), "mimeType": "text/plain"}
        resource["text"] = "Embedded resource content for testing."
        content = [{"type": "resource", "resource": resource}, text("Please process the embedded resource above.")]
    elif params.name == "test_prompt_with_image":
        content = [{"type": "image", "data": PIXEL, "mimeType": "image/png"}, text("Please analyze the image above.")]
    else:
        content = [text("This is a simple prompt for testing.")]
    return types.GetPromptResult.model_validate({"messages": [{"role": "user", "content": c} for c in content]})


async def complete(ctx: Context, params: Any) -> types.CompleteResult:
    values = [v for v in ("paris", "park", "party") if v.startswith(params.argument.value)]
    return types.CompleteResult.model_validate({"completion": {"values": values, "hasMore": False}})


class Memory(EventStore):
    """Events of all streams, for clients that poll with Last-Event-ID."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        at = int(last_event_id)
        stream = self._events[at - 1][0]
        for number, (of, message) in enumerate(self._events[at:], at + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def build() -> Server[Any]:
    hints = {m: CacheHint(60_000, "public") for m in (
        "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read", "server/discover",
    )}  # fmt: skip
    server: Server[Any] = Server(
        "everything", version="1.0", instructions="Fixtures of the MCP conformance suite.", cache_hints=hints,  # type: ignore[arg-type]
        on_list_tools=list_tools, on_call_tool=call_tool, on_list_resources=list_resources,
        on_list_resource_templates=list_templates, on_read_resource=read_resource, on_subscribe_resource=subscribe,
        on_unsubscribe_resource=subscribe, on_list_prompts=list_prompts,
        on_get_prompt=lambda ctx, params: to_the_end(get_prompt, ctx, params),
        on_completion=complete, on_set_logging_level=subscribe, on_subscriptions_listen=ListenHandler(bus),
    )  # fmt: skip
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience="everything"))
    return server


def refuse_modern(app: Any) -> Any:
    """The server of an older SDK: it knows no version after 2025-11-25."""

    async def legacy(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and headers.get(b"mcp-protocol-version") == b"2026-07-28":
            error = {"code": -32000, "message": "Bad Request: Unsupported protocol version"}
            body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
            kind = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 400, "headers": kind})
            await send({"type": "http.response.body", "body": body})
        else:
            await app(scope, receive, send)

    return legacy


def refuse_legacy(app: Any) -> Any:
    """A server of an SDK that has left sessions behind: it knows no version before 2026-07-28."""

    async def modern(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] != "http" or headers.get(b"mcp-protocol-version") == b"2026-07-28":
            await app(scope, receive, send)
            return
        data = {"supported": ["2026-07-28"], "requested": headers.get(b"mcp-protocol-version", b"").decode()}
        error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
        body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
        kind = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 400, "headers": kind})
        await send({"type": "http.response.body", "body": body})

    return modern


async def over_stdio() -> None:
    server = build()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def over_http(port: int, era: str) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    app = build().streamable_http_app(event_store=Memory(), retry_interval=200)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    served = {"legacy": refuse_modern, "modern": refuse_legacy}.get(era, lambda app: app)(app)
    config = uvicorn.Config(served, http="h11", log_level="warning", lifespan="on")
    uvicorn.Server(config).run([listener])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stdio", action="store_true")
    parser.add_argument("--era", choices=("both", "legacy", "modern"), default="both")
    options = parser.parse_args()
    if options.stdio:
        asyncio.run(over_stdio())
    else:
        over_http(options.port, options.era)


if __name__ == "__main__":
    sys.exit(main())
