"""The embedded API server as a whole: builds its parts in order, starts the listeners, stops in reverse."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quarterdeck.apiserver.addresses import ServiceAddresses
from quarterdeck.apiserver.admission import AdmissionChain
from quarterdeck.apiserver.bootstrap import Bootstrap
from quarterdeck.apiserver.builtin import kind_schema
from quarterdeck.apiserver.catalogue import builtin_kinds
from quarterdeck.apiserver.codec import MAX_BODY
from quarterdeck.apiserver.crd.conversion import InProcess
from quarterdeck.apiserver.crds import CustomResources, DefinitionSchema
from quarterdeck.apiserver.deletion import Deletion
from quarterdeck.apiserver.kinds import KindRegistry
from quarterdeck.apiserver.namespaces import NamespaceRules
from quarterdeck.apiserver.options import WriteOptions
from quarterdeck.apiserver.pods import PodProxy
from quarterdeck.apiserver.resources import ResourceVerbs
from quarterdeck.apiserver.respond import refusal
from quarterdeck.apiserver.routes import MetricsSource, Routes
from quarterdeck.apiserver.schema.node import KindSchema
from quarterdeck.apiserver.security import (
    AdminToken,
    Authenticator,
    Authorizer,
    Pki,
    SecretCipher,
    ServiceAccountTokens,
    User,
    ensure_pki,
    kubeconfig_token,
    write_kubeconfig,
)  # fmt: skip
from quarterdeck.apiserver.security.browser import LOCAL_HOSTS
from quarterdeck.apiserver.security.identity import NODE_PREFIX, NODES
from quarterdeck.apiserver.store import Event, Retention, Store, storage_key
from quarterdeck.apiserver.subresources import Subresources
from quarterdeck.apiserver.watch import MAX_PENDING
from quarterdeck.apiserver.writes import Writes
from quarterdeck.errors import ApiError, StorageError
from quarterdeck.kube.resource import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CRD,
    RESOURCE_QUOTA,
    ROLE,
    ROLE_BINDING,
    SECRET,
    Object,
    Resource,
)  # fmt: skip
from quarterdeck.wire.http import Exchange, Limits, Server

_log = logging.getLogger(__name__)
_RBAC = (ROLE, ROLE_BINDING, CLUSTER_ROLE, CLUSTER_ROLE_BINDING)


@dataclass(frozen=True, slots=True)
class ApiServerConfig:
    """Where and how to serve. ``port`` 0 takes a free one; ``hosts`` are further names of the serving certificate."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8703
    unix_socket: Path | None = None
    hosts: tuple[str, ...] = ()
    service_cidr: str = "10.96.0.0/16"
    retention: Retention = field(default_factory=Retention)
    watch_pending: int = MAX_PENDING
    metrics: MetricsSource | None = None
    converters: InProcess | None = None


def _schema_of(resource: Resource) -> KindSchema:
    # A cached_property does not satisfy a protocol's property for pyright, hence Any.
    made: Any = DefinitionSchema() if resource == CRD else kind_schema(resource)
    return made


