"""What a fresh cluster needs beside the chart: Secrets of our own, the default namespace and ModelConfig."""

from __future__ import annotations

import base64
import hashlib
import secrets
from contextlib import suppress

from quarterdeck.controllers.bootstrap import (
    ACCESS_TOKEN,
    ACCESS_TOKEN_KEY,
    GATEWAY_KEY,
    GATEWAY_KEY_FILE,
    namespace_manifest,
    own_secret,
)
from quarterdeck.errors import AlreadyExists, ConfigError, NotFound
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import DEPLOYMENT, NAMESPACE, SECRET, Object

from . import default_model
from .operator_options import OperatorOptions


async def owners(client: KubeClient, options: OperatorOptions) -> list[Object]:
    """Reference to our own Deployment: uninstalling it takes along what we made. Raises QuarterdeckError."""
    if not options.owner:
        return []
    owner = await client.get(DEPLOYMENT, options.owner, options.namespace)
    reference = {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind, "name": options.owner}
    return [reference | {"uid": owner["metadata"]["uid"]}]


async def ensure_secrets(client: KubeClient, namespace: str, owned_by: list[Object]) -> str:
    """Make the Secrets that are absent; returns the SHA-256 of the access token.

    The gateways share a key, so that a session that one replica has made is good at the others. The access token is for
    people at the gateway's listener for people. Any replica may be first: creating is atomic. Raises QuarterdeckError.
    """
    made = (
        own_secret(namespace, GATEWAY_KEY, {GATEWAY_KEY_FILE: _base64(secrets.token_bytes(32))}),
        own_secret(namespace, ACCESS_TOKEN, {ACCESS_TOKEN_KEY: _base64(secrets.token_urlsafe(32).encode())}),
    )
    for secret in made:
        if owned_by:
            secret["metadata"]["ownerReferences"] = owned_by
    _, token = [await _found_or_made(client, secret) for secret in made]
    return hashlib.sha256(token.strip()).hexdigest()


async def gateway_key(client: KubeClient, namespace: str) -> bytes:
    """What the gateways seal with; keys for what the control plane keeps for them are made of it.

    Raises QuarterdeckError.
    """
    found = await client.get(SECRET, GATEWAY_KEY, namespace)
    return base64.b64decode((found.get("data") or {}).get(GATEWAY_KEY_FILE) or "")


async def ensure_defaults(client: KubeClient, options: OperatorOptions) -> None:
    """Namespace (cluster mode) and ModelConfig; what is there stays. Raises QuarterdeckError, may be called again."""
    namespace, watched = options.controllers.default_namespace, options.controllers.watch_namespaces
    if not watched:
        try:
            await client.get(NAMESPACE, namespace)
        except NotFound:
            with suppress(AlreadyExists):
                await client.create(NAMESPACE, namespace_manifest(namespace))
    if options.default_model is not None and namespace in (watched or (namespace,)):
        await default_model.ensure(client, default_model.Choice(options.default_model), namespace)


async def _found_or_made(client: KubeClient, secret: Object) -> bytes:
    """The value under the Secret's one key. Raises ConfigError when a Secret is there without it."""
    namespace, name = secret["metadata"]["namespace"], secret["metadata"]["name"]
    try:
        found = await client.get(SECRET, name, namespace)
    except NotFound:
        try:
            found = await client.create(SECRET, secret)
        except AlreadyExists:  # another replica was faster
            found = await client.get(SECRET, name, namespace)
    key = next(iter(secret["data"]))
    value = base64.b64decode((found.get("data") or {}).get(key) or "")
    if not value.strip():  # the digest of nothing would let in who says nothing
        raise ConfigError(f"Secret {namespace}/{name} has no key {key}; delete it to have it made anew")
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
