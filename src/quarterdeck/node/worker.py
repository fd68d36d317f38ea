"""One Pod on this node: decide, act, report, wait. The shell around :mod:`quarterdeck.node.core`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from quarterdeck.errors import ApiError, NotFound, QuarterdeckError
from quarterdeck.kube.resource import POD, Object, Resource
from quarterdeck.node.core import (
    UNKNOWN_EXIT,
    Container,
    Decision,
    Start,
    Stop,
    all_specs,
    decide,
    grace_of,
    probes_of,
)
from quarterdeck.node.environment import ConfigurationError
from quarterdeck.node.execute import run_in
from quarterdeck.node.foreign import EGRESS, EngineRun, engine_at
from quarterdeck.node.hosts import hosts_text, write_hosts
from quarterdeck.node.images import engine as engines
from quarterdeck.node.images.spec import ImageNotRunnable
from quarterdeck.node.logs import LogFile
from quarterdeck.node.messages import last_words
from quarterdeck.node.mounts import Mounts
from quarterdeck.node.probes import Counter, ask, http_get
from quarterdeck.node.process import Ended, ProcessId, kill, terminate, wait
from quarterdeck.node.runtime import PodFiles, Runtime
from quarterdeck.node.starter import PortConflict, Starter
from quarterdeck.node.status import Placement, pod_status
from quarterdeck.node.uids import uid_key
from quarterdeck.node.volumes import VolumeError
from quarterdeck.node.workload_token import token_reader

log = logging.getLogger(__name__)

_KEPT_LOGS = 2


class PodWorker:
    """Runs one Pod until it is gone. ``pod`` is always the newest version seen."""

    def __init__(self, runtime: Runtime, pod: Object) -> None:
        self.runtime = runtime
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.files = PodFiles(runtime.config.data_dir, self.uid)
        self.containers: dict[str, Container] = {}
        self.processes: dict[str, ProcessId] = {}
        self.ip = ""
        self.done = asyncio.Event()
        self._mounts = Mounts(runtime, self.files)
        self._starter = Starter(runtime, self.files, self.fetch)
        self._wake = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._started_at = 0.0
        self._mounted = False
        self._problem: tuple[str, str, str] | None = None
        self._published: Object | None = None
        self._log_sizes: dict[str, int] = {}
        self._halted = False
        self._stdin_writers: dict[str, int] = {}

    # -- what others call
    async def fetch(self, res: Resource, name: str) -> Object:
        return await self.runtime.client.get(res, name, self.pod["metadata"]["namespace"])

    def update(self, pod: Object) -> None:
        """A newer version of the Pod was seen."""
        self.pod = pod
        self._wake.set()

    def end_stdin(self, name: str) -> None:
        """End of file on the standard input of a container with ``stdinOnce``."""
        writer = self._stdin_writers.pop(name, None)
        if writer is not None:
            os.close(writer)

    def renew_hosts(self) -> None:
        """Write /etc/hosts of the Pod as the Services are now; a node without service proxy has none."""
        proxy = self.runtime.proxy
        if proxy is not None and self.ip and not self.done.is_set():
            write_hosts(self.files.hosts, hosts_text(self.pod, self.ip, proxy.services()))

    def spec_of(self, name: str) -> Object | None:
        return next((s for s, _ in all_specs(self.pod) if s["name"] == name), None)

    def note_logs(self) -> None:
        """Record log growth; called by the node a few times a second."""
        now = self.runtime.clock.time()
        for name in self.processes:
            attempt = self.containers[name].attempt
            key = f"{name}/{attempt}"
            known = self._log_sizes.get(key, 0)
            size = LogFile(self.files.log(name, attempt)).note(now, known)
            self._log_sizes[key] = size

    async def run(self) -> None:
        """The loop; returns when the Pod is finished and gone, or is cancelled (processes stay)."""
        try:
            self._restore()
            while not self.done.is_set():
                await self._step()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def stop_all(self, grace: float) -> None:
        """End every process without deleting the Pod, and start none: the node is shutting down."""
        self._halted = True
        for key, task in list(self._tasks.items()):
            if key.startswith(("start", "probe")):
                task.cancel()
        await asyncio.gather(
            *(self._end_process(p, min(grace, grace_of(self.pod)), n, hooks=False) for n, p in self.processes.items())
        )

    # -- the loop
    async def _step(self) -> None:
        self._wake.clear()
        now = self.runtime.clock.time()
        decision = decide(self.pod, self.containers, now, started_at=self._started_at)
        for action in decision.actions:
            if isinstance(action, Start) and self._halted:
                continue
            if isinstance(action, Start):
                self._spawn(f"start {action.name}", self._start(action.name))
            elif isinstance(action, Stop):
                self._stop(action)
            else:
                await self._finalize(decision)
                return
        await self._publish(decision)
        delay = None if decision.wake_at is None else max(0.05, decision.wake_at - self.runtime.clock.time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):  # wait_for of Python 3.11 may swallow a cancellation
                await self._wake.wait()

    def _spawn(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` as the one task of that name; every task is owned by this worker."""
        if key in self._tasks:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work, name=f"{self.uid} {key}")
        self._tasks[key] = task

        def finished(done: asyncio.Task[None]) -> None:
            self._tasks.pop(key, None)
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("pod %s: %s failed", self._name(), key, exc_info=error)
            self._wake.set()

        task.add_done_callback(finished)

    def _name(self) -> str:
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    def _restore(self) -> None:
        """Take over what an earlier node process left: running containers are adopted by pidfd."""
        uids = self.runtime.uids
        self.files.prepare(uids.assign(uid_key(self.pod)) if uids is not None else None)
        saved = self.files.load_pod()
        self._started_at = saved["startedAt"] if saved else self.runtime.clock.time()
        if self.pod["spec"].get("hostNetwork"):
            self.ip = self.runtime.config.host_ip
        else:
            self.ip = self.runtime.addresses.assign(self.uid)
        self.files.save_pod({"startedAt": self._started_at, "pod": self.pod})
        for spec, _ in all_specs(self.pod):
            container, process = self.files.load(spec["name"])
            self.containers[spec["name"]] = container
            if container.state != "running":
                continue
            if process is not None and process.alive():
                self._adopt(container, process)
            else:
                self._spawn(f"remove {container.name}", self._remove_engines(container.name))
                self._ended(container, Ended(None))
        if self.processes:
            self._mounted = True
            self._claim_ports()
            self._spawn("volumes", self._refresh_volumes())

    def _adopt(self, container: Container, process: ProcessId) -> None:
        self.processes[container.name] = process
        container.stopping, container.unhealthy = False, ""
        log.info("pod %s: adopted container %s, process %d", self._name(), container.name, process.pid)
        self._spawn("egress", self._open_egress())
        self._watch(container, process)

    # -- starting
    async def _prepare(self) -> None:
        await self._mounts.first(self.pod, self.ip)
        self.renew_hosts()
        if self._mounted:
            return
        await self._open_egress()
        self._mounted = True
        self._spawn("volumes", self._refresh_volumes())

    def note_policies(self) -> None:
        """Tell the Pod's relay whether it has to ask who may come in."""
        policed = self.runtime.firewall is not None and self.runtime.firewall.policed(self.pod)
        if self.files.net.exists():
            mark = self.files.net / "policed"
            mark.touch() if policed else mark.unlink(missing_ok=True)

    async def _open_egress(self) -> None:
        if self.runtime.sandbox.network and not self.pod["spec"].get("hostNetwork"):
            mode = (self.pod["metadata"].get("annotations") or {}).get(EGRESS, "")
            self.note_policies()
            token = token_reader(self.pod, self.files.volumes)
            await self.runtime.egress.open(self.files.egress, self._name(), mode, token)

    async def _refresh_volumes(self) -> None:
        """Keep ConfigMaps, Secrets and tokens current; also right after adoption, when tokens may be old."""
        while any(v for v in self.pod["spec"].get("volumes") or () if "emptyDir" not in v):
            try:
                await self._mounts.refresh(self.pod, self.ip)
            except (QuarterdeckError, OSError) as error:
                log.warning("pod %s: volumes keep their content: %s", self._name(), error)
            await asyncio.sleep(self.runtime.config.refresh)

    async def _start(self, name: str) -> None:
        container = self.containers[name]
        spec = self.spec_of(name)
        if spec is None or container.state == "running":
            return
        now = self.runtime.clock.time
        try:
            await self._prepare()
            plan = await self._starter.plan(self.pod, spec, self.ip, self._mounts.paths)
        except VolumeError as error:
            self._event("Warning", "FailedMount", str(error))
            container.refuse("ContainerCreating", "", now())
            container.backoff = 0.0
        except ConfigurationError as error:
            self._event("Warning", "Failed", f"Error: {error}")
            container.refuse(error.reason, str(error), now())
        except ImageNotRunnable as error:
            self._event("Warning", "Failed", f'Failed to pull image "{spec.get("image", "")}": {error}')
            container.refuse(error.waiting, str(error), now())
        except (ApiError, OSError) as error:
            container.refuse("CreateContainerError", str(error), now())
        else:
            self._launch(container, spec, plan)
            return
        self.files.save(container, None)

    def _launch(self, container: Container, spec: Object, plan: Any) -> None:
        """No waiting from here to the end: a cancelled worker must not leave a process it has not recorded."""
        now = self.runtime.clock.time()
        attempt = container.attempt + 1
        probes = probes_of(spec)

        def record(process: ProcessId) -> None:
            container.attempt = attempt
            container.image, container.image_id = spec.get("image") or "", plan.image.digest
            container.begin(
                f"quarterdeck://{self.uid}-{container.name}-{attempt}",
                now,
                probed_ready="readiness" in probes,
                probed_start="startup" in probes,
            )
            self.files.save(container, process)

        try:
            process = self._starter.spawn(plan, self.pod, container.name, attempt, self.ip, record)
        except PortConflict as error:
            self._problem = ("PortConflict", "PortConflict", str(error))
            container.refuse("PortConflict", str(error), now)
            self.files.save(container, None)
            return
        except OSError as error:
            container.refuse("RunContainerError", str(error), now)
            self.files.save(container, None)
            return
        self._problem = None
        self._claim_ports()
        self.end_stdin(container.name)
        if plan.stdin_writer is not None:
            self._stdin_writers[container.name] = plan.stdin_writer
        self.processes[container.name] = process
        LogFile(self.files.log(container.name, attempt - _KEPT_LOGS)).remove()
        self._event("Normal", "Started", f"Started container {container.name}")
        self._watch(container, process)
        post = (spec.get("lifecycle") or {}).get("postStart")
        if post:
            self._spawn(f"hook {container.name}", self._hook(container.name, spec, post))

    def _claim_ports(self) -> None:
        declared = (p for s, _ in all_specs(self.pod) for p in s.get("ports") or ())
        self.runtime.ports[self.uid] = self._name(), frozenset(int(p["containerPort"]) for p in declared)

    def _isolation(self) -> tuple[str, str]:
        """(level, what it means here) as applied to the containers that run."""
        networks: list[str] = []
        foreign: list[bool] = []
        for name in self.processes:
            with contextlib.suppress(OSError):
                confinement = self.files.confinement(name)
                foreign.append("engine" in confinement)
                network = confinement.get("network", "host")
                means = f", {confinement['means']}" if confinement.get("means") else ""
                networks.append(f"{name}: {network}" if foreign[-1] else f"{name}: {network} network{means}")
        level = "container" if foreign and all(foreign) else self.runtime.sandbox.level
        return level, "; ".join(networks)

    def _engine(self, name: str) -> EngineRun | None:
        """The newest run of a container, where an engine runs it."""
        return engine_at(self.files.container(name))

    async def _stop_engine(self, process: ProcessId, name: str, grace: float) -> None:
        """The engine stops the container, and its client ends with it; a bridge is told itself."""
        found = self._engine(name)
        if found is not None and not (found.bridge or await engines.stop(found.engine, found.run, grace)):
            found = None  # the client has not come so far as to have a container
        if found is None or found.bridge:
            terminate(process)

    async def _remove_engines(self, name: str) -> None:
        """The client has ended: nothing of its container may stay in the engine."""
        if (found := self._engine(name)) is not None:
            await engines.remove(found.engine, found.run)

    def _watch(self, container: Container, process: ProcessId) -> None:
        self._spawn(f"wait {container.name} {process.pid}", self._await_end(container, process))
        spec = self.spec_of(container.name)
        for kind in probes_of(spec) if spec is not None else ():
            self._spawn(f"probe {kind} {container.name} {process.pid}", self._probe(kind, container, process))

    async def _await_end(self, container: Container, process: ProcessId) -> None:
        ended = await wait(process)
        group = f"{self.uid}/{container.name}"
        kill(process, self.runtime.cgroups.procs(group))
        await self._remove_engines(container.name)
        if self.processes.get(container.name) != process:
            return
        del self.processes[container.name]
        self.end_stdin(container.name)
        self._ended(container, ended)

    def _ended(self, container: Container, ended: Ended) -> None:
        """Record how a run ended. Of an adopted process only bubblewrap's own record knows the exit code."""
        group = f"{self.uid}/{container.name}"
        reason, message, code = "", "", ended.code
        if code is None:
            code = self.files.exit_code(container.name)
        if code is None:
            code, reason = UNKNOWN_EXIT, "ContainerStatusUnknown"
            message = "the container was started by an earlier node process; its exit code is unknown"
        if self.runtime.cgroups.oom_killed(group):
            reason = "OOMKilled"
        signal = ended.signal or (code - 128 if 128 < code <= 192 and not message else 0)
        now = self.runtime.clock.time()
        spec = self.spec_of(container.name)
        if spec is not None and not message:
            message = last_words(self.files, spec, container.attempt, code, now)
        container.end(code, now, reason=reason, message=message, signal=signal)
        if self._halted:  # we ended it ourselves; the next start of the node goes on without delay
            container.backoff, container.not_before = 0.0, now
        self.files.save(container, None)
        self.runtime.cgroups.remove(group)
        if code != 0 and not self.pod["metadata"].get("deletionTimestamp"):
            self._event("Warning", "BackOff", f"container {container.name} ended with exit code {code}")

    # -- probes
    async def _probe(self, kind: str, container: Container, process: ProcessId) -> None:
        spec = self.spec_of(container.name)
        if spec is None:
            return
        probe = probes_of(spec)[kind]
        counter = Counter.of(probe)
        await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
        period = float(probe.get("periodSeconds") or 10)
        while self.processes.get(container.name) == process and not container.stopping:
            if kind != "startup" and not container.started:
                await asyncio.sleep(min(period, 0.2))
                continue
            result = await ask(probe, spec, self.ip, self._runner(container.name))
            if self.processes.get(container.name) != process:
                return
            verdict = counter.add(result.ok)
            if not result.ok:
                self._event("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {result.message}")
            if verdict is not None and self._judge(kind, container, spec, verdict, result.message):
                return
            await asyncio.sleep(period)

    def _judge(self, kind: str, container: Container, spec: Object, ok: bool, message: str) -> bool:
        """Apply a verdict; True when this probe has done its work."""
        before = (container.ready, container.started, container.unhealthy)
        if kind == "readiness":
            container.ready = ok
        elif ok and kind == "startup":
            container.started = True
            container.ready = "readiness" not in probes_of(spec)
        elif not ok:
            container.unhealthy = f"Container {container.name} failed {kind} probe, will be restarted"
            self._event("Normal", "Killing", container.unhealthy)
            log.info("pod %s: %s: %s", self._name(), container.unhealthy, message)
        if before != (container.ready, container.started, container.unhealthy):
            self._wake.set()
        return kind == "startup" or (kind == "liveness" and not ok)

    def _runner(self, name: str) -> Any:
        async def run(argv: list[str], timeout: float) -> tuple[int, bytes]:
            process = self.processes.get(name)
            if process is None:
                return 1, b"container is not running"
            return await run_in(process, self.files.confinement(name), argv, timeout)

        return run

    async def _hook(self, name: str, spec: Object, hook: Object) -> None:
        """A lifecycle hook; a failure is an Event."""
        try:
            if "exec" in hook:
                code, output = await self._runner(name)(list(hook["exec"]["command"]), grace_of(self.pod))
                if code:
                    self._event("Warning", "FailedHook", f"hook of {name}: exit code {code}: {output[:200]!r}")
            elif "httpGet" in hook:
                await http_get(hook["httpGet"], spec, self.ip)
            elif "sleep" in hook:
                await asyncio.sleep(float(hook["sleep"]["seconds"]))
        except (OSError, ValueError, TimeoutError) as error:
            self._event("Warning", "FailedHook", f"hook of {name}: {error}")

    # -- stopping
    def _stop(self, action: Stop) -> None:
        process = self.processes.get(action.name)
        if process is None:
            return
        self.containers[action.name].stopping = True
        self._event("Normal", "Killing", action.reason or f"Stopping container {action.name}")
        self._spawn(f"stop {action.name}", self._end_process(process, action.grace, action.name))

    async def _end_process(self, process: ProcessId, grace: float, name: str, *, hooks: bool = True) -> None:
        """preStop, SIGTERM, grace period, SIGKILL. Without ``hooks`` where all Pods end: nobody is left to tell."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        spec = self.spec_of(name)
        pre = ((spec or {}).get("lifecycle") or {}).get("preStop")
        if hooks and pre and spec is not None and grace > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hook(name, spec, pre), grace)
        procs = self.runtime.cgroups.procs(f"{self.uid}/{name}")
        if grace > 0:
            if self._engine(name) is None:
                terminate(process)
            else:
                self._spawn(f"engine {name}", self._stop_engine(process, name, max(0.0, deadline - loop.time())))
            while process.alive() and loop.time() < deadline:  # noqa: ASYNC110 - adopted processes have no other sign
                await asyncio.sleep(0.02)
        if process.alive():
            kill(process, procs)
        while process.alive():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await self._remove_engines(name)

    async def _finalize(self, decision: Decision) -> None:
        """Last status, then remove what is on disk, then the API object: nothing is left when it is gone."""
        for key, task in list(self._tasks.items()):
            if key.startswith(("start", "volumes", "probe", "hook", "egress")):
                task.cancel()
        if self.processes:
            return
        await self._publish(decision)
        await self.runtime.egress.close(self.files.egress)
        meta = self.pod["metadata"]
        try:
            await self.runtime.client.delete(POD, meta["name"], meta["namespace"], uid=self.uid, grace_seconds=0)
        except NotFound:
            log.debug("pod %s was gone already", self._name())
        except ApiError as error:
            log.warning("pod %s: delete: %s", self._name(), error)
            await asyncio.sleep(1)
            return
        self.forget()
        self.done.set()

    def forget(self) -> None:
        """Remove the Pod's files, address and groups."""
        self.runtime.addresses.release(self.uid)
        if self.runtime.uids is not None:
            self.runtime.uids.release(self.uid)
        self.runtime.ports.pop(self.uid, None)
        for spec, _ in all_specs(self.pod):
            self.runtime.cgroups.remove(f"{self.uid}/{spec['name']}")
        self.runtime.cgroups.remove(self.uid)
        shutil.rmtree(self.files.root, ignore_errors=True)

    # -- reporting
    async def _publish(self, decision: Decision) -> None:
        now = self.runtime.clock.time()
        place = Placement(self._started_at, self.runtime.config.host_ip, self.ip, self._mounted, self._problem,
                          self._isolation())  # fmt: skip
        status = pod_status(self.pod, self.containers, decision, place, now)
        if status == self._published:
            return
        meta = self.pod["metadata"]
        body: Object = {"metadata": {"uid": self.uid}, "status": status}
        try:
            answer = await self.runtime.client.patch(POD, meta["name"], body, meta["namespace"], subresource="status")
        except NotFound:
            return
        except QuarterdeckError as error:
            log.warning("pod %s: status: %s", self._name(), error)
            self._spawn("retry", asyncio.sleep(1))
            return
        self._published = status
        if answer["metadata"].get("uid") == self.uid and int(answer["metadata"].get("resourceVersion") or 0) >= int(
            self.pod["metadata"].get("resourceVersion") or 0
        ):
            self.pod = answer

    def _event(self, kind: Any, reason: str, message: str) -> None:
        self.runtime.events.event({"apiVersion": "v1", "kind": "Pod"} | self.pod, kind, reason, message)

    def log_file(self, name: str, *, previous: bool) -> Path | None:
        """The log of the current or the previous run; None when there was none."""
        container = self.containers.get(name)
        attempt = (container.attempt if container is not None else 0) - (1 if previous else 0)
        return self.files.log(name, attempt) if attempt > 0 else None