class ApiServer:
    """One embedded API server on one data directory."""

    def __init__(self, config: ApiServerConfig) -> None:
        self.config = config
        self.url = ""
        self.admin_token = ""
        self.unix_socket = config.unix_socket or config.data_dir / "run" / "kubernetes.sock"
        self.kubeconfig = config.data_dir / "kubeconfig"
        self.registry = KindRegistry(builtin_kinds(_schema_of))
        self.pki: Pki | None = None
        self.store: Store | None = None
        self.authenticator: Authenticator | None = None
        self.routes: Routes | None = None
        self._rbac_version = 0
        self._server: Server | None = None
        self._proxy: PodProxy | None = None
        self._crds: CustomResources | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._roles_changed = asyncio.Event()

    @property
    def ca_pem(self) -> bytes:
        assert self.pki is not None, "the API server is not started"
        return self.pki.ca_pem

    async def start(self) -> None:
        """Open the store and listen. Raises StorageError (directory in use, newer, unreadable) or OSError (port)."""
        config = self.config
        store = self.store = Store(
            config.data_dir, encrypted=frozenset({storage_key(SECRET)}), retention=config.retention,
            cipher=_LazyCipher(config.data_dir / "pki" / "secrets.key"),
        )  # fmt: skip
        for kind in self.registry.all():
            store.register_fields(kind.key, kind.fields_of)
        store.open()
        try:
            await self._start(store)
        except BaseException:
            await self.stop()
            raise

    async def _start(self, store: Store) -> None:
        config = self.config
        pki = self.pki = ensure_pki(config.data_dir, config.hosts)
        authorizer = Authorizer(store, lambda: self._rbac_version)
        for resource in _RBAC:
            store.bucket(storage_key(resource)).listeners.add(self._role_changed)
        tokens = ServiceAccountTokens(pki.service_account_key, store)
        admin = AdminToken(config.data_dir / "pki" / "admin.token")
        self.authenticator = Authenticator(tokens, admin, authorizer)
        writes, crds, bootstrap = self._writes(store, authorizer)
        deletion = Deletion(writes)
        verbs = ResourceVerbs(store, writes, deletion, max_pending=config.watch_pending, authorizer=authorizer)
        self._proxy = PodProxy(store, pki.kubelet_client_context())
        self.routes = Routes(
            registry=self.registry, verbs=verbs, subresources=Subresources(verbs, tokens, self._proxy),
            authenticator=self.authenticator, authorizer=authorizer, jwks=pki.jwks, issuer=tokens.issuer,
            address=lambda: self.url, metrics=config.metrics, metrics_text=self._metrics_text,
            hosts=frozenset({*LOCAL_HOSTS, config.host, *config.hosts}),
        )  # fmt: skip
        limits = Limits(body_bytes=MAX_BODY, body_timeout=60.0)
        self._server = Server(self.routes, name="kubernetes", limits=limits, on_error=_log_error, error_body=refusal)
        host, port = await self._server.listen(config.host, config.port, tls=pki.serving_context())
        self.url = f"https://{host}:{port}"
        await bootstrap.ensure(host, port)
        self._keep(crds.clean_up(deletion))
        self._keep(self._aggregate(bootstrap))
        await self._listen_unix(self._server)
        self.admin_token = self._admin(admin)
        write_kubeconfig(self.kubeconfig, self.url, pki.ca_pem, self.admin_token)

    def _writes(self, store: Store, authorizer: Authorizer) -> tuple[Writes, CustomResources, Bootstrap]:
        writes = Writes(store, self.registry)
        addresses = ServiceAddresses(store, self.config.service_cidr)
        addresses.load()
        crds = self._crds = CustomResources(store, self.registry, self.config.converters)
        crds.load()
        writes.hooks += [NamespaceRules(), addresses, crds]
        writes.admission = AdmissionChain(store, _AdmissionHooks(writes), authorizer)
        return writes, crds, Bootstrap(writes, self.registry)

    async def _listen_unix(self, server: Server) -> None:
        path = self.unix_socket
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)  # the data directory is locked: a socket left there is nobody's
        await server.listen_unix(str(path))
        os.chmod(path, 0o600)

    def _admin(self, admin: AdminToken) -> str:
        known = kubeconfig_token(self.kubeconfig)
        return known if known is not None and admin.matches(known) else admin.renew()

    def client_config(self, user: str = "admin") -> dict[str, Any]:
        """Arguments of ``kube.ClientConfig`` for ``admin`` or a user name such as ``system:node:local``.

        Users other than ``admin`` have what their name is given by RBAC or the node authorizer, and no more.
        """
        if user == "admin":
            token = self.admin_token
        else:
            assert self.authenticator is not None, "the API server is not started"
            groups = (NODES,) if user.startswith(NODE_PREFIX) else ()
            token = self.authenticator.grant(User(user, groups))
        return {"base_url": self.url, "token": token, "ca_file": str(self.config.data_dir / "pki" / "ca.crt")}

    async def stop(self, grace: float = 1.0) -> None:
        """Stop serving, finish queued writes, release the directory."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self.routes is not None:
            self.routes.verbs.end_watches()
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None
        if self._proxy is not None:
            self._proxy.close()
        if self.store is not None:
            self.store.close()

    def set_metrics(self, source: MetricsSource) -> None:
        """The node's figures for ``kubectl top``."""
        assert self.routes is not None, "the API server is not started"
        self.routes.metrics = source

    # -- inside
    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    def _role_changed(self, event: Event) -> None:
        self._rbac_version += 1
        if b'"ClusterRole"' in event.entry.raw[:200]:
            self._roles_changed.set()

    async def _aggregate(self, bootstrap: Bootstrap) -> None:
        while True:
            await self._roles_changed.wait()
            self._roles_changed.clear()
            try:
                await bootstrap.aggregate()
            except ApiError as error:
                _log.warning("aggregated ClusterRoles are not up to date: %s", error)

    def _metrics_text(self) -> bytes:
        store = self.store
        if store is None:
            return b""
        lines = ["# TYPE apiserver_storage_objects gauge"]
        lines += [f'apiserver_storage_objects{{resource="{k}"}} {len(store.bucket(k).entries)}' for k in store.kinds()]
        lines += ["# TYPE apiserver_storage_writes_total counter", f"apiserver_storage_writes_total {store.writes}"]
        lines += ["# TYPE apiserver_resource_version gauge", f"apiserver_resource_version {store.visible}", ""]
        return "\n".join(lines).encode()


class _LazyCipher:
    """Makes or reads the key file when the first Secret is written or read, so that a refused start changes nothing."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file
        self._cipher: SecretCipher | None = None

    def _real(self) -> SecretCipher:
        if self._cipher is None:
            self._cipher = SecretCipher(self._key_file)
        return self._cipher

    def encrypt(self, data: bytes, aad: bytes) -> bytes:
        return self._real().encrypt(data, aad)

    def decrypt(self, data: bytes, aad: bytes) -> bytes:
        if self._cipher is None and not self._key_file.exists():  # a new key would only hide that the old one is gone
            raise StorageError(
                f"{self._key_file} is missing and {aad.decode(errors='replace')} was encrypted with it; "
                "put the original back"
            )
        return self._real().decrypt(data, aad)


@dataclass(slots=True)
class _AdmissionHooks:
    """What admission needs beyond reading."""

    writes: Writes

    def resource_of(self, group: str, plural: str) -> Resource | None:
        found = (k for k in self.writes.registry.all() if (k.resource.group, k.resource.plural) == (group, plural))
        return next((kind.resource for kind in found), None)

    async def write_quota_status(self, quota: Object, status: Object) -> None:
        kind = self.writes.registry.get(RESOURCE_QUOTA.group, RESOURCE_QUOTA.version, RESOURCE_QUOTA.plural)
        if kind is None:
            return

        def change(live: Object) -> Object:
            live["status"] = status
            return live

        metadata: Object = quota["metadata"]
        options = WriteOptions("kube-apiserver")
        await self.writes.modify(kind, metadata["namespace"], metadata["name"], change, options, "status")


def _log_error(exchange: Exchange, error: Exception) -> None:
    _log.error("%s %s failed", exchange.method, exchange.path, exc_info=error)
