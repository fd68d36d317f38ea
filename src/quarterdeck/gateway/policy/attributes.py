"""What expressions read of a request: agentgateway's variables (its schema/cel.md), made when they are asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter, time
from typing import Any
from urllib.parse import unquote

from quarterdeck.cel import BudgetExceeded, EvalError, Timestamp
from quarterdeck.cel.agentgateway import Secret

from .admission import Admission

BODY_LIMIT = 2 * 1024 * 1024
"""Bytes of a body that expressions can read; those that read a larger one fail."""

_UNRESERVED = re.compile(rb"%(4[1-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa]|3[0-9]|2[DdEe]|5[Ff]|7[Ee])")

Maker = Callable[[Admission], Any]


class Absent(KeyError):
    """The request has no such attribute."""


class Lazy(dict[str, Any]):
    """A map whose values are made on the first look; to expressions a map like any other."""

    __slots__ = ("_admission", "_makers")

    def __init__(self, makers: Mapping[str, Maker], admission: Admission) -> None:
        self._makers = makers
        self._admission = admission

    def __missing__(self, key: str) -> Any:
        make = self._makers.get(key)
        if make is None:
            raise Absent(key)
        value = self[key] = make(self._admission)
        return value

    def __contains__(self, key: object) -> bool:
        if dict.__contains__(self, key):
            return True
        try:
            self[key]  # type: ignore[index]  # any key may be asked for
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        self._complete()
        return dict.__iter__(self)

    def __len__(self) -> int:
        self._complete()
        return dict.__len__(self)

    def items(self) -> Any:
        self._complete()
        return dict.items(self)

    def _complete(self) -> None:
        for key in self._makers:
            try:
                _ = key in self
            except EvalError:  # a body too large to be read
                continue


class Headers(dict[str, Any]):
    """Header fields by lower-case name; any spelling finds them. One that came several times is a list."""

    __slots__ = ()

    def __missing__(self, key: str) -> Any:
        lower = key.lower()
        if lower != key and dict.__contains__(self, lower):
            return dict.__getitem__(self, lower)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, key) or (isinstance(key, str) and dict.__contains__(self, key.lower()))


def headers_of(fields: list[tuple[bytes, bytes]]) -> Headers:
    """Header fields as they came (names in lower case) for expressions."""
    found = Headers()
    for raw, value in fields:
        name, text = raw.decode("latin-1"), value.decode("latin-1")
        before = found.get(name)
        if before is None:
            dict.__setitem__(found, name, text)
        elif isinstance(before, list):
            before.append(text)
        else:
            dict.__setitem__(found, name, [before, text])
    return found


def plain_path(raw: bytes) -> str:
    """A path with what needs no escape unescaped (RFC 3986 §6.2.2.2): one spelling for rules to look at."""
    if b"%" in raw:
        raw = _UNRESERVED.sub(lambda m: unquote(m.group(0)).encode("latin-1"), raw)
    return raw.decode("latin-1")


class BodyTooLarge(BudgetExceeded):
    """Nothing can be said about the body. ``||`` does not absorb it: no caller gets round a rule with a large one."""

    def __init__(self) -> None:
        EvalError.__init__(self, f"the body is larger than {BODY_LIMIT} bytes")


def body_value(body: bytes) -> bytes:
    """A body as expressions read it. Raises BodyTooLarge."""
    if len(body) > BODY_LIMIT:
        raise BodyTooLarge
    return body


# -- request
def _path(admission: Admission) -> str:
    return admission.path if admission.path is not None else plain_path(admission.exchange.raw_path)


def _authority(admission: Admission) -> str:
    return admission.headers.get(b"host", b"").decode("latin-1")


def _host(admission: Admission) -> str:
    authority = _authority(admission)
    return authority.partition("]")[0] + "]" if authority.startswith("[") else authority.partition(":")[0]


def _scheme(admission: Admission) -> str:
    return "https" if admission.secure else "http"


def _path_and_query(admission: Admission) -> str:
    _, mark, query = admission.exchange.target.partition(b"?")
    return _path(admission) + (mark + query).decode("latin-1")


def _uri(admission: Admission) -> str:
    return f"{_scheme(admission)}://{_authority(admission)}{_path_and_query(admission)}"


_REQUEST: dict[str, Maker] = {
    "method": lambda a: a.exchange.method,
    "uri": _uri,
    "host": _host,
    "scheme": _scheme,
    "path": _path,
    "pathAndQuery": _path_and_query,
    "version": lambda a: "HTTP/1.1",
    "headers": lambda a: headers_of(a.exchange.headers),
    "body": lambda a: body_value(a.exchange.body),
    "bodyPrefix": lambda a: a.exchange.body[:BODY_LIMIT],
    "startTime": lambda a: Timestamp(int((time() - perf_counter() + a.started) * 1e9)),
    "endTime": lambda a: Timestamp(int(time() * 1e9)),
}


# -- caller
def _jwt(admission: Admission) -> Any:
    claims = admission.principal.claims
    if not claims:
        raise Absent("jwt")
    if admission.wants_token:
        return {**claims, "rawToken": Secret(admission.token.decode("latin-1"))}
    return claims


def _api_key(admission: Admission) -> Any:
    key = admission.principal.api_key
    if not key:
        raise Absent("apiKey")
    return key


def _basic(admission: Admission) -> Any:
    name = admission.basic_user
    if not name:
        raise Absent("basicAuth")
    return {"username": name}


def _certificate(admission: Admission) -> dict[str, Any]:
    certificate = admission.exchange.peer_certificate
    if certificate is None:
        raise Absent("certificate")
    return certificate


def _name(parts: Any) -> str:
    """A distinguished name of :meth:`ssl.SSLSocket.getpeercert` as text, most specific part last."""
    return ",".join(f"{_SHORT.get(key, key)}={value}" for part in parts for key, value in part)


_SHORT = {
    "commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C",
    "localityName": "L", "stateOrProvinceName": "ST",
}  # fmt: skip


def subject_of(certificate: Mapping[str, Any]) -> str:
    return _name(certificate.get("subject", ()))


def common_name(certificate: Mapping[str, Any]) -> str:
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return ""


def _spiffe(admission: Admission) -> str:
    for kind, value in _certificate(admission).get("subjectAltName", ()):
        if kind == "URI" and value.startswith("spiffe://"):
            return str(value)
    raise Absent("spiffeId")


def _identity(admission: Admission) -> dict[str, str]:
    """Trust domain, namespace and ServiceAccount of ``spiffe://domain/ns/NAMESPACE/sa/ACCOUNT``."""
    domain, _, path = _spiffe(admission).removeprefix("spiffe://").partition("/")
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != "ns" or parts[2] != "sa":
        raise Absent("identity")
    return {"trustDomain": domain, "namespace": parts[1], "serviceAccount": parts[3]}


