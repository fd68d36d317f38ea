"""The control plane of a laptop: API server, controllers, node and REST APIs in one process, built in order."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from quarterdeck.apiserver.app import ApiServer, ApiServerConfig
from quarterdeck.apiserver.crd.conversion import InProcess
from quarterdeck.apiserver.security import write_kubeconfig
from quarterdeck.apiserver.security.files import read_private, write_private
from quarterdeck.apiserver.security.pki import ADMIN_NAME
from quarterdeck.apiserver.workloads import controllers as workload_controllers
from quarterdeck.controllers import ControllerOptions, build
from quarterdeck.controllers.bootstrap import (
    GATEWAY,
    GATEWAY_SERVICE,
    KAGENT_SERVICE,
    SYSTEM_NAMESPACE,
    GatewayListeners,
    gateway,
    kagent_service,
    namespaces,
)
from quarterdeck.errors import NotFound, StorageError
from quarterdeck.kube.client import ClientConfig, KubeClient
from quarterdeck.kube.controller import ControllerSet
from quarterdeck.kube.resource import (
    CRD,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    NAMESPACE,
    PERSISTENT_VOLUME_CLAIM,
    SERVICE,
    SERVICE_ACCOUNT,
)
from quarterdeck.node.node import Node
from quarterdeck.node.runtime import NodeConfig
from quarterdeck.node.sandbox import landlock
from quarterdeck.node.sandbox.isolation import Sandbox
from quarterdeck.resources.conversion import CONVERTED_KINDS, convert
from quarterdeck.resources.crd import crds, gateway_crds
from quarterdeck.resources.gateway_api.upstream import BUNDLE
from quarterdeck.telemetry.environment import collector, handed_on
from quarterdeck.translate.gateway_api.workload import GatewayPods

from . import default_model
from .approvals_service import ApprovalOptions
from .directory import close_to_others
from .endpoints import Endpoints, write_endpoints
from .metrics import PodMetrics
from .options import ServerOptions
from .ports import gateway_runs, listeners_of, reserve
from .rest import RestApis, port_taken
from .reviews import ApiReviews

NODE_NAME = "local"
TCP_RULES = 4
"""Landlock ABI that knows TCP ports."""
LOCAL_PERSON = frozenset({ADMIN_NAME, "user@local", "anonymous@local"})
"""Names of whoever is at this machine: with the kubeconfig, with the local token, without one."""
_KINDS = {r.kind: r for r in (NAMESPACE, SERVICE_ACCOUNT, DEPLOYMENT, SERVICE, PERSISTENT_VOLUME_CLAIM, ENDPOINT_SLICE)}


class ControlPlane:
    """Everything that ``qd up`` runs but the gateway, which is a Pod."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.node: Node | None = None
        self._metrics = PodMetrics(lambda: self.node.pod_metrics() if self.node is not None else [], NODE_NAME)
        self._measuring: asyncio.Task[None] | None = None
        self._api: ApiServer | None = None
        self._clients: list[KubeClient] = []
        self._sets: list[ControllerSet] = []
        self._rest: RestApis | None = None

    async def start(self) -> None:
        """Raises StorageError (data directory) or QuarterdeckError (a port that is taken, named)."""
        options = self.options
        close_to_others(options.home)
        api = self._api = ApiServer(
            ApiServerConfig(options.home, port=options.kubernetes_port, metrics=self._metrics, converters=_converters())
        )
        await _listening(api.start(), "--kubernetes-port", options.kubernetes_port)
        if options.kubeconfig != api.kubeconfig:
            write_kubeconfig(options.kubeconfig, api.url, api.ca_pem, api.admin_token)
        admin = self._client("admin")
        await self._install(admin)
        ports = await self._ports(admin)
        sandbox = await asyncio.to_thread(Sandbox.best)
        if os.getuid() == 0 and sandbox.level != "bwrap":
            options.home.chmod(0o711)  # containers of other uids pass through to node/, where their volumes are
        await self._start_controllers(ports, sandbox)
        await self._start_node(ports, sandbox)
        await default_model.ensure(admin, await default_model.choose(os.environ))
        await self._install_gateway(admin, ports)
        host = "http://127.0.0.1"
        write_endpoints(
            options.home,
            Endpoints(
                kubernetes=api.url, api=f"{host}:{ports['api']}", kagent=f"{host}:{ports['kagent']}",
                gateway=f"{host}:{ports['local']}", gateway_workloads=f"{host}:{ports['workloads']}", pid=os.getpid(),
            ),
        )  # fmt: skip

    async def stop(self) -> None:
        """End Pods, then controllers, then the API, in the reverse of their order."""
        if self._rest is not None:
            await self._rest.stop()
        if self._measuring is not None:
            self._measuring.cancel()
        if self.node is not None:
            await self.node.stop()
        for controllers in reversed(self._sets):
            await controllers.stop()
        for client in self._clients:
            await client.close()
        if self._rest is not None:
            await self._rest.close()
        if self._api is not None:
            await self._api.stop()

    def _client(self, user: str) -> KubeClient:
        """A client of the API server in this process: over its unix socket, with that user's own token."""
        assert self._api is not None
        config = self._api.client_config(user)
        client = KubeClient(
            ClientConfig(
                "http://localhost", token=config["token"], unix_socket=str(self._api.unix_socket), user_agent=user
            )
        )
        self._clients.append(client)
        return client

    async def _install(self, admin: KubeClient) -> None:
        """CRDs and namespaces; what is there already and the same is not written."""
        for document in await asyncio.to_thread(crds):
            await admin.apply(CRD, document)
        await self._install_gateway_api(admin)
        for namespace in namespaces():
            await admin.apply(NAMESPACE, namespace)

    async def _install_gateway_api(self, admin: KubeClient) -> None:
        """Definitions of others' groups: what somebody installed in another version stays."""
        for document in await asyncio.to_thread(gateway_crds):
            metadata = document["metadata"]
            try:
                found = (await admin.get(CRD, metadata["name"]))["metadata"]
            except NotFound:
                found = {}
            bundle = (found.get("annotations") or {}).get(BUNDLE)
            ours = found.get("labels", {}).get("app.kubernetes.io/part-of") == "quarterdeck"
            if not found or (bundle is None and ours):
                await admin.apply(CRD, document)

    async def _start_controllers(self, ports: dict[str, int], sandbox: Sandbox) -> None:
        assert self._api is not None
        workloads = workload_controllers(
            self._client("system:kube-controller-manager"), ca_pem=self._api.ca_pem.decode()
        )
        inside = _inside(sandbox)
        options = ControllerOptions(
            gateway_url=f"http://127.0.0.1:{ports['workloads']}",
            kagent_url=f"http://127.0.0.1:{ports['kagent']}",
            pod_gateway_url=inside[0],
            pod_kagent_url=inside[1],
            local_token_hashes=(_local_token(self.options.home / "run" / "local-token"),),
            anonymous_local=_pods_contained(sandbox),
            gateways=GatewayPods(shared="127.0.0.1"),
            environment=handed_on(os.environ),
        )
        client = self._client("quarterdeck-controller")
        controllers, config = build(client, options)
        self._sets = [workloads, controllers]
        for entry in self._sets:
            await entry.start()
        database = self.options.database or str(self.options.home / "server.db")
        approvals = ApprovalOptions(client, self.options.home / "audit" / "control-plane.jsonl", LOCAL_PERSON)
        reviews = ApiReviews(self._client("quarterdeck-server"))
        key = _own_key(self.options.home / "user-tokens.key")
        rest = self._rest = await RestApis.open(database, reviews, config, approvals, key)
        for name in ("api", "kagent"):
            await rest.listen(name, "127.0.0.1", ports[name], f"--{name}-port")

    async def _start_node(self, ports: dict[str, int], sandbox: Sandbox) -> None:
        api = self._api
        assert api is not None and api.pki is not None
        serving = api.pki.node_serving_pair(NODE_NAME, ("127.0.0.1", "localhost"))
        self.node = Node(
            NodeConfig(
                client=self._client(f"system:node:{NODE_NAME}"),
                network_client=self._client("quarterdeck-network"),
                name=NODE_NAME,
                data_dir=self.options.home / "node",
                kubelet_cert=str(serving.certificate),
                kubelet_key=str(serving.key),
                client_ca=str(self.options.home / "pki" / "ca.crt"),
                connect_ports=(ports["workloads"], ports["kagent"], ports["api"], *_collector_ports()),
                host_network=frozenset({SYSTEM_NAMESPACE}),
                sandbox=sandbox,
                api_address=(urlsplit(api.url).hostname or "127.0.0.1", urlsplit(api.url).port or 443),
            )
        )
        await self.node.start()
        keep = self._sets[-1].supervisor.keep
        self._measuring = asyncio.get_running_loop().create_task(keep("pod metrics", self._metrics.run), name="metrics")

    async def _ports(self, admin: KubeClient) -> dict[str, int]:
        try:
            deployed = await admin.get(DEPLOYMENT, GATEWAY, SYSTEM_NAMESPACE)
        except NotFound:
            deployed = None
        runs = await asyncio.to_thread(gateway_runs, self.options.home / "node")
        return reserve(self.options, listeners_of(deployed), gateway_runs=runs)

    async def _install_gateway(self, admin: KubeClient, ports: dict[str, int]) -> None:
        listeners = GatewayListeners(
            control_plane=f"http://127.0.0.1:{ports['api']}",
            local=f"127.0.0.1:{ports['local']}",
            workloads=f"127.0.0.1:{ports['workloads']}",
            stats=f"127.0.0.1:{ports['stats']}",
            ready=f"127.0.0.1:{ports['ready']}",
            admin=f"127.0.0.1:{ports['admin']}",
        )
        _link_audit(self.options.home)
        for document in (*gateway(listeners), *kagent_service(ports["kagent"])):
            await admin.apply(_KINDS[document["kind"]], document)


