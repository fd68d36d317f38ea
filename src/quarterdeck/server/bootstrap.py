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


async def ensure_secrets(client: KubeClient, options: OperatorOptions) -> str:
    """Make the Secrets that are absent; returns the SHA-256 of the access token.

    The gateways share a key, so that a session that one replica has made is good at the others. The access token is for
    people at the gateway's listener for people. Any replica may be first: creating is atomic. Raises QuarterdeckError.
    """
    await _secret(client, options, GATEWAY_KEY, GATEWAY_KEY_FILE, secrets.token_bytes(32))
    token = await _secret(client, options, ACCESS_TOKEN, ACCESS_TOKEN_KEY, secrets.token_urlsafe(32).encode())
    return hashlib.sha256(token.strip()).hexdigest()


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


async def _secret(client: KubeClient, options: OperatorOptions, name: str, key: str, fresh: bytes) -> bytes:
    """The value under ``key``, made when the Secret is absent."""
    try:
        found = await client.get(SECRET, name, options.namespace)
    except NotFound:
        secret = own_secret(options.namespace, name, {key: base64.b64encode(fresh).decode()})
        if options.owner:
            secret["metadata"]["ownerReferences"] = [await _owner(client, options)]
        try:
            found = await client.create(SECRET, secret)
        except AlreadyExists:  # another replica was faster
            found = await client.get(SECRET, name, options.namespace)
    value = (found.get("data") or {}).get(key)
    if not value:
        raise ConfigError(f"Secret {options.namespace}/{name} has no key {key}; delete it to have it made anew")
    return base64.b64decode(value)


async def _owner(client: KubeClient, options: OperatorOptions) -> Object:
    """Reference to our own Deployment: uninstalling it takes along what we made."""
    owner = await client.get(DEPLOYMENT, options.owner, options.namespace)
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "name": options.owner,
        "uid": owner["metadata"]["uid"],
    }
