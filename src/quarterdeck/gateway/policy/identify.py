"""Who calls, by the credentials that a route asks for; on routes that ask for none, by where the caller is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from quarterdeck.snapshot.policies import Policies

from .admission import Admission
from .authentication import Authenticator, Unauthenticated, is_loopback
from .cors import same_origin
from .principal import ANONYMOUS, ANYBODY, Principal
from .refusal import Refusal
from .services import Services

if TYPE_CHECKING:
    from .cors import Origins
    from .credentials import Credential
    from .wellknown import WellKnown

Step = Callable[[Admission], Refusal | Coroutine[Any, Any, Refusal | None] | None]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_CLOSED = (
    "this route asks for no credential and does not answer callers without one: configure authentication, or start the "
    "gateway with --allow-anonymous (in a cluster: annotate the Gateway with quarterdeck.dev/allow-anonymous)"
)


class Identification:
    """The authentication part of a chain."""

    def __init__(
        self,
        policies: Policies,
        services: Services,
        where: str,
        authenticator: Authenticator | None,
        *,
        final: bool = True,
    ) -> None:
        """Raises ConfigError when a credential's rules cannot be used as written."""
        self._services = services
        self._authenticator = authenticator
        self._final = final
        self._open = policies.open
        self._where = where
        self.methods: list[Credential] = []
        self.well_known: WellKnown | None = None
        self._scopes: tuple[str, ...] = ()
        if policies.mcp_authentication is not None:
            self._mcp(policies, services, where)
        if policies.jwt is not None:
            from .credentials import JwtCredential

            self.methods.append(JwtCredential(policies.jwt, services, where))
        if policies.basic is not None:
            from .credentials import BasicCredential

            self.methods.append(BasicCredential(policies.basic, services, where))
        if policies.api_keys is not None:
            from .credentials import ApiKeyCredential

            self.methods.append(ApiKeyCredential(policies.api_keys, where))
        consumed = [m.place for m in self.methods if not m.keep]
        self.drops = frozenset(place.header for place in consumed if place.header)
        """Headers that hold credentials for the gateway: they go no further."""
        self.parameters = frozenset(place.name for place in consumed if place.kind == "query")
        self.cookies = frozenset(place.name for place in consumed if place.kind == "cookie")

    def _mcp(self, policies: Policies, services: Services, where: str) -> None:
        from .credentials import JwtCredential
        from .wellknown import WellKnown

        mcp = policies.mcp_authentication
        assert mcp is not None
        known = self.well_known = WellKnown(mcp, services, where)
        self._scopes = mcp.scopes
        self.methods.append(JwtCredential(mcp.jwt, services, where, known.challenge, "mcpAuthentication"))

    def steps(self, origins: Origins | None) -> list[Step]:
        """What a request goes through; ``origins``: pages that are trusted."""
        steps: list[Step] = [method.apply for method in self.methods]
        if not self.methods and not self._final:
            return steps
        if not self.methods:
            steps.append(lambda admission: self._without_credentials(admission, origins))
        steps.append(self._identified)
        if self._scopes:
            steps.append(self._granted)
        return steps

    def _without_credentials(self, admission: Admission, origins: Origins | None) -> Refusal | None:
        if admission.admitted:
            return None
        exchange = admission.exchange
        if exchange.peer_certificate is not None:
            return None
        found = self._agent(admission)
        if found is not None:
            admission.principal = found
            return None
        if self._open:
            return None
        if not self._is_local(admission):
            return Refusal(403, _CLOSED, rule=f"{self._where}/anonymous")
        refusal = _of_a_page(admission, origins, self._where)
        if refusal is None:
            admission.principal = ANONYMOUS
        return refusal

    def _is_local(self, admission: Admission) -> bool:
        """Whether the caller is the person at this machine; where agents run, too, an address proves nothing."""
        if self._authenticator is not None and not self._authenticator.alone:
            return False
        peer = admission.exchange.peer
        if peer is not None and not is_loopback(peer[0]):
            return False
        address = admission.client_address
        return not address or is_loopback(address)

    def _agent(self, admission: Admission) -> Principal | None:
        """A workload that shows its ServiceAccount token; other tokens are not ours to judge here."""
        given = admission.headers.get(b"authorization")
        if given is None or self._authenticator is None:
            return None
        try:
            found = self._authenticator.authenticate(given, local=False, peer=admission.exchange.peer)
        except Unauthenticated:
            return None
        admission.token = given.partition(b" ")[2]
        admission.drops |= {b"authorization"}
        return found

    def _identified(self, admission: Admission) -> Refusal | None:
        """Once all credentials have been looked at: the certificate's name, and who may do nothing any more."""
        if admission.principal.anonymous:
            certificate = admission.exchange.peer_certificate
            if certificate is not None:
                from .attributes import common_name, subject_of

                name = subject_of(certificate)
                admission.principal = Principal(f"{name}@certificate", username=common_name(certificate) or name)
            elif admission.principal is not ANONYMOUS:
                admission.principal = ANYBODY
        elif self._authenticator is not None and "kubernetes.io" in admission.principal.claims:
            # an agent stays one, and bound by its grants, where a route takes workloads' tokens for any others
            agent = self._authenticator.agent_of(admission.principal.claims)
            if agent is not None:
                admission.principal = replace(agent, claims=admission.principal.claims)
        admission.admitted = True
        revocations = self._services.revocations
        if revocations is not None and revocations.active:
            decision = revocations.refusal(admission.principal, admission.headers)
            if decision is not None:
                return Refusal(403, decision.reason, rule=decision.rule)
        return None

    def holding(self, admission: Admission) -> Callable[[], bool] | None:
        """Asked for other requests with the same head: whether their caller is still the one just found.

        None where more than the head decides: callers known by their address or certificate, several credentials.
        """
        if admission.exchange.peer_certificate is not None:
            return None
        if self._open and not self.methods and b"authorization" not in admission.headers:
            return _always
        if len(self.methods) != 1 or admission.principal.anonymous:
            return None
        return self.methods[0].holding(admission)

    def _granted(self, admission: Admission) -> Refusal | None:
        from .jwt import scopes_of

        claims = admission.principal.claims
        if not claims or scopes_of(claims).issuperset(self._scopes):
            return None
        assert self.well_known is not None
        return self.well_known.step_up(admission, self._scopes)


