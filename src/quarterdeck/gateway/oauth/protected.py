"""One protected MCP server, and the gateway as a client of what protects it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import time
from typing import Protocol

from quarterdeck.errors import UpstreamError
from quarterdeck.snapshot.sign_in import SignIn

from . import discovery, flow, registration
from .challenge import Challenge
from .discovery import Fetch
from .flow import Flow, Grant
from .registration import Identity
from .token_endpoint import Client

_EARLY = 300.0
"""Seconds before its end that a registered secret is replaced."""


class Registrations(Protocol):
    """Keeps the clients that were registered dynamically, by issuer and redirect URI."""

    async def client(self, issuer: str, redirect_uri: str) -> Client | None: ...
    async def keep_client(self, issuer: str, redirect_uri: str, client: Client) -> None: ...


class Protected:
    """Begins and finishes flows, and refreshes what they yield."""

    def __init__(
        self,
        settings: SignIn,
        fetch: Fetch,
        identity: Identity,
        registrations: Registrations,
        clock: Callable[[], float] = time,
    ) -> None:
        self.settings = settings
        self.identity = identity
        self._fetch = fetch
        self._registrations = registrations
        self._clock = clock

    async def begin(self, challenge: Challenge, before: Iterable[str] = (), state: str = "") -> tuple[str, Flow]:
        """Where the user has to go, and the flow to keep until the answer comes.

        ``before``: scopes of the grant that turned out too small. Raises UpstreamError, TimedOut.
        """
        before = tuple(before)
        _worth_asking(challenge, before)
        found = await discovery.find(self._fetch, self.settings.url, challenge, self.settings.issuer)
        scope = flow.scope_for(found, self.settings, challenge, before)
        client = await self._client(found.server, scope)
        return flow.begin(found, client, self.identity.redirect_uri, scope, state)

    def check(self, challenge: Challenge, before: Iterable[str]) -> None:
        """Raises UpstreamError when nothing that a user can do would meet the challenge."""
        _worth_asking(challenge, tuple(before))

    async def finish(self, begun: Flow, response: Mapping[str, str]) -> Grant:
        """Tokens for an authorization response. Raises flow.Refused, TokenRefused, UpstreamError, TimedOut."""
        code = flow.code_of(begun, response)
        return await flow.redeem(self._fetch, begun, code, self._clock)

    async def refresh(self, grant: Grant) -> Grant:
        """Raises TokenRefused (the user has to sign in anew), UpstreamError, TimedOut."""
        return await flow.refresh(self._fetch, grant, self._clock)

    async def revoke(self, grant: Grant) -> bool:
        """Whether the authorization server took it back. Raises UpstreamError, TimedOut."""
        return await flow.revoke(self._fetch, grant)

    async def _client(self, server: discovery.Server, scope: str) -> Client:
        given = registration.configured(self.settings, server) or registration.documented(self.identity, server)
        if given is not None:
            return given
        redirect_uri = self.identity.redirect_uri
        kept = await self._registrations.client(server.issuer, redirect_uri)
        if kept is not None and not 0.0 < kept.expires < self._clock() + _EARLY:
            return kept
        client = await registration.register(self._fetch, server, self.identity, scope)
        await self._registrations.keep_client(server.issuer, redirect_uri, client)
        return client


def _worth_asking(challenge: Challenge, before: tuple[str, ...]) -> None:
    if challenge.steps_up and before and set(challenge.scope.split()) <= set(before):
        raise UpstreamError(
            f"wants scopes that were asked for already ({challenge.scope or 'it does not say which'}): "
            "asking again would change nothing"
        )
