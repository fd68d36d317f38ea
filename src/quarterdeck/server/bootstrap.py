"""What a fresh cluster needs beside the chart: the gateways' key, the default namespace and ModelConfig."""

from __future__ import annotations

import base64
import os
from contextlib import suppress

from quarterdeck.controllers.bootstrap import GATEWAY_KEY, gateway_key, namespace_manifest
from quarterdeck.errors import AlreadyExists, NotFound
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.resource import DEPLOYMENT, NAMESPACE, SECRET, Object

from . import default_model
from .operator_options import OperatorOptions


async def bootstrap(client: KubeClient, options: OperatorOptions) -> None:
    """Create what is absent; what is there stays as it is. Raises QuarterdeckError; may be called again at any time."""
    await _gateway_key(client, options)
    namespace = options.controllers.default_namespace
    if not options.watch_namespaces:
        try:
            await client.get(NAMESPACE, namespace)
        except NotFound:
            with suppress(AlreadyExists):
                await client.create(NAMESPACE, namespace_manifest(namespace))
    if options.default_model is not None and namespace in (options.watch_namespaces or (namespace,)):
        await default_model.ensure(client, default_model.Choice(options.default_model), namespace)


async def _gateway_key(client: KubeClient, options: OperatorOptions) -> None:
    """One key for all replicas of the gateway: a session that one has made is good at the others."""
    try:
        await client.get(SECRET, GATEWAY_KEY, options.namespace)
    except NotFound:
        secret = gateway_key(options.namespace, base64.b64encode(os.urandom(32)).decode())
        if options.owner:
            secret["metadata"]["ownerReferences"] = [await _owner(client, options)]
        with suppress(AlreadyExists):
            await client.create(SECRET, secret)


async def _owner(client: KubeClient, options: OperatorOptions) -> Object:
    """Reference to our own Deployment: uninstalling it takes along what we made."""
    owner = await client.get(DEPLOYMENT, options.owner, options.namespace)
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "name": options.owner,
        "uid": owner["metadata"]["uid"],
    }