def _always() -> bool:
    return True


def _of_a_page(admission: Admission, origins: Origins | None, where: str) -> Refusal | None:
    """Pages of other sites, or of a name bound anew to this machine, must not act as the person at it.

    A name that the configuration gives the route is as good as localhost: nobody else can bind it.
    """
    headers = admission.headers
    origin = headers.get(b"origin")
    site = headers.get(b"sec-fetch-site")
    call = admission.call
    mcp = call is not None and call.kind == "mcp"
    if origin is None and site is None and not mcp:
        return None
    if origin is not None and origins is not None and origins.allows(origin.decode("latin-1")):
        return None
    rule = f"{where}/origin"
    host = headers.get(b"host", b"").decode("latin-1")
    named = getattr(admission.exchange.route, "named", False)
    if not named and _name(f"//{host}") not in _LOOPBACK_NAMES:
        text = "without a credential this route answers to localhost, 127.0.0.1 and host names of the configuration"
        return Refusal(403, text, rule=rule)
    if origin is None:
        if site in (None, b"same-origin", b"none"):
            return None
        return Refusal(403, "requests from pages of other sites are not allowed", rule=rule)
    text = origin.decode("latin-1")
    if _name(text) in _LOOPBACK_NAMES or (named and same_origin(text, host)):
        return None
    return Refusal(403, "requests from this web origin are not allowed", rule=rule)


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
