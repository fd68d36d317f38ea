"""The control plane in a cluster: controllers under a Lease, REST APIs and gateway configuration on every replica."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from quarterdeck import __version__
from quarterdeck.controllers import GatewayConfig, build
from quarterdeck.errors import QuarterdeckError
from quarterdeck.gateway.options import Address
from quarterdeck.kube import metrics
from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.config import load_config
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.lease import LeaderElector
from quarterdeck.kube.resource import Object
from quarterdeck.kube.supervise import Supervisor
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.http import Exchange, Server

from .approvals_service import ApprovalOptions
from .bootstrap import ensure_defaults, ensure_secrets, gateway_key, owners
from .conversion import ConversionWebhook, WebhookOptions
from .operator_options import OperatorOptions
from .rest import RestApis, log_error, port_taken
from .reviews import ApiReviews, OwnReviews, Reviews

log = logging.getLogger(__name__)
LEASE_NAME = "quarterdeck-controller"
_BACKOFF = (1.0, 60.0)
"""Seconds between attempts at what a fresh cluster needs; CRDs may be installed after us."""
T = TypeVar("T")


class Operator:
    """Everything of one replica: ``run`` (or ``start``), then ``stop``."""

    def __init__(self, options: OperatorOptions) -> None:
        self.options = options
        self.registry = Registry()
        self.addresses: dict[str, tuple[str, int]] = {}
        """Where it listens: api, kagent, health."""
        self._clients: list[KubeClient] = []
        self._controllers: ControllerSet | None = None
        self._config: GatewayConfig | None = None
        self._rest: RestApis | None = None
        self._webhook: ConversionWebhook | None = None
        self._health: Server | None = None
        self._leading: asyncio.Task[None] | None = None
        self._draining = False

    async def start(self) -> None:
        """Raises ConfigError (no cluster), StorageError (database) or QuarterdeckError (a port, named)."""
        options = self.options
        config = load_config(options.kubeconfig or None)
        # Not gated: it renews the lease and asks for TokenReviews, on standbys too.
        plain = self._client(KubeClient(config))
        self.elector = LeaderElector(plain, options.namespace, LEASE_NAME, options.identity)
        client = self._client(KubeClient(config, gate=self.elector.check))
        await self._listen_health(options.health)
        owned_by = await _until_done("Deployment of the control plane", lambda: owners(plain, options))
        token_hash = await _until_done(
            "Secrets of the control plane", lambda: ensure_secrets(plain, options.namespace, owned_by)
        )
        self.elector.owners = owned_by
        told = replace(options.controllers, local_token_hashes=(token_hash,))
        self._controllers, self._config = build(client, told)
        self._metrics(self._controllers, self._config)
        watched = options.controllers.watch_namespaces
        reviews, approvals = self._reviews(plain, self._config), ApprovalOptions(plain, namespaces=watched)
        key = await _until_done("key of the gateways", lambda: gateway_key(plain, options.namespace))
        rest = self._rest = await RestApis.open(options.database, reviews, self._config, approvals, key, self.registry)
        if options.webhook is not None:
            await self._start_webhook(plain, options.webhook, owned_by, self._controllers.supervisor)
        await self._controllers.start(workers=False)
        for name, wanted in (("api", options.api), ("kagent", options.kagent)):
            if wanted is not None:
                self.addresses[name] = await rest.listen(name, *wanted, f"--{name}")
        self._leading = asyncio.create_task(self._lead(client), name="leader election")

    async def run(self, stop: asyncio.Event) -> None:
        """Start, serve until ``stop`` is set, then drain. Raises what :meth:`start` or a worker failed of."""
        serving = asyncio.create_task(self._serve(), name="operator")
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if serving.done():
            serving.result()
        self._draining = True
        started = self._leading is not None
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await self._end_leading()
        if started:
            await asyncio.sleep(self.options.drain)

    async def stop(self) -> None:
        """Give up the lease, then end servers, controllers and connections."""
        await self._end_leading()
        if self._rest is not None:
            await self._rest.stop()
        if self._webhook is not None:
            await self._webhook.stop()
        if self._controllers is not None:
            await self._controllers.stop()
        for client in self._clients:
            await client.close()
        if self._rest is not None:
            await self._rest.close()
        if self._health is not None:
            await self._health.stop(0)

    def problem(self) -> str:
        """Why this replica must get no requests now; empty when it may. Leading or not plays no part."""
        if self._draining:
            return "shutting down"
        if self._rest is None:
            return "starting: the API server or the database has not answered yet"
        if self._config is None or self._config.snapshot is None:
            waiting = self._controllers.waiting_for() if self._controllers is not None else []
            return f"no gateway configuration yet: cannot read {', '.join(waiting) or 'the token keys'}"
        return ""

    def _reviews(self, client: KubeClient, config: GatewayConfig) -> Reviews:
        """Roles cannot grant TokenReviews: with Roles only we look at tokens ourselves."""
        if not self.options.controllers.watch_namespaces:
            return ApiReviews(client)
        return OwnReviews(client.config, lambda: config.snapshot.identities if config.snapshot is not None else None)

    def _client(self, client: KubeClient) -> KubeClient:
        self._clients.append(client)
        return client

    async def _serve(self) -> None:
        await self.start()
        assert self._leading is not None
        await asyncio.shield(self._leading)

    async def _end_leading(self) -> None:
        if self._leading is not None:
            self._leading.cancel()
            await asyncio.gather(self._leading, return_exceptions=True)

    async def _lead(self, client: KubeClient) -> None:
        """Candidate for as long as the process runs; a lost lease is run for again."""
        while True:
            await self.elector.run(lambda: self._work(client))

    async def _work(self, client: KubeClient) -> None:
        assert self._controllers is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(_until_done("default namespace and model", lambda: ensure_defaults(client, self.options)))
            group.create_task(self._controllers.work())

    async def _start_webhook(
        self, client: KubeClient, wanted: Address, owned_by: list[Object], supervisor: Supervisor
    ) -> None:
        host, port = wanted
        directory = self.options.webhook_certificates
        self._webhook = ConversionWebhook(
            client,
            WebhookOptions(self.options.namespace, port=port, host=host, directory=directory, owners=tuple(owned_by)),
            supervisor=supervisor,
        )
        try:
            await self._webhook.start()
        except OSError as error:
            raise port_taken(port, "--webhook", error.strerror or str(error), host=host) from error

    async def _listen_health(self, wanted: Address | None) -> None:
        if wanted is None:
            return
        self._health = Server(self._answer, name="health", on_error=log_error)
        try:
            self.addresses["health"] = await self._health.listen(*wanted)
        except OSError as error:
            raise port_taken(wanted[1], "--health", error.strerror or str(error), host=wanted[0]) from error

    def _answer(self, exchange: Exchange) -> None:
        text = [(b"content-type", b"text/plain; charset=utf-8")]
        if exchange.path in ("/livez", "/healthz"):
            exchange.respond(200, b"ok\n", text)
        elif exchange.path == "/readyz":
            problem = self.problem()
            exchange.respond(503 if problem else 200, (problem or "ready").encode() + b"\n", text)
        elif exchange.path == "/metrics":
            exchange.respond(200, self.registry.render(), [(b"content-type", self.registry.content_type)])
        else:
            exchange.respond(404, b"see /livez, /readyz and /metrics\n", text)

    def _metrics(self, controllers: ControllerSet, config: GatewayConfig) -> None:
        self.registry.gauge("quarterdeck_build_info", "Version.", lambda: [({"version": __version__}, 1.0)])
        self.registry.gauge(
            "quarterdeck_gateway_config_compilations_total", "Snapshots compiled.",
            lambda: [({}, float(config.compilations))], kind="counter",
        )  # fmt: skip
        metrics.register(self.registry, controllers, self.elector)


async def _until_done(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Try with exponential back-off until it works; each failure is logged."""
    delay, limit = _BACKOFF
    while True:
        try:
            return await attempt()
        except QuarterdeckError as error:
            log.warning("%s: %s; trying again", what, error)
        await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
        delay = min(delay * 2, limit)