def _peer(admission: Admission, at: int) -> Any:
    peer = admission.exchange.peer
    if peer is None:
        raise Absent("address")
    return peer[at]


_SOURCE: dict[str, Maker] = {
    "address": lambda a: a.client_address,
    "port": lambda a: _peer(a, 1),
    "rawAddress": lambda a: _peer(a, 0),
    "rawPort": lambda a: _peer(a, 1),
    "identity": _identity,
    "spiffeId": _spiffe,
    "subject": lambda a: subject_of(_certificate(a)),
    "subjectCn": lambda a: common_name(_certificate(a)),
    "issuer": lambda a: _name(_certificate(a).get("issuer", ())),
    "subjectAltNames": lambda a: [str(value) for _, value in _certificate(a).get("subjectAltName", ())],
}


# -- where it goes
def _backend(admission: Admission) -> dict[str, Any]:
    call = admission.call
    if call is None:
        raise Absent("backend")
    protocol = "mcp" if call.kind == "mcp" else "llm" if call.kind == "llm" else "a2a" if call.kind == "a2a" else "http"
    return {"name": call.server, "type": protocol, "protocol": protocol}


def _proxy(admission: Admission) -> dict[str, Any]:
    route = getattr(admission.exchange, "route", None)
    if route is None:
        raise Absent("proxy")
    return {"gateway": route.gateway, "listener": route.listener, "route": route.route, "routeRule": route.rule}


def _env(admission: Admission) -> dict[str, Any]:
    del admission
    names = (("podName", "POD_NAME"), ("namespace", "NAMESPACE"), ("gateway", "GATEWAY_NAME"))
    return {name: os.environ.get(variable, "") for name, variable in names}


def _extauthz(admission: Admission) -> Any:
    if admission.extauthz is None:
        raise Absent("extauthz")
    return admission.extauthz


_ROOTS: dict[str, Maker] = {
    "request": lambda a: Lazy(_REQUEST, a),
    "source": lambda a: Lazy(_SOURCE, a),
    "jwt": _jwt,
    "apiKey": _api_key,
    "basicAuth": _basic,
    "backend": _backend,
    "proxy": _proxy,
    "env": _env,
    "extauthz": _extauthz,
}

KNOWN: dict[str, frozenset[str] | None] = {
    "request": frozenset(_REQUEST),
    "source": frozenset(_SOURCE) | {"certificate", "unverifiedWorkload", "connectHeaders"},
    "response": frozenset({"code", "headers", "body", "bodyPrefix", "grpcStatus"}),
    "mcp": frozenset({"tool", "prompt", "resource", "task", "methodName", "sessionId"}),
    "basicAuth": frozenset({"username"}), "backend": frozenset({"name", "type", "protocol"}), "jwt": None,
    "apiKey": None, "proxy": None, "env": None, "extauthz": None, "extproc": None, "metadata": None,
    "mcpGuardrails": None, "llm": None, "llmRequest": None, "destination": frozenset({"address", "port", "hostname"}),
}  # fmt: skip
"""Every variable an expression may name, and its fields where they are fixed."""


def variables(admission: Admission) -> Lazy:
    """The variables of a request; the same object for all expressions about it."""
    found: Any = admission.variables
    if found is None:
        found = admission.variables = Lazy(_ROOTS, admission)
    return found


def unknown(reference: tuple[str, ...]) -> str:
    """What is wrong with a path that an expression reads; empty when there may be such an attribute."""
    if not reference:
        return ""
    root = reference[0]
    if root not in KNOWN:
        return f"there is no variable {root!r}{_hint(root, KNOWN)}"
    fields = KNOWN[root]
    if fields is not None and len(reference) > 1 and reference[1] not in fields:
        return f"{root} has no field {reference[1]!r}{_hint(reference[1], fields)}"
    return ""


def _hint(name: str, known: Any) -> str:
    from difflib import get_close_matches  # for messages only

    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"


def api_key_value(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What ``apiKey`` is: the key itself (hidden) and what the configuration says of it."""
    return {**metadata, "key": Secret(key)}
