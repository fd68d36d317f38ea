"""Authentication of requests: client certificate, bearer token, anonymous; then impersonation."""

from __future__ import annotations

import hashlib
import secrets
from typing import Protocol
from urllib.parse import unquote

from quarterdeck.errors import BadRequest, Unauthorized
from quarterdeck.wire.http import Header

from .identity import (
    ANONYMOUS,
    AUTHENTICATED,
    SERVICE_ACCOUNT_PREFIX,
    UNAUTHENTICATED,
    Attributes,
    User,
    forbidden,
    service_account_user,
)
from .rbac import Authorizer
from .tokens import AdminToken, ServiceAccountTokens

_EXTRA = b"impersonate-extra-"


class Request(Protocol):
    """What authentication reads of a ``wire.Exchange``."""

    headers: list[Header]

    def header(self, name: bytes) -> bytes | None: ...

    @property
    def peer_certificate(self) -> dict[str, object] | None: ...


class Authenticator:
    """Finds out who sent a request. Callers on the unix socket need a token like everyone else."""

    def __init__(
        self,
        tokens: ServiceAccountTokens,
        admin: AdminToken,
        authorizer: Authorizer,
        *,
        anonymous: bool = True,
    ) -> None:
        self._tokens = tokens
        self._admin = admin
        self._authorizer = authorizer
        self._anonymous = anonymous
        self._granted: dict[bytes, User] = {}  # by SHA-256, so that a lookup tells nothing about a token

    def grant(self, user: User) -> str:
        """A token for an identity of this process (a controller, the node); it is kept in memory only."""
        token = secrets.token_urlsafe(32)
        groups = user.groups if AUTHENTICATED in user.groups else (*user.groups, AUTHENTICATED)
        self._granted[_digest(token)] = User(user.name, groups, user.uid, user.extra)
        return token

    async def authenticate(self, exchange: Request) -> User:
        """The caller, after impersonation. Raises Unauthorized, Forbidden (impersonation) or BadRequest."""
        user = self._caller(exchange)
        return self._impersonated(user, exchange.headers)

    def authenticate_token(self, token: str, audiences: tuple[str, ...] = ()) -> tuple[User, tuple[str, ...]]:
        """Who holds ``token`` and for which of ``audiences`` (empty: the API server's). Raises Unauthorized."""
        granted = self._granted.get(_digest(token))
        if granted is None and self._admin.matches(token):
            granted = self._admin.user()
        if granted is not None:
            mine = tuple(a for a in audiences if a in self._tokens.api_audiences) if audiences else ()
            if audiences and not mine:
                raise Unauthorized("this token is for the API server only")
            return granted, mine or self._tokens.api_audiences
        if not self._tokens.owns(token):
            raise Unauthorized("invalid bearer token")
        verified = self._tokens.verify(token, audiences)
        return verified.user, verified.audiences

    def _caller(self, exchange: Request) -> User:
        certificate = exchange.peer_certificate
        if certificate:
            user = certificate_user(certificate)
            if user is not None:
                return user
        authorization = exchange.header(b"authorization")
        if authorization is None:
            if self._anonymous:
                return ANONYMOUS
            raise Unauthorized("Unauthorized")
        scheme, _, token = authorization.decode("latin-1").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("Unauthorized")
        try:
            return self.authenticate_token(token.strip())[0]
        except Unauthorized as error:
            # kube-apiserver tells the client no more than this: why a token failed helps only who forges one.
            raise Unauthorized("Unauthorized") from error

    def _impersonated(self, user: User, headers: list[Header]) -> User:
        name = uid = ""
        groups: list[str] = []
        extra: dict[str, list[str]] = {}
        for key, raw in headers:
            if not key.startswith(b"impersonate-"):
                continue
            value = raw.decode("utf-8", "replace")
            if key == b"impersonate-user":
                name = value
            elif key == b"impersonate-group":
                groups.append(value)
            elif key == b"impersonate-uid":
                uid = value
            elif key.startswith(_EXTRA):
                extra.setdefault(unquote(key[len(_EXTRA) :].decode("latin-1")).lower(), []).append(value)
        if not name:
            if groups or uid or extra:
                raise BadRequest("requested impersonation of groups, uid or extra without impersonating a user")
            return user
        self._check_impersonation(user, name, groups, uid, extra)
        return _impersonated_user(name, groups, uid, {k: tuple(v) for k, v in extra.items()})

    def _check_impersonation(
        self, user: User, name: str, groups: list[str], uid: str, extra: dict[str, list[str]]
    ) -> None:
        account = split_service_account(name)
        group = "authentication.k8s.io"
        if account is not None:
            checks = [Attributes(user, "impersonate", "", "serviceaccounts", namespace=account[0], name=account[1])]
        else:
            checks = [Attributes(user, "impersonate", "", "users", name=name)]
        checks += [Attributes(user, "impersonate", "", "groups", name=g) for g in groups]
        if uid:
            checks.append(Attributes(user, "impersonate", group, "uids", name=uid))
        for key, values in extra.items():
            checks += [Attributes(user, "impersonate", group, "userextras", key, name=v) for v in values]
        for check in checks:
            decision = self._authorizer.decide(check)
            if not decision.allowed:
                raise forbidden(check, decision.reason)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def certificate_user(certificate: dict[str, object]) -> User | None:
    """The user of a verified client certificate: CN is the name, each O a group; None without a CN.

    ``certificate`` is what ``ssl.SSLSocket.getpeercert`` returns.
    """
    name = ""
    groups: list[str] = []
    subject = certificate.get("subject")
    for rdn in subject if isinstance(subject, tuple) else ():
        for key, value in rdn:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return User(name, (*groups, AUTHENTICATED)) if name else None


def split_service_account(user: str) -> tuple[str, str] | None:
    """(namespace, name) of a ServiceAccount's user name, else None."""
    if not user.startswith(SERVICE_ACCOUNT_PREFIX):
        return None
    namespace, colon, name = user.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")
    return (namespace, name) if colon and namespace and name and ":" not in name else None


def _impersonated_user(name: str, groups: list[str], uid: str, extra: dict[str, tuple[str, ...]]) -> User:
    account = split_service_account(name)
    if account is not None and not groups:
        user = service_account_user(*account, uid, extra)
        return user
    ending = UNAUTHENTICATED if name == ANONYMOUS.name else AUTHENTICATED
    known = AUTHENTICATED in groups or UNAUTHENTICATED in groups
    return User(name, tuple(groups) if known else (*groups, ending), uid, extra)
