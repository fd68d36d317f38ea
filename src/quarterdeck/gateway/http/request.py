"""The request towards a plain HTTP service: decided once, written for each address it is tried at."""

from __future__ import annotations

from quarterdeck.wire.client import Origin
from quarterdeck.wire.http import Header

from .call import HttpCall
from .filters import rewritten
from .headers import to_backend
from .route import Destination, HttpTarget

_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})


class HttpRequest:
    """Method, target, fields and body after all rules; the Host may depend on the address."""

    __slots__ = ("_body", "_fields", "_host", "_method", "_path", "upgrade")

    def __init__(self, call: HttpCall, destination: Destination, prefix: int, asked: tuple[str, str]) -> None:
        """``asked``: scheme and authority as the client sees them, perhaps before a trusted proxy."""
        exchange = call.exchange
        policies = destination.policies
        chain = destination.chain
        headers = to_backend(exchange, call.headers, *asked)
        if destination.request_headers is not None:
            headers = destination.request_headers(headers)
        headers = chain.outgoing(call, headers)
        headers.append((b"traceparent", call.traceparent))
        self._method = exchange.method.encode("ascii")
        self._path = chain.outgoing_target(call, rewritten(policies.rewrite, call.path, prefix))
        self._body = chain.request_body(call, exchange.body)
        self._host = b""
        """Empty: the backend's own."""
        if policies.rewrite is None or not policies.rewrite.auto_host:
            self._host = call.headers.get(b"host", b"")
            if policies.rewrite is not None and policies.rewrite.host:
                self._host = policies.rewrite.host.encode("latin-1", "replace")
        for header in headers:
            if header[0] == b"host":  # a rule may name it
                self._host = header[1]
        self.upgrade = False
        self._fields = [b"%b: %b\r\n" % header for header in headers if header[0] != b"host"]
        if wants_websocket(call):
            self.upgrade = True
            self._fields.append(b"connection: upgrade\r\nupgrade: websocket\r\n")

    def encode(self, target: HttpTarget, origin: Origin) -> bytes:
        """The bytes of the request for one address."""
        host = self._host or target.authority(origin)
        parts = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (self._method, self._path, host), *self._fields]
        if self._body or self._method.decode() not in _BODILESS:
            parts.append(b"content-length: %d\r\n" % len(self._body))
        parts.append(b"\r\n")
        parts.append(self._body)
        return b"".join(parts)

    @property
    def path(self) -> str:
        return self._path.decode("latin-1")

    def fields(self, target: HttpTarget, origin: Origin) -> list[Header]:
        """The header fields, as a client that frames for itself wants them."""
        lines = [line.rstrip(b"\r\n").split(b": ", 1) for line in self._fields]
        return [(b"host", self._host or target.authority(origin)), *((name, value) for name, value in lines)]

    @property
    def body(self) -> bytes:
        return self._body


def wants_websocket(call: HttpCall) -> bool:
    """Whether the client asks to go on with WebSocket (RFC 6455 §4.1). No other protocol is let through."""
    upgrade = call.headers.get(b"upgrade")
    return upgrade is not None and upgrade.lower() == b"websocket" and call.exchange.upgrade and call.method == "GET"
