"""OpenAI-compatible endpoints: ``/llm/{namespace}/{modelconfig}/v1/…`` and ``/v1/…``.

The request's bytes are sent on as they came unless the model's name or a default must be filled in; the answer is
streamed. The key is the gateway's.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
from msgspec import Raw

from quarterdeck.errors import TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.wire.http import Exchange, Header

from ..call import Call
from ..observe import Observer
from ..policy.authorizer import Request
from ..policy.principal import Principal
from ..table import Table
from ..upstream import Relay, Upstreams
from .route import ModelRoute
from .usage import TAIL, find_model, find_usage

_JSON: list[Header] = [(b"content-type", b"application/json")]
_OPERATIONS = frozenset({"chat/completions", "completions", "embeddings"})
_PASSED_BACK = frozenset({b"content-type", b"retry-after", b"x-request-id", b"cache-control", b"openai-processing-ms"})
_FORWARDED_KEY = b"x-quarterdeck-forward-authorization"
_fields = msgspec.json.Decoder(dict[str, Raw])


class _Asked(msgspec.Struct, gc=False):
    """What of a request decides where it goes."""

    model: str = ""


_asked = msgspec.json.Decoder(_Asked)


def answer_error(call: Call, status: int, message: str, kind: str) -> None:
    """An error in OpenAI's shape."""
    error = {"message": message, "type": kind, "param": None, "code": str(status)}
    call.exchange.respond(status, msgspec.json.encode({"error": error}), _JSON)


class LlmEndpoint:
    """Serves calls to models."""

    def __init__(self, upstreams: Upstreams, observer: Observer) -> None:
        self._upstreams = upstreams
        self._observer = observer

    def handle(self, exchange: Exchange, table: Table, principal: Principal) -> None:
        call = Call(exchange, "llm", "")
        call.principal = principal
        self._observer.begin(call)
        alias, operation = _split(exchange.path)
        call.method = operation
        if operation == "models" or operation.startswith("models/"):
            self._models(call, table, alias)
        elif operation not in _OPERATIONS or exchange.method != "POST":
            self._refuse(call, 404, f"{exchange.method} {exchange.path} is not served here", "invalid_request_error")
        else:
            self._invoke(call, table, alias)

    def _invoke(self, call: Call, table: Table, alias: str) -> None:
        try:
            asked = _asked.decode(call.exchange.body).model
        except MALFORMED as error:
            self._refuse(call, 400, f"the body is not a request: {error}", "invalid_request_error")
            return
        route = table.models.get(alias or asked) if alias or "/" in asked else table.default_model
        if route is None:
            self._refuse(call, 404, f"no model {alias or asked or 'is the default'}", "invalid_request_error")
            return
        call.server = route.label
        call.tool = route.model.model
        call.arguments_hash = sha256(call.exchange.body).hexdigest()
        if not self._allowed(call, table, route):
            return
        if route.problem:
            self._refuse(call, 503, f"ModelConfig {route.label}: {route.problem}", "service_unavailable")
            return
        body = _complete(route, asked, call.exchange.body)
        relay = LlmRelay(self._upstreams, call, self._observer, route)
        data = _request(call, route, body)
        self._upstreams.send(route.pool, route.origin, relay, data)

    def _allowed(self, call: Call, table: Table, route: ModelRoute) -> bool:
        decision = call.decision = table.authorizer.decide(Request(call.principal, route.target, call.method))
        if not decision.allow:
            answer_error(call, 403, decision.reason, "permission_error")
            self._observer.finish(call, "denied", 403, decision.reason)
        return decision.allow

    def _models(self, call: Call, table: Table, alias: str) -> None:
        """The models that the caller may use; behind an alias the one model of it."""
        decide = table.authorizer.decide
        routes = [r for r in table.models.values() if decide(Request(call.principal, r.target)).allow]
        if alias:
            routes = [r for r in routes if r.label == alias]
        data = [
            {"id": r.model.model if alias else r.label, "object": "model", "created": 0, "owned_by": r.model.provider}
            for r in routes
        ]
        call.exchange.respond(200, msgspec.json.encode({"object": "list", "data": data}), _JSON)
        self._observer.finish(call, "ok", 200)

    def _refuse(self, call: Call, status: int, message: str, kind: str) -> None:
        answer_error(call, status, message, kind)
        self._observer.finish(call, "error", status, message)


