"""Credentials that a route asks for. Each kind says for itself what a missing or wrong one means (its mode).

As in agentgateway all kinds configured on a route are looked at in turn, tokens before names before keys: strict ones
must all be there, optional ones may be missing but not wrong, permissive ones may be either. To accept one of several,
make them optional and require one by a rule, e.g. ``has(jwt.sub) || has(apiKey.key)``.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import replace
from hashlib import sha256
from typing import Any, Protocol

from quarterdeck.errors import QuarterdeckError
from quarterdeck.snapshot.policies import ApiKeys, BasicUsers, Jwt, Location
from quarterdeck.wire.http import Header

from .admission import Admission
from .authentication import Unauthenticated
from .jwt import JwtVerifier, KeysUnavailable
from .location import LONGEST, Place
from .principal import Principal
from .refusal import Refusal
from .services import Services

Outcome = Refusal | Coroutine[Any, Any, Refusal | None] | None
Challenge = Callable[[Admission, str, str], Header]
"""(request, RFC 6750 error code or "", description) → the WWW-Authenticate header."""

_CHECKS = 4  # passwords checked at a time: each takes a core for a tenth of a second
_WAITING = 32
_REMEMBERED = 1000
_REMEMBER = 300.0  # seconds


class Credential(Protocol):
    """One kind of credential on one route."""

    place: Place
    keep: bool

    def apply(self, admission: Admission) -> Outcome:
        """Learn who calls. A refusal, or a coroutine of the outcome when something must be waited for."""
        ...

    def holding(self, admission: Admission) -> Callable[[], bool] | None:
        """Asked for other requests with the same head: whether this credential, just accepted, is still good.

        None where that cannot be told by the head.
        """
        ...


def add_principal(admission: Admission, found: Principal) -> None:
    """Note who was found; of several credentials the first names the caller, the others add what they know."""
    before = admission.principal
    if before.anonymous:
        admission.principal = found
    else:
        admission.principal = replace(
            before,
            claims=before.claims or found.claims,
            api_key=before.api_key or found.api_key,
            username=before.username or found.username,
        )


def bearer_challenge(admission: Admission, error: str, description: str) -> Header:
    """RFC 6750 §3."""
    del admission
    value = 'Bearer realm="quarterdeck"'
    if error:
        value += f', error="{error}", error_description="{quotable(description)}"'
    return b"www-authenticate", value.encode("ascii", "replace")


def quotable(text: str) -> str:
    """Text for a quoted string of a header."""
    return "".join(c for c in text.replace('"', "'").replace("\\", "/") if " " <= c <= "~")[:300]


class JwtCredential:
    """A bearer token of a configured issuer."""

    def __init__(
        self, jwt: Jwt, services: Services, where: str, challenge: Challenge = bearer_challenge, rule: str = "jwt"
    ) -> None:
        self.place = Place(jwt.location, f"{where}: jwt")
        self.keep = jwt.keep
        self._mode = jwt.mode
        self._verifier = JwtVerifier(jwt, services, f"{where}: jwt")
        self._challenge = challenge
        self._rule = f"{where}/{rule}"

    def apply(self, admission: Admission) -> Outcome:
        token = self.place.find(admission)
        if token is None:
            if self._mode != "strict":
                return None
            return self._refused(admission, Unauthenticated("a bearer token is required"))
        if len(admission.headers) != len(admission.exchange.headers) and self.place.repeated(admission):
            return Refusal(400, "a token may be sent once only", rule=self._rule)
        try:
            found = self._verifier.verify(token)
        except (Unauthenticated, KeysUnavailable) as error:
            return self._failed(admission, error)
        if isinstance(found, Principal):
            admission.token = token
            add_principal(admission, found)
            return None
        return self._later(admission, token, found)

    def holding(self, admission: Admission) -> Callable[[], bool] | None:
        if not admission.token or not self.place.by_head:
            return None
        return self._verifier.holding(admission.token)

    async def _later(
        self, admission: Admission, token: bytes, verifying: Coroutine[Any, Any, Principal]
    ) -> Refusal | None:
        try:
            found = await verifying
        except (Unauthenticated, KeysUnavailable) as error:
            return self._failed(admission, error)
        admission.token = token
        add_principal(admission, found)
        return None

    def _failed(self, admission: Admission, error: QuarterdeckError) -> Refusal | None:
        if self._mode == "permissive":
            return None
        return self._refused(admission, error)

    def _refused(self, admission: Admission, error: QuarterdeckError) -> Refusal:
        if isinstance(error, KeysUnavailable):
            return Refusal(503, str(error), ((b"retry-after", b"5"),), self._rule, outcome="error")
        code = error.error if isinstance(error, Unauthenticated) else "invalid_token"
        return Refusal(401, str(error), (self._challenge(admission, code, str(error)),), self._rule)


class ApiKeyCredential:
    """A key whose SHA-256 the configuration holds."""

    def __init__(self, keys: ApiKeys, where: str) -> None:
        self.place = Place(keys.location, f"{where}: apiKey")
        self.keep = False
        self._mode = keys.mode
        self._rule = f"{where}/apiKey"
        self._keys = {key.hash.lower().removeprefix("sha256:"): key.metadata for key in keys.keys}
        self._principals: dict[str, Principal] = {}

    def apply(self, admission: Admission) -> Outcome:
        given = self.place.find(admission)
        if given is None:
            return self._refused("an API key is required") if self._mode == "strict" else None
        if len(given) > LONGEST or self.place.repeated(admission):
            return Refusal(400, "an API key may be sent once only, and not be that long", rule=self._rule)
        digest = sha256(given).hexdigest()
        found = self._principals.get(digest) or self._known(digest, given)
        if found is None:
            return None if self._mode == "permissive" else self._refused("the API key is not valid")
        add_principal(admission, found)
        return None

    def holding(self, admission: Admission) -> Callable[[], bool] | None:
        del admission
        return (lambda: True) if self.place.by_head else None

    def _known(self, digest: str, given: bytes) -> Principal | None:
        metadata = self._keys.get(digest)
        if metadata is None:
            return None
        from .attributes import api_key_value

        name = next((str(metadata[k]) for k in ("name", "user", "id") if metadata.get(k)), "key")
        value = api_key_value(metadata, given.decode("utf-8", "replace"))
        found = self._principals[digest] = Principal(f"{name}@apikey-{digest[:8]}", api_key=value, username=name)
        return found

    def _refused(self, message: str) -> Refusal:
        headers = (
            ((b"www-authenticate", b'Bearer realm="quarterdeck"'),) if self.place.header == b"authorization" else ()
        )
        return Refusal(401, message, headers, self._rule)


class BasicCredential:
    """Name and password (RFC 7617), checked in threads and remembered for a while."""

    def __init__(self, users: BasicUsers, services: Services, where: str) -> None:
        from .htpasswd import parse_htpasswd

        self.place = Place(Location(prefix="Basic "), f"{where}: basicAuth")
        self.keep = False
        self._mode = users.mode
        self._users = parse_htpasswd(users.htpasswd, f"{where}: basicAuth")
        self._realm = quotable(users.realm)
        self._rule = f"{where}/basicAuth"
        self._clock = services.clock
        self._known: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        self._checking = asyncio.Semaphore(_CHECKS)
        self._waiting = 0

    def apply(self, admission: Admission) -> Outcome:
        given = self.place.find(admission)
        if given is None:
            return self._refused("a user name and a password are required") if self._mode == "strict" else None
        if len(given) > LONGEST or self.place.repeated(admission):
            return Refusal(400, "credentials may be sent once only, and not be that long", rule=self._rule)
        digest = sha256(given).digest()
        known = self._known.get(digest)
        if known is not None and self._clock() < known[1]:
            return self._accepted(admission, known[0])
        try:
            name, mark, password = b64decode(given, validate=True).decode().partition(":")
        except ValueError:
            return self._wrong()
        if not mark:
            return self._wrong()
        if self._waiting >= _WAITING:
            return Refusal(503, "too many sign-ins at once; try again", ((b"retry-after", b"1"),), self._rule)
        return self._check(admission, digest, name, password.encode())

    async def _check(self, admission: Admission, digest: bytes, name: str, password: bytes) -> Refusal | None:
        from .htpasswd import check_user

        self._waiting += 1
        try:
            async with self._checking:
                right = await asyncio.to_thread(check_user, self._users, name, password)
        finally:
            self._waiting -= 1
        if not right:
            return self._wrong()
        principal = Principal(f"{name}@basic", username=name)
        self._known[digest] = (principal, self._clock() + _REMEMBER)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return self._accepted(admission, principal)

    def _accepted(self, admission: Admission, principal: Principal) -> None:
        admission.basic_user = principal.username
        add_principal(admission, principal)

    def holding(self, admission: Admission) -> Callable[[], bool] | None:
        del admission
        return None

    def _wrong(self) -> Refusal | None:
        return None if self._mode == "permissive" else self._refused("user name or password are wrong")

    def _refused(self, message: str) -> Refusal:
        challenge = f'Basic realm="{self._realm}", charset="UTF-8"'.encode()
        return Refusal(401, message, ((b"www-authenticate", challenge),), self._rule)
