"""A real Kubernetes control plane in processes of its own, with our node as its kubelet; build.py builds it.

:func:`plane` gives a whole cluster: etcd, kube-apiserver (TLS, RBAC, Node authorization, NodeRestriction and the
default admission, aggregation, audit log), controller manager, scheduler, metrics-server and one node.
:func:`running` gives the API server alone. Every plane has ports and address ranges of its own, so many coexist.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from quarterdeck.apiserver.security.pki import KeyPair, ensure_pki
from quarterdeck.kube.config import ClientConfig
from quarterdeck.node.addresses import Addresses, can_add_routes

from . import addons
from .build import built
from .component import Component

SOURCE = Path(__file__).parent
NO_ROUTES = (
    "needs Pods and Services with other than loopback addresses, which only CAP_NET_ADMIN over this network "
    "namespace can make local"
)
_READY_SECONDS = 90.0
_MASTERS = "system:masters"
_ADMIN_TOKEN = "admintoken"


@dataclass(frozen=True, slots=True)
class RealApiServer:
    """Processes whose CPU and memory count, and how to reach the server."""

    pids: tuple[int, ...]
    config: dict[str, str]
    version: str


def available() -> tuple[Path | None, str]:
    """Folder of the commands, or None and why there is none. Does not build: that takes minutes."""
    place = built()
    return place, "" if place else "not built here: python tests/cluster/build.py (needs Go)"


def _free_ports(count: int) -> list[int]:
    held = [socket() for _ in range(count)]
    for sock in held:
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in held]
    for sock in held:
        sock.close()
    return ports


class Plane:
    """One cluster. ``url`` and ``ca`` are the API server's, ``kubeconfig`` the administrator's, ``audit_log`` one JSON
    event per line. Where not ``routes`` (:data:`NO_ROUTES` says why), Pods and Services have loopback addresses and
    EndpointSlices are written by slices.py, so that everything works but what checks their type.

    ``etcd``, ``api_server``, ``controller_manager``, ``scheduler`` and ``metrics_server`` can be stopped, killed,
    paused and started again; :meth:`wait_ready` waits until the API answers again.
    """

    def __init__(self, root: Path, commands: Path, service_cidr: str = "") -> None:
        self.root = root
        self.commands = commands
        self.version = commands.name.partition("-")[0]
        self.routes = can_add_routes()
        self.nodes: dict[str, Component] = {}
        self._ranges: dict[str, Addresses] = {}
        seed = int.from_bytes(hashlib.sha256(root.name.encode()).digest()[:2], "big")
        address, self.service_cidr = "127.0.0.1", f"127.{128 + seed % 100}.{seed // 256}.0/24"
        if self.routes:
            first = self._range("plane").rsplit(".", 1)[0]  # services in the lower half, servers in the upper
            address, self.service_cidr = f"{first}.200", f"{first}.0/25"
        self.service_cidr = service_cidr or self.service_cidr
        (root / "logs").mkdir()
        etcd, peer, port, metrics = _free_ports(4)
        self.url = f"https://{address}:{port}"
        self.audit_log = root / "audit.log"
        cluster_ip = self.service_cidr.rsplit(".", 1)[0] + ".1"
        self._pki = ensure_pki(root, (address, cluster_ip))
        self.ca = self._pki.ca_path
        self.kubeconfig = self.kubeconfig_of("kubernetes-admin", (_MASTERS,))
        self._metrics_address = (address, metrics)
        self.etcd = self._component("etcd", _etcd_flags(root, etcd, peer))
        self.api_server = self._component("kube-apiserver", self._api_server_flags(address, port, etcd))
        self.controller_manager = self._component("kube-controller-manager", self._controller_manager_flags())
        scheduler = self.kubeconfig_of("system:kube-scheduler")
        self.scheduler = self._component(
            "kube-scheduler",
            (f"--kubeconfig={scheduler}", "--leader-elect=false", "--secure-port=0", "--kube-api-qps=200"),
        )
        self.metrics_server = self._component("metrics-server", self._metrics_server_flags())
        self._slices = Component(
            "slices",
            [sys.executable, str(SOURCE / "slices.py"), str(self.kubeconfig), f"{address}:{port}"],
            root / "logs" / "slices.log",
        )

    # -- start and end
    def start(self, *, controllers: bool = True, nodes: int | Sequence[str] = 1) -> None:
        """The API server; with ``controllers`` everything else, and nodes of these names, or so many named
        ``node-1``…"""
        self.etcd.start()
        self.api_server.start()
        self.wait_ready()
        if not controllers:
            return
        for component in (self.controller_manager, self.scheduler, self.metrics_server):
            component.start()
        if not self.routes:
            self._slices.start()
        wanted = [f"node-{n}" for n in range(1, nodes + 1)] if isinstance(nodes, int) else nodes
        for path, document in addons.network():
            self.request("POST", path, document)
        for name in wanted:
            self.launch_node(name)
        for path, document in (*addons.metrics_server(*self._metrics_address), *addons.storage(16)):
            self.request("POST", path, document)
        self._until(lambda: self._exists("/api/v1/namespaces/default/serviceaccounts/default"), "default account")
        for name in wanted:
            self.wait_node(name)

    def stop(self) -> None:
        """All at once; guard.py ends the nodes' Pods."""
        servers = (
            self._slices,
            self.metrics_server,
            self.scheduler,
            self.controller_manager,
            self.api_server,
            self.etcd,
        )
        for component in (*self.nodes.values(), *servers):
            component.kill()
        for book in self._ranges.values():
            book.close(keep_route=False)

    def wait_ready(self, seconds: float = _READY_SECONDS) -> None:
        """Until the API server says it is ready. Raises RuntimeError with the end of its output."""

        def ready() -> bool:
            if not self.api_server.running:
                raise RuntimeError(f"kube-apiserver ended:\n{self.api_server.tail()}")
            return self.request("GET", "/readyz") == b"ok"

        self._until(ready, f"kube-apiserver ready; its log is {self.api_server.log}", seconds)

    # -- nodes
    def start_node(self, name: str, *flags: str) -> Component:
        """A further node, Ready when this returns. ``flags`` are those of ``python -m quarterdeck.node``."""
        node = self.launch_node(name, *flags)
        self.wait_node(name)
        return node

    def launch_node(self, name: str, *flags: str) -> Component:
        """:meth:`start_node` without waiting."""
        cidr = self._range(name)
        address = cidr.rsplit(".", 1)[0] + ".1"
        serving = self._pki.node_serving_pair(name, (address,))
        self.nodes[name] = node = Component(
            name,
            [
                sys.executable, "-m", "quarterdeck.node", f"--name={name}", f"--data-dir={self.node_data(name)}",
                f"--kubeconfig={self.kubeconfig_of(f'system:node:{name}', ('system:nodes',))}",
                f"--proxy-kubeconfig={self.kubeconfig_of('system:kube-proxy')}", f"--pod-cidr={cidr}",
                f"--network-kubeconfig={self.kubeconfig_of(addons.NETWORK)}",
                f"--node-ip={address}", f"--service-cidr={self.service_cidr}", f"--client-ca-file={self.ca}",
                f"--tls-cert-file={serving.certificate}", f"--tls-private-key-file={serving.key}",
                # Without rights to the network no relay gets port 443.
                *([] if self.routes else [f"--api-address={self.url.removeprefix('https://')}"]),
                "--sync-frequency=1", *flags,
            ],
            self.root / "logs" / f"{name}.log",
        )  # fmt: skip
        node.start()
        return node

    def node_data(self, name: str = "node-1") -> Path:
        """The data directory of a node: images, Pods' logs, volumes and claims."""
        return self.node_home(name) / "node"

    def node_home(self, name: str = "node-1") -> Path:
        """``QUARTERDECK_HOME`` for ``qd mcp build``, so that the image is on this node."""
        return self.root / "nodes" / name

    def wait_node(self, name: str, seconds: float = _READY_SECONDS) -> None:
        """Until Pods can be scheduled on it."""

        def ready() -> bool:
            if not self.nodes[name].running:
                raise RuntimeError(f"{name} ended:\n{self.nodes[name].tail()}")
            if not self._exists(f"/api/v1/nodes/{name}"):
                return False
            node = json.loads(self.request("GET", f"/api/v1/nodes/{name}"))
            conditions = {c["type"]: c["status"] for c in node["status"].get("conditions") or ()}
            return conditions.get("Ready") == "True" and not node["spec"].get("taints")

        self._until(ready, f"{name} ready; its log is {self.nodes[name].log}", seconds)

    # -- identities
    def client_config(self, user: str = "kubernetes-admin", groups: Sequence[str] = ()) -> ClientConfig:
        """For :class:`quarterdeck.kube.client.KubeClient`; the default user is the administrator."""
        pair = self._client_pair(user, groups or ((_MASTERS,) if user == "kubernetes-admin" else ()))
        return ClientConfig(self.url, ca_file=str(self.ca), client_cert=str(pair.certificate), client_key=str(pair.key))

    def kubeconfig_of(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig of any user and groups, by client certificate."""
        pair = self._client_pair(user, groups)
        path = self.root / f"{pair.key.stem}.kubeconfig"
        encoded = {name: base64.b64encode(file.read_bytes()).decode() for name, file in
                   (("ca", self.ca), ("cert", pair.certificate), ("key", pair.key))}  # fmt: skip
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "testplane",
            "clusters": [{"name": "testplane", "cluster": {
                "server": self.url, "certificate-authority-data": encoded["ca"]}}],
            "users": [{"name": user, "user": {
                "client-certificate-data": encoded["cert"], "client-key-data": encoded["key"]}}],
            "contexts": [{"name": "testplane", "context": {"cluster": "testplane", "user": user}}],
        }  # fmt: skip
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))
        return path

    def kubeconfig_with_token(self) -> Path:
        """A kubeconfig of user ``admin``, an administrator, by token instead of certificate."""
        path = self.root / "admin-token.kubeconfig"
        document = json.loads(self.kubeconfig.read_text())
        document["users"] = [{"name": "admin", "user": {"token": _ADMIN_TOKEN}}]
        document["contexts"][0]["context"]["user"] = "admin"
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))
        return path

    def _client_pair(self, user: str, groups: Sequence[str]) -> KeyPair:
        return self._pki.client_pair("-".join((user, *groups)).replace(":", "-").replace("/", "-"), user, groups)

    # -- what happened
    def audit(self, *, user_agent: str = "", user: str = "", writes: bool = False) -> list[dict[str, Any]]:
        """Audit events so far, oldest first, of agents that begin with ``user_agent`` and of exactly ``user``."""
        verbs = ("create", "update", "patch", "delete", "deletecollection")
        files = sorted(self.audit_log.parent.glob("audit*.log"))  # at 100 MB one is put aside, its time in its name
        events = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return [
            e for e in events
            if e.get("userAgent", "").startswith(user_agent) and user in ("", e["user"].get("username"))
            and (e["verb"] in verbs or not writes)
        ]  # fmt: skip

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """One request as the administrator, for what must work without any client of ours. Raises OSError."""
        pair = self._client_pair("kubernetes-admin", (_MASTERS,))
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(pair.certificate, pair.key)
        ask = urllib.request.Request(
            self.url + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )  # fmt: skip
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(ask, timeout=60) as answer:
            return answer.read()

    # -- inside
    def _exists(self, path: str) -> bool:
        try:
            self.request("GET", path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise
        return True

    def _until(self, check: Any, what: str, seconds: float = _READY_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):  # URLError too: nobody listens yet, or not ready yet
                if check():
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {seconds:g} s: {what}")
            time.sleep(0.05)

    def _range(self, name: str) -> str:
        """A /24 for this plane alone, local as long as this process lives; guard.py takes it away at the latest."""
        if name not in self._ranges:
            self._ranges[name] = Addresses(self.root / "ranges" / name)
        return self._ranges[name].cidr

    def _component(self, name: str, flags: Sequence[str]) -> Component:
        return Component(name, [str(self.commands / name), *flags], self.root / "logs" / f"{name}.log")

    def _api_server_flags(self, address: str, port: int, etcd: int) -> list[str]:
        pki, front = self._pki, ensure_pki(self.root / "front-proxy")
        serving, kubelet = pki.serving_pair(), pki.kubelet_client_pair()
        proxy = front.client_pair("front-proxy-client", "front-proxy-client")
        key = self._service_account_key()
        tokens = self.root / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f'{_ADMIN_TOKEN},admin,admin-uid,"{_MASTERS}"\n')
        # Slices refuse loopback addresses; then what the API server calls, it finds at the Service's address.
        where = [f"--advertise-address={address}", "--enable-aggregator-routing=true"] if self.routes else [
            "--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none",
        ]  # fmt: skip
        return [
            f"--etcd-servers=http://127.0.0.1:{etcd}", f"--bind-address={address}", f"--secure-port={port}", *where,
            f"--tls-cert-file={serving.certificate}", f"--tls-private-key-file={serving.key}",
            f"--cert-dir={self.root / 'certs'}", f"--client-ca-file={self.ca}", f"--token-auth-file={tokens}",
            f"--kubelet-client-certificate={kubelet.certificate}", f"--kubelet-client-key={kubelet.key}",
            f"--kubelet-certificate-authority={self.ca}", "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}", f"--service-cluster-ip-range={self.service_cidr}",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
            f"--requestheader-client-ca-file={front.ca_path}", "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={proxy.certificate}", f"--proxy-client-key-file={proxy.key}",
            f"--audit-policy-file={SOURCE / 'audit-policy.yaml'}", f"--audit-log-path={self.audit_log}",
            "--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000",
        ]  # fmt: skip

    def _service_account_key(self) -> Path:
        """As SEC 1: Kubernetes takes the public part out of PKCS #8 for RSA only."""
        path = self.root / "service-account.key"
        if not path.exists():
            key = load_pem_private_key((self._pki.directory / "sa.key").read_bytes(), None)
            path.touch(mode=0o600)
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        return path

    def _controller_manager_flags(self) -> list[str]:
        """HPA looks often and trusts new Pods soon, so that a test sees it act."""
        key = self._pki.directory
        off = "*,-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller"
        return [
            *([] if self.routes else [f"--controllers={off}"]),  # what they write would be refused, again and again
            f"--kubeconfig={self.kubeconfig_of('system:kube-controller-manager')}", "--leader-elect=false",
            "--secure-port=0", f"--root-ca-file={self.ca}",
            f"--service-account-private-key-file={self._service_account_key()}",
            "--use-service-account-credentials=true", f"--cluster-signing-cert-file={self.ca}",
            f"--cluster-signing-key-file={key / 'ca.key'}", "--kube-api-qps=200", "--kube-api-burst=400",
            "--horizontal-pod-autoscaler-sync-period=2s", "--horizontal-pod-autoscaler-downscale-stabilization=5s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
        ]  # fmt: skip

    def _metrics_server_flags(self) -> list[str]:
        kubeconfig = self.kubeconfig_of(addons.METRICS_ACCOUNT)
        address, port = self._metrics_address
        return [
            f"--kubeconfig={kubeconfig}", f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}", f"--bind-address={address}", f"--secure-port={port}",
            f"--cert-dir={self.root / 'metrics-certs'}", f"--kubelet-certificate-authority={self.ca}",
            "--kubelet-request-timeout=5s", "--kubelet-use-node-status-port",
            "--kubelet-preferred-address-types=InternalIP", "--metric-resolution=10s",
        ]  # fmt: skip


