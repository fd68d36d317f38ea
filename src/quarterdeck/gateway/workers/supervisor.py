"""Starts the workers of a gateway, starts those again that die, and speaks for all of them to operators."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

import msgspec

from quarterdeck import processes
from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.telemetry import names
from quarterdeck.telemetry.merge import Exposition, merged
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.client import Pool, Response
from quarterdeck.wire.http import Exchange, Handler, Header, Server
from quarterdeck.wire.sockets import bound_socket

from ..options import Address, Options
from .share import control_socket

_log = logging.getLogger("quarterdeck.gateway.workers")
_STEADY = 60.0  # seconds a worker must have lived for its next start to come at once
_GRACE = 20.0  # seconds between SIGTERM and SIGKILL
_TEXT: Header = (b"content-type", b"text/plain; charset=utf-8")


async def _pause(attempt: int) -> None:
    await asyncio.sleep(min(0.25 * 2**attempt, 30.0))


class Worker:
    """One process and what is known of it."""

    def __init__(self, index: int, control: Path) -> None:
        self.index = index
        self.control = control
        self.process: asyncio.subprocess.Process | None = None
        self.endpoints: dict[str, str] = {}
        self.up = asyncio.Event()
        self.starts = 0
        self.scraped = Exposition()
        """Its metrics as they were last asked for."""


class Supervisor:
    """``arguments`` are those of the gateway; ``options`` what they say."""

    def __init__(
        self,
        arguments: list[str],
        options: Options,
        count: int,
        *,
        backoff: Callable[[int], Awaitable[None]] = _pause,
    ) -> None:
        self._arguments = arguments
        self._options = options
        self._backoff = backoff
        self._directory = Path(tempfile.mkdtemp(prefix="qd-"))  # a data directory's path may be too long for sockets
        self.workers = [Worker(i, control_socket(self._directory, i)) for i in range(count)]
        self.endpoints: dict[str, str] = {}
        self._own: dict[str, str] = {}
        self._reserved: list[socket.socket] = []
        self._servers: list[Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._pool = Pool(max_idle=4)
        self._gone = Exposition()
        self.registry = Registry()
        self.registry.gauge(
            names.WORKERS,
            "Worker processes that serve.",
            lambda: [({}, float(sum(w.up.is_set() for w in self.workers)))],
        )
        self.registry.gauge(
            names.WORKER_RESTARTS,
            "Workers that died and were started again.",
            lambda: [({}, float(sum(max(0, w.starts - 1) for w in self.workers)))],
            kind="counter",
        )

    async def start(self) -> None:
        """Start all workers. Raises ConfigError when a port is taken, or when the first worker does not come up."""
        options = self._options
        local, workloads = self._reserve("local", options.local), self._reserve("workloads", options.workloads)
        self._options = options = replace(options, local=local, workloads=workloads)
        first, *others = self.workers
        self._keep(first)
        await self._first(first)
        for worker in others:
            self._keep(worker)
        await asyncio.gather(*(worker.up.wait() for worker in others))
        await self._listen("stats", self._stats, options.stats)
        await self._listen("ready", self._ready, options.ready)
        await self._listen("admin", self._admin, options.admin)
        self._write_endpoints()

    async def stop(self) -> None:
        """End all workers, with the time they need to drain."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._end(worker) for worker in self.workers))
        await asyncio.gather(*(server.stop(0.5) for server in self._servers))
        self._pool.close()
        for sock in self._reserved:
            sock.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def signal(self, number: int) -> None:
        """Pass a signal on to all workers."""
        for worker in self.workers:
            if worker.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.send_signal(number)

    # -- processes
    def _reserve(self, name: str, address: Address | None) -> Address | None:
        """Hold a port for the workers: bound, so that it is ours, but not listening, so that nothing comes here."""
        if address is None:
            return None
        try:
            sock = bound_socket(address[0], address[1], reuse_port=True, listen=False)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; choose another --{name}"
            ) from error
        self._reserved.append(sock)
        return address[0], int(sock.getsockname()[1])

    def _keep(self, worker: Worker) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._supervise(worker)))

    async def _first(self, worker: Worker) -> None:
        """Wait for the worker that finds out whether the configuration can be served at all."""
        up = asyncio.get_running_loop().create_task(worker.up.wait())
        try:
            await asyncio.wait({up, self._tasks[0]}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if self._tasks[0].done():
            await self._tasks[0]

    async def _supervise(self, worker: Worker) -> None:
        """Raises ConfigError when the very first start fails."""
        attempt = 0
        while True:
            began = monotonic()
            ours, theirs = socket.socketpair()
            worker.starts += 1
            worker.process = await asyncio.create_subprocess_exec(
                *self._command(worker, theirs.fileno()), pass_fds=(theirs.fileno(),)
            )
            theirs.close()
            reading = asyncio.get_running_loop().create_task(self._listen_to(worker, ours))
            status = await worker.process.wait()
            await reading
            was_up = worker.up.is_set()
            worker.process = None
            worker.up.clear()
            self._gone.add(worker.scraped, totals_only=True)
            worker.scraped = Exposition()
            if not was_up and worker.starts == 1 and worker.index == 0:
                raise ConfigError(
                    f"the first worker ended with status {status} before it served; see its message above"
                )
            attempt = 0 if monotonic() - began > _STEADY else attempt + 1
            _log.error("worker %d ended with status %d; starting it again", worker.index, status)
            await self._backoff(attempt)

    def _command(self, worker: Worker, descriptor: int) -> list[str]:
        options = self._options
        limits = options.limits_file or self._directory / "limits.table"
        return [
            sys.executable, "-m", "quarterdeck.gateway", *self._arguments,
            "--workers=1", f"--worker={worker.index}:{descriptor}:{self._directory}",
            f"--local={_text(options.local)}", f"--workloads={_text(options.workloads)}",
            f"--limits-file={limits}", "--endpoints-file=",
        ]  # fmt: skip

    async def _listen_to(self, worker: Worker, line: socket.socket) -> None:
        """What a worker says of its addresses, until it is gone."""
        reader, writer = await asyncio.open_connection(sock=line, limit=1 << 20)
        try:
            while told := await reader.readline():
                worker.endpoints = msgspec.json.decode(told, type=dict[str, str])
                worker.up.set()
                self._write_endpoints()
        except (ConnectionError, ValueError, msgspec.DecodeError) as error:
            _log.warning("worker %d: %s", worker.index, error)
        finally:
            writer.close()

    async def _end(self, worker: Worker) -> None:
        if worker.process is not None:
            await processes.end(worker.process, _GRACE)

    # -- for operators
    async def _listen(self, name: str, handler: Handler, address: Address | None) -> None:
        if address is None:
            return
        server = Server(handler, name=name)
        try:
            host, port = await server.listen(*address)
        except OSError as error:
            problem = f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}"
            if name == "admin":
                _log.error("no admin port: %s", problem)
                return
            raise ConfigError(f"{problem}; choose another --{name}") from error
        self._servers.append(server)
        self._own[name] = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def _write_endpoints(self) -> None:
        self.endpoints = {**next((w.endpoints for w in self.workers if w.endpoints), {}), **self._own}
        file = self._options.endpoints_file
        if file is not None and self._own:
            fresh = file.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode({**self.endpoints, "pid": os.getpid()}))
            fresh.replace(file)

    async def _ask(self, worker: Worker, exchange: Exchange) -> tuple[Response, bytes]:
        """A worker's answer to an operator's request. Raises UpstreamError, TimedOut."""
        origin = (str(worker.control), 0, False)
        kept = [(k, v) for k, v in exchange.headers if k in (b"host", b"origin", b"content-type", b"accept")]
        target = exchange.target.decode("latin-1")
        response = await self._pool.request(exchange.method, origin, target, kept, exchange.body, timeout=5.0)
        return response, await response.read()

    async def _ask_all(self, exchange: Exchange) -> list[tuple[Worker, Response, bytes]]:
        """The answers of all workers that are up."""
        up = [worker for worker in self.workers if worker.up.is_set()]
        answers = await asyncio.gather(*(self._ask(w, exchange) for w in up), return_exceptions=True)
        found: list[tuple[Worker, Response, bytes]] = []
        for worker, answer in zip(up, answers, strict=True):
            if isinstance(answer, UpstreamError | TimedOut):
                _log.warning("worker %d does not answer: %s", worker.index, answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found.append((worker, *answer))
        return found

    async def _stats(self, exchange: Exchange) -> None:
        """``/metrics`` of all workers together."""
        texts: list[str] = []
        answers = await self._ask_all(exchange)
        if not answers or any(response.status != 200 for _, response, _ in answers):
            await self._first_answer(exchange, answers)
            return
        for worker, _, body in answers:
            texts.append(body.decode())
            worker.scraped = Exposition(texts[-1])
        body = merged([*texts, self.registry.render().decode()], self._gone)
        exchange.respond(200, body, [(b"content-type", Registry.content_type)])

    async def _ready(self, exchange: Exchange) -> None:
        """Ready when every worker that is up is, and one is."""
        answers = await self._ask_all(exchange)
        bad = [answer for answer in answers if answer[1].status != 200]
        await self._first_answer(exchange, bad or answers)

    async def _admin(self, exchange: Exchange) -> None:
        """Looks ask one worker, changes are made in all."""
        if exchange.method in ("GET", "HEAD"):
            first = next((worker for worker in self.workers if worker.up.is_set()), None)
            try:
                answers = [(first, *await self._ask(first, exchange))] if first is not None else []
            except (UpstreamError, TimedOut) as error:
                exchange.respond(502, f"{error}\n".encode(), [_TEXT])
                return
        else:
            answers = await self._ask_all(exchange)
        bad = [answer for answer in answers if answer[1].status >= 400]
        await self._first_answer(exchange, bad or answers)

    async def _first_answer(self, exchange: Exchange, answers: list[tuple[Worker, Response, bytes]]) -> None:
        if not answers:
            exchange.respond(503, b"no worker is up\n", [_TEXT])
            return
        _, response, body = answers[0]
        media = response.header(b"content-type")
        exchange.respond(response.status, body, [(b"content-type", media)] if media else [])


def _text(address: Address | None) -> str:
    if address is None:
        return "off"
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def supervise(arguments: list[str], options: Options, count: int) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigError when the gateway cannot be started."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    supervisor = Supervisor(arguments, options, count)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, supervisor.signal, signal.SIGHUP)
    try:
        await supervisor.start()
        sys.stderr.write(msgspec.json.encode(supervisor.endpoints).decode() + "\n")
        await stopping.wait()
    finally:
        await supervisor.stop()
