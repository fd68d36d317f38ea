"""``/hooks/NAMESPACE/TRIGGER``: requests of senders outside, passed to the control plane, which alone can prove them.

Nobody is identified here: only requests to triggers that there are go on, bounded in size and number, and what the
control plane says is what the sender gets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from quarterdeck.errors import QuarterdeckError
from quarterdeck.malformed import MALFORMED
from quarterdeck.snapshot.hooks import HEADER, HEADERS, LARGEST, Forwarded, Told
from quarterdeck.telemetry import names
from quarterdeck.telemetry.metrics import Registry
from quarterdeck.wire.http import Exchange, Header

from .call import Call
from .observe import Observer
from .policy.authorizer import Decision

PREFIX = b"/hooks/"
AT_ONCE = 32
"""Requests that are with the control plane at one time; more are told to come again."""
_HOP = frozenset(
    {b"connection", b"content-length", b"cookie", b"host", b"keep-alive", b"te", b"trailer", b"transfer-encoding",
     b"upgrade"}
)  # fmt: skip
Ask = Callable[[str, bytes], Awaitable[bytes]]


class Hooks:
    """``ask`` is the way to the control plane; None where there is none."""

    def __init__(self, observer: Observer, gateway: str, registry: Registry) -> None:
        self.ask: Ask | None = None
        self._observer = observer
        self._gateway = gateway
        self._under_way = 0
        self._held_back = registry.counter(names.HOOKS_HELD_BACK, "Requests to triggers refused for being too many.")

    def handle(self, exchange: Exchange, known: frozenset[str]) -> Coroutine[Any, Any, None] | None:
        """``known``: the triggers that requests fire, as ``namespace/name``."""
        exchange.context = exchange.context or dict(exchange.headers)
        name = exchange.raw_path[len(PREFIX) :].decode("latin-1").rstrip("/")
        if name not in known:
            return self._answer(exchange, "", Told(404, "", "there is no such trigger"))
        if exchange.method != "POST":
            return self._answer(exchange, name, Told(405, "", "a trigger takes POST"), (b"allow", b"POST"))
        if len(exchange.body) > LARGEST:
            return self._answer(exchange, name, Told(413, "", f"a body may have {LARGEST} bytes at most"))
        if self.ask is None:
            return self._answer(exchange, name, Told(503, "", "triggers need a control plane, and there is none"))
        return self._pass_on(exchange, name, self.ask)

    async def _pass_on(self, exchange: Exchange, name: str, ask: Ask) -> None:
        headers = [
            (key.decode("latin-1"), value.decode("latin-1")) for key, value in exchange.headers if key not in _HOP
        ]
        told: dict[str, str] = {}
        for key, value in headers:  # each proxy on the way may add a line; a proof that comes twice proves nothing then
            told[key] = f"{told[key]}, {value}" if key in told else value
        if len(headers) > HEADERS or any(len(value) > HEADER for value in told.values()):
            self._answer(exchange, name, Told(431, "", f"at most {HEADERS} headers of {HEADER} characters are taken"))
            return
        if self._under_way >= AT_ONCE:  # looked at here: of requests that come together none has begun above
            self._held_back.labels().value += 1
            self._answer(exchange, name, Told(503, "", "too many requests at one time", retry_after=1))
            return
        body = msgspec.json.encode(Forwarded(self._gateway, told, exchange.body))
        self._under_way += 1
        try:
            answer = msgspec.json.decode(await ask(f"hooks/{name}", body), type=Told)
        except (QuarterdeckError, *MALFORMED):
            answer = Told(503, "", "the control plane cannot be asked now", retry_after=10)
        finally:
            self._under_way -= 1
        self._answer(exchange, name, answer)

    def _answer(self, exchange: Exchange, name: str, told: Told, *more: Header) -> None:
        """Answer and record."""
        call = Call(exchange, "http", f"Trigger/{name}" if name else "")
        call.method = "trigger"
        denied = told.status in (401, 403)
        if denied:
            call.decision = Decision("deny", f"Trigger/{name}", told.message)
        self._observer.begin(call)
        self._observer.finish(
            call, "denied" if denied else "error" if told.status >= 400 else "ok", told.status, told.message
        )
        if exchange.disconnected:
            return
        if told.status >= 400:
            body = {"error": {"message": told.message, "code": told.status}}
        else:
            body = {"outcome": told.outcome} | {k: v for k, v in (("reason", told.message), ("run", told.run)) if v}
        headers: list[Header] = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *more]
        if told.retry_after:
            headers.append((b"retry-after", b"%d" % told.retry_after))
        exchange.respond(told.status, msgspec.json.encode(body), headers)
