"""OpenAI-compatible endpoints: ``/llm/{namespace}/{modelconfig}/v1/…`` and ``/v1/…``.

Where the provider speaks OpenAI's API, the request's bytes are sent on as they came unless the model's name or a
default must be filled in, and the answer is streamed. Any other is spoken to in its own format. The key is the
gateway's.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot import ModelAccess
from quarterdeck.wire.client import Origin
from quarterdeck.wire.http import Exchange

from ..call import Call
from ..observe import Observer
from ..pending import Pending
from ..policy.authorizer import Request
from ..policy.principal import Principal
from ..table import Table
from ..upstream import Upstreams
from .access import Tokens
from .formats.chat import Unfit
from .relay import JSON, LlmRelay, TranslatingRelay, answer_error
from .request import CHAT, EMBEDDINGS, FORWARDED_KEY, Prepared, encode, prepare
from .route import ModelRoute, parse

_OPERATIONS = frozenset({CHAT, EMBEDDINGS, "completions"})


class _Asked(msgspec.Struct, gc=False):
    """What of a request decides where it goes."""

    model: str = ""


_asked = msgspec.json.Decoder(_Asked)


class LlmEndpoint:
    """Serves calls to models."""

    def __init__(self, upstreams: Upstreams, observer: Observer) -> None:
        self._upstreams = upstreams
        self._observer = observer
        self._tokens = Tokens(upstreams)
        self._pending = Pending(upstreams, observer, _answer)

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
        if route.model.passthrough and not call.headers.get(FORWARDED_KEY):
            text = f"model {route.label} is called with your own key: send X-Quarterdeck-Forward-Authorization: Bearer"
            self._refuse(call, 401, f"{text} KEY", "authentication_error")
            return
        try:
            prepared = prepare(route, call.method, asked, call.exchange.body)
        except (Unfit, *MALFORMED) as error:  # what can be read may still be nested too deeply to be put elsewhere
            self._refuse(call, 400, str(error), "invalid_request_error")
            return
        access = route.model.access
        if access is None or access.kind == "aws":
            self._send(call, route, prepared)
        else:
            self._pending.start(self._send_with_token(call, route, prepared, access), call)

    def _send(
        self,
        call: Call,
        route: ModelRoute,
        prepared: Prepared,
        token: str = "",
        at: tuple[Origin, str, str] | None = None,
    ) -> None:
        form = route.format
        if form is None:
            relay = LlmRelay(self._upstreams, call, self._observer, route)
        else:
            relay = TranslatingRelay(self._upstreams, call, self._observer, route, form, prepared)
        relay.tokens = self._tokens
        data = encode(route, call, prepared, token=token, at=at)
        self._upstreams.send(route.pool, at[0] if at is not None else route.origin, relay, data)

    async def _send_with_token(self, call: Call, route: ModelRoute, prepared: Prepared, access: ModelAccess) -> None:
        model, at = route.model, None
        try:
            token = await self._tokens.token(access, route.pool)
            if model.format == "orchestration":
                group = next((h.value for h in model.headers if h.name == "AI-Resource-Group"), "default")
                found = await self._tokens.deployment(access, route.pool, model.base_url, group)
                at = parse(found, f"model {route.label}")
        except (UpstreamError, TimedOut, ConfigError) as error:
            message = f"model {route.label}: no token could be obtained for it: {error}"
            status = 504 if isinstance(error, TimedOut) else 502
            self._refuse(call, status, message, "upstream_error")
            return
        if call.exchange.disconnected:
            self._observer.finish(call, "error", 499, "the client closed the connection")
        else:
            self._send(call, route, prepared, token, at)

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
        call.exchange.respond(200, msgspec.json.encode({"object": "list", "data": data}), JSON)
        self._observer.finish(call, "ok", 200)

    def _refuse(self, call: Call, status: int, message: str, kind: str) -> None:
        answer_error(call, status, message, kind)
        self._observer.finish(call, "error", status, message)


def _answer(call: Call, status: int, message: str) -> None:
    answer_error(call, status, message, "permission_error" if status == 403 else "server_error")


def _split(path: str) -> tuple[str, str]:
    """(``namespace/modelconfig`` or empty, operation after ``/v1/``) of a path."""
    if path.startswith("/v1/"):
        return "", path[4:]
    parts = path.split("/", 4)  # "", llm, namespace, name, rest
    if len(parts) < 5:
        return "", ""
    return f"{parts[2]}/{parts[3]}", parts[4].removeprefix("v1/")
