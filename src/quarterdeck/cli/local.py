"""Calling the gateway from this machine: its address, the token when it wants one."""

from __future__ import annotations

import os
import urllib.parse

from quarterdeck.errors import ConfigError
from quarterdeck.wire.http import Header

from .home import endpoints, home


def gateway_url() -> str:
    """``$QUARTERDECK_GATEWAY_URL`` for a gateway elsewhere, else the one that runs here. Raises NotRunning."""
    return os.environ.get("QUARTERDECK_GATEWAY_URL", "").rstrip("/") or endpoints().gateway


def gateway_headers() -> list[Header]:
    """The bearer token of ``$QUARTERDECK_TOKEN`` or of ``run/local-token``; none when there is neither."""
    token = os.environ.get("QUARTERDECK_TOKEN", "").strip()
    if not token:
        path = home() / "run" / "local-token"
        try:
            token = path.read_text().strip()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; set QUARTERDECK_TOKEN instead") from error
    return [(b"authorization", f"Bearer {token}".encode())]


def part(text: str) -> str:
    """A name as one segment of a URL path."""
    return urllib.parse.quote(text, safe="")
