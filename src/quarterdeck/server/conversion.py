"""The conversion webhook: v1alpha1 and v1alpha2 of Agent and ModelConfig, for a real API server.

Every replica serves ``POST /convert`` over HTTPS and keeps what the API server needs to reach it right, level-triggered
once a period: the certificates in a shared Secret (see ``certificates``), and the ``conversion`` stanza with the bundle
in the two definitions. Replicas need no leader: each write carries the version it was computed from, and who loses
reads again.

While no replica answers, v1alpha2 goes on working, as it is what is stored. Refused (500, naming the webhook) are
requests in v1alpha1, updates of objects that somebody wrote in v1alpha1 (their field owners are compared in that
version), and everything about a kind of which objects are still stored as v1alpha1; ``qd migrate kagent`` rewrites
those.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from quarterdeck import errors
from quarterdeck.kube import resource as k
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Clock, SystemClock, sleep
from quarterdeck.kube.resource import Object
from quarterdeck.kube.supervise import Supervisor
from quarterdeck.resources.conversion import CONVERTED_KINDS, convert
from quarterdeck.resources.crd import KINDS, PART_OF
from quarterdeck.wire.http import Exchange, Limits, Server

from .certificates import Material, advance, decode, encode, initial

log = logging.getLogger(__name__)
DEFINITIONS = tuple(f"{kind.plural}.{kind.group}" for kind in KINDS if (kind.group, kind.kind) in CONVERTED_KINDS)
PATH = "/convert"
_JSON = [(b"content-type", b"application/json")]
_HEAD = b'{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":'
_LIMITS = Limits(body_bytes=32 * 1024 * 1024, bodies_bytes=64 * 1024 * 1024, connections=128)
"""An API server sends a whole list in one review. Nobody can be asked who he is here, so all bodies together are
bounded, and objects are taken out of them one by one."""
_SLICE = 0.01
"""Seconds of work on a review after which others get their turn: leases are renewed by the same loop."""
_MANAGER = "quarterdeck-conversion"


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """Where the webhook listens, and how an API server reaches it."""

    namespace: str
    service: str = "quarterdeck"
    port: int = 8443
    """Both of the listener and of the Service."""
    host: str = "0.0.0.0"  # noqa: S104 - API servers are outside the Pod
    secret: str = "quarterdeck-webhook"  # noqa: S105 - a name
    """The Secret with the certificates, made when it is missing."""
    directory: Path | None = None
    """Folder with ``tls.crt``, ``tls.key`` and perhaps ``ca.crt`` of cert-manager's; nothing is issued then."""
    owners: tuple[Object, ...] = ()
    """Owner references of that Secret."""
    address: str = ""
    """Host where the API server reaches this very process, instead of the Service: for an operator outside."""
    period: float = 60.0
    """Seconds between looks at Secret and definitions."""


