"""The Pod subresources that live on the node: log, exec, attach, portforward."""

from __future__ import annotations

import ssl

from quarterdeck.apiserver.security.identity import ObjectReader
from quarterdeck.errors import BadRequest, InternalError, UpstreamError
from quarterdeck.kube.resource import Object
from quarterdeck.wire.client import Pool, Response
from quarterdeck.wire.http import Exchange

from .target import (
    find_pod,
    kubelet_origin,
    log_target,
    port_forward_target,
    stream_target,
)
from .upgrade import refusal, relay_upgrade

_ERROR_BODY = 64 * 1024
_TEXT = (b"content-type", b"text/plain; charset=utf-8")


class PodProxy:
    """Passes requests on to the kubelet of the Pod's node. The caller has authenticated and authorized them.

    ``tls`` is :meth:`Pki.kubelet_client_context`. Errors before the first byte are raised as ApiError.
    """

    def __init__(self, reader: ObjectReader, tls: ssl.SSLContext) -> None:
        self._reader = reader
        self._tls = tls
        self._pool = Pool(tls=tls)

    async def log(self, exchange: Exchange, namespace: str, name: str) -> None:
        """``GET pods/{name}/log``: streams the kubelet's answer as fast as the client reads."""
        pod = find_pod(self._reader, namespace, name)
        target = log_target(pod, exchange.query)
        origin = kubelet_origin(self._reader, pod)
        if origin is None:  # as kube-apiserver: no node yet, no log
            exchange.respond(200, b"", [_TEXT])
            return
        try:
            response = await self._pool.request("GET", origin, target, timeout=None)
        except UpstreamError as error:
            raise InternalError(f'Get "https://{origin[0]}:{origin[1]}{target}": {error}') from error
        try:
            if not 200 <= response.status <= 206:
                raise refusal(response.status, await _text(response))
            exchange.start(200, [_TEXT])
            async for chunk in response:
                await exchange.send(chunk)
            exchange.finish()
        except UpstreamError:
            if not exchange.started:
                raise
            exchange.abort()  # the client must not take a cut log for a complete one
        finally:
            response.close()

    async def exec(self, exchange: Exchange, namespace: str, name: str) -> None:
        """``pods/{name}/exec``."""
        await self._stream(exchange, namespace, name, "exec")

    async def attach(self, exchange: Exchange, namespace: str, name: str) -> None:
        """``pods/{name}/attach``."""
        await self._stream(exchange, namespace, name, "attach")

    async def port_forward(self, exchange: Exchange, namespace: str, name: str) -> None:
        """``pods/{name}/portforward``."""
        pod = find_pod(self._reader, namespace, name)
        target = port_forward_target(pod, exchange.query)
        await relay_upgrade(exchange, self._origin(pod), target, self._tls)

    def close(self) -> None:
        self._pool.close()

    async def _stream(self, exchange: Exchange, namespace: str, name: str, verb: str) -> None:
        pod = find_pod(self._reader, namespace, name)
        target = stream_target(pod, verb, exchange.query)
        await relay_upgrade(exchange, self._origin(pod), target, self._tls)

    def _origin(self, pod: Object) -> tuple[str, int, bool]:
        origin = kubelet_origin(self._reader, pod)
        if origin is None:
            raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
        return origin


async def _text(response: Response) -> bytes:
    parts = b""
    async for chunk in response:
        parts += chunk
        if len(parts) >= _ERROR_BODY:
            break
    return parts[:_ERROR_BODY]
