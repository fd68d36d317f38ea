# ruff: noqa: RUF012 - msgspec copies what stands as a default
"""The LLM part of both generations: read in full, so that a mistake in it is found, and refused as a whole for now."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import field

from ..fields import Model, Refused, Secret
from .shared import (
    BackendAuth,
    BackendTls,
    HeaderModifier,
    NamedText,
    SimpleBackend,
)

LLM = Refused("models are not served from a file yet; serve them with ModelConfig resources (/llm/{namespace}/{name})")

Json = dict[str, Any]


class ModelName(Model):
    model: str | None = None


class Vertex(Model):
    project_id: str
    model: str | None = None
    region: str | None = None


class Bedrock(Model):
    region: str
    model: str | None = None
    guardrail_identifier: str | None = None
    guardrail_version: str | None = None


class Azure(Model):
    model: str | None = None
    resource_name: str | None = None
    resource_type: Literal["openAI", "foundry", "aiServices"] | None = None
    host: str | None = None
    api_version: str | None = None
    project_name: str | None = None


class Format(Model):
    type: str
    path: str | None = None


class Custom(Model):
    model: str | None = None
    provider_override: str | None = None
    formats: list[Format] = []


class Provider(Model):
    """Exactly one of them."""

    open_ai: ModelName | None = field(name="openAI", default=None)
    gemini: ModelName | None = None
    vertex: Vertex | None = None
    anthropic: ModelName | None = None
    bedrock: Bedrock | None = None
    azure: Azure | None = None
    azure_open_ai: Azure | None = field(name="azureOpenAI", default=None)
    copilot: ModelName | None = None
    custom: Custom | None = None
    reference: str | None = None


class Rejection(Model):
    body: str | list[int] = "The request was rejected due to inappropriate content"
    status: int = 403
    headers: HeaderModifier | None = None


class RejectResponse(Model):
    response: Rejection = field(default_factory=Rejection)


class RejectAction(Model):
    reject: RejectResponse


class RegexRule(Model):
    builtin: Literal["ssn", "creditCard", "phoneNumber", "email", "caSin"] | None = None
    pattern: str | None = None
    name: str | None = None


class RegexRules(Model):
    rules: list[RegexRule]
    action: Literal["mask", "reject"] | RejectAction = "mask"


class Webhook(Model):
    target: SimpleBackend
    headers: dict[str, str] | None = None
    forward_header_matches: list[NamedText] = []
    failure_mode: Literal["failClosed", "failOpen"] = "failClosed"


class Moderation(Model):
    model: str | None = None
    auth: BackendAuth | None = None
    policies: Json | None = None


class RequestGuardOct(Model):
    """One object with everything, in October 2025."""

    rejection: Rejection = field(default_factory=Rejection)
    regex: RegexRules | None = None
    webhook: Webhook | None = None
    openai_moderation: Moderation | None = field(name="openaiModeration", default=None)


class ResponseGuardOct(Model):
    regex: RegexRules | None = None
    webhook: Webhook | None = None


class PromptGuardOct(Model):
    request: RequestGuardOct | None = None
    response: ResponseGuardOct | None = None


class Guard(Model):
    """One entry of today's lists: exactly one kind of check."""

    rejection: Rejection = field(default_factory=Rejection)
    scope: list[Literal["systemPrompt", "messages", "toolOutput", "toolInput"]] = []
    regex: RegexRules | None = None
    webhook: Webhook | None = None
    open_ai_moderation: Moderation | None = field(name="openAIModeration", default=None)
    bedrock_guardrails: Json | None = None
    google_model_armor: Json | None = None
    azure_content_safety: Json | None = None


class PromptGuard(Model):
    streaming: Literal["Disabled", "Enabled"] = "Disabled"
    request: list[Guard] = []
    response: list[Guard] = []


class ChatMessage(Model):
    role: str
    content: str


class Prompts(Model):
    append: list[ChatMessage] = []
    prepend: list[ChatMessage] = []


class PromptCaching(Model):
    cache_system: bool = True
    cache_messages: bool = True
    cache_tools: bool = False
    min_tokens: int | None = 1024
    cache_message_offset: int = 0


class _AiPolicy(Model):
    """What both generations have."""

    defaults: Json | None = None
    overrides: Json | None = None
    prompts: Prompts | None = None
    model_aliases: dict[str, str] = {}


class AiPolicyOct(_AiPolicy):
    prompt_guard: PromptGuardOct | None = None


