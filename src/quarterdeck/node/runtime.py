"""What all Pods of a node share."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quarterdeck.kube.client import KubeClient
from quarterdeck.kube.clock import Clock
from quarterdeck.kube.events import EventRecorder
from quarterdeck.node.addresses import Addresses
from quarterdeck.node.cgroups import Cgroups
from quarterdeck.node.core import Container, Terminated
from quarterdeck.node.egress import EgressProxy
from quarterdeck.node.firewall import Firewall
from quarterdeck.node.images.store import ImageStore
from quarterdeck.node.process import ProcessId
from quarterdeck.node.proxy import ServiceProxy
from quarterdeck.node.sandbox.isolation import Sandbox
from quarterdeck.node.services import DEFAULT_ALLOWED, Allowed
from quarterdeck.node.uids import Uids


@dataclass(slots=True)
class NodeConfig:
    """One node. ``connect_ports``: TCP ports that Pods of our own image may dial (None: any); ``host_ip`` is the
    address of hostNetwork Pods and of the kubelet API; ``refresh`` is the time in seconds
    between looks at ConfigMap and Secret volumes; ``api_address`` is what Pods are told as KUBERNETES_SERVICE_HOST and
    _PORT (None: where ``client`` points); ``host_network`` names the namespaces whose Pods may have the machine's
    network (None: all); ``engines`` are the container engines to look for, best first.

    ``service_cidr``: Services' addresses in this range are relayed here, and Pods know the Services' names (empty:
    neither). Services and EndpointSlices are read by ``service_client`` (None: ``client``): a node's own identity may
    not, kube-proxy's may. ``network_client`` reads NetworkPolicies, Namespaces and Pods of the whole cluster (None:
    NetworkPolicies are not applied here, and the Node says so).

    ``kubelet_cert``/``kubelet_key``/``client_ca`` are PEM files of the kubelet API; without them it is not served.
    """

    client: KubeClient
    name: str
    data_dir: Path
    pod_cidr: str | None = None
    host_ip: str = "127.0.0.1"
    kubelet_port: int = 0
    kubelet_cert: str = ""
    kubelet_key: str = ""
    client_ca: str = ""
    allow_host_path: bool = False
    host_network: frozenset[str] | None = None
    connect_ports: tuple[int, ...] | None = None
    labels: dict[str, str] = field(default_factory=dict[str, str])
    refresh: float = 10.0
    max_pods: int = 200
    package_cache: Path | None = None
    engines: tuple[str, ...] = ("podman", "docker")
    sandbox: Sandbox | None = None
    egress_services: Allowed = field(default_factory=lambda: DEFAULT_ALLOWED)
    api_address: tuple[str, int] | None = None
    service_cidr: str = ""
    service_client: KubeClient | None = None
    network_client: KubeClient | None = None


@dataclass(slots=True)
class Runtime:
    """The parts a Pod worker uses. ``ports``: by Pod UID, its name and the ports it declares, while it runs.
    ``proxy``: None where Services are not relayed; ``uids``: None where Pods cannot have uids of their own;
    ``firewall``: None where NetworkPolicies are not applied."""

    config: NodeConfig
    client: KubeClient
    clock: Clock
    addresses: Addresses
    cgroups: Cgroups
    images: ImageStore
    sandbox: Sandbox
    events: EventRecorder
    egress: EgressProxy
    cpu: float
    memory: int
    proxy: ServiceProxy | None = None
    uids: Uids | None = None
    firewall: Firewall | None = None
    ports: dict[str, tuple[str, frozenset[int]]] = field(default_factory=dict[str, tuple[str, frozenset[int]]])


class PodFiles:
    """Where one Pod lives on disk, and its containers' saved states."""

    def __init__(self, data_dir: Path, uid: str) -> None:
        self.root = data_dir / "pods" / uid
        self.home = self.root / "home"
        self.tmp = self.root / "tmp"
        self.volumes = self.root / "volumes"
        self.hosts = self.root / "hosts"
        self.net = self.root / "net"
        self.egress = self.net / "egress.sock"

    def prepare(self, owner: int | None = None) -> None:
        """Make the folders; ``owner``: the Pod's uid on the machine, whose own they are then."""
        for path in (self.root, self.home, self.tmp, self.volumes, self.net):
            path.mkdir(parents=True, exist_ok=True)
        self.tmp.chmod(0o1777)
        if owner is not None:
            for path in (self.home, self.tmp):
                os.chown(path, owner, owner)

    def container(self, name: str) -> Path:
        path = self.root / "containers" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, name: str, attempt: int) -> Path:
        return self.container(name) / f"{attempt}.log"

    def stdin(self, name: str) -> Path:
        """The named pipe a container with ``stdin: true`` reads."""
        return self.container(name) / "stdin"

    def exit_record(self, name: str) -> Path:
        """Where bubblewrap writes its JSON status, which ends with the exit code."""
        return self.container(name) / "exit.json"

    def exit_code(self, name: str) -> int | None:
        """The exit code of the container's last run as bubblewrap recorded it; None when it did not."""
        path = self.exit_record(name)
        for line in path.read_text().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                return int(json.loads(line)["exit-code"])
        return None

    def save_confinement(self, name: str, confinement: dict[str, Any]) -> None:
        """What a command joining the container must be confined by; see :mod:`quarterdeck.node.execute`."""
        path = self.container(name) / "confinement.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(confinement))
        fresh.replace(path)

    def confinement(self, name: str) -> dict[str, Any]:
        """Raises OSError when the container has never been started."""
        return json.loads((self.container(name) / "confinement.json").read_text())

    def save(self, container: Container, process: ProcessId | None) -> None:
        """Write the state atomically; what is on disk is what a restarted node believes."""
        path = self.container(container.name) / "state.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"container": asdict(container), "process": asdict(process) if process else None}))
        fresh.replace(path)

    def load(self, name: str) -> tuple[Container, ProcessId | None]:
        path = self.container(name) / "state.json"
        if not path.exists():
            return Container(name), None
        return read_state(path)

    def save_pod(self, record: dict[str, Any]) -> None:
        fresh = self.root / "pod.new"
        fresh.write_text(json.dumps(record))
        fresh.replace(self.root / "pod.json")

    def load_pod(self) -> dict[str, Any] | None:
        path = self.root / "pod.json"
        return json.loads(path.read_text()) if path.exists() else None


def read_state(path: Path) -> tuple[Container, ProcessId | None]:
    """A saved container state."""
    saved = json.loads(path.read_text())
    fields = saved["container"]
    for key in ("terminated", "last"):
        if fields[key] is not None:
            fields[key] = Terminated(**fields[key])
    process = ProcessId(**saved["process"]) if saved["process"] else None
    return Container(**fields), process