def _inside(sandbox: Sandbox) -> tuple[str, str]:
    """Gateway and control plane for Pods with a network of their own: Services, which the egress proxy leads to us."""
    if not (sandbox.level == "bwrap" and sandbox.network):
        return "", ""
    return (
        f"http://{GATEWAY_SERVICE}.{SYSTEM_NAMESPACE}:8702",
        f"http://{KAGENT_SERVICE}.{SYSTEM_NAMESPACE}:8083",
    )


def _collector_ports() -> tuple[int, ...]:
    """Where agents send their spans, which they could not reach otherwise."""
    found = collector(os.environ)
    return (found[1],) if found is not None else ()


def _converters() -> InProcess:
    """kagent's v1alpha1 objects are served in both versions."""
    converters = InProcess()
    for group, kind in CONVERTED_KINDS:
        converters.register(group, kind, convert)
    return converters


async def _listening(start: Any, flag: str, port: int) -> None:
    """Await a start; a port that is taken becomes an error that names the flag."""
    try:
        await start
    except OSError as error:
        raise port_taken(port, flag, error.strerror or str(error)) from error


def _link_audit(home: Path) -> None:
    """``HOME/gateway`` leads to the gateway's claim, where its audit records are (``qd audit``)."""
    link = home / "gateway"
    if not link.is_symlink():
        link.symlink_to(Path("node") / "claims" / SYSTEM_NAMESPACE / GATEWAY_SERVICE)


def _pods_contained(sandbox: Sandbox) -> bool:
    """Whether no Pod can reach the listener for people, so that it may go without a token (DESIGN §7)."""
    return sandbox.network and landlock.abi() >= TCP_RULES


def _own_key(path: Path) -> bytes:
    """32 random bytes, made once."""
    found = read_private(path)
    if found is None:
        found = secrets.token_bytes(32)
        write_private(path, found)
    return found


def _local_token(path: Path) -> str:
    """The token of people on this machine, made once; returns its SHA-256."""
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(token)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error
    return hashlib.sha256(token.encode()).hexdigest()
