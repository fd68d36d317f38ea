"""The rules of one attachment point applied to a request, in this order: CORS preflight, CSRF, authentication, external
authorizer, authorization (CEL), limits, the backend's token. Then what changes on the way to the backend and back.

Everything is compiled when the configuration comes. A step that need not wait answers at once; only one that must
(keys to fetch, an authorizer to ask) makes a coroutine of the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from quarterdeck.errors import ConfigError
from quarterdeck.snapshot.policies import Policies
from quarterdeck.wire.http import Header

from .admission import Admission, Known, admission_of
from .authentication import Authenticator
from .authorizer import Decision
from .identify import Identification
from .refusal import Refusal
from .services import Services

if TYPE_CHECKING:
    from ..call import Call

_log = logging.getLogger("quarterdeck.gateway")

Step = Callable[[Admission], Refusal | Coroutine[Any, Any, Refusal | None] | None]
_ALLOW = Decision("allow", "no-rules")


class Chain:
    """The rules of one route (or listener, or MCP target)."""

    def __init__(
        self,
        policies: Policies,
        services: Services,
        *,
        where: str,
        authenticator: Authenticator | None = None,
        final: bool = True,
    ) -> None:
        """``final``: no other chain follows (as one of a route follows its listener's), so callers must be known.

        Raises ConfigError, naming the rule, when something in it cannot be used as written.
        """
        self.where = where
        self._variables: Any = None
        self._services = services
        self._rules: Any = None
        self._call_rules: Any = None
        self._request: Any = None
        self._response: Any = None
        self._cors: Any = None
        self._outbound: Any = None
        self._ext: Any = None
        self._limit: Callable[[Any], Refusal | None] | None = None
        self._expressions: list[Any] = []
        self._steps: list[Step] = []
        self._identify = Identification(policies, services, where, authenticator, final=final)
        self._known = self._identify.well_known
        self._tool_scopes = policies.mcp_authentication.tool_scopes if policies.mcp_authentication is not None else {}
        self._compile(policies, services)
        self._compile_way(policies, services)
        if self._expressions:
            from .attributes import variables

            self._variables = variables
        self._drops = self._identify.drops | (self._ext.drops if self._ext is not None else frozenset[bytes]())
        self._cookies, self._parameters = self._identify.cookies, self._identify.parameters
        self._consumes = bool(self._drops or self._cookies or self._parameters)
        self._changes = self._request is not None or self._outbound is not None
        self._wants_token = any(e.reads_token for e in self._expressions)
        self.edits_response = self._cors is not None or self._response is not None
        """Whether :meth:`incoming` does anything."""
        self.buffers_response = self._response is not None and (
            self._response.body is not None or any(e.reads_response_body for e in self._response.expressions)
        )
        self.needs_body = bool(policies.ext_auth and policies.ext_auth.body) or any(
            e.reads_body for e in self._expressions
        )
        """Whether the request's body must be there before it can be admitted."""
        self.by_head = self._call_rules is None or all(e.by_head for e in self._call_rules.expressions)
        """Whether :meth:`decide` says the same of all calls of a tool by requests with the same head."""
        self.has_rules = self._call_rules is not None or bool(self._tool_scopes)
        """Whether :meth:`decide` ever denies."""

    def _compile(self, policies: Policies, services: Services) -> None:
        if policies.cors is not None:
            from .cors import CorsPolicy

            self._cors = CorsPolicy(policies.cors)
            self._steps.append(self._cors.preflight)
        if policies.csrf is not None:
            from .cors import CsrfPolicy

            self._steps.append(CsrfPolicy(policies.csrf).check)
        self._steps += self._identify.steps(self._cors.origins if self._cors is not None else None)
        if policies.ext_auth is not None:
            from .ext_auth import ExtAuthorizer

            self._ext = ExtAuthorizer(policies.ext_auth, services, self.where)
            self._expressions += self._ext.expressions
            self._steps.append(self._ext.check)
        if policies.authorization:
            from .rules import Rules

            self._rules = Rules(policies.authorization, f"{self.where}/authorization", "the request is not allowed")
            self._expressions += self._rules.expressions
            self._steps.append(self._authorize)
        limit = self._limit = services.limits(policies, self.where) if services.limits is not None else None
        if limit is not None:
            self._steps.append(partial(_limited, limit))

    def _compile_way(self, policies: Policies, services: Services) -> None:
        """What concerns the way to the backend and back."""
        if policies.mcp_authorization:
            from .rules import Rules

            self._call_rules = Rules(policies.mcp_authorization, f"{self.where}/mcpAuthorization")
            self._expressions += self._call_rules.expressions
        transformation = policies.transformation
        if transformation is not None:
            from .transformation import HeaderTransform

            if transformation.request is not None:
                self._request = HeaderTransform(transformation.request, f"{self.where}/transformation/request")
                self._expressions += self._request.expressions
            if transformation.response is not None:
                self._response = HeaderTransform(transformation.response, f"{self.where}/transformation/response")
                if self._response.path is not None:
                    raise ConfigError(f"{self.where}: a response has no :path")
        if policies.credential is not None:
            from .outbound import Outbound

            self._outbound = Outbound(policies.credential, services, self.where)
            self._steps.append(self._outbound.prepare)

    # -- coming in
    def admit(self, call: Call) -> Refusal | Coroutine[Any, Any, Refusal | None] | None:
        """Whether the request may go on; it may when the answer is None. Sets ``call.principal``."""
        admission = self._admission(call)
        if self._wants_token:
            admission.wants_token = True
        if self._consumes:
            admission.drops |= self._drops
            admission.cookies |= self._cookies
            admission.parameters |= self._parameters
        for at, step in enumerate(self._steps):
            outcome = step(admission)
            if outcome is None:
                continue
            if isinstance(outcome, Refusal):
                call.principal = admission.principal
                return outcome
            return self._go_on(call, admission, outcome, at + 1)
        call.principal = admission.principal
        return None

    async def _go_on(
        self, call: Call, admission: Admission, waiting: Coroutine[Any, Any, Refusal | None], at: int
    ) -> Refusal | None:
        refusal = await waiting
        while refusal is None and at < len(self._steps):
            outcome = self._steps[at](admission)
            refusal = outcome if outcome is None or isinstance(outcome, Refusal) else await outcome
            at += 1
        call.principal = admission.principal
        return refusal

    def known(self, call: Call) -> Known | None:
        """What :meth:`admit`, having let a request in, may say of others with the same head; None: they ask anew."""
        if self._ext is not None or self._rules is not None or self._outbound is not None or self.edits_response:
            return None
        admission = self._admission(call)
        holds = self._identify.holding(admission)
        return admission.known(holds) if holds is not None else None

    def admit_known(self, call: Call, known: Known) -> Refusal | None:
        """:meth:`admit` for another request with a head that was let in: only what is counted is asked again."""
        call.principal = known.principal
        return self._limit(call) if self._limit is not None else None

    def _admission(self, call: Call) -> Admission:
        exchange = call.exchange
        admission = admission_of(call)
        if admission is None:
            admission = exchange.admission = Admission(exchange, call.headers, self._services)
            path = getattr(call, "path", None)
            if path is not None:
                admission.path = path.text
        admission.call = call
        return admission

    def _authorize(self, admission: Admission) -> Refusal | None:
        decision = self._rules.decide(self._variables(admission))
        if decision.allow:
            return None
        return Refusal(403, decision.reason, rule=decision.rule)

    # -- calls and lists of MCP
    def decide(self, call: Call, method: str, name: str, exposed: str = "") -> Decision:
        """Whether the caller may use a tool, prompt or resource, and sees it in lists.

        ``name`` is the upstream's name or the URI, ``exposed`` what the client calls it; ``call.target`` the server.
        """
        rules = self._call_rules
        if rules is None:
            return _ALLOW
        admission = admission_of(call)
        if admission is None:
            admission = self._admission(call)
            admission.principal = call.principal
        return rules.decide_named(self._variables(admission), method, name, exposed, getattr(call, "target", ""))

    def step_up(self, call: Call, name: str, exposed: str = "") -> Refusal | None:
        """The refusal that asks for more scopes, when a tool's call needs some that the token was not granted."""
        if not self._tool_scopes or self._known is None:
            return None
        from .jwt import scopes_of

        wanted = self._tool_scopes.get(name) or self._tool_scopes.get(exposed) or self._tool_scopes.get("*") or ()
        if not wanted or scopes_of(call.principal.claims).issuperset(wanted):
            return None
        return self._known.step_up(self._admission(call), tuple(wanted))

    # -- to the backend
    def prepare(self, call: Call) -> Refusal | Coroutine[Any, Any, Refusal | None] | None:
        """Get the token that this backend is to be shown, when that takes asking. Part of :meth:`admit`, too."""
        return self._outbound.prepare(self._admission(call)) if self._outbound is not None else None

    def outgoing(self, call: Call, headers: list[Header]) -> list[Header]:
        """The headers towards a plain HTTP backend."""
        admission = self._admission(call)
        if not (self._changes or admission.drops or admission.cookies or admission.set):
            return headers
        drops = admission.drops | {name for name, _ in admission.set}
        if self._outbound is not None:
            drops |= {self._outbound.header}
        result = [header for header in headers if header[0] not in drops]
        if admission.cookies:
            from .location import without_cookies

            result = without_cookies(result, admission.cookies)
        result += admission.set
        if self._request is not None:
            result = self._request.apply(self._variables(admission), result)
        return self._with_credential(admission, result)

    def _with_credential(self, admission: Admission, headers: list[Header]) -> list[Header]:
        if self._outbound is not None:
            line = self._outbound.line(admission)
            if line is not None:
                headers.append(line)
        return headers

    def outgoing_lines(self, call: Call) -> bytes:
        """What is added to the head of a request towards an MCP server, which gets no header of the client's."""
        if not self._changes and call.exchange.admission is None:
            return b""
        admission = self._admission(call)
        if not (self._changes or admission.set):
            return b""
        added = list(admission.set)
        if self._request is not None:
            added += self._request.added(self._variables(admission))
        return b"".join(b"%b: %b\r\n" % header for header in self._with_credential(admission, added))

    def outgoing_target(self, call: Call, target: bytes) -> bytes:
        """The request target towards a plain HTTP backend."""
        admission = self._admission(call)
        if admission.parameters:
            from .location import without_parameters

            target = without_parameters(target, admission.parameters)
        if self._request is not None and self._request.path is not None:
            from .transformation import text_of

            path = text_of(self._request.path, self._variables(admission))
            if path is not None and path.startswith(b"/") and b" " not in path:
                return path
        return target

    def request_body(self, call: Call, body: bytes) -> bytes:
        """The body towards a plain HTTP backend."""
        if self._request is None or self._request.body is None:
            return body
        from .transformation import body_of

        changed = body_of(self._request.body, self._variables(self._admission(call)))
        return body if changed is None else changed

    # -- back to the client
    def incoming(self, call: Call, status: int, headers: list[Header]) -> list[Header]:
        """The headers of a response, whoever made it."""
        admission = self._admission(call)
        if self._cors is not None and not any(name == b"access-control-allow-origin" for name, _ in headers):
            headers = [*headers, *self._cors.response(admission)]
        if self._response is not None and self._response.headers:
            from .transformation import with_response

            headers = self._response.apply(with_response(admission, status, headers, None), headers)
        return headers

    def response_body(self, call: Call, status: int, headers: list[Header], body: bytes) -> bytes:
        """The body of a plain HTTP backend's response."""
        if self._response is None or self._response.body is None:
            return body
        from .transformation import body_of, with_response

        changed = body_of(self._response.body, with_response(self._admission(call), status, headers, body))
        return body if changed is None else changed

    # -- metadata
    @property
    def well_known(self) -> Callable[[Call, Any, str], Refusal | Coroutine[Any, Any, Refusal]] | None:
        """Answers requests for metadata of MCP authorization (see ``wellknown.parse``); None without such."""
        known = self._known
        if known is None:
            return None
        return lambda call, kind, resource_path: known.answer(self._admission(call), kind, resource_path)


def _limited(limit: Callable[[Any], Refusal | None], admission: Admission) -> Refusal | None:
    call = admission.call
    assert call is not None
    call.principal = admission.principal
    return limit(call)


def chain_for(
    policies: Policies,
    services: Services,
    *,
    where: str,
    authenticator: Authenticator | None = None,
    final: bool = True,
) -> Chain:
    """The rules compiled; rules that cannot be are replaced by one that refuses every request with 500."""
    try:
        return Chain(policies, services, where=where, authenticator=authenticator, final=final)
    except ConfigError as error:
        _log.error("%s; its requests are refused until that is corrected", error)
        return _Closed(services, where, str(error))


class _Closed(Chain):
    """Refuses everything."""

    def __init__(self, services: Services, where: str, problem: str) -> None:
        super().__init__(Policies(), services, where=where)
        self._refusal = Refusal(500, "the rules of this route cannot be used as written", rule=f"{where}/invalid")
        self._denied = Decision("deny", f"{where}/invalid", problem)
        self._steps = [lambda _: self._refusal]
        self.has_rules = True

    def decide(self, call: Call, method: str, name: str, exposed: str = "") -> Decision:
        return self._denied


def mcp_chain(policies: Policies, services: Services, where: str) -> Chain | None:
    """The rules of one target of an MCP backend; None when it has none that concern a target."""
    scopes = policies.mcp_authentication is not None and policies.mcp_authentication.tool_scopes
    told = policies.ext_auth is not None and policies.ext_auth.copy_headers  # the authorizer's headers go on, too
    changes = policies.credential is not None or policies.transformation is not None or told
    if policies.mcp_authorization or scopes or changes:
        return chain_for(policies, services, where=where)
    return None