class AiPolicy(_AiPolicy):
    prompt_guard: PromptGuard | None = None
    transformations: dict[str, str] | None = None
    final_transformations: dict[str, str] | None = None
    prompt_caching: PromptCaching | None = None
    routes: dict[str, str] = {}


class _AiTargetOct(AiPolicyOct):
    """Where a model is reached, and its policies beside that."""

    host_override: str | None = None
    path_override: str | None = None
    tokenize: bool = False
    routes: dict[str, str] = {}
    backend_tls: BackendTls | None = field(name="backendTLS", default=None)
    backend_auth: BackendAuth | None = None


class ProviderGroupOct(Model):
    providers: list[AiProviderOct]


class AiProviderOct(_AiTargetOct, kw_only=True):
    name: str
    provider: Provider


class AiBackendOct(_AiTargetOct):
    """One provider inline, or ``groups`` in the order of priority."""

    name: str | None = None
    provider: Provider | None = None
    groups: list[ProviderGroupOct] | None = None


class _AiTarget(Model):
    host_override: str | None = None
    path_override: str | None = None
    path_prefix: str | None = None
    tokenize: bool = False
    policies: Json | None = None


class AiProvider(_AiTarget, kw_only=True):
    name: str
    provider: Provider


class ProviderGroup(Model):
    providers: list[AiProvider]


class AiBackend(_AiTarget):
    """One provider inline, or ``groups`` in the order of priority."""

    name: str | None = None
    provider: Provider | None = None
    groups: list[ProviderGroup] | None = None


class ModelParams(Model):
    model: str | None = None
    api_key: Secret | None = None
    aws_region: str | None = None
    vertex_region: str | None = None
    vertex_project: str | None = None
    azure_resource_name: str | None = None
    azure_resource_type: Literal["openAI", "foundry", "aiServices"] | None = None
    azure_api_version: str | None = None
    azure_project_name: str | None = None
    azure_host: str | None = None
    base_url: str | None = None
    host_override: str | None = None
    path_override: str | None = None
    path_prefix: str | None = None
    tokenize: bool = False


class Headers(Model):
    headers: list[NamedText] = []


class ModelDefaults(Model):
    """What every model of a provider starts from."""

    params: ModelParams | None = None
    defaults: Json | None = None
    overrides: Json | None = None
    request_headers: HeaderModifier | None = None
    response_headers: HeaderModifier | None = None
    tls: BackendTls | None = None
    auth: BackendAuth | None = None
    health: Json | None = None
    backend_tunnel: Json | None = None
    guardrails: PromptGuard | None = None
    prompt_caching: PromptCaching | None = None


class NamedProvider(Model):
    name: str
    provider: str | Provider
    params: ModelParams | None = None
    defaults: ModelDefaults | None = None


class ModelEntry(Model):
    name: str
    provider: str | Provider
    id: str | None = None
    visibility: Literal["public", "internal"] = "public"
    params: ModelParams | None = None
    passthrough: Literal["detect", "opaque"] | None = None
    authorization: Json | None = None
    defaults: Json | None = None
    overrides: Json | None = None
    transformation: dict[str, str] | None = None
    final_transformation: dict[str, str] | None = None
    request_headers: HeaderModifier | None = None
    response_headers: HeaderModifier | None = None
    tls: BackendTls | None = None
    backend_tls: BackendTls | None = field(name="backendTLS", default=None)
    auth: BackendAuth | None = None
    health: Json | None = None
    backend_tunnel: Json | None = None
    guardrails: PromptGuard | None = None
    prompt_caching: PromptCaching | None = None
    matches: list[Headers] = []


class WeightedTarget(Model):
    model: str
    weight: int = 1


class FailoverTarget(Model):
    model: str
    priority: int = 0


class ConditionalTarget(Model):
    model: str
    when: str | None = None


class Weighted(Model):
    targets: list[WeightedTarget]


class Failover(Model):
    targets: list[FailoverTarget]


class Conditional(Model):
    targets: list[ConditionalTarget]


class Routing(Model):
    weighted: Weighted | None = None
    failover: Failover | None = None
    conditional: Conditional | None = None


class VirtualModel(Model):
    name: str
    routing: Routing


class Llm(Model):
    """``llm:`` of today's files."""

    gateways: str | list[str] | None = None
    port: int | None = None
    tls: Json | None = None
    providers: list[NamedProvider] = []
    models: list[ModelEntry] = []
    virtual_models: list[VirtualModel] = []
    policies: Json | None = None
