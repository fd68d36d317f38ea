"""Who asks and what they may do: the types that every part of the API server shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from quarterdeck.errors import Forbidden
from quarterdeck.kube.resource import Object, Resource

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
SERVICE_ACCOUNTS = "system:serviceaccounts"


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated caller, as ``user.Info`` of Kubernetes."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]], hash=False)

    def to_info(self) -> Object:
        """authentication/v1 UserInfo."""
        info: Object = {"username": self.name}
        if self.uid:
            info["uid"] = self.uid
        if self.groups:
            info["groups"] = list(self.groups)
        if self.extra:
            info["extra"] = {k: list(v) for k, v in self.extra.items()}
        return info


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


def service_account_name(namespace: str, name: str) -> str:
    """The user name of a ServiceAccount."""
    return f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"


def service_account_user(namespace: str, name: str, uid: str = "", extra: Mapping[str, tuple[str, ...]] = {}) -> User:
    groups = (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}", AUTHENTICATED)
    return User(service_account_name(namespace, name), groups, uid, extra)


class ObjectReader(Protocol):
    """Synchronous reads from the store's memory. Returned objects must not be changed."""

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None: ...

    def list(self, resource: Resource, namespace: str | None = None) -> list[Object]: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """``allowed`` False with a ``reason`` that is empty when simply no rule allows it."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Attributes:
    """One request as authorization sees it. ``path`` is set for non-resource requests, ``resource`` for the others."""

    user: User
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def combined(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def quoted(text: str) -> str:
    """Go's %q for the characters that occur in names."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def forbidden(attributes: Attributes, reason: str = "") -> Forbidden:
    """kube-apiserver's 403 for a refused request, word for word."""
    a = attributes
    if a.resource:
        scope = f"in the namespace {quoted(a.namespace)}" if a.namespace else "at the cluster scope"
        denied = f"resource {quoted(a.combined)} in API group {quoted(a.group)} {scope}"
    else:
        denied = f"path {quoted(a.path)}"
    text = f"User {quoted(a.user.name)} cannot {a.verb} {denied}"
    return forbidden_object(a.group, a.resource, a.name, f"{text}: {reason}" if reason else text)


def forbidden_object(group: str, resource: str, name: str, why: str) -> Forbidden:
    """A Forbidden as ``apierrors.NewForbidden`` words it: which object, then why."""
    what = f"{resource}.{group}" if group else resource
    if not resource:
        message = f"forbidden: {why}"
    elif name:
        message = f"{what} {quoted(name)} is forbidden: {why}"
    else:
        message = f"{what} is forbidden: {why}"
    return Forbidden(message, name=name, group=group, kind=resource)
