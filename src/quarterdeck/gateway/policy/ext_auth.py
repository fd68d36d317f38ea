"""An HTTP service that is asked before a request goes on (agentgateway's ``extAuthz`` with ``protocol.http``).

It gets the request's method and path without the body, unless that is asked for. 2xx lets the request go on; any other
answer is given to the client. A service that does not answer, or answers 5xx, refuses (unless ``fail_open``).
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from quarterdeck.cel.errors import EvalError
from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.snapshot.policies import ExtAuth
from quarterdeck.wire.http import Header

from .admission import Admission
from .attributes import variables
from .expressions import Expression, compile_expression
from .fetch import Answer, parse_url
from .refusal import Refusal
from .services import Services
from .transformation import text_of, with_response

_TOLD = frozenset({b"content-type", b"location", b"set-cookie", b"www-authenticate", b"retry-after", b"cache-control"})
"""Headers of a negative answer that the client gets."""


class ExtAuthorizer:
    """The service of one route."""

    def __init__(self, ext: ExtAuth, services: Services, where: str) -> None:
        """Raises ConfigError when the URL or an expression is wrong."""
        self._rule = f"{where}/extAuth"
        where = f"{where}: extAuth"
        parse_url(ext.url, where)
        self._url = ext.url.rstrip("/")
        self._services = services
        self._path = compile_expression(ext.path, f"{where}: path") if ext.path else None
        self._redirect = compile_expression(ext.redirect, f"{where}: redirect") if ext.redirect else None
        self._forward = tuple(name.lower().encode() for name in ext.forward_headers)
        self._add = _compiled(ext.add_headers, f"{where}: addRequestHeaders")
        self._metadata = _compiled(ext.metadata, f"{where}: metadata")
        self._copy = tuple(name.lower().encode() for name in ext.copy_headers)
        self.drops = frozenset(self._copy)
        """Headers that only the service may give: those of the client do not reach the backend."""
        self._body = ext.body
        self._partial = ext.partial
        self._fail_open = ext.fail_open
        self._deny_status = ext.deny_status
        self._timeout = ext.timeout

    @property
    def expressions(self) -> list[Expression]:
        own = [e for _, e in (*self._add, *self._metadata)]
        return own + [e for e in (self._path, self._redirect) if e is not None]

    def check(self, admission: Admission) -> Refusal | Coroutine[Any, Any, Refusal | None]:
        body = b""
        if self._body:
            body = admission.exchange.body
            if len(body) > self._body:
                if not self._partial:
                    text = f"the authorizer reads bodies of up to {self._body} bytes"
                    return Refusal(413, text, rule=self._rule)
                body = body[: self._body]
        return self._ask(admission, body)

    async def _ask(self, admission: Admission, body: bytes) -> Refusal | None:
        try:
            answer = await self._services.fetcher.request(
                admission.exchange.method,
                self._url + self._target(admission),
                self._headers(admission),
                body,
                timeout=self._timeout,
            )
        except (UpstreamError, TimedOut, ConfigError, EvalError) as error:
            return self._failed(f"the authorizer did not answer: {error}")
        if answer.status >= 500:
            return self._failed(f"the authorizer answered HTTP {answer.status}")
        if 200 <= answer.status < 300:
            self._take(admission, answer)
            return None
        return self._denied(admission, answer)

    def _target(self, admission: Admission) -> str:
        values = variables(admission)
        if self._path is None:
            return str(values["request"]["pathAndQuery"])
        path = str(self._path.evaluate(values))
        return path if path.startswith("/") else f"/{path}"

    def _headers(self, admission: Admission) -> list[Header]:
        scheme, host = self._services.forwarded(admission.exchange, admission.headers)
        headers: list[Header] = [
            (b"x-forwarded-method", admission.exchange.method.encode()),
            (b"x-forwarded-proto", scheme.encode()),
            (b"x-forwarded-host", host.encode("latin-1")),
            (b"x-forwarded-uri", admission.exchange.target),
            (b"x-forwarded-for", admission.client_address.encode()),
        ]
        headers += [(name, value) for name, value in admission.exchange.headers if name in self._forward]
        values = variables(admission)
        for name, expression in self._add:
            value = text_of(expression, values)
            if value is not None:
                headers.append((name.lower().encode(), value))
        return headers

    def _take(self, admission: Admission, answer: Answer) -> None:
        admission.set += tuple((name, value) for name, value in answer.headers if name in self._copy)
        if not self._metadata:
            return
        values = with_response(admission, answer.status, answer.headers, answer.body)
        found: dict[str, Any] = {}
        for name, expression in self._metadata:
            try:
                found[name] = expression.evaluate(values)
            except EvalError:
                continue
        admission.extauthz = found
        admission.variables.pop("response", None)
        admission.variables.pop("extauthz", None)

    def _denied(self, admission: Admission, answer: Answer) -> Refusal:
        if self._redirect is not None and answer.status == 401:
            location = text_of(self._redirect, variables(admission))
            if location is not None:
                return Refusal(302, "sign in first", ((b"location", location),), self._rule, b"")
        headers = tuple(header for header in answer.headers if header[0] in _TOLD)
        status = answer.status if answer.status >= 400 or answer.header(b"location") else 403
        return Refusal(status, f"refused by the authorizer (HTTP {answer.status})", headers, self._rule, answer.body)

    def _failed(self, message: str) -> Refusal | None:
        if self._fail_open:
            return None
        return Refusal(self._deny_status, message, rule=self._rule)


def _compiled(pairs: tuple[tuple[str, str], ...], where: str) -> list[tuple[str, Expression]]:
    return [(name, compile_expression(source, f"{where} {name}")) for name, source in pairs]
