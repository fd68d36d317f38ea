"""What the environment says about telemetry, as OpenTelemetry's SDKs read it
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from quarterdeck.errors import ConfigError

REDACT = "QUARTERDECK_REDACT"
"""Comma-separated JSON pointers and key patterns of what is never shown of runs."""
_PREFIX = "OTEL_"
_SECRET = "_HEADERS"  # noqa: S105 - the end of a variable's name


def handed_on(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The variables that agents get as the control plane has them; headers hold credentials and stay."""
    names = sorted(name for name in env if name.startswith(_PREFIX) and not name.endswith(_SECRET))
    return tuple((name, env[name]) for name in (*names, *([REDACT] if env.get(REDACT) else [])))


def endpoint(env: Mapping[str, str]) -> str:
    """Where spans go: ``http(s)://HOST:4318/v1/traces``; empty: nowhere. Raises ConfigError naming the variable."""
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return ""
    name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    url = env.get(name, "")
    if not url:
        name = "OTEL_EXPORTER_OTLP_ENDPOINT"
        url = env.get(name, "")
        url = f"{url.rstrip('/')}/v1/traces" if url else ""
    if url and not _usable(url):
        raise ConfigError(f"{name}={env[name]}: must be an http(s) URL, e.g. http://collector:4318")
    return url


def collector(env: Mapping[str, str]) -> tuple[str, int] | None:
    """Host and port of :func:`endpoint`; None when spans go nowhere, or the variable means nothing."""
    try:
        parts = urlsplit(endpoint(env))
        port = parts.port
    except (ConfigError, ValueError):
        return None
    return (parts.hostname, port or (443 if parts.scheme == "https" else 80)) if parts.hostname else None


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False
