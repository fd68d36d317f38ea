"""What of a snapshot is never shown: a table of the secret fields of its structs, and values that may hold secrets."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import fields

REDACTED: Final = "<redacted>"

SECRETS: Final[dict[str, frozenset[str]]] = {
    "ApiKey": frozenset({"hash"}),
    "BackendCredential": frozenset({"value"}),
    "BasicUsers": frozenset({"htpasswd"}),
    "Certificate": frozenset({"key"}),
    "Identities": frozenset({"local_token_hashes"}),
    "McpAuthentication": frozenset({"client_secret"}),
    "ModelAccess": frozenset({"secret", "session"}),
    "OAuthClient": frozenset({"client_secret", "private_key"}),
    "SignIn": frozenset({"client_secret", "private_key"}),
    "Tls": frozenset({"key"}),
}
"""Struct → fields that are replaced as a whole. A hash of a key lets one guess the key."""

_PRIVATE_JWK = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SENSITIVE = (
    r"authorization|cookie|token|secret|password|passwd|api[-_]?key|credential|signature|\bauth\b|\bkey\b|\bpat\b"
)
_NAME = re.compile(_SENSITIVE, re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(rf"([?&][^=&]*(?:{_SENSITIVE})[^=&]*=)[^&#\s]*", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?P<name>-{{0,2}}[\w.-]*(?:{_SENSITIVE})[\w.-]*)=.+", re.IGNORECASE | re.DOTALL)


def redacted(value: Any) -> Any:
    """A snapshot, or any part of one, as JSON data without secrets; they read ``<redacted>``."""
    if isinstance(value, Struct):
        name = type(value).__name__
        special = _SPECIAL.get(name)
        return special(value) if special is not None else _struct(value, SECRETS.get(name, frozenset()))
    if isinstance(value, dict):
        return {key: redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(inner) for inner in value]
    return _text(value) if isinstance(value, str) else value


def _struct(value: Struct, secret: frozenset[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for field in fields(value):
        inner = getattr(value, field.name)
        if field.default is not msgspec.NODEFAULT and inner == field.default:
            continue
        if field.default_factory is not msgspec.NODEFAULT and not inner:
            continue
        shown[field.encode_name] = (REDACTED if inner else inner) if field.name in secret else redacted(inner)
    return shown


def _text(value: str) -> str:
    """URLs lose user names, passwords and the values of telling query parameters."""
    if "://" in value:
        value = _USER.sub(f"{REDACTED}@", value)
    return _QUERY.sub(rf"\1{REDACTED}", value) if "?" in value else value


def _header(value: Struct) -> dict[str, Any]:
    secret = bool(getattr(value, "secret", False)) or _NAME.search(str(getattr(value, "name", "")))
    return _struct(value, frozenset({"value"}) if secret else frozenset())


def _named(pairs: Any) -> list[list[str]]:
    return [[name, REDACTED if _NAME.search(name) else _text(text)] for name, text in pairs]


def _modifier(value: Struct) -> dict[str, Any]:
    shown = _struct(value, frozenset())
    for name in ("add", "set", "add_headers"):
        if name in shown:
            shown[name] = _named(getattr(value, name))
    return shown


def _child(value: Struct) -> dict[str, Any]:
    shown = _struct(value, frozenset())
    if "env" in shown:
        shown["env"] = [[name, REDACTED] for name, _ in getattr(value, "env", ())]
    if "args" in shown:
        shown["args"] = _arguments([str(word) for word in shown["args"]])
    return shown


def _arguments(words: list[str]) -> list[str]:
    """``--token abc`` and ``TOKEN=abc`` lose the value."""
    shown: list[str] = []
    hide = False
    for word in words:
        assigned = _ASSIGNED.fullmatch(word)
        if hide:
            shown.append(REDACTED)
        elif assigned is not None:
            shown.append(f"{assigned['name']}={REDACTED}")
        else:
            shown.append(word)
        hide = word.startswith("-") and assigned is None and _NAME.search(word) is not None
    return shown


def _keys(value: Struct) -> dict[str, Any]:
    shown = _struct(value, SECRETS.get(type(value).__name__, frozenset()))
    if "jwks" in shown:
        shown["jwks"] = _public(shown["jwks"])
    return shown


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: REDACTED if key in _PRIVATE_JWK else _public(inner) for key, inner in value.items()}
    return [_public(inner) for inner in value] if isinstance(value, list) else value


_SPECIAL: dict[str, Callable[[Any], dict[str, Any]]] = {
    "HeaderValue": _header,
    "HeaderModifier": _modifier,
    "Transform": _modifier,
    "ExtAuth": _modifier,
    "Child": _child,
    "JwtProvider": _keys,
    "Identities": _keys,
}
