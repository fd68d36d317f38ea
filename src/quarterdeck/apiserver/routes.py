"""From a request on the wire to its handler: authentication, authorization, then the resource or document asked for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import quarterdeck
from quarterdeck.apiserver import discovery
from quarterdeck.apiserver.codec import Accept, decode_object, encode, negotiate
from quarterdeck.apiserver.kinds import KindRegistry
from quarterdeck.apiserver.openapi import v2_document, v2_protobuf, v3_document, v3_index
from quarterdeck.apiserver.requests import ApiRequest, authorization_attributes, parse_request
from quarterdeck.apiserver.resources import ResourceVerbs
from quarterdeck.apiserver.respond import JSON, TEXT, send, send_bytes, send_error
from quarterdeck.apiserver.security import (
    Attributes,
    Authenticator,
    Authorizer,
    User,
    check_browser,
    forbidden,
    reviews,
)
from quarterdeck.apiserver.security.browser import LOCAL_HOSTS
from quarterdeck.apiserver.subresources import Subresources
from quarterdeck.errors import MethodNotAllowed, NotFound, QuarterdeckError, ServiceUnavailable
from quarterdeck.kube.resource import Object
from quarterdeck.kube.version import KUBERNETES_VERSION, SERVER_VERSION
from quarterdeck.wire.http import Exchange

_DISCOVERY = frozenset({"APIGroupDiscoveryList"})
_HEALTH = ("/readyz", "/livez", "/healthz")
_OPENAPI_PROTOBUF = (b"content-type", b"application/com.github.proto-openapi.spec.v2.v1.0+protobuf")


class MetricsSource(Protocol):
    """CPU and memory of Pods and Nodes as metrics.k8s.io/v1beta1 objects; given by the node."""

    def pods(self, namespace: str | None) -> list[Object]: ...

    def nodes(self) -> list[Object]: ...


@dataclass(slots=True)
class Routes:
    """The handler of the API server's listeners."""

    registry: KindRegistry
    verbs: ResourceVerbs
    subresources: Subresources
    authenticator: Authenticator
    authorizer: Authorizer
    jwks: Callable[[], Object]
    issuer: str
    address: Callable[[], str]
    metrics: MetricsSource | None = None
    metrics_text: Callable[[], bytes] = lambda: b""
    hosts: frozenset[str] = LOCAL_HOSTS
    _documents: dict[str, tuple[int, bytes]] = field(default_factory=dict[str, tuple[int, bytes]])

    def __call__(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        return self._serve(exchange)

    async def _serve(self, exchange: Exchange) -> None:
        warnings: list[str] = []
        try:
            check_browser(
                exchange.header(b"host") if exchange.peer else None, exchange.header(b"origin"),
                exchange.header(b"sec-fetch-site"), self.hosts,
            )  # fmt: skip
            user = await self.authenticator.authenticate(exchange)
            request = parse_request(exchange)
            if request is None:
                self._document(exchange, user)
                return
            request.user, request.warnings = user, warnings
            await self._resource(request)
        except QuarterdeckError as error:
            if exchange.started:
                exchange.abort()
            else:
                send_error(exchange, error, warnings)

    async def _resource(self, request: ApiRequest) -> None:
        attributes = Attributes(request.user, **authorization_attributes(request))
        self._authorize(attributes)
        kind = self.registry.get(request.group, request.version, request.plural)
        if kind is None:
            self._virtual(request)
        elif request.subresource:
            await self.subresources.handle(request, kind)
        else:
            await self.verbs.handle(request, kind)

    def _authorize(self, attributes: Attributes) -> None:
        decision = self.authorizer.decide(attributes)
        if not decision.allowed:
            raise forbidden(attributes, decision.reason)

    # -- resources that are not stored
    def _virtual(self, request: ApiRequest) -> None:
        if request.group == "metrics.k8s.io":
            self._metrics(request)
            return
        found = next(
            (v for v in discovery.REVIEWS if (v.group, v.version, v.plural)
             == (request.group, request.version, request.plural)),
            None,
        )  # fmt: skip
        if found is None:
            raise NotFound("the server could not find the requested resource")
        if request.verb != "create":
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        body = decode_object(request.exchange.body, request.header(b"content-type"))[0]
        send_bytes(request.exchange, 201, encode(self._review(request, found.kind, body)) + b"\n", Accept())

    def _review(self, request: ApiRequest, kind: str, body: Object) -> Object:
        match kind:
            case "TokenReview":
                return reviews.token_review(body, self.authenticator)
            case "SelfSubjectReview":
                return reviews.self_subject_review(request.user, body)
            case "SelfSubjectAccessReview":
                return reviews.self_subject_access_review(request.user, body, self.authorizer)
            case "SelfSubjectRulesReview":
                return reviews.self_subject_rules_review(request.user, body, self.authorizer)
            case "LocalSubjectAccessReview":
                return reviews.local_subject_access_review(body, request.namespace or "", self.authorizer)
            case _:
                return reviews.subject_access_review(body, self.authorizer)

    def _metrics(self, request: ApiRequest) -> None:
        if self.metrics is None:
            raise ServiceUnavailable("the server is currently unable to handle the request: no node reports metrics")
        if request.plural == "pods":
            items, kind = self.metrics.pods(request.namespace), "PodMetrics"
        elif request.plural == "nodes":
            items, kind = self.metrics.nodes(), "NodeMetrics"
        else:
            raise NotFound("the server could not find the requested resource")
        if request.name:
            one = next((item for item in items if item["metadata"]["name"] == request.name), None)
            if one is None:
                raise NotFound(f'{request.plural}.metrics.k8s.io "{request.name}" not found', name=request.name)
            send(request.exchange, 200, one)
            return
        head = {"kind": f"{kind}List", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}}
        send(request.exchange, 200, {**head, "items": items})

    # -- documents
    def _document(self, exchange: Exchange, user: User) -> None:
        path = exchange.path.rstrip("/") or "/"
        if exchange.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        self._authorize(Attributes(user, "get", path=path))
        if path.startswith(_HEALTH):
            exchange.respond(200, b"ok", [TEXT])
        elif path == "/version":
            send(exchange, 200, version_info())
        elif path.startswith("/openapi/"):
            self._openapi(exchange, path)
        elif path == "/metrics":
            exchange.respond(200, self.metrics_text(), [(b"content-type", b"text/plain; version=0.0.4")])
        elif path == "/.well-known/openid-configuration":
            send(exchange, 200, reviews.openid_configuration(self.issuer, f"{self.address()}/openid/v1/jwks"))
        elif path == "/openid/v1/jwks":
            exchange.respond(200, encode(self.jwks()), [(b"content-type", b"application/jwk-set+json")])
        else:
            self._discovery(exchange, path)

    def _discovery(self, exchange: Exchange, path: str) -> None:
        kinds, parts = self.registry.all(), path.strip("/").split("/")
        header = exchange.header(b"accept") or b""
        if path in ("/api", "/apis"):
            accept = negotiate(header.decode("latin-1"), _DISCOVERY)
            if accept.shape == "APIGroupDiscoveryList" and accept.version == "v2":
                shown = (b"content-type", b"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
                body = self._cached(
                    "aggregated" + path, lambda: encode(discovery.aggregated(kinds, legacy=path == "/api"))
                )
                exchange.respond(200, body, [shown, (b"vary", b"Accept")])
                return
            plain = discovery.api_versions(self.address()) if path == "/api" else discovery.api_groups(kinds)
            exchange.respond(200, encode(plain), [JSON, (b"vary", b"Accept")])
            return
        found: Object | None = None
        if parts[0] == "api" and len(parts) == 2:
            found = discovery.resource_list(kinds, "", parts[1])
        elif parts[0] == "apis" and len(parts) == 2:
            found = discovery.api_group(kinds, parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            found = discovery.resource_list(kinds, parts[1], parts[2])
        elif path == "/":
            found = {"paths": ["/api", "/apis", *_HEALTH, "/metrics", "/openapi/v2", "/openapi/v3", "/version"]}
        if found is None:
            raise NotFound("the server could not find the requested resource")
        send(exchange, 200, found)

    def _openapi(self, exchange: Exchange, path: str) -> None:
        kinds, parts = self.registry.all(), path.strip("/").split("/")
        document = tuple(parts[3:]) if parts[2:3] == ["apis"] else ("", *parts[3:])
        if path.startswith("/openapi/v3/") and not any(
            (k.resource.group, k.resource.version) == document for k in kinds
        ):
            raise NotFound("the server could not find the requested resource")
        if path == "/openapi/v2" and b"proto-openapi" in (exchange.header(b"accept") or b""):
            exchange.respond(200, v2_protobuf(), [_OPENAPI_PROTOBUF])
            return
        if path == "/openapi/v2":
            body = self._cached(path, lambda: v2_document(kinds))
        elif path == "/openapi/v3":
            body = self._cached(path, lambda: v3_index(kinds))
        elif parts[2:3] == ["api"] and len(parts) == 4:
            body = v3_document("", parts[3], kinds)
        elif parts[2:3] == ["apis"] and len(parts) == 5:
            body = v3_document(parts[3], parts[4], kinds)
        else:
            raise NotFound("the server could not find the requested resource")
        exchange.respond(200, body, [JSON])

    def _cached(self, key: str, make: Callable[[], bytes]) -> bytes:
        known = self._documents.get(key)
        if known is None or known[0] != self.registry.generation:
            known = self._documents[key] = (self.registry.generation, make())
        return known[1]


def version_info() -> Object:
    """``GET /version``."""
    major, minor = KUBERNETES_VERSION[1:].split(".")[:2]
    return {
        "major": major, "minor": minor, "gitVersion": SERVER_VERSION,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"quarterdeck {quarterdeck.__version__}", "compiler": "cpython", "platform": "linux/amd64",
    }  # fmt: skip
