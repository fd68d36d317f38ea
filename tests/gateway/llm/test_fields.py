"""Every field of every provider's block is on the wire, or refused with a condition; none is ignored in silence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from quarterdeck.errors import ConfigError, ProviderNotSupported
from quarterdeck.resources.crd import structural
from quarterdeck.resources.model_config import ModelConfigSpec
from quarterdeck.translate.model import check

from .conftest import Models, model
from .doubles import ANSWERS, Answer

PEM = (
    rsa.generate_private_key(65537, 2048)
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)
CHAT = {"id": "1", "model": "x", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
AZURE = {"azureEndpoint": "https://r.openai.azure.com/", "apiVersion": "2024-10-21"}
VERTEX = {"projectID": "p", "location": "europe-west4"}
SAP = {"baseUrl": "https://ai.example", "authUrl": "https://auth.example"}
FOUNDRY = {"endpoint": "https://f.example", "deployment": "d"}
KEY = {"apiKeySecret": "s", "apiKeySecretKey": "k"}
GOOGLE = {"k": json.dumps({"type": "service_account", "client_email": "a@p", "private_key": PEM, "token_uri": "URL"})}
PROVIDERS: dict[str, tuple[str, dict[str, Any], dict[str, str], dict[str, Any]]] = {
    "openAI": ("OpenAI", KEY, {"k": "sk-1"}, {}),
    "anthropic": ("Anthropic", KEY, {"k": "sk-1"}, {}),
    "azureOpenAI": ("AzureOpenAI", KEY, {"k": "sk-1"}, AZURE),
    "ollama": ("Ollama", {}, {}, {}),
    "gemini": ("Gemini", KEY, {"k": "sk-1"}, {}),
    "geminiVertexAI": ("GeminiVertexAI", KEY, GOOGLE, VERTEX),
    "anthropicVertexAI": ("AnthropicVertexAI", KEY, GOOGLE, VERTEX),
    "bedrock": ("Bedrock", {"apiKeySecret": "s"}, {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "x"},
                {"region": "eu-west-1"}),
    "sapAICore": ("SAPAICore", {"apiKeySecret": "s"}, {"client_id": "i", "client_secret": "x"}, SAP),
    "foundry": ("Foundry", KEY, {"k": "sk-1"}, FOUNDRY),
}  # fmt: skip
"""Block → provider, its key, the Secret, and what the block must have."""

BODY, PATH, HEADER = "body", "path", "header"
ROWS: list[tuple[str, Any, str, str, Any]] = [
    # field, value, where it is, its name there, what is there
    ("openAI.organization", "org-1", HEADER, "openai-organization", "org-1"),
    ("openAI.baseUrl", "https://llm.example/base/v1", PATH, "", "/base/v1/chat/completions"),
    ("openAI.temperature", "0.7", BODY, "temperature", 0.7),
    ("openAI.maxTokens", 9, BODY, "max_tokens", 9),
    ("openAI.maxCompletionTokens", 9, BODY, "max_completion_tokens", 9),
    ("openAI.topP", "0.5", BODY, "top_p", 0.5),
    ("openAI.frequencyPenalty", "0.1", BODY, "frequency_penalty", 0.1),
    ("openAI.presencePenalty", "-0.2", BODY, "presence_penalty", -0.2),
    ("openAI.seed", 7, BODY, "seed", 7),
    ("openAI.n", 2, BODY, "n", 2),
    ("openAI.reasoningEffort", "low", BODY, "reasoning_effort", "low"),
    ("openAI.apiFormat", "responses", PATH, "", "/v1/responses"),
    ("anthropic.baseUrl", "https://a.example", PATH, "", "/v1/messages"),
    ("anthropic.temperature", "0.7", BODY, "temperature", 0.7),
    ("anthropic.maxTokens", 9, BODY, "max_tokens", 9),
    ("anthropic.topP", "0.5", BODY, "top_p", 0.5),
    ("anthropic.topK", 5, BODY, "top_k", 5),
    ("azureOpenAI.azureEndpoint", "https://r/", PATH, "",
     "/openai/deployments/x/chat/completions?api-version=2024-10-21"),
    ("azureOpenAI.apiVersion", "2099-01-01", PATH, "", "/openai/deployments/x/chat/completions?api-version=2099-01-01"),
    ("azureOpenAI.apiVersion", "preview", PATH, "", "/openai/v1/chat/completions?api-version=preview"),
    ("azureOpenAI.azureDeployment", "my d", PATH, "",
     "/openai/deployments/my%20d/chat/completions?api-version=2024-10-21"),
    ("azureOpenAI.azureAdToken", "entra", HEADER, "authorization", "Bearer entra"),
    ("azureOpenAI.temperature", "0.7", BODY, "temperature", 0.7),
    ("azureOpenAI.maxTokens", 9, BODY, "max_tokens", 9),
    ("azureOpenAI.topP", "0.5", BODY, "top_p", 0.5),
    ("ollama.host", "ollama.example:11434", PATH, "", "/api/chat"),
    ("ollama.options", {"num_ctx": "8192", "temperature": "0.2", "stop": "END", "use_mmap": "true"}, BODY, "options",
     {"num_ctx": 8192, "temperature": 0.2, "stop": ["END"], "use_mmap": True}),
    ("gemini.maxOutputTokens", 9, BODY, "generationConfig.maxOutputTokens", 9),
    ("geminiVertexAI.projectID", "q", PATH, "",
     "/v1/projects/q/locations/europe-west4/publishers/google/models/x:generateContent"),
    ("geminiVertexAI.location", "global", PATH, "",
     "/v1/projects/p/locations/global/publishers/google/models/x:generateContent"),
    ("geminiVertexAI.temperature", "0.7", BODY, "generationConfig.temperature", 0.7),
    ("geminiVertexAI.topP", "0.5", BODY, "generationConfig.topP", 0.5),
    ("geminiVertexAI.topK", "5", BODY, "generationConfig.topK", 5),
    ("geminiVertexAI.stopSequences", ["END"], BODY, "generationConfig.stopSequences", ["END"]),
    ("geminiVertexAI.maxOutputTokens", 9, BODY, "generationConfig.maxOutputTokens", 9),
    ("geminiVertexAI.candidateCount", 2, BODY, "generationConfig.candidateCount", 2),
    ("geminiVertexAI.responseMimeType", "application/json", BODY, "generationConfig.responseMimeType",
     "application/json"),
    ("anthropicVertexAI.projectID", "q", PATH, "",
     "/v1/projects/q/locations/europe-west4/publishers/anthropic/models/x:rawPredict"),
    ("anthropicVertexAI.location", "us", PATH, "",
     "/v1/projects/p/locations/us/publishers/anthropic/models/x:rawPredict"),
    ("anthropicVertexAI.temperature", "0.7", BODY, "temperature", 0.7),
    ("anthropicVertexAI.topP", "0.5", BODY, "top_p", 0.5),
    ("anthropicVertexAI.topK", "5", BODY, "top_k", 5),
    ("anthropicVertexAI.stopSequences", ["END"], BODY, "stop_sequences", ["END"]),
    ("anthropicVertexAI.maxTokens", 9, BODY, "max_tokens", 9),
    ("bedrock.region", "us-east-1", HEADER, "authorization", "…/us-east-1/bedrock/aws4_request…"),
    ("bedrock.additionalModelRequestFields", {"top_k": 5}, BODY, "additionalModelRequestFields", {"top_k": 5}),
    ("bedrock.promptCaching", True, BODY, "system", [{"text": "s"}, {"cachePoint": {"type": "default"}}]),
    ("bedrock.guardrail", {"identifier": "g", "version": "1", "trace": "enabled"}, BODY, "guardrailConfig",
     {"guardrailIdentifier": "g", "guardrailVersion": "1", "trace": "enabled"}),
    ("sapAICore.resourceGroup", "team", HEADER, "ai-resource-group", "team"),
    ("foundry.endpoint", "https://f/", PATH, "", "/openai/deployments/d/chat/completions?api-version=2024-10-21"),
    ("foundry.deployment", "e", PATH, "", "/openai/deployments/e/chat/completions?api-version=2024-10-21"),
    ("foundry.apiVersion", "2099-01-01", PATH, "", "/openai/deployments/d/chat/completions?api-version=2099-01-01"),
]  # fmt: skip
ELSEWHERE = {
    "openAI.timeout": "test_settings", "bedrock.readTimeout": "test_settings",
    "bedrock.connectTimeout": "test_settings", "openAI.tokenExchange": "test_access",
    "sapAICore.baseUrl": "test_access", "sapAICore.authUrl": "test_access",
    "foundry.endpointFrom": "test_settings", "bedrock.cacheTTL": "test_settings",
}  # fmt: skip
"""Fields that a row cannot show, and the file beside this one where they are tested."""


def _answer(provider: str, block: str, value: Any) -> dict[str, Any]:
    if value == "responses":
        return ANSWERS["responses"]
    kinds = {"anthropicVertexAI": "anthropic", "geminiVertexAI": "gemini", "bedrock": "converse",
             "sapAICore": "orchestration"}  # fmt: skip
    return ANSWERS.get(kinds.get(block, block), CHAT)


@pytest.mark.parametrize(("field", "value", "where", "name", "wanted"), ROWS, ids=[f"{r[0]}={r[1]}" for r in ROWS])
async def test_a_field_is_on_the_wire(
    models: Models, field: str, value: Any, where: str, name: str, wanted: Any
) -> None:
    block, _, leaf = field.partition(".")
    provider, key, secrets, needed = PROVIDERS[block]
    token = f"http://127.0.0.1:{models.provider.port}/token"
    secrets = {name: text.replace("URL", token) for name, text in secrets.items()}
    settings = needed | {leaf: value}
    if block == "sapAICore":
        base = f"http://127.0.0.1:{models.provider.port}"
        settings |= {"authUrl": base, "baseUrl": base}
    found = model({"provider": provider, block: settings} | key, secrets)
    models.use(found)
    deployments = {"resources": [{"scenarioId": "orchestration", "status": "RUNNING",
                                  "deploymentUrl": f"http://127.0.0.1:{models.provider.port}/d"}]}  # fmt: skip
    access = [Answer({"access_token": "t", "expires_in": 3600})] if found.access and found.access.url else []
    access += [Answer(deployments)] if block == "sapAICore" else []
    models.answers(*access, Answer(_answer(provider, block, value)))
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    response = await models.ask({"messages": messages})
    assert response.status == 200, await response.read()
    seen = models.provider.seen[-1]
    if where == PATH:
        assert seen.target.decode() == wanted
    elif where == HEADER:
        before, dots, after = wanted.partition("…")
        got = models.provider.header(name) or ""
        assert (after.rstrip("…") in got) if dots else got == before
    else:
        inner = models.provider.body
        for part in name.split("."):
            inner = inner[part]
        assert inner == wanted


def test_every_field_is_in_the_table() -> None:
    tested = {row[0] for row in ROWS} | set(ELSEWHERE)
    fields = {path for path in leaves(structural(ModelConfigSpec, embed=False)) if path.partition(".")[0] in PROVIDERS}
    missing = [f for f in fields if not any(f == t or f.startswith(f"{t}.") for t in tested)]
    assert missing == []


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    if schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
        for name, child in schema["properties"].items():
            yield from leaves(child, f"{path}.{name}" if path else name)
    else:
        yield path


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ({"provider": "Bedrock", "bedrock": {"region": "r"}}, ProviderNotSupported, "no cloud identity"),
        ({"provider": "GeminiVertexAI", "geminiVertexAI": VERTEX}, ProviderNotSupported, "service account's key"),
        ({"provider": "AnthropicVertexAI", "anthropicVertexAI": VERTEX}, ProviderNotSupported, "apiKeySecret"),
        ({"provider": "Foundry", "foundry": FOUNDRY}, ProviderNotSupported, "API key"),
        ({"provider": "SAPAICore", "sapAICore": SAP}, ProviderNotSupported, "client_id"),
        ({"provider": "Mistral"}, ProviderNotSupported, "does not speak"),
        ({"provider": "Bedrock"}, ConfigError, "bedrock is needed"),
        ({"provider": "SAPAICore", "sapAICore": {"baseUrl": "x"}, "apiKeySecret": "s"}, ConfigError, "authUrl"),
        ({"openAI": {"temperature": "warm"}}, ConfigError, "temperature: 'warm' is not a number"),
        ({"openAI": {"apiFormat": "responses", "seed": 1}}, ConfigError, "openAI.seed"),
        ({"openAI": {"apiFormat": "responses", "n": 2}}, ConfigError, "openAI.n"),
        ({"openAI": {"apiFormat": "responses", "presencePenalty": "1"}}, ConfigError, "openAI.presencePenalty"),
        ({"openAI": {"apiFormat": "responses", "frequencyPenalty": "1"}}, ConfigError, "openAI.frequencyPenalty"),
    ],
)
def test_what_cannot_be_sent_is_refused(spec: dict[str, Any], error: type[ConfigError], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as found:
        check(ModelConfigSpec.model_validate({"model": "x"} | spec))
    assert type(found.value) is error


@pytest.mark.parametrize(
    ("spec", "secrets", "says"),
    [
        ({"provider": "Bedrock", "bedrock": {"region": "x.evil.example/"}, "apiKeySecret": "s"},
         {"AWS_BEARER_TOKEN_BEDROCK": "t"}, "bedrock.region"),
        ({"provider": "GeminiVertexAI", "geminiVertexAI": VERTEX | {"location": "a/b"}} | KEY,
         {"k": GOOGLE["k"].replace("URL", "https://t.example")}, "location"),
        ({"provider": "GeminiVertexAI", "geminiVertexAI": VERTEX} | KEY, {"k": "{}"}, "of type None"),
        ({"provider": "GeminiVertexAI", "geminiVertexAI": VERTEX} | KEY, {"k": "no"}, "not a service account"),
        ({"provider": "Bedrock", "bedrock": {"region": "r"}, "apiKeySecret": "s"}, {"other": "x"}, "AWS_ACCESS_KEY_ID"),
    ],
)  # fmt: skip
def test_what_cannot_be_called_says_why(spec: dict[str, Any], secrets: dict[str, str], says: str) -> None:
    assert says in model(spec, secrets).error
