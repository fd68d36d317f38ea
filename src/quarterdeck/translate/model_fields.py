"""A provider's block of a ModelConfig → fields of every request: OpenAI's (``defaults``) or the format's (``native``).

What cannot be sent is refused here, so that a condition says so and nothing is ignored in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from quarterdeck.errors import ConfigError
from quarterdeck.resources.model_config import ModelConfigSpec

_NUMBERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
_PLAIN = ("max_tokens", "max_completion_tokens", "seed", "n", "reasoning_effort")
_NO_RESPONSES = {
    "seed": "seed", "frequency_penalty": "frequencyPenalty", "presence_penalty": "presencePenalty", "n": "n",
}  # fmt: skip


def defaults(spec: ModelConfigSpec) -> dict[str, Any]:
    """Fields of OpenAI's request that are set when the caller leaves them out. Raises ConfigError."""
    block: Any = block_of(spec)
    if block is None:
        return {}
    out: dict[str, Any] = {}
    for field in _NUMBERS:
        text = getattr(block, field, None)
        if text not in (None, ""):
            out[field] = number(text, field)
    for field in _PLAIN:
        value = getattr(block, field, None)
        if value is not None:
            out[field] = value
    renamed = {"max_output_tokens": "max_tokens", "candidate_count": "n", "stop_sequences": "stop"}
    for field, name in renamed.items():
        if value := getattr(block, field, None):
            out[name] = value
    return out


def native(spec: ModelConfigSpec) -> dict[str, Any]:
    """Members of every request in the provider's own format. Raises ConfigError."""
    if spec.anthropic is not None and spec.anthropic.top_k is not None:
        return {"top_k": spec.anthropic.top_k}
    if spec.anthropic_vertex_ai is not None and spec.anthropic_vertex_ai.top_k:
        return {"top_k": int(number(spec.anthropic_vertex_ai.top_k, "topK"))}
    if spec.gemini_vertex_ai is not None:
        block = spec.gemini_vertex_ai
        config: dict[str, Any] = {"topK": int(number(block.top_k, "topK"))} if block.top_k else {}
        config |= {"responseMimeType": block.response_mime_type} if block.response_mime_type else {}
        return {"generationConfig": config} if config else {}
    if spec.ollama is not None and spec.ollama.options:
        return {"options": _options(spec.ollama.options)}
    return _bedrock(spec)


def _bedrock(spec: ModelConfigSpec) -> dict[str, Any]:
    if spec.bedrock is None:
        return {}
    out: dict[str, Any] = {}
    if spec.bedrock.additional_model_request_fields is not None:
        out["additionalModelRequestFields"] = spec.bedrock.additional_model_request_fields
    guard = spec.bedrock.guardrail
    if guard is not None:
        names = {"guardrailIdentifier": guard.identifier, "guardrailVersion": guard.version, "trace": guard.trace}
        out["guardrailConfig"] = names
    return out


def check(spec: ModelConfigSpec) -> None:
    """Raises ConfigError for a field that cannot be sent as it is written."""
    defaults(spec)
    native(spec)
    if spec.open_ai is not None and spec.open_ai.api_format == "responses":
        given = [name for field, name in _NO_RESPONSES.items() if getattr(spec.open_ai, field) not in (None, "")]
        if given and (given != ["n"] or spec.open_ai.n != 1):
            raise ConfigError(
                f"openAI.{given[0]}: the Responses API does not take it; leave it out, or use apiFormat chatCompletions"
            )


def block_of(spec: ModelConfigSpec) -> Any:
    """The settings of the spec's provider; None where it has none."""
    return {
        "OpenAI": spec.open_ai, "Anthropic": spec.anthropic, "AzureOpenAI": spec.azure_open_ai, "Gemini": spec.gemini,
        "GeminiVertexAI": spec.gemini_vertex_ai, "AnthropicVertexAI": spec.anthropic_vertex_ai,
    }.get(spec.provider)  # fmt: skip


def _options(options: Mapping[str, str]) -> dict[str, Any]:
    """Ollama's options with the types its API wants: numbers, booleans and lists as JSON has them, else text."""
    out: dict[str, Any] = {}
    for name, text in options.items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        value = text if isinstance(value, dict) else value
        out[name] = [value] if name == "stop" and not isinstance(value, list) else value
    return out


def number(text: str, field: str) -> float:
    """Raises ConfigError."""
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f'{field}: {text!r} is not a number; write it as "0.7"') from error
