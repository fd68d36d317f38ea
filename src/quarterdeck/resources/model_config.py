"""ModelConfig (kagent.dev v1alpha2 and v1alpha1): which model of which provider, and how to call it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from .base import Column, Kind, Model, Status, TLSConfig, Version, rules

PROVIDERS = (
    "OpenAI", "Anthropic", "AzureOpenAI", "Ollama", "Gemini", "GeminiVertexAI", "AnthropicVertexAI", "Bedrock",
    "SAPAICore", "Foundry", "Scripted",
)  # fmt: skip
ProviderName = Annotated[str, Field(json_schema_extra={"enum": list(PROVIDERS)})]
_INT64: Any = {"format": "int64"}


def _enum(*values: str) -> Any:
    return Field(json_schema_extra={"enum": list(values)})


class GDCHServiceAccount(Model):
    audience: str = Field(description="Audience of the exchanged token.")


class TokenExchange(Model):
    model_config = rules(
        (
            "self.type != 'GDCHServiceAccount' || has(self.gdchServiceAccount)",
            "gdchServiceAccount must be specified when type is GDCHServiceAccount",
        )
    )
    type: Annotated[str, _enum("GDCHServiceAccount")] = Field(description="Kind of exchange.")
    gdch_service_account: GDCHServiceAccount | None = Field(None, description="Settings of a GDCH exchange.")


class OpenAI(Model):
    model_config = rules(
        (
            "!(has(self.maxTokens) && has(self.maxCompletionTokens))",
            "maxTokens and maxCompletionTokens are mutually exclusive",
        )
    )
    base_url: str | None = Field(None, description="Base URL of the API; OpenAI's when unset.")
    organization: str | None = Field(None, description="Organisation the calls are accounted to.")
    temperature: str | None = Field(None, description="Sampling temperature, a number as text.")
    max_tokens: int | None = Field(None, ge=1, description="Longest answer in tokens.")
    max_completion_tokens: int | None = Field(None, ge=1, description="Longest answer including reasoning.")
    top_p: str | None = Field(None, description="Nucleus sampling, a number as text.")
    frequency_penalty: str | None = Field(None, description="Penalty on frequent tokens, a number as text.")
    presence_penalty: str | None = Field(None, description="Penalty on present tokens, a number as text.")
    seed: int | None = Field(None, description="Seed of the sampling.")
    n: int | None = Field(None, description="Answers per request.")
    timeout: int | None = Field(None, description="Seconds a request may take.")
    reasoning_effort: Annotated[str, _enum("none", "minimal", "low", "medium", "high", "xhigh", "max")] | None = Field(
        None, description="How much the model reasons."
    )
    api_format: Annotated[str, _enum("chatCompletions", "responses")] = Field(
        "chatCompletions", description="API the agent calls."
    )
    token_exchange: TokenExchange | None = Field(None, description="Exchange of the key for a token.")


class Anthropic(Model):
    base_url: str | None = Field(None, description="Base URL of the API; Anthropic's when unset.")
    max_tokens: int | None = Field(None, description="Longest answer in tokens.")
    temperature: str | None = Field(None, description="Sampling temperature, a number as text.")
    top_p: str | None = Field(None, description="Nucleus sampling, a number as text.")
    top_k: int | None = Field(None, description="Candidates per token.")


class AzureOpenAI(Model):
    azure_endpoint: str = Field(description="https://NAME.openai.azure.com of the resource.")
    api_version: str = Field(description="Version of the API, e.g. 2024-10-21.")
    azure_deployment: str | None = Field(None, description="Deployment of the model; the model's name when unset.")
    azure_ad_token: str | None = Field(None, description="Entra ID token.")
    temperature: str | None = Field(None, description="Sampling temperature, a number as text.")
    max_tokens: int | None = Field(None, description="Longest answer in tokens.")
    top_p: str | None = Field(None, description="Nucleus sampling, a number as text.")


class Ollama(Model):
    host: str | None = Field(None, description="Address of the server; 127.0.0.1:11434 when unset.")
    options: dict[str, str] | None = Field(None, description="Options of the model.")


class Gemini(Model):
    max_output_tokens: int | None = Field(None, ge=1, description="Longest answer in tokens.")


class _VertexAI(Model):
    project_id: str = Field(alias="projectID", description="Google Cloud project.")
    location: str = Field(description="Google Cloud region.")
    temperature: str | None = Field(None, description="Sampling temperature, a number as text.")
    top_p: str | None = Field(None, description="Nucleus sampling, a number as text.")
    top_k: str | None = Field(None, description="Candidates per token, a number as text.")
    stop_sequences: list[str] | None = Field(None, description="Texts that end the answer.")


class GeminiVertexAI(_VertexAI):
    max_output_tokens: int | None = Field(None, ge=1, description="Longest answer in tokens.")
    candidate_count: int | None = Field(None, description="Answers per request.")
    response_mime_type: str | None = Field(None, description="Media type of the answer.")


class AnthropicVertexAI(_VertexAI):
    max_tokens: int | None = Field(None, description="Longest answer in tokens.")


class BedrockGuardrail(Model):
    identifier: str = Field(min_length=1, max_length=2048, description="Guardrail id or ARN.")
    version: str = Field(min_length=1, max_length=8, description="Its version.")
    trace: Annotated[str, _enum("disabled", "enabled", "enabled_full")] = Field("disabled", description="Tracing.")


class Bedrock(Model):
    region: str = Field(description="AWS region.")
    additional_model_request_fields: Annotated[
        Any, Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
    ] = Field(None, description="Further fields of the request, any JSON.")
    prompt_caching: bool = Field(False, description="Cache the prompt.")
    cache_ttl: Annotated[str, _enum("5m", "1h")] = Field("5m", alias="cacheTTL", description="Life of the cache.")
    guardrail: BedrockGuardrail | None = Field(None, description="Guardrail applied to requests.")
    read_timeout: int | None = Field(None, ge=1, description="Seconds to wait for data.")
    connect_timeout: int | None = Field(None, ge=1, description="Seconds to wait for a connection.")


class SAPAICore(Model):
    base_url: str = Field(description="Base URL of the service.")
    resource_group: str = Field("default", description="Resource group.")
    auth_url: str | None = Field(None, description="Where tokens are obtained.")


class EndpointSource(Model):
    name: str = Field("", description="Name of the ConfigMap.")
    key: str = Field(description="Key in it.")
    optional: bool | None = Field(None, description="Whether it may be absent.")


class Foundry(Model):
    model_config = rules(
        (
            "has(self.endpoint) != has(self.endpointFrom)",
            "exactly one of endpoint or endpointFrom must be specified",
        )
    )
    endpoint: str | None = Field(None, description="Endpoint of the project.")
    endpoint_from: EndpointSource | None = Field(None, description="Where the endpoint is read from.")
    deployment: str = Field(description="Deployment of the model.")
    api_version: str = Field("2024-10-21", description="Version of the API.")


class Scripted(Model):
    """A model server of ours that plans by rules and needs no key: for demos, tests and machines without a network.

    Without a script it picks tools by matching the request to their names, descriptions and schemas.
    """

    replicas: int | None = Field(None, ge=0, description="Pods of the server; 1 when unset.")
    script_from: EndpointSource | None = Field(
        None, description="ConfigMap key with a script of answers (YAML); plans by rules when unset."
    )


_BLOCKS = {
    "openAI": "OpenAI", "anthropic": "Anthropic", "azureOpenAI": "AzureOpenAI", "ollama": "Ollama", "gemini": "Gemini",
    "geminiVertexAI": "GeminiVertexAI", "anthropicVertexAI": "AnthropicVertexAI", "bedrock": "Bedrock",
    "sapAICore": "SAPAICore", "foundry": "Foundry", "scripted": "Scripted",
}  # fmt: skip
_BLOCK_RULES = [
    (
        f"!(has(self.{block}) && self.provider != '{provider}')",
        f"provider.{block} must be nil if the provider is not {provider}",
    )
    for block, provider in _BLOCKS.items()
]
_KEY = "(has(self.apiKeySecret) && size(self.apiKeySecret) > 0)"
_KEY_RULES = [
    (
        f"!(has(self.apiKeySecretKey) && size(self.apiKeySecretKey) > 0 && !{_KEY})",
        "apiKeySecret must be set if apiKeySecretKey is set",
    ),
    (
        f"!({_KEY} && (!has(self.apiKeySecretKey) || size(self.apiKeySecretKey) == 0) && "
        "!(self.provider == 'Bedrock' || self.provider == 'SAPAICore'))",
        "apiKeySecretKey must be set if apiKeySecret is set (except for Bedrock and SAPAICore providers)",
    ),
    (
        f"!(has(self.apiKeyPassthrough) && self.apiKeyPassthrough && {_KEY})",
        "apiKeyPassthrough and apiKeySecret are mutually exclusive",
    ),
    (
        "!(has(self.apiKeyPassthrough) && self.apiKeyPassthrough && (self.provider == 'Gemini' || "
        "self.provider == 'GeminiVertexAI' || self.provider == 'AnthropicVertexAI'))",
        "apiKeyPassthrough must be false if provider is Gemini, GeminiVertexAI or AnthropicVertexAI",
    ),
    (
        f"!(has(self.openAI) && has(self.openAI.tokenExchange) && !{_KEY})",
        "apiKeySecret must be set if openAI.tokenExchange is set",
    ),
    (
        "!(has(self.openAI) && has(self.openAI.tokenExchange) && has(self.apiKeyPassthrough) && "
        "self.apiKeyPassthrough)",
        "apiKeyPassthrough and openAI.tokenExchange are mutually exclusive",
    ),
]


class ModelConfigSpec(Model):
    """A model and how to call it."""

    model_config = rules(*_BLOCK_RULES, *_KEY_RULES)
    model: str = Field(description="Name of the model, as its provider calls it.")
    provider: ProviderName = Field(
        "OpenAI",
        description="Who serves the model. Scripted is a built-in server that plans by rules and needs no key.",
    )
    api_key_secret: str | None = Field(None, description="Secret with the provider's key, in the same namespace.")
    api_key_secret_key: str | None = Field(None, description="Key in that Secret.")
    api_key_passthrough: bool | None = Field(None, description="Use the caller's own key.")
    default_headers: dict[str, str] | None = Field(None, description="Headers of every request to the provider.")
    open_ai: OpenAI | None = Field(None, alias="openAI", description="Settings of provider OpenAI.")
    anthropic: Anthropic | None = Field(None, description="Settings of provider Anthropic.")
    azure_open_ai: AzureOpenAI | None = Field(None, alias="azureOpenAI", description="Settings of AzureOpenAI.")
    ollama: Ollama | None = Field(None, description="Settings of provider Ollama.")
    gemini: Gemini | None = Field(None, description="Settings of provider Gemini.")
    gemini_vertex_ai: GeminiVertexAI | None = Field(None, alias="geminiVertexAI", description="Of GeminiVertexAI.")
    anthropic_vertex_ai: AnthropicVertexAI | None = Field(
        None, alias="anthropicVertexAI", description="Settings of provider AnthropicVertexAI."
    )
    bedrock: Bedrock | None = Field(None, description="Settings of provider Bedrock.")
    sap_ai_core: SAPAICore | None = Field(None, alias="sapAICore", description="Settings of provider SAPAICore.")
    foundry: Foundry | None = Field(None, description="Settings of provider Foundry.")
    scripted: Scripted | None = Field(None, description="Settings of provider Scripted.")
    tls: TLSConfig | None = Field(None, description="TLS towards the provider.")


class ModelInfo(Model):
    vision: bool | None = Field(None, description="Reads images.")
    function_calling: bool | None = Field(None, description="Calls tools.")
    json_output: bool | None = Field(None, description="Answers JSON.")
    family: str | None = Field(None, description="Family of the model.")
    structured_output: bool | None = Field(None, description="Answers by schema.")
    multiple_system_messages: bool | None = Field(None, description="Takes several system messages.")


class ModelConfigSpecV1Alpha1(ModelConfigSpec):
    """Both published shapes."""

    model_config = rules()
    api_key_secret_ref: str | None = Field(None, description="v1alpha1: [namespace/]name of the Secret with the key.")
    model_info: ModelInfo | None = Field(None, description="v1alpha1: what the model can do; kept, not used.")


class ModelConfigStatus(Status):
    secret_hash: str | None = Field(None, description="Hash (hex) of the Secrets used; changes when a key does.")


class ModelConfig(Model):
    """A model, its provider and the key to call it with; agents call it through the gateway."""

    spec: ModelConfigSpec | None = Field(None, description="A model and how to call it.")
    status: ModelConfigStatus | None = Field(None, description="Observed state.")


class ModelConfigV1Alpha1(Model):
    """A model, in the older version."""

    spec: ModelConfigSpecV1Alpha1 | None = Field(None, description="A model and how to call it.")
    status: ModelConfigStatus | None = Field(None, description="Observed state.")


_COLUMNS = (Column("Provider", ".spec.provider"), Column("Model", ".spec.model"))
KIND = Kind(
    "ModelConfig",
    "modelconfigs",
    (
        Version("v1alpha2", ModelConfig, _COLUMNS),
        Version("v1alpha1", ModelConfigV1Alpha1, _COLUMNS, storage=False),
    ),
    short_names=("mc",),
)
