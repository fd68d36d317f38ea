"""The Secret of a ModelConfig → how the gateway proves itself to the provider."""

from __future__ import annotations

import json
from typing import Any

from quarterdeck.errors import ConfigError, ProviderNotSupported, RefNotFound
from quarterdeck.resources.model_config import ModelConfigSpec
from quarterdeck.snapshot import HeaderValue, ModelAccess

from .values import SecretReader

_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_OWN_IDENTITY = {
    "GeminiVertexAI": "a Google service account's key (JSON)",
    "AnthropicVertexAI": "a Google service account's key (JSON)",
    "Bedrock": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a Bedrock API key",
    "SAPAICore": "client_id and client_secret",
    "Foundry": "the resource's API key",
}
_AWS_KEY = "AWS_BEARER_TOKEN_BEDROCK"


def check(spec: ModelConfigSpec) -> None:
    """Raises ProviderNotSupported where the model could only be called by an identity of the machine's own."""
    wanted = _OWN_IDENTITY.get(spec.provider)
    by_key = bool(spec.api_key_secret) or (bool(spec.api_key_passthrough) and spec.provider in ("Bedrock", "Foundry"))
    if wanted is not None and not by_key:
        raise ProviderNotSupported(
            f"provider {spec.provider} without apiKeySecret: the gateway has no cloud identity of its own to call it "
            f"with; set apiKeySecret to a Secret with {wanted}"
        )
    if spec.sap_ai_core is not None and not spec.sap_ai_core.auth_url:
        raise ConfigError("sapAICore.authUrl is needed: it is where the token is obtained")


def key_header(spec: ModelConfigSpec) -> str:
    """Where a key of the provider's goes."""
    match spec.provider:
        case "Anthropic":
            return "x-api-key"
        case "AzureOpenAI" | "Foundry" if not spec.api_key_passthrough:
            return "api-key"
        case "Gemini":
            return "x-goog-api-key"
        case _:
            return "Authorization"


def credentials(spec: ModelConfigSpec, read: SecretReader) -> tuple[list[HeaderValue], ModelAccess | None]:
    """Headers of every request, and what has to be done beside. Raises ConfigError for what the Secret lacks."""
    name, key = spec.api_key_secret, spec.api_key_secret_key or ""
    if not name or spec.api_key_passthrough:
        return [], None
    match spec.provider:
        case "GeminiVertexAI" | "AnthropicVertexAI":
            return [], _google(read(name, key), f"Secret {name}, key {key}")
        case "Bedrock":
            return _bedrock(spec, name, key, read)
        case "SAPAICore":
            url = (spec.sap_ai_core.auth_url or "").rstrip("/") if spec.sap_ai_core is not None else ""
            url = url if url.endswith("/oauth/token") else f"{url}/oauth/token"
            secret = read(name, "client_secret")
            return [], ModelAccess("client_credentials", read(name, "client_id"), secret, url)
        case "OpenAI" if spec.open_ai is not None and spec.open_ai.token_exchange is not None:
            account = spec.open_ai.token_exchange.gdch_service_account
            audience = account.audience if account is not None else ""
            return [], _distributed(read(name, key), audience, f"Secret {name}, key {key}")
        case _:
            header = key_header(spec)
            value = read(name, key)
            return [HeaderValue(header, f"Bearer {value}" if header == "Authorization" else value, secret=True)], None


def _bedrock(
    spec: ModelConfigSpec, name: str, key: str, read: SecretReader
) -> tuple[list[HeaderValue], ModelAccess | None]:
    token = read(name, key) if key else _optional(read, name, _AWS_KEY)
    if token:
        return [HeaderValue("Authorization", f"Bearer {token}", secret=True)], None
    region = spec.bedrock.region if spec.bedrock is not None else ""
    ident, secret = read(name, "AWS_ACCESS_KEY_ID"), read(name, "AWS_SECRET_ACCESS_KEY")
    session = _optional(read, name, "AWS_SESSION_TOKEN")
    return [], ModelAccess("aws", ident, secret, audience=region, session=session)


def _optional(read: SecretReader, name: str, key: str) -> str:
    try:
        return read(name, key)
    except RefNotFound:
        return ""


def _google(text: str, where: str) -> ModelAccess:
    found = _account(text, where, "service_account", ("client_email", "private_key", "token_uri"))
    email, pem, url = found["client_email"], found["private_key"], found["token_uri"]
    return ModelAccess("google", email, pem, url, str(found.get("private_key_id") or ""), _GOOGLE_SCOPE)


def _distributed(text: str, audience: str, where: str) -> ModelAccess:
    found = _account(text, where, "gdch_service_account", ("project", "name", "private_key", "token_uri"))
    account = f"system:serviceaccount:{found['project']}:{found['name']}"
    key_id = str(found.get("private_key_id") or "")
    return ModelAccess("gdch", account, found["private_key"], found["token_uri"], key_id, audience)


def _account(text: str, where: str, kind: str, members: tuple[str, ...]) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not a service account's key file (JSON): {error}") from None
    given = found.get("type") if isinstance(found, dict) else None
    if given != kind:
        raise ConfigError(f"{where}: the key file is of type {given!r}; the gateway can use {kind}")
    missing = [name for name in members if not isinstance(found.get(name), str) or not found[name]]
    if missing:
        raise ConfigError(f"{where}: the key file lacks {', '.join(missing)}")
    return found
