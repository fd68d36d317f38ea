"""Conversion webhooks: where they are, and one HTTPS request to them."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from quarterdeck.apiserver.codec import encode
from quarterdeck.apiserver.crd.conversion import Webhook, failed
from quarterdeck.apiserver.store import Store
from quarterdeck.errors import InternalError, QuarterdeckError
from quarterdeck.kube.resource import ENDPOINT_SLICE, Object
from quarterdeck.wire.client import Pool
from quarterdeck.wire.tls import client_context

_TIMEOUT = 30.0
_SERVICE_LABEL = "kubernetes.io/service-name"


def webhook_of(crd: Object, store: Store) -> Webhook | None:
    """The webhook of a definition with conversion strategy Webhook, else None."""
    conversion: Object = crd["spec"].get("conversion") or {}
    if conversion.get("strategy") != "Webhook":
        return None
    config: Object = (conversion.get("webhook") or {}).get("clientConfig") or {}

    async def post(review: Object) -> Object:
        try:
            return await _post(config, store, review)
        except InternalError:
            raise
        except (QuarterdeckError, msgspec.DecodeError, ValueError) as error:
            raise failed(review["request"]["objects"][0], str(error)) from error

    return Webhook(post)


async def _post(config: Object, store: Store, review: Object) -> Object:
    host, port, path, server_name = _address(config, store)
    bundle = base64.b64decode(config.get("caBundle") or b"").decode()
    context: ssl.SSLContext = client_context(ca_pem=bundle, where="caBundle")
    pool = Pool(tls=context, server_hostname=server_name)
    try:
        headers = [(b"content-type", b"application/json"), (b"accept", b"application/json")]
        response = await pool.request("POST", (host, port, True), path, headers, encode(review), timeout=_TIMEOUT)
        body = await response.read()
        if response.status != 200:
            raise ValueError(f"it answered with status {response.status}")
        return msgspec.json.decode(body, type=dict)
    finally:
        pool.close()


def _address(config: Object, store: Store) -> tuple[str, int, str, str]:
    """(host, port, path, name in the certificate) of a clientConfig: its URL, or a ready endpoint of its Service."""
    if config.get("url"):
        url = urlsplit(str(config["url"]))
        return url.hostname or "", url.port or 443, url.path or "/", url.hostname or ""
    service: Object = config.get("service") or {}
    name, namespace = str(service.get("name") or ""), str(service.get("namespace") or "")
    for address, port in _endpoints(store, namespace, name):
        return address, port, str(service.get("path") or "/"), f"{name}.{namespace}.svc"
    raise InternalError(f"conversion webhook failed: Service {namespace}/{name} has no ready endpoint")


def _endpoints(store: Store, namespace: str, name: str) -> Iterable[tuple[str, int]]:
    for piece in store.list(ENDPOINT_SLICE, namespace):
        if (piece["metadata"].get("labels") or {}).get(_SERVICE_LABEL) != name:
            continue
        for endpoint in piece.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                for port in piece.get("ports") or ():
                    yield endpoint["addresses"][0], int(port["port"])
