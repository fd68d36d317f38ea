"""ModelConfig → the gateway's Model: an OpenAI-compatible address, credentials and request defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from quarterdeck.errors import ConfigError
from quarterdeck.resources.base import TLSConfig
from quarterdeck.resources.model_config import ModelConfigSpec
from quarterdeck.snapshot import HeaderValue, Model

from . import scripted
from .resolve import Services, resolve

SecretReader = Callable[[str, str], str]
"""(Secret name, key) → text; raises ConfigError that names what is missing."""

_ANTHROPIC = "https://api.anthropic.com/v1"
_GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai"
OLLAMA_OPTIONS = {"temperature": "temperature", "top_p": "top_p", "seed": "seed", "num_predict": "max_tokens"}
"""Options that Ollama's OpenAI-compatible endpoint knows, by the request field they become."""
_NUMBERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")


def gateway_model(
    namespace: str, name: str, spec: ModelConfigSpec, read_secret: SecretReader, services: Services
) -> Model:
    """Never raises: what is wrong is the model's ``error``, answered to callers."""
    try:
        return _model(namespace, name, spec, read_secret, services)
    except ConfigError as error:
        return Model(namespace, name, spec.provider, spec.model, "", error=str(error))


def _model(namespace: str, name: str, spec: ModelConfigSpec, read_secret: SecretReader, services: Services) -> Model:
    base_url, headers = _address(namespace, name, spec, services)
    headers += [HeaderValue(key, value) for key, value in (spec.default_headers or {}).items()]
    if spec.api_key_secret and not spec.api_key_passthrough:
        headers += _credentials(spec, read_secret(spec.api_key_secret, spec.api_key_secret_key or ""))
    insecure, ca = tls_settings(spec.tls, read_secret)
    # Azure's v1 API is OpenAI-compatible and takes the deployment as the model's name.
    deployment = spec.azure_open_ai.azure_deployment if spec.azure_open_ai else None
    return Model(
        namespace,
        name,
        spec.provider,
        deployment or spec.model,
        base_url,
        tuple(headers),
        request_defaults(spec),
        passthrough=bool(spec.api_key_passthrough),
        tls_insecure=insecure,
        tls_ca=ca,
        timeout=float((spec.open_ai.timeout if spec.open_ai else None) or 300),
    )


def tls_settings(tls: TLSConfig | None, read_secret: SecretReader) -> tuple[bool, str]:
    """(skip verification, PEM bundle)."""
    if tls is None:
        return False, ""
    ca = read_secret(tls.ca_cert_secret_ref, tls.ca_cert_secret_key or "") if tls.ca_cert_secret_ref else ""
    return tls.disable_verify, ca


def _address(namespace: str, name: str, spec: ModelConfigSpec, services: Services) -> tuple[str, list[HeaderValue]]:
    match spec.provider:
        case "OpenAI":
            settings = spec.open_ai
            organization = settings.organization if settings else None
            headers = [HeaderValue("OpenAI-Organization", organization)] if organization else []
            base = (settings.base_url if settings else None) or "https://api.openai.com/v1"
            return _direct(base, services, namespace), headers
        case "Anthropic":
            base = (spec.anthropic.base_url if spec.anthropic else None) or _ANTHROPIC
            return _direct(_with_version(base), services, namespace), []
        case "Gemini":
            return _GEMINI, []
        case "Ollama":
            host = (spec.ollama.host if spec.ollama else None) or "127.0.0.1:11434"
            host = host if "://" in host else f"http://{host}"
            return _direct(_with_version(host), services, namespace), []
        case "AzureOpenAI" if spec.azure_open_ai is not None:
            token = spec.azure_open_ai.azure_ad_token
            headers = [HeaderValue("Authorization", f"Bearer {token}", secret=True)] if token else []
            return f"{spec.azure_open_ai.azure_endpoint.rstrip('/')}/openai/v1", headers
        case "Scripted":
            ready = services.endpoints(namespace, name, scripted.PORT)
            if not ready:
                raise ConfigError(f"ModelConfig {namespace}/{name}: its scripted model server is not ready yet")
            return f"http://{ready[0].host}:{ready[0].port}/v1", []
        case _:
            raise ConfigError(
                f"ModelConfig {namespace}/{name}: provider {spec.provider} is accepted but cannot be called yet; "
                "use OpenAI, Anthropic, AzureOpenAI, Gemini, Ollama or Scripted"
            )


def _with_version(base: str) -> str:
    base = base.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def _direct(base: str, services: Services, namespace: str) -> str:
    """``base`` with the name of a Service replaced by a ready address (not for TLS: its certificate has the name)."""
    upstream = resolve(base, services, namespace)
    if upstream.service is None or upstream.tls:
        return base.rstrip("/")
    if not upstream.endpoints:
        raise ConfigError(f"baseUrl {base}: Service {'/'.join(upstream.service)} has no ready endpoints")
    first = upstream.endpoints[0]
    return f"http://{first.host}:{first.port}{upstream.path.rstrip('/')}"


def _credentials(spec: ModelConfigSpec, key: str) -> list[HeaderValue]:
    if spec.provider == "AzureOpenAI":
        return [HeaderValue("api-key", key, secret=True)]
    headers = [HeaderValue("Authorization", f"Bearer {key}", secret=True)]
    if spec.provider == "Anthropic":
        headers.append(HeaderValue("x-api-key", key, secret=True))
    return headers


def request_defaults(spec: ModelConfigSpec) -> dict[str, Any]:
    """OpenAI request fields from the provider's block; numbers written as text are parsed. Raises ConfigError."""
    block: Any = spec.open_ai or spec.anthropic or spec.azure_open_ai
    if block is None:
        if spec.gemini is not None and spec.gemini.max_output_tokens:
            return {"max_tokens": spec.gemini.max_output_tokens}
        return _ollama_options(spec.ollama.options or {}) if spec.ollama is not None else {}
    out: dict[str, Any] = {}
    for field in _NUMBERS:
        text = getattr(block, field, None)
        if text not in (None, ""):
            out[field] = number(text, field)
    for field in ("max_tokens", "max_completion_tokens", "seed", "n", "reasoning_effort"):
        value = getattr(block, field, None)
        if value is not None:
            out[field] = value
    return out


def _ollama_options(options: Mapping[str, str]) -> dict[str, Any]:
    """The options that Ollama's OpenAI-compatible endpoint knows."""
    out: dict[str, Any] = {}
    for option, value in options.items():
        if (name := OLLAMA_OPTIONS.get(option)) is not None:
            parsed = number(value, f"ollama.options.{option}")
            out[name] = int(parsed) if name in ("seed", "max_tokens") else parsed
    return out


def number(text: str, field: str) -> float:
    """Raises ConfigError."""
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f'{field}: {text!r} is not a number; write it as "0.7"') from error
