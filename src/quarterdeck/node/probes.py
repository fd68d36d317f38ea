"""Liveness, readiness and startup probes: counting (pure) and asking (http, tcp, exec)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from quarterdeck.kube.resource import Object

Exec = Callable[[list[str], float], Awaitable[tuple[int, bytes]]]
"""Run a command in the container: (argv, seconds) → (exit code, output)."""


@dataclass(slots=True)
class Counter:
    """Turns single results into a verdict, with successThreshold and failureThreshold."""

    success_threshold: int = 1
    failure_threshold: int = 3
    verdict: bool | None = None
    run: int = 0
    last: bool | None = None

    @classmethod
    def of(cls, probe: Object) -> Counter:
        return cls(int(probe.get("successThreshold") or 1), int(probe.get("failureThreshold") or 3))

    def add(self, ok: bool) -> bool | None:
        """The verdict after this result; None until a threshold has been reached once."""
        self.run = self.run + 1 if ok == self.last else 1
        self.last = ok
        if self.run >= (self.success_threshold if ok else self.failure_threshold):
            self.verdict = ok
        return self.verdict


@dataclass(frozen=True, slots=True)
class Result:
    ok: bool
    message: str = ""


async def ask(probe: Object, container: Object, host: str, run: Exec) -> Result:
    """One probe. Never raises for what the container does; the message is kubelet's."""
    timeout = float(probe.get("timeoutSeconds") or 1)
    try:
        if "exec" in probe:
            code, output = await run(list(probe["exec"].get("command") or ()), timeout)
            return Result(code == 0, output.decode(errors="replace").strip()[:1024])
        async with asyncio.timeout(timeout):
            if "httpGet" in probe:
                return await _http(probe["httpGet"], container, host)
            if "tcpSocket" in probe:
                return await _tcp(probe["tcpSocket"], container, host)
    except TimeoutError:
        return Result(False, f"probe timed out after {timeout:g}s")
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        return Result(False, str(error))
    return Result(False, "grpc probes are not supported by this node: use httpGet, tcpSocket or exec")


def port_of(port: Any, container: Object) -> int:
    """A port number or the number of a named containerPort. Raises ValueError."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    for declared in container.get("ports") or ():
        if declared.get("name") == port:
            return int(declared["containerPort"])
    raise ValueError(f"couldn't find port: {port!r} in container {container['name']!r}")


async def _tcp(spec: Object, container: Object, host: str) -> Result:
    _, writer = await asyncio.open_connection(spec.get("host") or host, port_of(spec["port"], container))
    writer.close()
    return Result(True)


async def _http(spec: Object, container: Object, host: str) -> Result:
    status, body = await http_get(spec, container, host)
    if 200 <= status < 400:
        return Result(True)
    del body
    return Result(False, f"HTTP probe failed with statuscode: {status}")


async def http_get(spec: Object, container: Object, host: str) -> tuple[int, bytes]:
    """A GET as probes and lifecycle hooks make it: (status, start of the body). Certificates are not checked."""
    target = spec.get("host") or host
    port = port_of(spec["port"], container)
    tls: ssl.SSLContext | None = None
    if spec.get("scheme") == "HTTPS":
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    headers = {"Host": f"{target}:{port}", "User-Agent": "kube-probe/1.34", "Accept": "*/*", "Connection": "close"}
    headers |= {h["name"]: h["value"] for h in spec.get("httpHeaders") or ()}
    reader, writer = await asyncio.open_connection(target, port, ssl=tls)
    try:
        path = spec.get("path") or "/"
        path = path if path.startswith("/") else f"/{path}"
        lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()
        status = await reader.readline()
        parts = status.split()
        if len(parts) < 2 or not parts[1].isdigit():
            raise ValueError(f"malformed HTTP response {status[:80]!r}")
        return int(parts[1]), await reader.read(1024)
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
