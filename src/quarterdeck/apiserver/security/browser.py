"""Checks on requests that a web page could send: DNS rebinding (Host) and cross-site requests (Origin)."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from quarterdeck.errors import Forbidden

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "kubernetes.default.svc", "kubernetes.default", "kubernetes"})


def host_of(authority: str) -> str:
    """The host of a Host header: lower case, without port and brackets."""
    text = authority.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def check_browser(
    host: bytes | None,
    origin: bytes | None,
    fetch_site: bytes | None,
    allowed_hosts: Collection[str] = LOCAL_HOSTS,
) -> None:
    """Refuse a request whose Host is not ours, or that a page of another site caused. Raises Forbidden.

    ``fetch_site`` is Sec-Fetch-Site. A missing Host (HTTP/1.0, unix socket clients) passes: no browser leaves it out.
    """
    name = host_of(host.decode("latin-1")) if host else ""
    if name and name not in allowed_hosts:
        raise Forbidden(f'host "{name}" is not served here; use https://127.0.0.1 or add the name to the allowed hosts')
    if origin is not None:
        text = origin.decode("latin-1")
        source = urlsplit(text).hostname if text != "null" else None
        if source is None or source.lower() not in allowed_hosts:
            raise Forbidden(f'origin "{text}" may not call this API server')
    elif fetch_site is not None and fetch_site not in (b"same-origin", b"none"):
        raise Forbidden("requests from pages of other sites are refused (Sec-Fetch-Site)")
