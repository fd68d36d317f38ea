"""The way out of a Pod's network namespace: an HTTP proxy on one unix socket per Pod, with rules and a log.

CONNECT and absolute-form requests (RFC 9110 §9.3.6, RFC 9112 §3.2.2). Service names resolve to what the node's owner
allows (gateway and control plane); any other host must be public: private, loopback, link-local and Pod addresses are
refused after resolution, and the address that was checked is the one dialled.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit
from urllib.parse import urlsplit

from quarterdeck.errors import Denied
from quarterdeck.node.firewall import Firewall
from quarterdeck.node.sandbox.relay import join
from quarterdeck.node.services import takes_token
from quarterdeck.node.workload_token import ReadToken, with_token

log = logging.getLogger(__name__)

Resolve = Callable[[str, int], Awaitable[list[tuple[str, int]] | None]]
"""A Service name and port → where to dial; None when the name is no Service of this cluster. Raises Denied."""

_HEAD_LIMIT = 64 * 1024
_CONNECTIONS = 256
"""At once, of one Pod: descriptors are the node's, which other Pods and the API server need too."""
_SHARE = 4
"""Of the process's descriptors all Pods together may have one connection for each so many; one takes two of them."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = (ipaddress.ip_network("::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""IPv4-compatible and local-use translation addresses, which :mod:`ipaddress` counts as global."""


def is_public(address: str) -> bool:
    """Whether an address may be dialled for a Pod: global unicast, with mapped and translated forms seen through."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            return is_public(str(inner))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.is_site_local or any(ip in network for network in _NOT_PUBLIC):
            return False
    return ip.is_global and not ip.is_multicast


def is_ours(address: str) -> bool:
    """Whether a (public) address is one of this machine's own: what listens there is not on the Internet."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


@dataclass(slots=True)
class _Door:
    server: asyncio.AbstractServer
    pod: str
    mode: str
    token: ReadToken | None