def _etcd_flags(root: Path, client: int, peer: int) -> list[str]:
    """Not synced to disk: a killed process loses nothing by that, only a machine that loses power."""
    url = f"http://127.0.0.1:{client}"
    return [
        f"--data-dir={root / 'etcd'}", f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}", "--log-level=error", "--unsafe-no-fsync",
    ]  # fmt: skip


@contextlib.contextmanager
def _guarded(commands: Path, service_cidr: str = "") -> Generator[Plane]:
    """A plane not started yet, whose leftovers a process of its own removes even when this one is killed."""
    root = Path(tempfile.mkdtemp(prefix="qd-plane-"))
    guard = subprocess.Popen(
        [sys.executable, str(SOURCE / "guard.py"), str(root)], stdin=subprocess.PIPE, start_new_session=True
    )
    plane = None
    try:
        plane = Plane(root, commands, service_cidr)
        yield plane
    finally:
        try:
            if plane is not None:
                plane.stop()
        finally:
            assert guard.stdin is not None
            guard.stdin.close()
            guard.wait(90)


@contextlib.contextmanager
def plane(*, nodes: int | Sequence[str] = 1, controllers: bool = True, service_cidr: str = "") -> Generator[Plane]:
    """A fresh cluster, gone without a trace afterwards. Raises RuntimeError when it is not built.

    ``service_cidr``: for more than a hundred Services; nobody answers at such addresses.
    """
    commands, why = available()
    if commands is None:
        raise RuntimeError(f"test plane: {why}")
    with _guarded(commands, service_cidr) as started:
        started.start(controllers=controllers, nodes=nodes)
        yield started


@contextlib.contextmanager
def running(commands: Path) -> Generator[RealApiServer]:
    """etcd and kube-apiserver alone."""
    with _guarded(commands) as started:
        started.start(controllers=False)
        pids = (started.etcd.pid, started.api_server.pid)
        config = {"base_url": started.url, "token": _ADMIN_TOKEN, "ca_file": str(started.ca)}
        yield RealApiServer(pids, config, started.version)
