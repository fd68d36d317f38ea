"""A ModelConfig as the gateway sees it."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot import Model
from quarterdeck.wire.client import Origin

from ..call import header_lines
from ..policy.authorizer import WRITTEN, Target
from ..upstream import Upstreams
from .formats import FORMATS, Format


class ModelRoute:
    """One model: where it is, how it is spoken to, what is attached, what is filled in.

    What is wrong with one ModelConfig is its ``problem``, told to its callers: all others are served.
    """

    def __init__(self, model: Model, upstreams: Upstreams) -> None:
        self.model = model
        self.label = f"{model.namespace}/{model.name}"
        self.target: Target = ("Model", model.namespace, model.name)
        self.problem = model.error
        self.origin: Origin = ("", 0, False)
        self.prefix = self.authority = ""
        self.pool = upstreams.pool()
        self.format: Format | None = FORMATS.get(model.format)
        """None: OpenAI's own, passed on as it is."""
        if not self.problem:
            try:
                self._connect(model, upstreams)
            except ConfigError as error:
                self.problem = str(error)
        self.headers = header_lines(tuple(h for h in model.headers if h.name.lower() not in WRITTEN))
        self.defaults = {k: msgspec.Raw(msgspec.json.encode(v)) for k, v in model.defaults.items()}
        self.query = f"?{model.query}" if model.query else ""

    def _connect(self, model: Model, upstreams: Upstreams) -> None:
        self.origin, self.prefix, self.authority = parse(model.base_url, f"ModelConfig {self.label}")
        self.pool = upstreams.pool(
            insecure=model.tls_insecure,
            ca_pem=model.tls_ca,
            system=model.tls_system,
            connect_timeout=model.connect_timeout,
            where=f"ModelConfig {self.label}",
        )


def parse(base_url: str, where: str) -> tuple[Origin, str, str]:
    """Origin, path prefix and authority of a base URL. Raises ConfigError naming ``where``."""
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{where}: base URL {base_url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{where}: base URL {base_url!r} must be http(s)://host[:port][/path]")
    secure = parts.scheme == "https"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = f"{host}:{port}" if port else host
    return (parts.hostname, port or (443 if secure else 80), secure), parts.path.rstrip("/"), authority
