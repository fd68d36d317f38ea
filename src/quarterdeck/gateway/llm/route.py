"""A ModelConfig as the gateway sees it."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot import Model
from quarterdeck.wire.client import Origin

from ..call import header_lines
from ..policy.authorizer import Target
from ..upstream import Upstreams


class ModelRoute:
    """One model: where it is, what is attached, what is filled in."""

    def __init__(self, model: Model, upstreams: Upstreams) -> None:
        self.model = model
        self.label = f"{model.namespace}/{model.name}"
        self.target: Target = ("Model", model.namespace, model.name)
        self.problem = model.error
        self.origin: Origin = ("", 0, False)
        self.prefix = ""
        authority = ""
        if not self.problem:
            self.origin, self.prefix, authority = _parse(model)
        self.pool = upstreams.pool(
            insecure=model.tls_insecure, ca_pem=model.tls_ca, authority="", where=f"ModelConfig {self.label}"
        )
        self.headers = f"host: {authority}\r\n".encode() + header_lines(model.headers)
        self.defaults = {k: msgspec.Raw(msgspec.json.encode(v)) for k, v in model.defaults.items()}


def _parse(model: Model) -> tuple[Origin, str, str]:
    """Origin, path prefix and authority of the base URL."""
    where = f"ModelConfig {model.namespace}/{model.name}"
    if not model.base_url:
        raise ConfigError(f"{where}: provider {model.provider} has no endpoint and no reason why")
    try:
        parts = urlsplit(model.base_url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{where}: base URL {model.base_url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{where}: base URL {model.base_url!r} must be http(s)://host[:port][/path]")
    secure = parts.scheme == "https"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = f"{host}:{port}" if port else host
    return (parts.hostname, port or (443 if secure else 80), secure), parts.path.rstrip("/"), authority
