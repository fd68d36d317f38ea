"""Starting one container: image, environment, mounts, sockets and limits put together, then the process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from quarterdeck.errors import QuarterdeckError
from quarterdeck.kube.quantity import parse_quantity
from quarterdeck.kube.resource import Object
from quarterdeck.node import hosts
from quarterdeck.node.cgroups import Limits
from quarterdeck.node.environment import ConfigurationError, Fetch, NodeFacts, SandboxUnavailable, environment, expand
from quarterdeck.node.foreign import Foreign, foreign
from quarterdeck.node.images.engine import run_name
from quarterdeck.node.images.spec import ImageSpec
from quarterdeck.node.logs import LogFile
from quarterdeck.node.messages import message_mount
from quarterdeck.node.process import ProcessId, launch
from quarterdeck.node.runtime import PodFiles, Runtime
from quarterdeck.node.sandbox.isolation import HOME, PROXY_PORT, Mount, Request
from quarterdeck.node.security import Security, explained, security_of
from quarterdeck.node.uids import uid_key
from quarterdeck.node.volumes import sub_path
from quarterdeck.node.workload_token import wants_token

_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_SHIMS = "/run/quarterdeck/bin"
_BRIDGE = "quarterdeck-bridge"


class PortConflict(QuarterdeckError):
    """Another Pod has the port, and this machine has no network namespaces to keep them apart."""

    reason = "PortConflict"


@dataclass(slots=True)
class Plan:
    """A container ready to be launched. ``stdin_writer``: the end of a ``stdinOnce`` pipe that keeps it open;
    ``foreign``: a container engine runs it, and ``request`` goes unused; ``means``: how it is confined, for people."""

    request: Request
    image: ImageSpec
    limits: Limits
    ports: list[int] = field(default_factory=list[int])
    means: str = ""
    stdin: Literal["", "open", "once"] = ""
    stdin_writer: int | None = None
    foreign: Foreign | None = None


def limits_of(container: Object) -> Limits:
    """The resource limits of a container in bytes and cores."""
    limits = (container.get("resources") or {}).get("limits") or {}
    memory, cpu = limits.get("memory"), limits.get("cpu")
    return Limits(int(parse_quantity(memory)) if memory else 0, float(parse_quantity(cpu)) if cpu else 0.0, 4096)


class Starter:
    """Starts the containers of one Pod."""

    def __init__(self, runtime: Runtime, files: PodFiles, fetch: Fetch) -> None:
        self._runtime = runtime
        self._files = files
        self._fetch = fetch

    async def plan(self, pod: Object, container: Object, ip: str, volumes: dict[str, Path]) -> Plan:
        """Everything that can fail or wait, before any process exists.

        Raises ImageNotRunnable, ConfigurationError, VolumeError.
        """
        runtime = self._runtime
        facts = NodeFacts(ip, runtime.config.host_ip, runtime.cpu, runtime.memory)
        try:
            env = await environment(pod, container, facts, self._fetch, self._base_env(pod))
        except ConfigurationError:
            # As a kubelet, which pulls first: an image that can never run is the thing to say.
            unexpanded = [*(container.get("command") or ()), *(container.get("args") or ())]
            await runtime.images.resolve(
                container.get("image") or "", unexpanded, container.get("imagePullPolicy") or ""
            )
            raise
        command = [expand(str(c), env) for c in container.get("command") or ()]
        args = [expand(str(a), env) for a in container.get("args") or ()]
        image, argv = await runtime.images.resolve(
            container.get("image") or "", command + args, container.get("imagePullPolicy") or ""
        )
        self.check_sandbox(pod, image)
        security = security_of(pod, container, image)
        if not command and (image.entrypoint or image.cmd):
            argv = [*image.entrypoint, *(args or image.cmd)]
        given = dict(env)
        env = dict(image.env) | env if "PATH" in env else {"PATH": _DEFAULT_PATH} | image.env | env
        mounts = self._mounts(container, volumes)
        mounts += [Mount(path, path, True) for path in image.binds]
        mounts += self._hosts(image)
        if image.engine is None:
            await self._shim(argv, container["name"], mounts, env)
            mounts += message_mount(self._files, container, self._uid(pod))
        request = self._request(pod, container, image, argv, env, mounts, security)
        holds, missing = runtime.sandbox.means(request)
        means = explained(security, applied=holds, missing=missing)
        plan = Plan(request, image, limits_of(container), _ports(container), means)
        if image.engine is not None:
            bridge = _bridge_config(argv, mounts)
            plan.foreign = foreign(
                pod, container, image, command=command, args=args, env=given, mounts=mounts, limits=plan.limits,
                ports=plan.ports, pod_ip=ip, security=security, volumes_gid=self._uid(pod), bridge=bridge,
            )  # fmt: skip
            plan.limits = Limits(0, 0.0, plan.limits.pids)  # the engine limits the container, not its client
        if container.get("stdin"):
            plan.stdin = "once" if container.get("stdinOnce") else "open"
        return plan

    def _base_env(self, pod: Object) -> dict[str, str]:
        url = urlsplit(self._runtime.client.config.base_url)
        host, port = self._runtime.config.api_address or (url.hostname or "127.0.0.1", url.port or 443)
        return {
            "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": str(port),
        }

    def _request(
        self,
        pod: Object,
        container: Object,
        image: ImageSpec,
        argv: list[str],
        env: dict[str, str],
        mounts: list[Mount],
        security: Security,
    ) -> Request:
        runtime = self._runtime
        host_network = bool(pod["spec"].get("hostNetwork"))
        self._check_host_network(pod)
        own_network = not image.own and image.engine is None and not host_network and runtime.sandbox.network
        request = Request(
            argv=argv,
            env=env,
            cwd=container.get("workingDir") or image.workdir or ("/" if image.root else HOME),
            home=self._files.home,
            tmp=self._files.tmp,
            hostname=env["HOSTNAME"],
            mounts=mounts,
            image_root=image.root,
            own_network=own_network,
            # Where policies say who may come in, our relay stays in between to ask.
            hand_over=bool(argv) and os.path.basename(argv[0]) == _BRIDGE and not self._policed(pod),
            uid=security.uid,
            gid=security.uid if security.gid is None else security.gid,
            machine_uid=self._uid(pod),
            capabilities=security.capabilities,
            filtered=security.filtered,
            read_only=security.read_only,
            rlimits={"RLIMIT_NOFILE": [65536, 65536]} if os.getuid() == 0 else {},
        )
        if runtime.sandbox.level != "bwrap" and request.cwd == HOME:
            request.cwd = "/"
        if own_network:
            request.egress = str(self._files.egress)
            proxy = f"http://127.0.0.1:{PROXY_PORT}"
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
                env.setdefault(name, proxy)
            env.setdefault("NO_PROXY", "127.0.0.1,localhost")
            env.setdefault("no_proxy", "127.0.0.1,localhost")
            env.setdefault("NODE_USE_ENV_PROXY", "1")
        elif image.own and not host_network:
            request.connect = self._connect_ports(pod)
        return request

    def _policed(self, pod: Object) -> bool:
        return self._runtime.firewall is not None and self._runtime.firewall.policed(pod)

    def _connect_ports(self, pod: Object) -> tuple[int, ...] | None:
        """TCP ports for a program of ours, which shares the machine's network: the node's, else its policies'."""
        if self._runtime.config.connect_ports is not None or self._runtime.firewall is None:
            return self._runtime.config.connect_ports
        return self._runtime.firewall.egress_ports(pod)

    def _uid(self, pod: Object) -> int | None:
        uids = self._runtime.uids
        return uids.assign(uid_key(pod)) if uids is not None else None

    def check_sandbox(self, pod: Object, image: ImageSpec) -> None:
        """Others' images that are promised files at fixed paths and a relay need mount and network namespaces."""
        sandbox = self._runtime.sandbox
        if (
            not wants_token(pod)
            or image.own
            or image.engine is not None
            or (sandbox.level == "bwrap" and sandbox.network)
        ):
            return
        raise SandboxUnavailable(
            f"this agent's image reads /config and /var/run/secrets/tokens and is reached through a relay, which needs "
            f"bubblewrap with user and network namespaces; this machine has the level {sandbox.level!r}: install "
            "bubblewrap and allow user namespaces (`qd doctor` says what is missing), or run the agent in a cluster"
        )

    def _check_host_network(self, pod: Object) -> None:
        allowed = self._runtime.config.host_network
        namespace = pod["metadata"]["namespace"]
        if pod["spec"].get("hostNetwork") and allowed is not None and namespace not in allowed:
            raise ConfigurationError(
                f"hostNetwork is not allowed on this node for Pods of namespace {namespace}: processes of the "
                "machine's network are trusted as the people at it; remove spec.hostNetwork"
            )

    def _mounts(self, container: Object, volumes: dict[str, Path]) -> list[Mount]:
        mounts: list[Mount] = []
        for mount in container.get("volumeMounts") or ():
            source = volumes[mount["name"]]
            if mount.get("subPath"):
                source = sub_path(source, mount["subPath"])
            mounts.append(Mount(str(source), mount["mountPath"].rstrip("/") or "/", bool(mount.get("readOnly"))))
        return sorted(mounts, key=lambda m: m.target.count("/"))

    def _hosts(self, image: ImageSpec) -> list[Mount]:
        """The Pod's /etc/hosts, where this node writes one and the sandbox can mount it."""
        if self._runtime.proxy is None or self._runtime.sandbox.level != "bwrap":
            return []
        if image.root is not None and (image.root / "usr" / "bin").is_dir():  # a whole file system: its own /etc
            (image.root / "etc").mkdir(exist_ok=True)
            (image.root / "etc" / "hosts").touch()
        return [Mount(str(self._files.hosts), hosts.TARGET, True)]

    async def _shim(self, argv: list[str], name: str, mounts: list[Mount], env: dict[str, str]) -> None:
        """A stdio server started by uvx or npx: resolve it now, and let the bridge find a script of that name."""
        config = _bridge_config(argv, mounts)
        if config is None:
            return
        command = str(config.get("command", ""))
        prepared = await self._runtime.images.prepare_command(command, [str(a) for a in config.get("args") or ()])
        if prepared is None:
            return
        line, folder = prepared
        bins = self._files.container(name) / "bin"
        bins.mkdir(exist_ok=True)
        script = bins / os.path.basename(command)
        quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in line)
        script.write_text(f"#!/bin/sh\nexec {quoted}\n")
        script.chmod(0o755)
        mounts += [Mount(str(bins), _SHIMS, True), Mount(folder, folder, True)]
        env["PATH"] = f"{_SHIMS}:{env.get('PATH', _DEFAULT_PATH)}"

    def spawn(self, plan: Plan, pod: Object, name: str, attempt: int, ip: str, record: Any) -> ProcessId:
        """Start the process; ``record(process)`` is called, and must have saved it, before the container runs.

        Raises PortConflict or OSError.
        """
        runtime, request = self._runtime, plan.request
        group = f"{pod['metadata']['uid']}/{name}"
        sockets = self._listen(plan, ip)
        log = LogFile(self._files.log(name, attempt))
        with contextlib.ExitStack() as stack:
            for sock in sockets.values():
                stack.enter_context(sock)
            request.listen = {port: sock.fileno() for port, sock in sockets.items()}
            if request.own_network and not request.hand_over and os.path.basename(request.argv[0]) == _BRIDGE:
                request.env["QUARTERDECK_LISTEN_HOST"] = "127.0.0.1"  # our relay is what listens on the Pod's address
            if request.hand_over and sockets:
                request.env["QUARTERDECK_LISTEN_FDS"] = ",".join(f"{p}={fd}" for p, fd in request.listen.items())
            request.cgroups = runtime.cgroups.create(group, plan.limits) if runtime.cgroups.version else []
            if not runtime.cgroups.version and plan.limits.memory:
                request.rlimits["RLIMIT_DATA"] = [plan.limits.memory * 2, plan.limits.memory * 2]
            foreign = plan.foreign
            run = run_name(pod["metadata"]["uid"], name, attempt)
            out = log.open()
            stack.callback(os.close, out)
            stdin = self._stdin(plan, name)
            stack.callback(os.close, stdin)
            if request.machine_uid is not None:
                for handle in (out, stdin) if plan.stdin else (out,):  # /dev/stdout may be opened anew by name
                    os.fchown(handle, request.machine_uid, request.machine_uid)
            line = foreign.write(self._files.container(name), run) if foreign is not None else []
            confinement = foreign.confinement(run) if foreign is not None else runtime.sandbox.confinement(request)
            self._files.save_confinement(
                name, confinement if foreign is not None else {**confinement, "means": plan.means}
            )
            request.status_fd = os.open(
                self._files.exit_record(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
            stack.callback(os.close, request.status_fd)
            started = launch(stdin, out, out, (*request.listen.values(), request.status_fd))
            try:
                record(started.process)
            except BaseException:
                started.abandon()
                raise
            started.release(
                foreign.instructions(line, request.cgroups)
                if foreign is not None
                else runtime.sandbox.instructions(request)
            )
            return started.process

    def _check_ports(self, plan: Plan, ip: str) -> None:
        """Without a network namespace two Pods that bind 0.0.0.0 get in each other's way: say so before the start."""
        for port in plan.ports if not plan.image.own else ():
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind((ip, port))
                except OSError as error:
                    uid = self._files.root.name
                    raise PortConflict(conflict(ip, port, self._runtime.ports, uid)) from error

    def _stdin(self, plan: Plan, name: str) -> int:
        """Standard input: nothing, or a named pipe. It stays open while the container holds it open for writing too,
        which it does unless ``stdinOnce`` asks for an end of file after the first attach."""
        if not plan.stdin:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        path = self._files.stdin(name)
        if not path.exists():
            os.mkfifo(path, 0o600)
        if plan.stdin == "open":
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        read = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        plan.stdin_writer = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.set_blocking(read, True)
        return read

    def _listen(self, plan: Plan, ip: str) -> dict[int, socket.socket]:
        """Sockets bound to the Pod's address, for a container in its own network namespace."""
        sockets: dict[int, socket.socket] = {}
        if not plan.request.own_network:
            self._check_ports(plan, ip)
            return sockets
        for port in plan.ports:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((ip, port))  # not listening yet: whoever serves it says when it is ready
            except OSError as error:
                sock.close()
                for other in sockets.values():
                    other.close()
                raise PortConflict(f"{ip}:{port} cannot be bound: {error.strerror}") from error
            sockets[port] = sock
        return sockets


def conflict(ip: str, port: int, ports: Mapping[str, tuple[str, frozenset[int]]], uid: str) -> str:
    """What to say when ``port`` is taken: the other Pod by name where one declares it."""
    others = sorted(name for other, (name, declared) in ports.items() if other != uid and port in declared)
    holder = f"Pod {' or '.join(others)}" if others else "another process of this machine"
    return (
        f"{ip}:{port} is taken by {holder}, and this machine has no network namespaces to keep them apart: "
        "let one of them bind $POD_IP instead of 0.0.0.0, use another port, or install bubblewrap"
    )


def _bridge_config(argv: list[str], mounts: list[Mount]) -> dict[str, Any] | None:
    """The configuration a bridge's command line names, read from the volume it is in; None: no bridge."""
    if not argv or os.path.basename(argv[0]) != _BRIDGE or "--config" not in argv:
        return None
    inside = argv[argv.index("--config") + 1]
    for mount in mounts:
        if inside.startswith(mount.target + "/"):
            return json.loads((Path(mount.source) / inside[len(mount.target) + 1 :]).read_text())
    return None


def _ports(container: Object) -> list[int]:
    ports = [p for p in container.get("ports") or () if p.get("protocol", "TCP") == "TCP"]
    return sorted({int(p["containerPort"]) for p in ports})
