"""The gateway as one object: listeners, the table they serve from, and where snapshots come from."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import msgspec

from quarterdeck import __version__
from quarterdeck.errors import ConfigError, QuarterdeckError, StorageError
from quarterdeck.snapshot import Agent, McpServer, Snapshot, decode
from quarterdeck.telemetry import names
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.http import Exchange, Handler, Server

from .a2a.endpoint import A2aEndpoint
from .a2a.signing import CardSigner
from .activity import tell
from .admin import admin_handler, ready_handler, stats_handler
from .audit.service import Auditing
from .call import Call
from .children import Children
from .config.dump import config_dump
from .config.files import FileSource
from .config.lastgood import LastGood, load_key
from .config.stream import ControlPlane, read_file
from .hooks import Hooks
from .http.endpoint import HttpEndpoint
from .http.frontend import Frontend
from .http.ports import Ports
from .http.retry import Budgets
from .limits.admin import handler as breakers_handler
from .limits.memory import shared
from .limits.service import Limits
from .limits.sizes import listener as listener_limits
from .limits.stage import ToolLimits
from .llm.endpoint import LlmEndpoint
from .mcp.approvals import page_of
from .mcp.endpoint import McpEndpoint
from .mcp.keys import KeyFile
from .mcp.pinned import tools_handler
from .mcp.session import SessionSealer
from .mcp.virtual import tell_changes
from .oauth.service import SignInService
from .options import Address, Options
from .pins import PinBook
from .policy.services import Services
from .revocations import Revocations
from .revocations import handler as revocations_handler
from .router import LOCAL, WORKLOADS, Router
from .split import Splits
from .table import Table
from .upstream import Upstreams
from .wake import Sleeper, Waker
from .workers.share import Share

_log = logging.getLogger("quarterdeck.gateway")


class Gateway:
    """``await start()``, then :attr:`endpoints`; ``await stop(grace)`` drains. Raises QuarterdeckError on start."""

    def __init__(self, options: Options, clock: Callable[[], float] = time) -> None:
        """``clock`` says when tokens, keys and revocations expire."""
        self._options = options
        self.endpoints: dict[str, str] = {}
        """Name of the listener → ``http://host:port``."""
        self._own_endpoints: dict[str, str] = {}
        self._started = False
        key_file = options.key_file or options.data_dir / "gateway.key"
        key = load_key(key_file)
        self._last_good = LastGood(options.data_dir / "snapshot.bin", key)
        self.registry = Registry()
        self._auditing = Auditing(options.audit_file, options.audit, options.gateway, self.registry, _log.error)
        self.audit = self._auditing.log
        self.upstreams = Upstreams()
        self._observer = self._auditing.observer(self.registry)
        self.version = ""
        self._splits = Splits()
        self.waker = Waker(self._ask_to_wake, self._hold, self._awake)
        self.revocations = Revocations(options.data_dir / "revocations.json", self.upstreams.end, clock)
        tables = shared(options.limits_file) if options.limits_file is not None else None
        self.limits = Limits(tables, registry=self.registry)
        self.services = Services(
            self.upstreams,
            public_url=options.public_url,
            trusted_hops=options.trusted_hops,
            revocations=self.revocations,
            limits=self.limits.admission,
            clock=clock,
        )
        self._budgets = Budgets()
        sealer = SessionSealer(key)
        self._keys = KeyFile(key_file, key, sealer)
        mcp = McpEndpoint(self.upstreams, self._observer, sealer, ToolLimits(self.limits, self._observer))
        self.sign_ins = SignInService(
            self.upstreams, self._observer, sealer, options.data_dir / "user-tokens.bin", self._reached_at
        )
        mcp.peers.find = lambda key: self._router.table.groups.get(key)
        self.peers = mcp.peers
        self.approvals, self.permits = mcp.approvals, mcp.permits
        llm = LlmEndpoint(self.upstreams, self._observer)
        a2a = A2aEndpoint(self.upstreams, self._observer, self.services)
        a2a.approvals = mcp.approvals
        self.revocations.acting = mcp.approvals.acting
        self.cards = a2a.signer = CardSigner(options.gateway)
        self._router = Router(
            Table(Snapshot(), self.upstreams),
            self._observer,
            mcp,
            llm,
            a2a,
            self.waker,
        )
        http = HttpEndpoint(self.upstreams, self._observer, self.registry, self.services)
        frontend = Frontend(self._observer, http, mcp, llm, a2a)
        self.listeners = Ports(
            frontend,
            self._server,
            self.upstreams.own,
            options.bind,
            share=options.share,
            changed=self._listeners_changed,
        )
        self._router.revocations = self.revocations
        self._hooks = self._router.hooks = Hooks(self._observer, options.gateway, self.registry)
        self.revocations.grants = self.sign_ins.revoked
        self.sign_ins.attend(self._router, frontend)
        self._pins = PinBook()
        share = options.share
        self._first = share is None or share.index == 0
        """Whether this process does what only one worker may do."""
        directory = (share.directory if share is not None else options.data_dir) / "children"
        self.children = Children(directory, shared=share is not None, start=self._first)
        self.files = FileSource(options.file, self.use, self.children) if options.file is not None else None
        """The file that is served, if one is."""
        self._servers: list[Server] = []
        self._control_plane: ControlPlane | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.admin: dict[str, Handler] = {
            "tools": tools_handler(lambda: self._router.table.targets.values()),
            "revocations": revocations_handler(self.revocations),
            "breakers": breakers_handler(self.limits.breakers),
            "user-tokens": self.sign_ins.admin,
        }
        """Further handlers of the admin port by the first segment of their paths."""
        self._gauges()

    async def start(self) -> None:
        options = self._options
        if options.config is not None:
            snapshot, _ = read_file(options.config)
            self.use(snapshot)
        elif self.files is not None:
            self.files.start()
            self._tasks = [asyncio.get_running_loop().create_task(self.files.run())]
        else:
            self._use_last_good()
            self._control_plane = ControlPlane(
                options.control_plane,
                options.gateway,
                options.token_file,
                self._accept,
                _log.warning,
                ca_pem=_read(options.control_plane_ca),
                problems=lambda: self.listeners.problems,
            )
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._control_plane.run()), loop.create_task(self._tell())]
        plane = self._control_plane
        self.sign_ins.use(plane.ask if plane is not None else None, options.gateway)
        if plane is not None:
            self.approvals.ask = self.permits.ask = self.cards.ask = self._hooks.ask = plane.ask
            self.approvals.page = page_of(options.control_plane)
        self._auditing.start(partial(plane.post, "audit/checkpoints") if plane is not None else None)
        self._tasks += [
            asyncio.get_running_loop().create_task(f) for f in (self._keys.follow(), self.revocations.follow())
        ]
        await self.peers.start(options.peers, _log.warning)
        await self._listen(LOCAL, self._router.handle, options.local)
        await self._listen(WORKLOADS, self._router.handle, options.workloads)
        stats, ready = stats_handler(self.registry), ready_handler(self._problem)
        admin = admin_handler(self._dump, self.admin)
        if options.share is None:
            await self._listen("stats", stats, options.stats)
            await self._listen("ready", ready, options.ready)
            await self._listen("admin", admin, options.admin)
        else:
            await self._join(options.share, stats, ready, admin)
        await self.listeners.settled()
        self._started = True
        self._write_endpoints()

    async def stop(self, grace: float = 10.0) -> None:
        """Stop accepting, let calls in flight end, write all audit records."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.gather(self.listeners.stop(grace), *(server.stop(grace) for server in self._servers))
        await self.peers.stop()
        self.services.close()
        self.upstreams.close()
        await self.children.stop()
        await self._auditing.stop()

    @property
    def snapshot(self) -> Snapshot:
        """What is served now."""
        return self._router.table.snapshot

    def use(self, snapshot: Snapshot) -> None:
        """Serve by another snapshot from now on. Raises QuarterdeckError, and keeps the old one, if it cannot be."""
        self.revocations.use(snapshot.revocations)  # first: it holds though the rest may not be usable
        self.limits.replicas = max(1, snapshot.replicas)
        table = Table(snapshot, self.upstreams, self._splits, self.services, self._budgets)
        table.authorizer.revocations = self.revocations
        self._pins.apply(snapshot, table.targets.values())
        self.permits.use(snapshot)
        tell_changes(self._router.table.groups, table.groups, self.upstreams.held)
        self._router.table = table
        for server in self._servers:
            server.forget()
        self.listeners.apply(table)
        if self._started:
            self._write_endpoints()
        self.upstreams.closed = frozenset(snapshot.closed)
        if snapshot.approvals and (self._options.config is not None or self.files is not None):
            _log.warning("approvals are configured and need a control plane: these calls are refused here")
        self.version = snapshot.version
        self.waker.changed()
        agents = frozenset(snapshot.identities.pods.values())
        # an agent that is gone loses what it has open, too: streams may last for ever
        self.upstreams.cancel(lambda relay: bool(relay.agent) and relay.agent not in agents)

    def _accept(self, snapshot: Snapshot, line: bytes) -> None:
        if snapshot.gateway != self._options.gateway:
            raise ConfigError(f"the snapshot is for gateway {snapshot.gateway}, this is {self._options.gateway}")
        if snapshot.version == self.version:
            return
        self.use(snapshot)
        _log.info("serving snapshot %s", snapshot.version)
        if not self._first:
            return
        try:
            self._last_good.save(line)
        except StorageError as error:
            _log.error("%s; a restart without the control plane would begin empty", error)

    async def _tell(self) -> None:
        """Report the traffic to the control plane, for canaries and for what may be scaled to zero."""
        plane = self._control_plane
        assert plane is not None
        await tell(
            lambda: self._observer.ledger.report(self.snapshot, self._in_flight()),
            lambda body: plane.post("activity", body),
            _log.warning,
        )

    def _in_flight(self) -> list[tuple[str, str]]:
        return [*(relay.target for relay in self.upstreams.in_flight), *self.waker.waiting()]

    async def _ask_to_wake(self, sleeper: Sleeper) -> None:
        kind, namespace, name = sleeper
        if self._control_plane is None:
            raise ConfigError("this gateway has a file for its configuration and no control plane to ask")
        body = msgspec.json.encode({"kind": kind, "namespace": namespace, "name": name})
        await self._control_plane.post("wake", body)

    def _hold(self, sleeper: Sleeper) -> float:
        found = self._found(sleeper)
        return found.wake if found is not None else 0.0

    def _awake(self, sleeper: Sleeper) -> bool:
        found = self._found(sleeper)
        return found is not None and bool(found.endpoints)

    def _found(self, sleeper: Sleeper) -> Agent | McpServer | None:
        kind, namespace, name = sleeper
        table = self._router.table
        if kind == "Agent":
            return table.agents.get(f"{namespace}/{name}")
        route = table.mcp.get(f"/mcp/{namespace}/{kind.lower()}.{name}".encode())
        return route.server if route is not None else None

    def _use_last_good(self) -> None:
        line = self._last_good.load()
        if line is None:
            return
        try:
            self.use(decode(line))
        except (msgspec.DecodeError, QuarterdeckError) as error:
            _log.warning("the kept snapshot cannot be used, waiting for the control plane: %s", error)

    async def _join(self, share: Share, stats: Handler, ready: Handler, admin: Handler) -> None:
        """Be one of several workers: reached by the others, and by the supervisor for operators."""

        def control(exchange: Exchange) -> Coroutine[Any, Any, None] | None:
            path = exchange.path
            if path in ("/metrics", "/stats/prometheus"):
                return stats(exchange)
            return (ready if path in ("/healthz/ready", "/healthz", "/ready") else admin)(exchange)

        server = Server(control, name="control", on_error=_report)
        await server.listen_unix(str(share.control))
        self._servers.append(server)
        await self.peers.listen_unix(share.directory / "peers")

    def _server(self, name: str, handler: Handler) -> Server:
        """A server for calls: each is recorded before it is answered."""
        server = Server(handler, name=name, limits=listener_limits(), on_error=self._broke, error_body=_as_json)
        server.barrier = self.audit.flush
        return server

    def _broke(self, exchange: Exchange, error: Exception) -> None:
        """A fault of our own: logged, and recorded before its 500 goes out, whoever the caller turned out to be."""
        _report(exchange, error)
        if not isinstance(exchange.context, dict):
            exchange.context = dict(exchange.headers)
        call = Call(exchange, "http", "")
        call.method = exchange.method
        if exchange.admission is not None:
            call.principal = exchange.admission.principal
        self._observer.begin(call)
        path = exchange.path.partition("?")[0][:256]
        self._observer.finish(call, "error", 500, f"internal error ({type(error).__name__}) at {path}")

    def _write_endpoints(self) -> None:
        """Tell the file, where there is one, what is listened at."""
        self.endpoints = {**self.listeners.endpoints, **self._own_endpoints}
        if self._options.share is not None:
            self._options.share.tell(self.endpoints)
        file = self._options.endpoints_file
        if file is not None:
            fresh = file.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode({**self.endpoints, "pid": os.getpid()}))
            fresh.replace(file)

    def _listeners_changed(self) -> None:
        """A port is open that was not when the snapshot came."""
        self._write_endpoints()
        if self._control_plane is not None:
            self._tasks.append(asyncio.get_running_loop().create_task(self._acknowledge(self._control_plane)))

    async def _acknowledge(self, plane: ControlPlane) -> None:
        try:
            await plane.acknowledge(self.version)
        except QuarterdeckError as error:
            _log.warning("the control plane was not told that a listener is served now: %s", error)

    async def _listen(self, name: str, handler: Handler, address: Address | None) -> None:
        if address is None:
            return
        called = name in (LOCAL, WORKLOADS)
        server = self._server(name, handler) if called else Server(handler, name=name, on_error=_report)
        try:
            host, port = await server.listen(*address, reuse_port=self._options.share is not None)
        except OSError as error:
            if name == "admin":  # for debugging only: no reason to serve nobody
                _log.error("no admin port: cannot listen on %s:%d: %s", *address, error.strerror or error)
                return
            raise ConfigError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; choose another --{name}"
            ) from error
        self._servers.append(server)
        self.upstreams.own.add((host, port))
        self._own_endpoints[name] = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def _reached_at(self) -> str:
        """Where browsers reach this gateway."""
        if self.services.public_url:
            return self.services.public_url
        own = self._own_endpoints.get(LOCAL) or next(iter(self.listeners.endpoints.values()), "http://localhost")
        return own.replace("//0.0.0.0", "//localhost").replace("//[::]", "//localhost")

    def _dump(self) -> dict[str, Any]:
        return config_dump(self.snapshot, self.files, self.listeners.problems)

    def _problem(self) -> str:
        if self.audit.blocked:
            return "audit records cannot be written: calls are refused"
        return "" if self.version else "no configuration yet: waiting for the control plane"

    def _gauges(self) -> None:
        registry = self.registry
        registry.gauge(names.BUILD_INFO, "Version.", lambda: [({"tag": __version__}, 1.0)])
        registry.gauge(
            names.REVOKED, "Agents, users and servers revoked.", lambda: [({}, float(len(self.revocations.all())))]
        )
        registry.gauge(names.QUARANTINED, "Listed tools that are not the approved ones.", self._pins.quarantined)
        registry.gauge(names.CONFIG_VERSION, "Snapshot in use.", lambda: [({"version": self.version}, 1.0)])
        registry.gauge(
            names.LISTENER_UP,
            "Whether a listener of the configuration is served.",
            lambda: [
                *(({"listener": name}, 1.0) for name in self.listeners.endpoints),
                *(({"listener": name}, 0.0) for name in self.listeners.problems),
            ],
        )
        plane = self._following_plane
        registry.gauge(
            names.CONTROL_PLANE_CONNECTED,
            "Whether the configuration stream is open.",
            lambda: [({}, 1.0 if (p := plane()) is not None and p.connected else 0.0)],
        )
        registry.gauge(
            names.CONFIG_REJECTED,
            "Snapshots refused.",
            lambda: [({}, float(p.rejected if (p := plane() or self.files) is not None else 0))],
            kind="counter",
        )

    def _following_plane(self) -> ControlPlane | None:
        return self._control_plane


def _as_json(status: int, message: str) -> tuple[bytes, bytes]:
    return b"application/json", msgspec.json.encode({"error": {"message": message, "code": status}})


def _report(exchange: Exchange, error: Exception) -> None:
    _log.error("%s %s failed", exchange.method, exchange.path, exc_info=error)


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"--control-plane-ca {path}: {error.strerror}") from error
