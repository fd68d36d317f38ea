"""ModelConfig → the gateway's Model: where it is, what is spoken there, credentials, fields of every request."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from quarterdeck.errors import ConfigError, ProviderNotSupported
from quarterdeck.resources.base import TLSConfig
from quarterdeck.resources.model_config import ModelConfigSpec
from quarterdeck.snapshot import FRAMING, HeaderValue, Model, ModelFormat

from . import model_access, model_fields, scripted
from .resolve import Services, resolve
from .values import SecretReader, Sources

_ANTHROPIC = "https://api.anthropic.com"
_GEMINI = "https://generativelanguage.googleapis.com/v1beta/models"
_TIMEOUT = 300.0
_FORMATS: dict[str, ModelFormat] = {
    "Anthropic": "anthropic", "AnthropicVertexAI": "anthropic", "Gemini": "gemini", "GeminiVertexAI": "gemini",
    "Ollama": "ollama", "Bedrock": "converse", "SAPAICore": "orchestration",
}  # fmt: skip
_BLOCKS = {
    "AzureOpenAI": ("azureOpenAI", "azure_open_ai"), "GeminiVertexAI": ("geminiVertexAI", "gemini_vertex_ai"),
    "AnthropicVertexAI": ("anthropicVertexAI", "anthropic_vertex_ai"), "Bedrock": ("bedrock", "bedrock"),
    "SAPAICore": ("sapAICore", "sap_ai_core"), "Foundry": ("foundry", "foundry"),
}  # fmt: skip
"""Providers that cannot be called without their block."""
_UNVERSIONED = ("v1", "preview", "latest")
"""Versions of Azure that stand for its v1 API, whose path has no deployment."""
_PLACE = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,100}")


def check(spec: ModelConfigSpec) -> None:
    """Raises ConfigError for what cannot be called as it is written: ProviderNotSupported where the gateway cannot
    do it at all."""
    if spec.provider not in {"OpenAI", "Scripted", *_FORMATS, *_BLOCKS}:
        raise ProviderNotSupported(f"provider {spec.provider}: the gateway does not speak its API")
    block = _BLOCKS.get(spec.provider)
    if block is not None and getattr(spec, block[1]) is None:
        raise ConfigError(f"{block[0]} is needed: provider {spec.provider} cannot be called without its settings")
    framing = [name for name in spec.default_headers or {} if name.lower() in FRAMING]
    if framing:
        raise ConfigError(f"defaultHeaders.{framing[0]}: is the gateway's to say, which frames requests; leave it out")
    model_access.check(spec)
    model_fields.check(spec)


def gateway_model(namespace: str, name: str, spec: ModelConfigSpec, sources: Sources, services: Services) -> Model:
    """Never raises: what is wrong is the model's ``error``, answered to callers."""
    try:
        check(spec)
        return _model(namespace, name, spec, sources, services)
    except ConfigError as error:
        return Model(namespace, name, spec.provider, spec.model, "", error=str(error))


def _model(namespace: str, name: str, spec: ModelConfigSpec, sources: Sources, services: Services) -> Model:
    credentials, access = model_access.credentials(spec, sources.secret)
    if access is not None and access.url:
        access = msgspec.structs.replace(access, url=_direct(access.url, services, namespace))
    insecure, ca, system = tls_settings(spec.tls, sources.secret)
    bedrock = spec.bedrock
    return Model(
        namespace,
        name,
        spec.provider,
        _deployment(spec) or spec.model,
        _address(namespace, name, spec, sources, services),
        _headers(spec, credentials),
        model_fields.defaults(spec),
        passthrough=bool(spec.api_key_passthrough),
        tls_insecure=insecure,
        tls_ca=ca,
        timeout=silence(spec) or _TIMEOUT,
        format=_format(spec),
        query=_query(spec),
        extra=model_fields.native(spec),
        cache=_cache(spec),
        key_header=model_access.key_header(spec),
        access=access,
        tls_system=system,
        connect_timeout=float((bedrock.connect_timeout if bedrock else None) or 0.0),
    )


def silence(spec: ModelConfigSpec) -> float | None:
    """Seconds that the provider may take, where the spec says."""
    block = spec.open_ai.timeout if spec.open_ai is not None else None
    found = block or (spec.bedrock.read_timeout if spec.bedrock is not None else None)
    return float(found) if found else None


def _format(spec: ModelConfigSpec) -> ModelFormat:
    if spec.open_ai is not None and spec.open_ai.api_format == "responses":
        return "responses"
    return _FORMATS.get(spec.provider, "openai")


def _cache(spec: ModelConfigSpec) -> Any:
    """Bedrock charges for writing what not every model takes, so there one has to ask for it."""
    if spec.bedrock is not None:
        return spec.bedrock.cache_ttl if spec.bedrock.prompt_caching else ""
    return "5m" if _FORMATS.get(spec.provider) == "anthropic" else ""


def _headers(spec: ModelConfigSpec, credentials: list[HeaderValue]) -> tuple[HeaderValue, ...]:
    """``defaultHeaders``, ours, and credentials, which win."""
    found = {name.lower(): HeaderValue(name, value) for name, value in (spec.default_headers or {}).items()}
    if spec.open_ai is not None and spec.open_ai.organization:
        found["openai-organization"] = HeaderValue("OpenAI-Organization", spec.open_ai.organization)
    if spec.sap_ai_core is not None:
        found["ai-resource-group"] = HeaderValue("AI-Resource-Group", spec.sap_ai_core.resource_group)
    if spec.azure_open_ai is not None and spec.azure_open_ai.azure_ad_token and not spec.api_key_passthrough:
        token = HeaderValue("Authorization", f"Bearer {spec.azure_open_ai.azure_ad_token}", secret=True)
        found["authorization"] = token
    if spec.api_key_passthrough:
        found.pop(model_access.key_header(spec).lower(), None)
    return tuple((found | {header.name.lower(): header for header in credentials}).values())


