"""The node: registers itself, heartbeats, and runs the Pods bound to it."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
from typing import Any

from quarterdeck import __version__
from quarterdeck.errors import AlreadyExists, NotFound, QuarterdeckError
from quarterdeck.kube.clock import SystemClock, micro_timestamp, timestamp
from quarterdeck.kube.events import EventRecorder
from quarterdeck.kube.informer import Informer
from quarterdeck.kube.resource import LEASE, NODE, POD, Object
from quarterdeck.kube.supervise import Supervisor
from quarterdeck.kube.version import SERVER_VERSION
from quarterdeck.node.addresses import Addresses
from quarterdeck.node.cgroups import Cgroups, group_of
from quarterdeck.node.egress import EgressProxy
from quarterdeck.node.firewall import Firewall
from quarterdeck.node.foreign import engine_at
from quarterdeck.node.images.engine import Engines, remove
from quarterdeck.node.images.store import ImageStore
from quarterdeck.node.process import kill
from quarterdeck.node.proxy import ServiceProxy
from quarterdeck.node.runtime import NodeConfig, PodFiles, Runtime, read_state
from quarterdeck.node.sandbox import seccomp
from quarterdeck.node.sandbox.isolation import Sandbox
from quarterdeck.node.services import ServiceNames
from quarterdeck.node.uids import Uids
from quarterdeck.node.usage import tree_usage
from quarterdeck.node.worker import PodWorker

log = logging.getLogger(__name__)

_LEASE_SECONDS = 40
_HEARTBEAT = 10.0
_STATUS_EVERY = 30  # heartbeats between writes of an unchanged Node status
_LOG_LOOK = 0.25


class Node:
    """A process-based kubelet. ``await start()``, later ``await stop(grace)``."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.workers: dict[str, PodWorker] = {}
        self.runtime: Runtime | None = None
        self.kubelet_port = config.kubelet_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._informer = Informer(config.client, POD, field_selector=f"spec.nodeName={config.name}")
        self._server: Any = None
        self._engines = Engines(config.engines)
        self._engine = ""

    async def start(self) -> None:
        """Register and begin to run Pods. Raises StorageError when the data directory cannot be used."""
        config = self.config
        config.data_dir.mkdir(parents=True, exist_ok=True)
        sandbox = config.sandbox or await asyncio.to_thread(Sandbox.best)
        # volumes are open to any uid inside; other users of the machine stop here (setuid containers pass through)
        config.data_dir.chmod(0o711 if os.getuid() == 0 and sandbox.level != "bwrap" else 0o700)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        services = config.service_client or config.client
        uids = Uids(config.data_dir) if await asyncio.to_thread(sandbox.gives_uids, config.data_dir) else None
        firewall = Firewall(config.network_client, uids) if config.network_client is not None else None
        self.runtime = Runtime(
            config=config,
            client=config.client,
            clock=SystemClock(),
            addresses=await asyncio.to_thread(Addresses, config.data_dir, config.pod_cidr),
            cgroups=Cgroups(group_of(config.data_dir)),
            images=ImageStore(config.data_dir / "images", config.package_cache, self._engines),
            sandbox=sandbox,
            events=EventRecorder(config.client, "quarterdeck-node"),
            egress=EgressProxy(ServiceNames(services, config.egress_services).resolve, firewall),
            proxy=ServiceProxy(services, config.service_cidr, self._renew_hosts, firewall)
            if config.service_cidr
            else None,
            cpu=float(os.cpu_count() or 1),
            memory=memory,
            uids=uids,
            firewall=firewall,
        )
        if firewall is not None:
            await firewall.start()
            firewall.on_change(self._policies_changed)
        if self.runtime.proxy is not None:
            await self.runtime.proxy.start()
        await self._look_for_engine()
        await self._serve_kubelet()
        await self._register()
        self._informer.on_change(self._changed)
        self._informer.start()
        await self._informer.synced.wait()
        await self._end_orphans()
        supervisor = Supervisor()  # a node without a heartbeat loses its Pods
        self._own(supervisor.keep("heartbeat", self._heartbeat))
        self._own(supervisor.keep("logs", self._follow_logs))

    async def stop(self, grace: float = 30.0, *, keep_pods: bool = False) -> None:
        """Stop; with ``keep_pods`` the processes go on and the next start adopts them."""
        runtime = self.runtime
        if runtime is None:
            return
        await self._informer.stop()
        if not keep_pods:
            await asyncio.gather(*(w.stop_all(grace) for w in self.workers.values()))
        tasks = [*self._tasks, *self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.stop(1.0)
        if runtime.proxy is not None:
            await runtime.proxy.stop()
        if runtime.firewall is not None:
            await runtime.firewall.stop()
        await runtime.events.close()
        runtime.addresses.close(keep_route=keep_pods)
        if not keep_pods:
            runtime.cgroups.remove_tree()

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        for worker in self.workers.values():
            meta = worker.pod["metadata"]
            if meta["namespace"] == namespace and meta["name"] == name:
                return worker
        return None

    def pod_metrics(self) -> list[dict[str, Any]]:
        """Use per container: namespace, pod, container, cpu in nanoseconds since the start, memory in bytes, and the
        start in seconds since the epoch."""
        runtime = self.runtime
        found: list[dict[str, Any]] = []
        for worker in self.workers.values() if runtime is not None else ():
            meta = worker.pod["metadata"]
            for name, process in worker.processes.items():
                group = f"{worker.uid}/{name}"
                usage = runtime.cgroups.usage(group) if runtime is not None else None
                usage = usage or tree_usage(process.pid)
                if usage is not None:
                    found.append({
                        "namespace": meta["namespace"], "pod": meta["name"], "container": name,
                        "cpu_nanoseconds": usage.cpu_nanoseconds, "memory_bytes": usage.memory,
                        "started_at": worker.containers[name].started_at,
                    })  # fmt: skip
        return found

    # -- Pods
    def _changed(self, kind: str, old: Object | None, new: Object | None) -> None:
        pod = new if new is not None else old
        if pod is None:
            return
        uid = pod["metadata"]["uid"]
        worker = self.workers.get(uid)
        if kind == "deleted":
            if worker is not None:
                self._own(self._vanished(worker))
        elif worker is not None:
            worker.update(pod)
        elif (self.runtime is not None and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")) or (
            self.runtime is not None and pod["metadata"].get("deletionTimestamp")
        ):
            self._begin(pod)

    def _begin(self, pod: Object) -> None:
        assert self.runtime is not None
        uid = pod["metadata"]["uid"]
        worker = self.workers[uid] = PodWorker(self.runtime, pod)
        task = asyncio.get_running_loop().create_task(worker.run(), name=f"pod {uid}")
        self._runs[uid] = task

        def finished(done: asyncio.Task[None]) -> None:
            self._runs.pop(uid, None)
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("pod %s: worker failed", pod["metadata"]["name"], exc_info=error)
            if worker.done.is_set():
                self.workers.pop(uid, None)

        task.add_done_callback(finished)

    def _policies_changed(self) -> None:
        for worker in list(self.workers.values()):
            worker.note_policies()

    def _renew_hosts(self) -> None:
        for worker in list(self.workers.values()):
            worker.renew_hosts()

    async def _vanished(self, worker: PodWorker) -> None:
        """The object was removed without us (force delete): end its processes at once."""
        if worker.done.is_set():
            return
        await worker.stop_all(0)
        worker.done.set()
        worker.update(worker.pod)
        run = self._runs.get(worker.uid)
        if run is not None:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
        worker.forget()
        self.workers.pop(worker.uid, None)

    async def _end_orphans(self) -> None:
        """Processes of Pods that no longer exist, left by an earlier node process."""
        assert self.runtime is not None
        pods = self.config.data_dir / "pods"
        known = {p["metadata"]["uid"] for p in self._informer.list()}
        for folder in pods.iterdir() if pods.is_dir() else ():
            if folder.name in known:
                continue
            for state in folder.glob("containers/*/state.json"):
                _, process = read_state(state)
                if process is not None and process.alive():
                    log.warning("ending orphan process %d of pod %s", process.pid, folder.name)
                    kill(process, self.runtime.cgroups.procs(f"{folder.name}/{state.parent.name}"))
                if (found := engine_at(state.parent)) is not None:
                    await remove(found.engine, found.run)
            self.runtime.addresses.release(folder.name)
            if self.runtime.uids is not None:
                self.runtime.uids.release(folder.name)
            shutil.rmtree(PodFiles(self.config.data_dir, folder.name).root, ignore_errors=True)

    async def _follow_logs(self) -> None:
        while True:
            for worker in list(self.workers.values()):
                worker.note_logs()
            await asyncio.sleep(_LOG_LOOK)

    def _own(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def finished(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("node task failed", exc_info=error)

        task.add_done_callback(finished)

    # -- the Node object
    async def _serve_kubelet(self) -> None:
        config = self.config
        if not config.kubelet_cert:
            return
        from quarterdeck.node.kubelet.server import KubeletApi  # the API needs Node, Node needs the API

        self._server = KubeletApi(self)
        self.kubelet_port = await self._server.start()

    async def _register(self) -> None:
        node = self._node_object()
        try:
            await self.config.client.create(NODE, node)
        except AlreadyExists:
            gone = {"quarterdeck.dev/engine": None}
            meta = node["metadata"]
            body = {"metadata": {"labels": gone | meta["labels"], "annotations": gone | meta["annotations"]}}
            await self.config.client.patch(NODE, self.config.name, body)
        await self._report()

    async def _look_for_engine(self) -> bool:
        """True when the engine is another one than the Node says."""
        found = await self._engines.find()
        before, self._engine = self._engine, found.kind if found is not None else ""
        return before != self._engine

    async def _report(self) -> None:
        await self.config.client.patch(NODE, self.config.name, {"status": self._status()}, subresource="status")

    def _facts(self) -> dict[str, str]:
        assert self.runtime is not None
        return ({"quarterdeck.dev/engine": self._engine} if self._engine else {}) | {
            "quarterdeck.dev/isolation": self.runtime.sandbox.level,
            "quarterdeck.dev/limits": "cgroup" if self.runtime.cgroups.version else "rlimits",
            "quarterdeck.dev/network-policies": "none" if self.runtime.firewall is None else "enforced",
            "quarterdeck.dev/uids": "pod" if self.runtime.uids is not None else "node",
            "quarterdeck.dev/seccomp": "default" if seccomp.program(platform.machine()) else "none",
        }

    def _node_object(self) -> Object:
        assert self.runtime is not None
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        labels = {
            "kubernetes.io/hostname": self.config.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": machine,
        } | self._facts() | self.config.labels  # fmt: skip
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.config.name, "labels": labels, "annotations": self._facts()},
            "spec": {"podCIDR": self.runtime.addresses.cidr, "podCIDRs": [self.runtime.addresses.cidr]},
        }

    def _status(self) -> Object:
        assert self.runtime is not None
        now = timestamp(self.runtime.clock.time())
        capacity = {
            "cpu": str(int(self.runtime.cpu)),
            "memory": f"{self.runtime.memory // 1024}Ki",
            "pods": str(self.config.max_pods),
            "ephemeral-storage": f"{shutil.disk_usage(self.config.data_dir).total // 1024}Ki",
        }

        def condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
            return {"type": kind, "status": status, "reason": reason, "message": message,
                    "lastHeartbeatTime": now, "lastTransitionTime": now}  # fmt: skip

        machine = platform.uname()
        return {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "node has sufficient memory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "node has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "node has sufficient process ids"),
                condition("Ready", "True", "KubeletReady", "the node is posting ready status"),
            ],
            "addresses": [
                {"type": "InternalIP", "address": self.config.host_ip},
                {"type": "Hostname", "address": self.config.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.kubelet_port}},
            "nodeInfo": {
                "machineID": self.config.name, "systemUUID": self.config.name, "bootID": "",
                "kernelVersion": machine.release, "osImage": f"Linux {machine.release}",
                "containerRuntimeVersion": f"quarterdeck://{__version__}", "kubeletVersion": SERVER_VERSION,
                "kubeProxyVersion": "", "operatingSystem": "linux",
                "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine.machine, machine.machine),
            },
        }  # fmt: skip

    async def _heartbeat(self) -> None:
        beats = 0
        while True:
            try:
                await self._renew_lease()
                if beats % _STATUS_EVERY == 0 and beats:
                    if await self._look_for_engine():
                        await self._register()
                    await self._report()
            except QuarterdeckError as error:
                log.warning("node %s: heartbeat: %s", self.config.name, error)
            beats += 1
            await asyncio.sleep(_HEARTBEAT)

    async def _renew_lease(self) -> None:
        assert self.runtime is not None
        now = micro_timestamp(self.runtime.clock.time())
        spec = {"holderIdentity": self.config.name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": now}
        namespace = "kube-node-lease"
        try:
            await self.config.client.patch(LEASE, self.config.name, {"spec": spec}, namespace)
        except NotFound:
            lease: Object = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.config.name, "namespace": namespace},
                "spec": spec,
            }
            await self.config.client.create(LEASE, lease)
