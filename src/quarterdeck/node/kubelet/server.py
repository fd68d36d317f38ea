"""The kubelet's HTTPS API: what kube-apiserver calls for logs, exec, attach and port-forward, and metrics.

Every path but ``/healthz`` needs a caller who may (:mod:`quarterdeck.node.kubelet.access`); a client certificate is
optional in TLS, so that a health check and bearers of tokens may come without one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from quarterdeck.errors import ApiError, BadRequest, NotFound
from quarterdeck.kube.clock import parse_timestamp, timestamp
from quarterdeck.node.kubelet.access import Access
from quarterdeck.node.kubelet.attach import serve_attach
from quarterdeck.node.kubelet.exec import serve_exec
from quarterdeck.node.kubelet.forward import serve_forward
from quarterdeck.node.logs import LogFile, LogOptions, stream
from quarterdeck.node.usage import machine_usage
from quarterdeck.node.worker import PodWorker
from quarterdeck.wire.http import Exchange, Limits, Server

if TYPE_CHECKING:
    from quarterdeck.node.node import Node

log = logging.getLogger(__name__)

_FOLLOW_LOOK = 0.1
_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]
_JSON = [(b"content-type", b"application/json")]


class KubeletApi:
    """Serves one node. ``await start()`` gives the port."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._access = Access(node.config.client, node.config.name, monotonic)
        self._server = Server(self.handle, name="kubelet", limits=Limits(idle_timeout=0), on_error=_log_error)

    async def start(self) -> int:
        config = self._node.config
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=config.client_ca or None)
        tls.verify_mode = ssl.CERT_OPTIONAL
        tls.load_cert_chain(config.kubelet_cert, config.kubelet_key)
        return (await self._server.listen(config.host_ip, config.kubelet_port, tls=tls))[1]

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)

    async def handle(self, exchange: Exchange) -> None:
        if exchange.path != "/healthz":
            try:
                await self._access.check(exchange)
            except ApiError as error:
                exchange.respond(error.status_code, f"{error}\n".encode(), _TEXT)
                return
        await self.serve_trusted(exchange)

    async def serve_trusted(self, exchange: Exchange) -> None:
        """Answer a caller that has shown who it is."""
        try:
            await self._route(exchange)
        except ApiError as error:
            if exchange.started:
                exchange.abort()
            else:
                exchange.respond(error.status_code, f"{error}\n".encode(), _TEXT)

    async def _route(self, exchange: Exchange) -> None:
        parts = exchange.path.strip("/").split("/")
        if parts == ["healthz"]:
            exchange.respond(200, b"ok", _TEXT)
            return
        verb = parts[0]
        if verb == "pods":
            pods = [w.pod for w in self._node.workers.values()]
            exchange.respond(200, json.dumps({"kind": "PodList", "apiVersion": "v1", "items": pods}).encode(), _JSON)
        elif parts == ["metrics", "resource"]:
            exchange.respond(200, self._metrics().encode(), _TEXT)
        elif parts == ["stats", "summary"]:
            exchange.respond(200, json.dumps(self._summary()).encode(), _JSON)
        elif verb == "containerLogs" and len(parts) == 4:
            await self._logs(exchange, self._worker(parts), parts[3])
        elif verb in ("exec", "attach") and len(parts) in (4, 5):
            worker, container = self._worker(parts), parts[-1]
            if verb == "exec":
                await serve_exec(exchange, self._process_owner(worker, container), container)
            else:
                await serve_attach(exchange, self._process_owner(worker, container), container)
        elif verb == "portForward" and len(parts) in (3, 4):
            await serve_forward(exchange, self._worker(parts))
        else:
            raise NotFound(f"the kubelet API has no path {exchange.path}")

    def _worker(self, parts: list[str]) -> PodWorker:
        worker = self._node.worker(parts[1], parts[2])
        if worker is None:
            raise NotFound(f'pod "{parts[2]}" is not on this node')
        return worker

    def _process_owner(self, worker: PodWorker, container: str) -> PodWorker:
        if container not in worker.processes:
            raise NotFound(f'unable to upgrade connection: container not found ("{container}")')
        return worker

    async def _logs(self, exchange: Exchange, worker: PodWorker, name: str) -> None:
        query = dict(exchange.query)
        path = worker.log_file(name, previous=query.get("previous") == "true")
        if path is None or (query.get("previous") == "true" and not path.exists()):
            known = worker.containers.get(name)
            what = "previous terminated " if query.get("previous") == "true" else ""
            why = f"is waiting to start: {known.reason or 'ContainerCreating'}" if known and not what else "not found"
            raise BadRequest(f'{what}container "{name}" in pod "{worker.pod["metadata"]["name"]}" {why}')
        clock = worker.runtime.clock
        options = log_options(query, clock.time())
        container = worker.containers[name]
        attempt = container.attempt

        async def grown() -> bool:
            await asyncio.sleep(_FOLLOW_LOOK)
            return container.state == "running" and container.attempt == attempt and not exchange.disconnected

        exchange.start(200, _TEXT)
        async for piece in stream(LogFile(path), options, clock.time, grown):
            await exchange.send(piece)
        exchange.finish()

    def _summary(self) -> dict[str, Any]:
        """stats/v1alpha1 Summary with what this node knows: CPU and memory of each container."""
        runtime = self._node.runtime
        now = timestamp(runtime.clock.time()) if runtime is not None else ""
        pods: dict[tuple[str, str], dict[str, Any]] = {}
        for use in self._node.pod_metrics():
            ref = {"name": use["pod"], "namespace": use["namespace"]}
            pod = pods.setdefault((use["namespace"], use["pod"]), {"podRef": ref, "containers": []})
            pod["containers"].append({
                "name": use["container"],
                "cpu": {"time": now, "usageCoreNanoSeconds": use["cpu_nanoseconds"]},
                "memory": {"time": now, "workingSetBytes": use["memory_bytes"]},
            })  # fmt: skip
        return {"node": {"nodeName": self._node.config.name}, "pods": list(pods.values())}

    def _metrics(self) -> str:
        """The Prometheus text that metrics-server reads; it leaves out what has used no CPU or no memory."""
        machine = machine_usage(Path("/proc/stat").read_text(), Path("/proc/meminfo").read_text())
        lines = [
            "# TYPE node_cpu_usage_seconds_total counter",
            f"node_cpu_usage_seconds_total {machine.cpu_nanoseconds / 1e9}",
            "# TYPE node_memory_working_set_bytes gauge",
            f"node_memory_working_set_bytes {machine.memory}",
        ]
        uses = [
            (f'{{container="{u["container"]}",namespace="{u["namespace"]}",pod="{u["pod"]}"}}', u)
            for u in self._node.pod_metrics()
        ]
        lines.append("# TYPE container_cpu_usage_seconds_total counter")
        lines += [f"container_cpu_usage_seconds_total{labels} {u['cpu_nanoseconds'] / 1e9}" for labels, u in uses]
        lines.append("# TYPE container_memory_working_set_bytes gauge")
        lines += [f"container_memory_working_set_bytes{labels} {u['memory_bytes']}" for labels, u in uses]
        lines.append("# TYPE container_start_time_seconds gauge")
        lines += [f"container_start_time_seconds{labels} {u['started_at']}" for labels, u in uses]
        return "\n".join(lines) + "\n"


def log_options(query: dict[str, str], now: float) -> LogOptions:
    """v1.PodLogOptions out of a query. Raises BadRequest."""
    try:
        since = now - float(query["sinceSeconds"]) if "sinceSeconds" in query else -1.0
        if "sinceTime" in query:
            since = parse_timestamp(query["sinceTime"])
        return LogOptions(
            follow=query.get("follow") == "true",
            tail=int(query.get("tailLines") or -1),
            since=since,
            timestamps=query.get("timestamps") == "true",
            limit_bytes=int(query.get("limitBytes") or -1),
        )
    except ValueError as error:
        raise BadRequest(f"log options: {error}") from error


def _log_error(exchange: Exchange, error: Exception) -> None:
    log.error("kubelet API %s: %s", exchange.path, error, exc_info=error)
