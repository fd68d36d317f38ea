"""Kubernetes API client over aiohttp: objects in and out are plain JSON data, so unknown fields survive.

Errors are the typed :class:`quarterdeck.errors.ApiError` of the server's Status; a server that cannot be reached gives
UpstreamError, a deadline that passed TimedOut.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import socket
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload

from quarterdeck import errors
from quarterdeck.kube.config import ClientConfig, CredentialSource, ExecPlugin, load_config, ssl_context
from quarterdeck.kube.resource import Object, Resource
from quarterdeck.malformed import MALFORMED

__all__ = ["ClientConfig", "ExecPlugin", "KubeClient", "ObjectList", "WatchEvent", "load_config"]

PatchKind = Literal["merge", "json", "strategic"]
WatchType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

_PATCH_TYPES: dict[str, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
_APPLY_TYPE = "application/apply-patch+yaml"  # JSON is YAML, and older servers know only this name
_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_PAGE = 500
_ATTEMPTS = 5
_MAX_RETRY_AFTER = 30.0
_WATCH_SECONDS = (240, 480)
_KEEPALIVE = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
)
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class ObjectList:
    """All items of a list, every page of it, and the version a watch can start from."""

    items: list[Object]
    resource_version: str


@dataclass(slots=True)
class WatchEvent:
    type: WatchType
    object: Object


class KubeClient:
    """One connection pool to one API server. Safe to share between tasks of one event loop.

    ``on_write(method, path)`` is called for each write sent and ``writes`` counts them: a quiet controller leaves both
    alone, and tests and the benchmark check that. ``on_warning(text)`` is called for each Warning header of a response.
    ``gate`` is called right before the bytes of each write leave, also of one that is repeated, and holds it back by
    raising a QuarterdeckError (``LeaderElector.check``).
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        on_write: Callable[[str, str], None] | None = None,
        on_warning: Callable[[str], None] | None = None,
        gate: Callable[[], None] | None = None,
    ) -> None:
        self.config = config
        self.gate = gate
        self.on_warning = on_warning
        self.writes = 0
        self.answers: Counter[tuple[str, int]] = Counter()
        """Answers so far by method and status, watches at their start."""
        self.on_write = on_write
        self._base = config.base_url.rstrip("/")
        self._credentials = CredentialSource(config)
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._proxy = None if config.unix_socket else _proxy_of(config.base_url)

    async def get(
        self, res: Resource, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> Object:
        """Raises errors.NotFound."""
        return await self.request("GET", res.path(namespace, name, subresource))

    async def list(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        metadata_only: bool = False,
    ) -> ObjectList:
        """Every matching object; ``limit`` is the page size (0: 500). ``metadata_only`` gets PartialObjectMetadata."""
        path = res.path(namespace)
        accept = _METADATA.format("List") if metadata_only else None
        params = _params(labelSelector=label_selector, fieldSelector=field_selector, limit=limit or _PAGE)
        items: list[Object] = []
        while True:
            try:
                page = await self.request("GET", path, params=params, accept=accept)
            except errors.Expired:
                if "continue" not in params:
                    raise
                # The pages outlived the server's history: one unpaged list is consistent and always possible.
                params = _params(labelSelector=label_selector, fieldSelector=field_selector)
                items = []
                continue
            for item in page.get("items") or ():
                item.setdefault("apiVersion", res.api_version)
                item.setdefault("kind", res.kind)
                items.append(item)
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return ObjectList(items, str(metadata.get("resourceVersion", "")))
            params["continue"] = metadata["continue"]

    async def create(
        self,
        res: Resource,
        obj: Object,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """POST; with ``name`` and ``subresource`` to a subresource (``binding``, ``eviction``, ``token``)."""
        path = res.path(_namespace(res, obj, namespace), name, subresource)
        return await self.request("POST", path, params=_params(dryRun="All" if dry_run else ""), body=obj)

    async def replace(self, res: Resource, obj: Object, *, subresource: str | None = None) -> Object:
        """PUT; raises errors.Conflict when ``obj`` carries a resourceVersion that is not the newest."""
        metadata = obj["metadata"]
        return await self.request("PUT", res.path(metadata.get("namespace"), metadata["name"], subresource), body=obj)

    async def patch(
        self,
        res: Resource,
        name: str,
        body: Any,
        namespace: str | None = None,
        *,
        kind: PatchKind = "merge",
        subresource: str | None = None,
        field_manager: str = "",
    ) -> Object:
        path, params = res.path(namespace, name, subresource), _params(fieldManager=field_manager)
        return await self.request("PATCH", path, params=params, body=body, content_type=_PATCH_TYPES[kind])

    async def apply(
        self,
        res: Resource,
        obj: Object,
        namespace: str | None = None,
        *,
        field_manager: str = "quarterdeck",
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply. Raises errors.Conflict (causes FieldManagerConflict) when not ``force``."""
        path = res.path(_namespace(res, obj, namespace), obj["metadata"]["name"], subresource)
        body = {"apiVersion": res.api_version, "kind": res.kind} | obj
        params = _params(fieldManager=field_manager, force="true" if force else "", dryRun="All" if dry_run else "")
        return await self.request("PATCH", path, params=params, body=body, content_type=_APPLY_TYPE)

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Raises errors.NotFound, or errors.Conflict when a precondition does not hold."""
        await self.request("DELETE", res.path(namespace, name), body=_delete_options(
            propagation, uid, resource_version, grace_seconds
        ))  # fmt: skip

    async def delete_collection(
        self, res: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> None:
        params = _params(labelSelector=label_selector, fieldSelector=field_selector)
        await self.request("DELETE", res.path(namespace), params=params)

    async def watch(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> AsyncIterator[WatchEvent]:
        """Changes after ``resource_version``, bookmarks included, until the server ends the watch (some minutes).

        Raises errors.Expired when the version is too old: list again.
        """
        seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311 - spreads reconnects, no secret
        params = _params(
            watch="1",
            resourceVersion=resource_version,
            allowWatchBookmarks="true",
            timeoutSeconds=seconds,
            labelSelector=label_selector,
            fieldSelector=field_selector,
        )
        accept = _METADATA.format("") if metadata_only else None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.config.timeout, sock_read=seconds + 30)
        async with self._open("GET", res.path(namespace), params, None, None, accept, timeout) as response:
            async for line in _lines(response):
                event = _decode(line)
                if event["type"] == "ERROR":
                    raise errors.api_error_from_status(event["object"])
                yield WatchEvent(event["type"], event["object"])

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str | None = None,
        accept: str | None = None,
    ) -> Any:
        """One call; gives the decoded JSON, or text when the answer is not JSON. 429 and 503 are retried as told."""
        if method in _WRITES:
            self.writes += 1
            if self.on_write is not None:
                self.on_write(method, path)
        timeout = aiohttp.ClientTimeout(total=self.config.timeout)
        async with self._open(method, path, params, body, content_type, accept, timeout) as response:
            data = await response.read()
            return _decode(data) if "json" in response.content_type else data.decode(errors="replace")

    async def stream(self, path: str, *, params: Mapping[str, str] | None = None) -> AsyncIterator[bytes]:
        """The body of a GET in pieces as they come, without a read deadline (Pod logs with ``follow``)."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.config.timeout)
        async with self._open("GET", path, params, None, None, "*/*", timeout) as response:
            async for chunk in response.content.iter_any():
                yield chunk

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> KubeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Any,
        content_type: str | None,
        accept: str | None,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """A response with a success status; the error of its Status object otherwise."""
        headers = {"Accept": accept or "application/json"}
        data: bytes | None = None
        if body is not None:
            data = _encode(body)
            headers["Content-Type"] = content_type or "application/json"
        response = await self._send(method, path, params, data, headers, timeout)
        try:
            yield response
        except aiohttp.ClientError as error:
            raise errors.UpstreamError(f"{method} {self._base}{path}: connection lost: {error}") from error
        except TimeoutError as error:
            raise errors.TimedOut(f"{method} {self._base}{path}: no answer in time") from error
        finally:
            # A watch left half-read must not go back to the pool; a fully read body already did.
            response.close()

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        data: bytes | None,
        headers: dict[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        refreshed = False
        for attempt in range(1, _ATTEMPTS + 1):
            session = self._session or await self._connect()
            headers.update(await self._authorization())
            gated = _Gated(data or b"", self.gate) if self.gate is not None and method in _WRITES else None
            try:
                response = await session.request(
                    method,
                    self._base + path,
                    params=params,
                    data=data if gated is None else gated,
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    proxy=self._proxy,
                    server_hostname=self.config.tls_server_name or None,
                )
            except aiohttp.ClientError as error:
                if gated is not None and gated.refused is not None:
                    raise gated.refused from error
                raise errors.UpstreamError(f"cannot reach the Kubernetes API at {self._base}: {error}") from error
            except TimeoutError as error:
                raise errors.TimedOut(f"{method} {self._base}{path}: no answer in {timeout.total} s") from error
            self.answers[method, response.status] += 1
            if self.on_warning is not None:
                for text in _warnings(response):
                    self.on_warning(text)
            if response.status < 400:
                return response
            problem = await _problem(response, method, path)
            if response.status == 401 and self._credentials.renewable and not refreshed:
                refreshed = True
                self._credentials.forget()
                continue
            if attempt == _ATTEMPTS or not _may_retry(method, response.status):
                raise problem
            delay = problem.retry_after if problem.retry_after is not None else 0.1 * 2**attempt
            await asyncio.sleep(min(delay, _MAX_RETRY_AFTER) * random.uniform(0.8, 1.2))  # noqa: S311
        raise errors.ServiceUnavailable(f"{method} {path}: the server kept refusing")

    async def _authorization(self) -> dict[str, str]:
        config = self.config
        if config.username:
            return {"Authorization": "Basic " + base64.b64encode(
                f"{config.username}:{config.password}".encode()
            ).decode()}  # fmt: skip
        source = self._credentials
        credential = await asyncio.to_thread(source.current) if source.blocking else source.current()
        return {"Authorization": f"Bearer {credential.token}"} if credential.token else {}

    async def _connect(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is not None:
                return self._session
            config, source = self.config, self._credentials
            headers: list[tuple[str, str]] = [("User-Agent", config.user_agent)]
            if config.impersonate:
                headers.append(("Impersonate-User", config.impersonate))
                headers.extend(("Impersonate-Group", group) for group in config.impersonate_groups)
            if config.unix_socket:
                connector: aiohttp.BaseConnector = aiohttp.UnixConnector(config.unix_socket, limit=0)
            else:
                credential = await asyncio.to_thread(source.current) if source.blocking else source.current()
                tls = ssl_context(config, credential) if self._base.startswith("https:") else False
                connector = aiohttp.TCPConnector(ssl=tls, limit=0, socket_factory=_socket)
            # Not trust_env: it would read ~/.netrc, in a thread, for each request.
            self._session = aiohttp.ClientSession(connector=connector, headers=headers)
            return self._session


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """Of an entry of getaddrinfo. When its other end goes without a word, a silent watch too ends within a minute."""
    made = socket.socket(*address[:3])
    for level, name, value in _KEEPALIVE:
        if (option := getattr(socket, name, None)) is not None:
            made.setsockopt(level, option, value)
    made.setblocking(False)
    return made


class _Gated(BytesPayload):
    """A request body that asks before it is written: connecting and TLS may have taken any time since the call.

    aiohttp holds the head of a request back until the first bytes of its body: nothing leaves when the gate says no.
    """

    def __init__(self, data: bytes, gate: Callable[[], None]) -> None:
        super().__init__(data)
        self.refused: errors.QuarterdeckError | None = None
        self._gate = gate

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        try:
            self._gate()
        except errors.QuarterdeckError as error:
            self.refused = error
            raise
        await super().write_with_length(writer, content_length)


def _proxy_of(url: str) -> str | None:
    """What HTTPS_PROXY and NO_PROXY say; never for loopback (as Go's ProxyFromEnvironment)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def _params(**values: object) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if value}


def _namespace(res: Resource, obj: Object, namespace: str | None) -> str | None:
    return (namespace or obj["metadata"].get("namespace")) if res.namespaced else None


def _delete_options(
    propagation: str | None, uid: str | None, resource_version: str | None, grace_seconds: int | None
) -> Object:
    options: Object = {}
    if propagation:
        options["propagationPolicy"] = propagation
    preconditions = {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v}
    if preconditions:
        options["preconditions"] = preconditions
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    return {"kind": "DeleteOptions", "apiVersion": "v1"} | options


def _may_retry(method: str, status: int) -> bool:
    # 429 is sent before the request is acted on; after a 503 a POST may have been.
    return status == 429 or (status == 503 and method != "POST")


async def _problem(response: aiohttp.ClientResponse, method: str, path: str) -> errors.ApiError:
    """The error of a failed response; reads the body so that the connection can be used again."""
    data = await response.read()
    body: Any = None
    if "json" in response.content_type:
        try:
            body = _decode(data)
        except MALFORMED:
            body = None
    if isinstance(body, dict) and body.get("kind") == "Status":
        problem = errors.api_error_from_status(body)
    else:
        text = data.decode(errors="replace").strip()[:500]
        problem = errors.ApiError(f"{method} {path}: HTTP {response.status} {text}", code=response.status)
    if problem.retry_after is None and response.headers.get("Retry-After", "").isdigit():
        problem.retry_after = int(response.headers["Retry-After"])
    return problem


def _warnings(response: aiohttp.ClientResponse) -> list[str]:
    """Texts of ``Warning: 299 - "…"`` (RFC 9111 §5.5 quoting); other codes are not for people."""
    found: list[str] = []
    for header in response.headers.getall("Warning", ()):
        for text in _WARNING.findall(header):
            found.append(re.sub(r"\\(.)", r"\1", text))
    return found


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length; aiohttp's own readline refuses those over 64 KiB."""
    pending: list[bytes] = []
    async for chunk in response.content.iter_any():
        head, newline, rest = chunk.partition(b"\n")
        pending.append(head)
        while newline:
            line = b"".join(pending)
            if line:
                yield line
            head, newline, rest = rest.partition(b"\n")
            pending = [head]