def tls_settings(tls: TLSConfig | None, read_secret: SecretReader) -> tuple[bool, str, bool]:
    """(skip verification, PEM bundle, whether the system's authorities count beside it)."""
    if tls is None:
        return False, "", False
    ca = read_secret(tls.ca_cert_secret_ref, tls.ca_cert_secret_key or "") if tls.ca_cert_secret_ref else ""
    return tls.disable_verify, ca, bool(ca) and not tls.disable_system_cas


def _deployment(spec: ModelConfigSpec) -> str:
    """What Azure calls the model."""
    if spec.azure_open_ai is not None:
        return spec.azure_open_ai.azure_deployment or ""
    return spec.foundry.deployment if spec.foundry is not None else ""


def _query(spec: ModelConfigSpec) -> str:
    block = spec.azure_open_ai or spec.foundry
    version = block.api_version if block is not None else ""
    return urlencode({"api-version": version}) if version and version not in ("v1", "latest") else ""


def _address(namespace: str, name: str, spec: ModelConfigSpec, sources: Sources, services: Services) -> str:
    """Raises ConfigError for a URL that leads nowhere or is closed to the namespace."""
    if spec.provider == "Scripted":
        ready = services.endpoints(namespace, name, scripted.PORT)
        if not ready:
            raise ConfigError(f"ModelConfig {namespace}/{name}: its scripted model server is not ready yet")
        return f"http://{ready[0].host}:{ready[0].port}/v1"
    fixed = _fixed_address(spec)
    return fixed or _direct(_own_address(spec, sources), services, namespace)


def _fixed_address(spec: ModelConfigSpec) -> str:
    """Of providers whose addresses are the same for everybody; empty for others."""
    if spec.provider == "Gemini":
        return _GEMINI
    if spec.bedrock is not None:
        region = _checked(_PLACE, spec.bedrock.region, "bedrock.region")
        return f"https://bedrock-runtime.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
    vertex = spec.gemini_vertex_ai or spec.anthropic_vertex_ai
    if vertex is None:
        return ""
    place = _checked(_PLACE, vertex.location, "location")
    project = _checked(_PROJECT, vertex.project_id, "projectID")
    host = f"{place}-aiplatform.googleapis.com"
    if place == "global":
        host = "aiplatform.googleapis.com"
    elif place in ("us", "eu"):
        host = f"aiplatform.{place}.rep.googleapis.com"
    publisher = "google" if spec.gemini_vertex_ai is not None else "anthropic"
    return f"https://{host}/v1/projects/{project}/locations/{place}/publishers/{publisher}/models"


def _own_address(spec: ModelConfigSpec, sources: Sources) -> str:
    """What the spec says, with the path that the format wants below it."""
    if spec.provider == "Anthropic":
        return _with(((spec.anthropic.base_url if spec.anthropic else None) or _ANTHROPIC), "/v1")
    if spec.provider == "Ollama":
        host = (spec.ollama.host if spec.ollama else None) or "127.0.0.1:11434"
        host = host if "://" in host else f"http://{host}"
        return _with(host.rstrip("/").removesuffix("/v1"), "/api")
    if spec.azure_open_ai is not None:
        azure = spec.azure_open_ai
        return _azure(azure.azure_endpoint, azure.azure_deployment or spec.model, azure.api_version)
    if spec.foundry is not None:
        source = spec.foundry.endpoint_from
        endpoint = spec.foundry.endpoint or ""
        if source is not None:
            endpoint = sources.config_map(source.name, source.key)
        return _azure(endpoint.strip(), spec.foundry.deployment, spec.foundry.api_version)
    if spec.sap_ai_core is not None:
        return spec.sap_ai_core.base_url
    return (spec.open_ai.base_url if spec.open_ai else None) or "https://api.openai.com/v1"


def _azure(endpoint: str, deployment: str, version: str) -> str:
    base = endpoint.rstrip("/")
    if version in _UNVERSIONED:
        return f"{base}/openai/v1"
    return f"{base}/openai/deployments/{quote(deployment, safe='')}"


def _checked(pattern: re.Pattern[str], value: str, field: str) -> str:
    """It becomes part of a host name or path."""
    if not pattern.fullmatch(value):
        raise ConfigError(f"{field}: {value!r} is not a name that the provider uses")
    return value


def _with(base: str, path: str) -> str:
    base = base.rstrip("/")
    return base if base.endswith(path) else f"{base}{path}"


def _direct(base: str, services: Services, namespace: str) -> str:
    """``base`` with the name of a Service replaced by a ready address (not for TLS: its certificate has the name)."""
    upstream = resolve(base, services, namespace)
    if upstream.service is None or upstream.tls:
        return base.rstrip("/")
    if not upstream.endpoints:
        raise ConfigError(f"baseUrl {base}: Service {'/'.join(upstream.service)} has no ready endpoints")
    first = upstream.endpoints[0]
    return f"http://{first.host}:{first.port}{upstream.path.rstrip('/')}"
