"""The audit log of a gateway process with all that hangs on it: copies, checkpoints, access log, spans."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from quarterdeck import __version__
from quarterdeck.telemetry import names
from quarterdeck.telemetry.audit import FileSink, StreamSink, open_log
from quarterdeck.telemetry.audit.checkpoint import Signer
from quarterdeck.telemetry.metrics import Registry

from ..observe import Observer
from . import otlp
from .accesslog import AccessLog
from .arguments import Redaction
from .checkpoints import Anchor, Checkpoints, FileAnchor
from .delivery import Exporter, Target
from .options import AuditOptions, is_url, path_of
from .tracing import Tracer

_LAST = 3.0
"""Seconds at the end for collectors and anchors to take what is left."""


class Auditing:
    """Made before the gateway listens; :meth:`start` once a loop runs, :meth:`stop` when the last call is over."""

    def __init__(
        self, file: Path | None, options: AuditOptions, gateway: str, registry: Registry, log: Callable[[str], None]
    ) -> None:
        """``file`` of None is standard output. Raises StorageError, ConfigError."""
        self.gateway = gateway
        self.log = open_log(file, rotate=options.rotate, keep=options.keep, on_failure=options.on_failure, on_error=log)
        self.redaction = Redaction(options.redact) if options.arguments else None
        self._targets: list[Target] = []
        self._exporters: dict[str, Exporter] = {}
        self._tasks: list[asyncio.Task[None]] = []
        resource = otlp.attributes(
            [("service.name", "quarterdeck-gateway"), ("service.version", __version__), ("gateway", gateway)]
        )
        if options.otlp:
            self._export("otlp", options.otlp, b"application/json", partial(otlp.logs, resource=resource), options, log)
        if options.http:
            self._export("http", options.http, b"application/x-ndjson", b"".join, options, log)
        self.log.exports.extend(self._exporters.values())
        self.access: AccessLog | None = None
        if options.access_log:
            path = path_of(options.access_log)
            self.access = AccessLog(FileSink(path) if path is not None else StreamSink())
        self.tracer: Tracer | None = None
        if options.trace:
            spans = partial(otlp.traces, resource=resource)
            self.tracer = Tracer(
                self._export("spans", options.trace, b"application/json", spans, options, log), options.sample
            )
        self._anchors: list[Anchor] = self._anchor(options.anchor)
        self._checkpoints = Checkpoints(self.log, Signer(gateway, _replica()), self._anchors, log)
        self._metrics(registry)

    def observer(self, registry: Registry) -> Observer:
        """What records calls here."""
        return Observer(
            self.log, registry, gateway=self.gateway, redaction=self.redaction, access=self.access, tracer=self.tracer
        )

    def start(self, control_plane: Anchor | None = None) -> None:
        """``control_plane`` keeps checkpoints, too."""
        if control_plane is not None:
            self._anchors.append(control_plane)
        for run in (*(exporter.run for exporter in self._exporters.values()), self._checkpoints.run):
            self._tasks.append(asyncio.get_running_loop().create_task(run()))

    async def stop(self) -> None:
        """Write what is left, and say that this was all."""
        self.log.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                await asyncio.gather(*(exporter.drained() for exporter in self._exporters.values()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._checkpoints.step(final=True)
        for target in self._targets:
            target.close()
        if self.access is not None:
            self.access.close()
        self.log.close()

    def _export(
        self,
        name: str,
        url: str,
        content: bytes,
        encode: Callable[[list[bytes]], bytes],
        options: AuditOptions,
        log: Callable[[str], None],
    ) -> Exporter:
        target = Target(url, content)
        self._targets.append(target)
        exporter = self._exporters[name] = Exporter(target.post, encode, limit=options.queue, on_error=log)
        return exporter

    def _anchor(self, where: str) -> list[Anchor]:
        if not where:
            return []
        if not is_url(where):
            return [FileAnchor(Path(where))]
        target = Target(where, b"application/json")
        self._targets.append(target)
        return [target.post]

    def _metrics(self, registry: Registry) -> None:
        log, exporters = self.log, self._exporters

        def counter(name: str, text: str, read: Callable[[], float]) -> None:
            registry.gauge(name, text, lambda: [({}, float(read()))], kind="counter")

        counter(names.AUDIT_LOST, "Audit records lost.", lambda: log.lost + sum(e.dropped for e in exporters.values()))
        counter(names.AUDIT_REFUSED, "Calls refused because they could not be recorded.", lambda: log.refused)
        counter(names.AUDIT_CHECKPOINT_ERRORS, "Checkpoints not kept.", lambda: self._checkpoints.errors)
        registry.gauge(names.AUDIT_BLOCKED, "Whether calls are refused.", lambda: [({}, float(log.blocked))])
        registry.gauge(
            names.AUDIT_EXPORT_WAITING, "Records a copy is behind.",
            lambda: [({"sink": name}, float(e.waiting)) for name, e in exporters.items()],
        )  # fmt: skip
        registry.gauge(
            names.AUDIT_EXPORTED, "Records copied.",
            lambda: [({"sink": name}, float(e.sent)) for name, e in exporters.items()], kind="counter",
        )  # fmt: skip
        registry.gauge(
            names.AUDIT_EXPORT_ERRORS, "Batches a copy did not take.",
            lambda: [({"sink": name}, float(e.errors)) for name, e in exporters.items()], kind="counter",
        )  # fmt: skip


def _replica() -> str:
    return os.environ.get("POD_NAME") or socket.gethostname()
