"""A request as the API sees it: which kind, object, subresource and verb a URL and method name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from quarterdeck.apiserver.security.identity import ANONYMOUS, User
from quarterdeck.apiserver.selectors import parse_fields
from quarterdeck.errors import BadRequest
from quarterdeck.wire.http import Exchange

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_CLUSTER_SUBRESOURCES = frozenset({"status", "finalize"})


@dataclass(slots=True)
class ApiRequest:
    """One request for a resource. ``namespace`` is None for all namespaces and cluster-scoped kinds."""

    exchange: Exchange
    method: str
    verb: str
    group: str
    version: str
    plural: str
    namespace: str | None = None
    name: str = ""
    subresource: str = ""
    query: dict[str, str] = field(default_factory=dict[str, str])
    dry_run: list[str] = field(default_factory=list[str])
    user: User = ANONYMOUS
    warnings: list[str] = field(default_factory=list[str])
    rest: tuple[str, ...] = ()

    def header(self, name: bytes) -> str:
        value = self.exchange.header(name)
        return "" if value is None else value.decode("latin-1")


def parse_request(exchange: Exchange) -> ApiRequest | None:
    """The resource request of a URL; None when it is none (discovery, health …)."""
    parts = [unquote(part) for part in exchange.raw_path.decode("latin-1").strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    query: dict[str, str] = {}
    dry: list[str] = []
    for key, value in exchange.query:
        if key == "dryRun":
            dry.append(value)
        query.setdefault(key, value)
    namespace: str | None = None
    old_watch = rest[0] == "watch" and len(rest) > 1  # the old form of ?watch
    if old_watch:
        rest = rest[1:]
        query["watch"] = "true"
    if rest[0] == "namespaces" and len(rest) > 2 and not (len(rest) == 3 and rest[2] in _CLUSTER_SUBRESOURCES):
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = rest[0], (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
    request = ApiRequest(
        exchange, exchange.method, "", group, version, plural, namespace, name, subresource, query, dry,
        rest=tuple(rest[3:]),
    )  # fmt: skip
    request.verb = "watch" if old_watch and request.method == "GET" else _verb(request)
    return request


def _verb(request: ApiRequest) -> str:
    verb = _VERBS.get(request.method, request.method.lower())
    if request.name:
        return verb
    if verb == "get":
        return "watch" if request.query.get("watch") in ("true", "1") else "list"
    return "deletecollection" if verb == "delete" else verb


def authorization_attributes(request: ApiRequest) -> dict[str, Any]:
    """The arguments of ``Authorizer.authorize`` for a resource request."""
    namespace = request.namespace or ""
    if request.plural == "namespaces" and not request.group and request.name:
        namespace = request.name
    name = request.name
    if not name and request.verb in ("list", "watch", "deletecollection"):
        name = _selected_name(request.query.get("fieldSelector", ""))
    return {
        "verb": request.verb, "group": request.group, "resource": request.plural, "subresource": request.subresource,
        "namespace": namespace, "name": name,
    }  # fmt: skip


def _selected_name(fields: str) -> str:
    """The one name a field selector allows, so that a rule with resourceNames covers a list or watch of that object."""
    try:
        terms = parse_fields(fields) if fields else ()
    except BadRequest:
        return ""  # refused with its own text when the list is served
    return next((t.value for t in terms if t.path == "metadata.name" and not t.negated and "/" not in t.value), "")