class EgressProxy:
    """All Pods' proxies. ``resolve`` knows Services; ``firewall`` the NetworkPolicies (None: there are none).

    The same socket answers the Pod's relay that asks whether a connection may come in (:mod:`.sandbox.relay`).
    ``limit``: connections of all Pods together; a share of the process's descriptors when unset.
    """

    def __init__(self, resolve: Resolve, firewall: Firewall | None = None, limit: int | None = None) -> None:
        self._resolve = resolve
        self._firewall = firewall
        self._doors: dict[str, _Door] = {}
        self._free = limit or max(_CONNECTIONS, getrlimit(RLIMIT_NOFILE)[0] // _SHARE)

    async def open(self, path: Path, pod: str, mode: str, token: ReadToken | None = None) -> None:
        """Serve one Pod on ``path``; ``mode`` is the annotation's value: "" (public hosts) or "none".

        ``token``: put on what goes to gateway and control plane.
        """
        if str(path) in self._doors:
            return
        path.unlink(missing_ok=True)

        free = _CONNECTIONS
        door: _Door

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal free
            if free <= 0 or self._free <= 0:
                whose = f"it has {_CONNECTIONS}" if free <= 0 else "all Pods together have too many"
                log.warning("egress refused pod=%s: %s connections open", pod, whose)
                writer.transport.abort()
                return
            free -= 1
            self._free -= 1
            try:
                await self._serve(door, reader, writer)
            finally:
                free += 1
                self._free += 1

        # A socket's path has at most 107 bytes; through a descriptor of its folder it is always short.
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        server = await asyncio.start_unix_server(accept, sock=sock, limit=_HEAD_LIMIT)
        path.chmod(0o666)
        self._doors[str(path)] = door = _Door(server, pod, mode, token)

    async def close(self, path: Path) -> None:
        door = self._doors.pop(str(path), None)
        if door is not None:
            door.server.close()
        path.unlink(missing_ok=True)

    async def _serve(self, door: _Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pod = door.pod
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            if head.startswith(b"INGRESS "):
                await self._admit(pod, head, writer)
                return
            method, host, port, rest = parse_head(head)
            targets = self.permitted(pod, host, await self.targets(host, port, door.mode))
            upstream = await _dial(targets)
        except Denied as error:
            log.warning("connection denied pod=%s rule=%s: %s", pod, error.rule, error)
            await _answer(writer, 403, str(error))
            return
        except (OSError, TimeoutError) as error:
            await _answer(writer, 502, f"cannot connect: {error}")
            return
        except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await _answer(writer, 400, "malformed proxy request")
            return
        log.info("egress allowed pod=%s target=%s:%d", pod, host, port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            token = door.token() if door.token is not None and takes_token(host) else ""
            upstream[1].write(with_token(rest, token) if token else rest)
        try:
            await join(reader, writer, *upstream)
        except OSError as error:
            log.debug("egress connection of %s to %s ended: %s", pod, host, error)

    async def _admit(self, pod: str, head: bytes, writer: asyncio.StreamWriter) -> None:
        """Answer the Pod's relay. Raises Denied naming the policy, ValueError."""
        _, sender, local, *_ = head.decode("ascii").split()
        addresses = [(_host(ip), int(port)) for ip, _, port in (a.rpartition(":") for a in (sender, local))]
        if self._firewall is not None:
            verdict = await self._firewall.inbound(pod, addresses[0], addresses[1])
            if not verdict.allowed:
                raise Denied(f"{sender} to {local}: {verdict}", "network-policy")
        await _answer(writer, 204, "")

    def permitted(self, pod: str, host: str, targets: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those of the addresses that NetworkPolicies let the Pod dial. Raises Denied naming the policy."""
        if self._firewall is None:
            return targets
        verdicts = [(target, self._firewall.outbound(pod, target)) for target in targets]
        left = [target for target, verdict in verdicts if verdict.allowed]
        if targets and not left:
            address, port = targets[0]
            raise Denied(f"{host} ({address}:{port}): {verdicts[0][1]}", "network-policy")
        return left

    async def targets(self, host: str, port: int, mode: str) -> list[tuple[str, int]]:
        """The addresses to dial. Raises Denied (with the deciding rule) or OSError when a name does not resolve."""
        service = await self._resolve(host, port)
        if service is not None:
            return service
        if mode == "none":
            raise Denied(
                f"{host}:{port}: this Pod has no egress (annotation quarterdeck.dev/egress: none)", "egress-none"
            )
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [(str(info[4][0]), port) for info in found]
        for address, _ in addresses:
            if not is_public(address.partition("%")[0]) or is_ours(address):
                raise Denied(f"{host}:{port} is at {address}, which is not a public address", "private-address")
        return addresses


def parse_head(head: bytes) -> tuple[str, str, int, bytes]:
    """(method, host, port, request head to send on) of a proxy request. Raises ValueError."""
    line, _, headers = head.partition(b"\r\n")
    method, target, version = line.decode("ascii").split(" ")
    if method == "CONNECT":
        host, _, port = target.rpartition(":")
        return method, _host(host), int(port), b""
    url = urlsplit(target)
    if url.scheme != "http" or not url.hostname:
        raise ValueError("not an absolute-form http request")
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    kept = [h for h in headers.split(b"\r\n") if h and not h.lower().startswith((b"proxy-", b"connection:"))]
    lines = [f"{method} {path} {version}".encode(), *kept, b"Connection: close", b"", b""]
    return method, _host(url.hostname), url.port or 80, b"\r\n".join(lines)


def _host(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


async def _dial(targets: list[tuple[str, int]]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    problem: OSError = OSError("no address")
    for address, port in targets:
        try:
            return await asyncio.wait_for(asyncio.open_connection(address, port), 15)
        except OSError as error:
            problem = error
    raise problem


async def _answer(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    body = f"quarterdeck egress: {text}\n".encode() if text else b""
    reason = {204: "No Content", 400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    head += "Connection: close\r\n\r\n"
    try:
        writer.write(head.encode() + body)
        await writer.drain()
    except OSError as error:
        log.debug("egress client went away: %s", error)
    finally:
        writer.close()