def _split(path: str) -> tuple[str, str]:
    """(``namespace/modelconfig`` or empty, operation after ``/v1/``) of a path."""
    if path.startswith("/v1/"):
        return "", path[4:]
    parts = path.split("/", 4)  # "", llm, namespace, name, rest
    if len(parts) < 5:
        return "", ""
    return f"{parts[2]}/{parts[3]}", parts[4].removeprefix("v1/")


def _complete(route: ModelRoute, asked: str, body: bytes) -> bytes:
    """The body with the upstream's model name and the ModelConfig's defaults; the very bytes when nothing changes."""
    model = route.model
    rename = asked in ("", route.label, model.name) and asked != model.model
    if not rename and not route.defaults:
        return body
    fields = _fields.decode(body)
    missing = {k: v for k, v in route.defaults.items() if k not in fields}
    if not rename and not missing:
        return body
    fields.update(missing)
    if rename:
        fields["model"] = Raw(msgspec.json.encode(model.model))
    return msgspec.json.encode(fields)


def _request(call: Call, route: ModelRoute, body: bytes) -> bytes:
    parts = [f"POST {route.prefix}/{call.method} HTTP/1.1\r\n".encode(), route.headers]
    forwarded = call.headers.get(_FORWARDED_KEY)
    if route.model.passthrough and forwarded is not None:
        parts.append(b"authorization: %b\r\n" % forwarded)
    accept = call.headers.get(b"accept", b"*/*")
    parts.append(b"accept: %b\r\ntraceparent: %b\r\n" % (accept, call.traceparent))
    parts.append(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
    parts.append(body)
    return b"".join(parts)


class LlmRelay(Relay):
    """Streams a model's answer and keeps its first and last bytes to count tokens."""

    __slots__ = ("_head", "_observer", "_route", "_status", "_tail", "call")

    def __init__(self, upstreams: Upstreams, call: Call, observer: Observer, route: ModelRoute) -> None:
        super().__init__(upstreams, call.exchange, route.model.timeout)
        self.call = call
        self._observer = observer
        self._route = route
        self._status = 0
        self._head = b""
        self._tail = b""

    @property
    def agent(self) -> str:
        return self.call.principal.agent

    def on_head(self, status: int, headers: list[Header]) -> None:
        self.heard = True
        if status in (401, 403):
            self.give_up(UpstreamError(f"refused the configured key (HTTP {status}); check its apiKeySecret"))
            return
        self._status = status
        kept = [header for header in headers if header[0] in _PASSED_BACK or header[0].startswith(b"x-ratelimit-")]
        length = [header for header in headers if header[0] == b"content-length"]
        self.exchange.start(status, kept + length[:1])
        self.stream_to_client()

    def on_body(self, data: bytes) -> None:
        if self.finished:
            return
        self.heard = True
        self.exchange.write(data)
        if len(self._head) < 512:
            self._head += data[:512]
        self._tail = data[-TAIL:] if len(data) >= TAIL else (self._tail + data)[-TAIL:]

    def complete(self) -> None:
        self.exchange.finish()
        model = self._route.model.model
        usage = find_usage(self._tail)
        if usage is not None:
            answered_by = find_model(self._head)
            self._observer.tokens(self.call, model, answered_by, usage.prompt_tokens, usage.completion_tokens)
        self._observer.finish(self.call, "ok" if self._status < 400 else "error", self._status)

    def failed(self, error: UpstreamError | TimedOut) -> None:
        status = 504 if isinstance(error, TimedOut) else 502
        message = f"model {self._route.label} failed: {error}"
        if self.exchange.started:
            self.exchange.abort()  # the only way to say that a streamed answer is incomplete
        else:
            answer_error(self.call, status, message, "upstream_error")
        self._observer.finish(self.call, "error", status, message)

    def cancelled(self) -> None:
        self._observer.finish(self.call, "error", 499, "the client closed the connection")
