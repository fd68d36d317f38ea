"""What we send and answer, held against the types of the providers' own SDKs; run in an environment that has those.

Reads JSON on standard input, prints a line for each thing that does not fit.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from typing import Any

import botocore.auth
import botocore.session
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from botocore.validate import ParamValidator
from google.genai import types
from ollama._types import ChatRequest, ChatResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter

DATA: dict[str, Any] = json.load(sys.stdin)
RUNTIME = botocore.session.get_session().get_service_model("bedrock-runtime")
ANTHROPIC, RESPONSES = TypeAdapter(MessageCreateParamsNonStreaming), TypeAdapter(ResponseCreateParamsNonStreaming)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def fits(name: str, check: Callable[[], object]) -> None:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - whatever an SDK says against it
        print(f"{name}: {type(error).__name__}: {str(error)[:500]}")


def gemini(body: dict[str, Any]) -> None:
    for content in body["contents"]:
        types.Content.model_validate(content)
    for tool in body.get("tools", []):
        types.Tool.model_validate(tool)
    types.ToolConfig.model_validate(body.get("toolConfig", {}))
    types.GenerationConfig.model_validate(body.get("generationConfig", {}))


def converse(body: dict[str, Any]) -> None:
    shape = RUNTIME.operation_model("Converse").input_shape
    report = ParamValidator().validate({"modelId": "x"} | as_bytes(body), shape)
    assert not report.has_errors(), report.generate_report()


def as_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: base64.b64decode(v) if k == "bytes" else as_bytes(v) for k, v in value.items()}
    return [as_bytes(inner) for inner in value] if isinstance(value, list) else value


def names(stream: str) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(base64.b64decode(stream))
    found = [event.to_response_dict()["headers"].get(":event-type") for event in buffer]
    assert found[-1] == "metadata", found


def signature(asked: dict[str, Any], ours: dict[str, str]) -> None:
    """botocore's own, at the time that ours was made."""
    request = AWSRequest("POST", asked["url"], headers=asked["headers"], data=asked["body"].encode())
    request.context["timestamp"] = ours["x-amz-date"]
    credentials = Credentials(asked["id"], asked["secret"], asked["session"])
    signer = botocore.auth.SigV4Auth(credentials, "bedrock", asked["region"])
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    request.headers["X-Amz-Security-Token"] = asked["session"]
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert ours["authorization"].endswith(signer.signature(text, request)), text


REQUESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "anthropic": ANTHROPIC.validate_python, "responses": RESPONSES.validate_python, "gemini": gemini,
    "ollama": ChatRequest.model_validate, "converse": converse,
}  # fmt: skip
ANSWERS: dict[str, Callable[[Any], object]] = {
    "anthropic": Message.model_validate, "gemini": types.GenerateContentResponse.model_validate,
    "ollama": ChatResponse.model_validate,
}  # fmt: skip
EVENTS: dict[str, Callable[[Any], object]] = {
    "anthropic": EVENT.validate_python, "gemini": types.GenerateContentResponse.model_validate,
    "ollama": ChatResponse.model_validate,
}  # fmt: skip

for kind, found in DATA["formats"].items():
    for body in found["requests"] if kind in REQUESTS else ():
        fits(f"{kind} request", lambda kind=kind, body=body: REQUESTS[kind](body))
    if kind in ANSWERS:
        fits(f"double of {kind}'s answer", lambda kind=kind, found=found: ANSWERS[kind](found["answer"]))
    for event in found["events"] if kind in EVENTS else ():
        fits(f"double of {kind}'s stream", lambda kind=kind, event=event: EVENTS[kind](event))
    fits(f"{kind} as a completion", lambda found=found: ChatCompletion.model_validate(found["completion"]))
    for chunk in found["chunks"]:
        fits(f"{kind} as a chunk", lambda chunk=chunk: ChatCompletionChunk.model_validate(chunk))
fits("double of Bedrock's event stream", lambda: names(DATA["formats"]["converse"]["stream"]))
fits("signature", lambda: signature(DATA["asked"], DATA["signed"]))
print("checked")