class ConversionWebhook:
    """One replica of the webhook."""

    def __init__(
        self,
        client: KubeClient,
        options: WebhookOptions,
        clock: Clock | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        """``client`` must not wait for leadership: every replica serves."""
        self.options = options
        self.port = 0
        """Where it listens; 0 until it has a certificate."""
        self._client = client
        self._clock = clock or SystemClock()
        self._supervisor = supervisor or Supervisor(self._clock)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._server = Server(answer, name="conversion", limits=_LIMITS)
        self._loaded = b""
        self._denied = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; listens as soon as there is a certificate, which needs an API server that answers.

        Raises OSError when the port is taken.
        """
        await self.look()
        self._task = asyncio.create_task(
            self._supervisor.keep("conversion webhook", self._follow), name="conversion-webhook"
        )

    async def stop(self) -> None:
        """Stop looking, answer what is under way, close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._server.stop()

    @property
    def ready(self) -> bool:
        """Whether it answers; for the readiness probe."""
        return self.port != 0

    async def _follow(self) -> None:
        while True:
            await sleep(self._clock, self.options.period if self.ready else min(2.0, self.options.period))
            try:
                await self.look()
            except OSError as error:
                log.error("conversion webhook: %s", error)

    async def look(self) -> None:
        """One look at everything; an API server that is away is tried again next time."""
        try:
            if self.options.directory is not None:
                await self._from_directory(self.options.directory)
            else:
                await self._from_secret()
        except (errors.ApiError, errors.UpstreamError) as error:
            log.warning("conversion webhook: %s; trying again", error)

    async def _from_directory(self, directory: Path) -> None:
        def read(name: str) -> bytes:
            path = directory / name
            return path.read_bytes() if path.exists() else b""

        await self._serve(read("tls.crt"), read("tls.key"))
        await self._publish(await self._definitions(), read("ca.crt"))

    async def _from_secret(self) -> None:
        names = serving_names(self.options)
        definitions = await self._definitions()
        material, version = await self._stored()
        published = material is not None and all(_bundle_of(d) == material.bundle for d in definitions)
        now = dt.datetime.fromtimestamp(self._clock.time(), dt.UTC)
        fresh = initial(names, now) if material is None else advance(material, names, now, published)
        if fresh != material:
            material = fresh if await self._store(fresh, version) else (await self._stored())[0]
            if material is None:
                return
        assert material is not None
        if not self.ready:
            await self._serve(material.certificate, material.key)
        await self._publish(definitions, material.bundle)
        await self._serve(material.certificate, material.key)

    async def _stored(self) -> tuple[Material | None, str]:
        """What the Secret holds, and the version to replace; None when it has to be made anew."""
        try:
            secret = await self._client.get(k.SECRET, self.options.secret, self.options.namespace)
        except errors.NotFound:
            return None, ""
        version = str(secret["metadata"]["resourceVersion"])
        try:
            return decode(secret.get("data") or {}), version
        except ValueError as error:
            log.warning(
                "Secret %s/%s is not usable (%s); made anew", self.options.namespace, self.options.secret, error
            )
            return None, version

    async def _store(self, material: Material, version: str) -> bool:
        """Whether ours was written; False when another replica was first."""
        metadata: Object = {"name": self.options.secret, "namespace": self.options.namespace, "labels": PART_OF}
        body: Object = {"metadata": metadata, "type": "kubernetes.io/tls", "data": encode(material)}
        try:
            if version:
                body["metadata"] = metadata | {"resourceVersion": version}
                await self._client.patch(k.SECRET, self.options.secret, body, self.options.namespace)
            else:
                if self.options.owners:
                    metadata["ownerReferences"] = list(self.options.owners)
                await self._client.create(k.SECRET, body, self.options.namespace)
        except (errors.Conflict, errors.AlreadyExists):
            return False
        return True

    async def _serve(self, certificate: bytes, key: bytes) -> None:
        """Use that pair for new connections; those that are open keep theirs."""
        if certificate + key == self._loaded or not certificate:
            return
        load_chain(self._context, certificate, key)
        self._loaded = certificate + key
        if not self.ready:
            _, self.port = await self._server.listen(self.options.host, self.options.port, tls=self._context)

    async def _definitions(self) -> list[Object]:
        """The definitions that are ours: kagent's own are left alone until they have been migrated."""
        found: list[Object] = []
        for name in DEFINITIONS:
            try:
                definition = await self._client.get(k.CRD, name)
            except errors.NotFound:
                continue
            except errors.Forbidden as error:
                self._warn_denied(error)
                continue
            if PART_OF.items() <= (definition["metadata"].get("labels") or {}).items():
                found.append(definition)
        return found

    async def _publish(self, definitions: list[Object], bundle: bytes) -> None:
        """Point the definitions here. Without a bundle whoever injects it (cert-manager) keeps the last word."""
        for definition in definitions:
            wanted = stanza(self.options, self.port, bundle or _bundle_of(definition))
            if _without_nulls(wanted) == definition["spec"].get("conversion"):
                continue
            body = {"spec": {"conversion": wanted}}
            try:
                await self._client.patch(k.CRD, definition["metadata"]["name"], body, field_manager=_MANAGER)
            except errors.Forbidden as error:
                self._warn_denied(error)

    def _warn_denied(self, error: errors.Forbidden) -> None:
        if not self._denied:
            log.warning("objects in v1alpha1 cannot be converted: %s; grant get and patch on the definitions", error)
        self._denied = True


class _Request(msgspec.Struct):
    uid: str
    desired_api_version: str = msgspec.field(name="desiredAPIVersion")
    objects: list[msgspec.Raw]


class _Review(msgspec.Struct):
    request: _Request


async def answer(exchange: Exchange) -> None:
    """Serve one request of an API server."""
    if exchange.path == "/healthz":
        exchange.respond(200, b"ok")
    elif exchange.path != PATH:
        exchange.respond(404, b"not found: POST /convert\n")
    elif exchange.method != "POST":
        exchange.respond(405, b"POST a ConversionReview\n")
    else:
        try:
            request = msgspec.json.decode(exchange.body, type=_Review).request
            parts = await _reviewed(request.uid, request.desired_api_version, request.objects)
        except (ValueError, TypeError, RecursionError) as error:
            exchange.respond(400, f"not a ConversionReview of apiextensions.k8s.io/v1: {error}\n".encode())
            return
        exchange.respond(200, b"".join(parts), _JSON)


async def _reviewed(uid: str, wanted: str, objects: list[msgspec.Raw]) -> list[bytes]:
    """The answer's JSON in pieces: all objects, or why one cannot be converted. Raises ValueError, TypeError."""
    parts: list[bytes] = []
    began = monotonic()
    for raw in objects:
        obj: Any = json.loads(bytes(raw))
        if not isinstance(obj, dict):
            raise TypeError(f"{str(obj)[:50]!r} is no object")
        try:
            parts += [b",", json.dumps(convert(obj, wanted), ensure_ascii=False).encode()]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            metadata: Object = found if isinstance(found := obj.get("metadata"), dict) else {}
            name = f"{obj.get('kind')} {metadata.get('namespace')}/{metadata.get('name')}"
            message = f"{name} cannot be converted to {wanted}: its spec does not have the expected shape ({error!r})"
            failed = {"uid": uid, "result": {"status": "Failed", "message": message}}
            return [_HEAD, json.dumps(failed).encode(), b"}"]
        if monotonic() - began > _SLICE:
            await asyncio.sleep(0)
            began = monotonic()
    success = json.dumps({"uid": uid, "result": {"status": "Success"}}).encode()
    return [_HEAD, success[:-1], b',"convertedObjects":[', *parts[1:], b"]}}"]


def stanza(options: WebhookOptions, port: int, bundle: bytes) -> dict[str, Any]:
    """``spec.conversion`` as a merge patch: what must not be there is null."""
    client: dict[str, Any] = {"caBundle": base64.b64encode(bundle).decode()} if bundle else {}
    if options.address:
        host = f"[{options.address}]" if ":" in options.address else options.address
        client |= {"url": f"https://{host}:{port}{PATH}", "service": None}
    else:
        service = {"namespace": options.namespace, "name": options.service, "path": PATH, "port": options.port}
        client |= {"url": None, "service": service}
    return {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}}


def serving_names(options: WebhookOptions) -> tuple[str, ...]:
    """What an API server asks for in the certificate."""
    short = f"{options.service}.{options.namespace}.svc"
    return (short, f"{short}.cluster.local", *([options.address] if options.address else []))


def load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """``load_cert_chain`` from memory: the key is never written to a disk. Raises ssl.SSLError."""
    descriptor = os.memfd_create("certificate")
    try:
        os.write(descriptor, certificate + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _bundle_of(definition: Object) -> bytes:
    webhook = (definition["spec"].get("conversion") or {}).get("webhook") or {}
    return base64.b64decode((webhook.get("clientConfig") or {}).get("caBundle") or "")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
