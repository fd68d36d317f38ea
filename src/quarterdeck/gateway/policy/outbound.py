"""What the gateway shows a backend of itself or of the caller. The caller's own token goes on only where told to."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from quarterdeck.errors import ConfigError, TimedOut, UpstreamError
from quarterdeck.snapshot.policies import BackendCredential, OAuthClient
from quarterdeck.wire.http import Header

from ..oauth.token_endpoint import GRANT_ASSERTION, GRANT_EXCHANGE, Client, Token, ask
from .admission import Admission
from .fetch import Fetcher, parse_url
from .refusal import Refusal

if TYPE_CHECKING:
    from .services import Services

_ENTRIES = 8192
_MARGIN = 30.0  # seconds before its end that a token is no longer shown
_BAD = (b"\r", b"\n", b"\0")


class Outbound:
    """The credential of one backend."""

    def __init__(self, credential: BackendCredential, services: Services, where: str) -> None:
        """Raises ConfigError when it is incomplete."""
        location = credential.location
        if location.kind != "header":
            raise ConfigError(f"{where}: backendAuth can be sent in a header only, not in a {location.kind}")
        self.header = location.name.lower().encode("latin-1", "replace")
        self._prefix = location.prefix.encode("latin-1", "replace")
        self._kind = credential.kind
        self._fixed: Header | None = None
        self._tokens: Tokens | None = None
        self._rule = f"{where}/backendAuth"
        if credential.kind == "key":
            self._fixed = self._line(credential.value.strip().encode())
            if any(c in self._fixed[1] for c in _BAD):
                raise ConfigError(f"{where}: the backend key holds a line break")
        elif credential.kind in ("client_credentials", "token_exchange"):
            if credential.oauth is None:
                raise ConfigError(f"{where}: backendAuth {credential.kind} needs a token endpoint")
            for client in (credential.oauth, credential.oauth.assertion):
                if client is not None:
                    parse_url(client.token_url, f"{where}: backendAuth")
            self._tokens = services.tokens_of(credential.oauth)

    def prepare(self, admission: Admission) -> Refusal | Coroutine[Any, Any, Refusal | None] | None:
        """Get the token that :meth:`line` will show, when that takes asking."""
        tokens = self._tokens
        if tokens is None:
            return None
        subject = self._subject(admission)
        if self._kind == "token_exchange" and not subject:
            return Refusal(401, "the backend needs the token of a user, and there is none", rule=self._rule)
        return None if tokens.known(subject) is not None else self._get(tokens, subject)

    async def _get(self, tokens: Tokens, subject: bytes) -> Refusal | None:
        try:
            await tokens.get(subject)
        except (UpstreamError, TimedOut, ConfigError) as error:
            return Refusal(502, f"no token for the backend: {error}", rule=self._rule, outcome="error")
        return None

    def _subject(self, admission: Admission) -> bytes:
        return admission.token if self._kind == "token_exchange" else b""

    def line(self, admission: Admission) -> Header | None:
        """The header for the backend; None when there is nothing to show."""
        if self._fixed is not None:
            return self._fixed
        if self._tokens is None:
            return self._line(admission.token) if admission.token else None
        token = self._tokens.known(self._subject(admission))
        return self._line(token) if token is not None else None

    def _line(self, value: bytes) -> Header:
        return self.header, self._prefix + value


class Tokens:
    """Tokens got from a token endpoint, kept until shortly before they expire (RFC 6749 §4.4, RFC 8693)."""

    def __init__(self, client: OAuthClient, fetcher: Fetcher, clock: Callable[[], float]) -> None:
        self._client = client
        self._fetcher = fetcher
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[bytes]] = {}

    def known(self, subject: bytes) -> bytes | None:
        """The token for ``subject`` (empty: for the gateway itself) when there is one that still lasts."""
        kept = self._kept.get(sha256(subject).digest())
        return kept[0] if kept is not None and self._clock() < kept[1] else None

    async def get(self, subject: bytes) -> bytes:
        """A token for ``subject``. Callers that want the same share one question.

        Raises UpstreamError, TimedOut.
        """
        key = sha256(subject).digest()
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.get_running_loop().create_task(self._ask(key, subject))
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    def _answered(self, key: bytes, task: asyncio.Task[bytes]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # looked at by those who wait, if there still are any

    async def _ask(self, key: bytes, subject: bytes) -> bytes:
        client = self._client
        presented = subject.decode("latin-1")
        if presented and client.assertion is not None:
            first = await self._granted(client.assertion, _exchange(client.assertion, presented))
            presented = first.access_token
        token = await self._granted(client, _presented(client, presented))
        value = token.access_token.encode()
        self._kept[key] = (value, self._clock() + max(token.expires_in - _MARGIN, 1.0))
        while len(self._kept) > _ENTRIES:
            self._kept.popitem(last=False)
        return value

    async def _granted(self, client: OAuthClient, form: list[tuple[str, str]]) -> Token:
        """The answer of a token endpoint. Raises UpstreamError, TimedOut."""
        shown = Client(client.client_id, client.client_secret, client.auth_method, client.private_key, client.issuer)
        return await ask(self._fetcher, client.token_url, form, shown, clock=self._clock)


def _presented(client: OAuthClient, subject: str) -> list[tuple[str, str]]:
    """The form of a request for a token for ``subject`` (empty: for the gateway itself)."""
    if not subject:
        return [("grant_type", "client_credentials"), *_wanted(client)]
    if client.grant == "jwt_bearer":
        return [("grant_type", GRANT_ASSERTION), ("assertion", subject), *_wanted(client)]
    return _exchange(client, subject)


def _exchange(client: OAuthClient, subject: str) -> list[tuple[str, str]]:
    """RFC 8693 §2.1."""
    form = [
        ("grant_type", GRANT_EXCHANGE),
        ("subject_token", subject),
        ("subject_token_type", client.subject_token_type),
    ]
    if client.requested_token_type:
        form.append(("requested_token_type", client.requested_token_type))
    return form + _wanted(client)


def _wanted(client: OAuthClient) -> list[tuple[str, str]]:
    """What the token is to be good for."""
    wanted = [("audience", audience) for audience in client.audiences]
    wanted += [("resource", resource) for resource in client.resources]
    return [*wanted, ("scope", " ".join(client.scopes))] if client.scopes else wanted
