"""Asking the control plane's management API, or the admin port of one gateway, for JSON."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from urllib.parse import urlsplit

import msgspec

from quarterdeck.errors import ConfigError, Conflict, Forbidden, NotFound, QuarterdeckError, UpstreamError, UsageError
from quarterdeck.malformed import MALFORMED
from quarterdeck.wire.client import Origin, Pool
from quarterdeck.wire.http import Header

ADMIN = "http://127.0.0.1:15000"

_ERRORS: dict[int, type[QuarterdeckError]] = {403: Forbidden, 401: Forbidden, 404: NotFound, 409: Conflict}


def control_plane(method: str, path: str, body: Any = None) -> dict[str, Any]:
    """Ask ``$QUARTERDECK_API_URL``, else the platform of this machine, as the person of the kubeconfig.

    Raises NotRunning, Forbidden, NotFound, Conflict, and QuarterdeckError for what else goes wrong.
    """
    from quarterdeck.kube.config import CredentialSource

    from .home import endpoints
    from .target import find_config

    url = os.environ.get("QUARTERDECK_API_URL", "").rstrip("/") or endpoints().api
    token = CredentialSource(find_config()).current().token
    headers: list[Header] = [(b"authorization", f"Bearer {token}".encode())] if token else []
    return asyncio.run(_ask(url, method, path, body, headers))


def admin(address: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """Ask a gateway's admin port: ``http://HOST:PORT`` or ``HOST:PORT``; empty is that of this machine."""
    url = address if "//" in address else f"http://{address}" if address else ADMIN
    return asyncio.run(_ask(url, method, path, body, [(b"host", b"localhost:0")]))


async def _ask(url: str, method: str, path: str, body: Any, headers: list[Header]) -> dict[str, Any]:
    origin = _origin(url)
    pool = Pool(tls=_tls() if origin[2] else None)
    data = b"" if body is None else msgspec.json.encode(body)
    try:
        response = await pool.request(method, origin, path, headers, data, timeout=30.0)
        text = await response.read()
    except UpstreamError as error:
        raise ConfigError(f"{url} does not answer: {error}") from error
    finally:
        pool.close()
    try:
        answer = msgspec.json.decode(text, type=dict[str, Any])
    except MALFORMED as error:
        raise UpstreamError(f"{url}{path} answered HTTP {response.status} with something that is no JSON") from error
    if response.status >= 300:
        problem = answer.get("error")
        message = str(problem.get("message", "")) if isinstance(problem, dict) else str(problem)
        raise _ERRORS.get(response.status, QuarterdeckError)(message or f"{url}{path} gave HTTP {response.status}")
    return answer


def _origin(url: str) -> Origin:
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise UsageError(f"{url}: must be http(s)://HOST:PORT")
    secure = parts.scheme == "https"
    return parts.hostname, parts.port or (443 if secure else 80), secure


def _tls() -> Any:
    from quarterdeck.wire.tls import client_context

    return client_context()
